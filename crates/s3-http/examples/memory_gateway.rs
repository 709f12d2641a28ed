//! The gateway over made-up objects, and before a store in memory that can be written to, to try S3
//! clients against: prints its address, serves until Ctrl-C.

// The test support is for tests, where failing loudly is right.
#![allow(clippy::unwrap_used, dead_code)]

#[path = "../tests/support/memory.rs"]
mod memory;

use std::sync::Arc;

use isk_coldset::ColdStore;
use isk_listen::Port;
use isk_s3_http::{ColdBuckets, GatewayCredentials, GatewaySettings, gateway, serve};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(format!("info,{}", isk_s3_http::LOG_DIRECTIVE))
        .init();
    let settings = GatewaySettings {
        external_hostname: "localhost".into(),
        region: "us-east-1".into(),
        credentials: GatewayCredentials {
            access_key_id: "isk-id".into(),
            secret_access_key: "isk-secret".into(),
            session_token: "isk-token".into(),
        },
        access: isk_access::Access::open(0),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let cold = ColdBuckets { store: ColdStore::in_memory(), writable: true };
    let service = gateway(Arc::new(memory::samples()), &settings, Some(cold))?;
    serve(listener, service, Port::default(), async {
        let _ = tokio::signal::ctrl_c().await;
    })
    .await;
    Ok(())
}
