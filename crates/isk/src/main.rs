//! `isk`: Kafka topics as Iceberg tables.

mod check;
mod config;
mod coverage;
mod demo;
mod doctor;
mod formats;
mod pass_through;
mod serve;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

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
    init_logging(match cli.command {
        Command::Serve(_) => "info",
        Command::Check(_) | Command::Coverage(_) | Command::Doctor(_) => "error",
        Command::Demo(_) => "warn",
    });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("isk: the async runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Serve(c) => serve::run(&load(&c)?).await,
            Command::Check(c) => check::run(&load(&c)?).await,
            Command::Doctor(o) => doctor::run(&load(&o.configuration)?, &o).await,
            Command::Coverage(command) => command.run(&load(command.configuration())?),
            Command::Demo(options) => demo::run(options).await,
        }
    });
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

fn load(configuration: &Configuration) -> anyhow::Result<config::Config> {
    config::load(configuration.config.as_deref(), std::env::vars())
}

/// Logs go to stderr, by default from the given level on.
fn init_logging(default: &str) {
    let mut filter = EnvFilter::try_from_env("ISK_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // It would log signatures and session tokens.
    if let Ok(directive) = isk_s3_http::LOG_DIRECTIVE.parse() {
        filter = filter.add_directive(directive);
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if std::env::var("ISK_LOG_FORMAT").is_ok_and(|format| format == "json") {
        builder.json().init();
    } else {
        builder.init();
    }
}
