//! `isk`: Kafka topics as Iceberg tables.

mod check;
mod config;
mod coverage;
mod demo;
mod doctor;
mod formats;
mod logs;
mod pass_through;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use isk_traces::{SpanCounters, Traces};
use tracing_subscriber::util::SubscriberInitExt;

/// The C library's allocator keeps what threads that come and go have left: resident memory grew for as long as load lasted.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Iceberg Service for Kafka: every topic is an Apache Iceberg table, live, with nothing copied.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the Iceberg REST catalog and the S3 gateway
    #[command(after_long_help = SETTINGS)]
    Serve(Configuration),
    /// Try every part of a configuration, and say what cannot be reached and why
    #[command(after_long_help = SETTINGS)]
    Check(Configuration),
    /// Explain why a topic's table is slow or fails: everything on the way from the brokers to a file
    Doctor(doctor::Options),
    /// Look at what cold tables cover of their topics, and take some of it back
    #[command(subcommand)]
    Coverage(coverage::Coverage),
    /// Serve sample topics from an embedded broker: nothing else to install
    Demo(demo::Options),
}

#[derive(Args)]
struct Configuration {
    /// Configuration file (TOML)
    #[arg(short, long, value_name = "FILE", env = "ISK_CONFIG")]
    config: Option<PathBuf>,
}

/// The settings, for `--help`.
const SETTINGS: &str = include_str!("settings.txt");

fn main() -> ExitCode {
    let cli = Cli::parse();
    // What `check` and the demo have to say they print themselves.
    let level = match cli.command {
        Command::Serve(_) => "info",
        Command::Check(_) | Command::Coverage(_) | Command::Doctor(_) => "error",
        Command::Demo(_) => "warn",
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("isk: the async runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(cli.command, level));
    // Blocking threads may still wait for a broker; nobody waits for them.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("isk: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command, level: &str) -> anyhow::Result<()> {
    if !matches!(command, Command::Serve(_)) {
        log(level, None)?;
    }
    match command {
        Command::Serve(c) => serve(&c, level).await,
        Command::Check(c) => check::run(&load(&c)?).await,
        Command::Doctor(o) => doctor::run(&load(&o.configuration)?, &o).await,
        Command::Coverage(command) => command.run(&load(command.configuration())?),
        Command::Demo(options) => demo::run(options).await,
    }
}

/// Where traces go is in the configuration, and what is odd about that is logged.
async fn serve(configuration: &Configuration, level: &str) -> anyhow::Result<()> {
    let read = || load(configuration);
    let config = tracing::subscriber::with_default(logs::subscriber(level, None), read)?;
    let spans = Arc::new(SpanCounters::default());
    let traces = config.telemetry.settings()?.map(|settings| Traces::new(settings, &spans));
    let traces = traces.transpose().context("configuration section [telemetry]")?;
    log(level, traces.as_ref())?;
    let exporting = traces.map(Traces::start);
    let outcome = serve::run(&config, spans).await;
    if let Some(exporting) = exporting {
        exporting.stop().await;
    }
    outcome
}

fn load(configuration: &Configuration) -> anyhow::Result<config::Config> {
    config::load(configuration.config.as_deref(), std::env::vars())
}

fn log(level: &str, traces: Option<&Traces>) -> anyhow::Result<()> {
    logs::subscriber(level, traces).try_init().context("the log cannot be set up")
}
