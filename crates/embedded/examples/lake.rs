//! The embedded lake alone, until Ctrl-C: `cargo run -p isk-embedded --example lake -- FOLDER [PORT]`.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use isk_embedded::{EmbeddedLake, LakeConfig};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).init();
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().context("usage: lake FOLDER [PORT]")?;
    let port = arguments.next().map(|port| port.parse::<u16>()).transpose()?.unwrap_or(8181);
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let lake = EmbeddedLake::start(LakeConfig { listen, ..LakeConfig::new(folder.into()) }).await?;
    println!("{}", lake.uri());
    tokio::signal::ctrl_c().await?;
    lake.shutdown().await;
    Ok(())
}
