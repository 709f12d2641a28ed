//! An Iceberg catalog and an object store over a folder, for tables that are compared with: `lake --help`.
//!
//! The store answers from the same HTTP and S3 libraries as the gateway and reads plain files, so that what
//! differs between two tables is not the store's speed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use isk_embedded::{EmbeddedLake, LakeConfig};

/// Serves until it is ended.
#[derive(Parser)]
struct Options {
    /// Where to listen, as address:port
    #[arg(long)]
    listen: SocketAddr,
    /// The folder for its files, which is there
    #[arg(long)]
    folder: PathBuf,
    /// The secret of the key `lake`
    #[arg(long)]
    secret: String,
    /// Most bytes it takes
    #[arg(long, default_value_t = 64 << 30)]
    max_bytes: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let config = LakeConfig {
        listen: options.listen,
        secret_access_key: options.secret,
        max_bytes: options.max_bytes,
        ..LakeConfig::new(options.folder)
    };
    let lake = EmbeddedLake::start(config).await?;
    println!("{}", lake.uri());
    tokio::signal::ctrl_c().await?;
    lake.shutdown().await;
    Ok(())
}
