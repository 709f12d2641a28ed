//! Fuzzes both ports of a service that runs: any number of requests, made by a grammar from a seed, over connections
//! that stay open. `tests/fuzz_http.py` starts the service and calls it.
//!
//! A request may be refused in any way, but no answer may be an error of the server's own (500), none may stay away, and
//! the server must not end.
#![allow(clippy::print_stdout, reason = "it is a program for the command line")]

mod connection;
mod header;
mod random;
mod request;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use connection::{Answer, Connection};
use random::Random;
use request::{Port, Request, Target};

/// What the command line says.
struct Options {
    target: Target,
    requests: u64,
    seed: u64,
    connections: u64,
}

fn options() -> Result<Options, String> {
    let mut given = BTreeMap::new();
    let mut arguments = std::env::args().skip(1);
    while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
        given.insert(name, value);
    }
    let mut take = |name: &str| given.remove(name).ok_or_else(|| format!("{name} is missing"));
    let number = |text: String| text.parse::<u64>().map_err(|e| format!("{text:?}: {e}"));
    Ok(Options {
        target: Target {
            catalog: take("--catalog")?,
            gateway: take("--gateway")?,
            topic: take("--topic")?,
            access_key: take("--access-key")?,
            secret_key: take("--secret-key")?,
            // Keys of objects that are there, one a line.
            keys: take("--keys")?.lines().map(str::to_owned).collect(),
        },
        requests: number(take("--requests")?)?,
        seed: number(take("--seed")?)?,
        connections: number(take("--connections")?)?.max(1),
    })
}

/// How requests were answered, and those that were answered wrongly.
#[derive(Default)]
struct Outcome {
    statuses: Mutex<BTreeMap<String, u64>>,
    wrong: Mutex<Vec<String>>,
    sent: AtomicU64,
}

/// Wrong answers that are kept, with what was asked.
const MOST_WRONG: usize = 20;

impl Outcome {
    fn wrong(&self, what: &str, request: &Request) {
        if let Ok(mut wrong) = self.wrong.lock()
            && wrong.len() < MOST_WRONG
        {
            let asked = String::from_utf8_lossy(&request.bytes);
            let asked: String = asked.chars().take(1500).collect();
            wrong.push(format!("{what} on {:?}: {asked:?}", request.port));
        }
    }

    fn add(&self, statuses: BTreeMap<String, u64>) {
        if let Ok(mut all) = self.statuses.lock() {
            for (status, count) in statuses {
                *all.entry(status).or_default() += count;
            }
        }
    }
}

fn main() -> std::process::ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            println!("fuzz-http: {error}");
            return std::process::ExitCode::from(2);
        }
    };
    let (outcome, begun) = (Outcome::default(), Instant::now());
    std::thread::scope(|scope| {
        for thread in 0..options.connections {
            let (options, outcome) = (&options, &outcome);
            scope.spawn(move || run(options, thread, outcome));
        }
    });
    let sent = outcome.sent.load(Ordering::Relaxed);
    let seconds = begun.elapsed().as_secs_f64();
    println!("{sent} requests in {seconds:.0} s, seed {}", options.seed);
    for (status, count) in outcome.statuses.lock().iter().flat_map(|statuses| statuses.iter()) {
        println!("{status}: {count}");
    }
    let wrong = outcome.wrong.into_inner().unwrap_or_default();
    for wrong in &wrong {
        println!("WRONG {wrong}");
    }
    match wrong.is_empty() && sent >= options.requests {
        true => std::process::ExitCode::SUCCESS,
        false => std::process::ExitCode::FAILURE,
    }
}

/// One thread's share of the requests.
fn run(options: &Options, thread: u64, outcome: &Outcome) {
    let mut random = Random::new(options.seed.wrapping_mul(1_000_003).wrapping_add(thread));
    let mut connections: [Option<Connection>; 2] = [None, None];
    let mut statuses = BTreeMap::new();
    let share = options.requests.div_ceil(options.connections);
    for _ in 0..share {
        let request = Request::make(&mut random, &options.target);
        let (place, address) = match request.port {
            Port::Catalog => (0, &options.target.catalog),
            Port::Gateway => (1, &options.target.gateway),
        };
        let Some(slot) = connections.get_mut(place) else { return };
        let answer = match slot.take().map_or_else(|| Connection::open(address), Ok) {
            Ok(mut connection) => {
                let answer = connection.ask(&request);
                if matches!(answer, Answer::Status { keep: true, .. }) {
                    *slot = Some(connection);
                }
                answer
            }
            Err(error) => {
                outcome.wrong(&format!("no connection: {error}"), &request);
                return;
            }
        };
        outcome.sent.fetch_add(1, Ordering::Relaxed);
        let status = match answer {
            Answer::Status { status, .. } => {
                if status == 500 {
                    outcome.wrong("status 500", &request);
                }
                format!("{:?} {status}", request.port)
            }
            Answer::Closed => format!("{:?} closed", request.port),
            Answer::Silent if request.whole => {
                outcome.wrong("no answer", &request);
                format!("{:?} silent", request.port)
            }
            // It was right to wait for the rest.
            Answer::Silent => format!("{:?} waits", request.port),
            Answer::Broken(what) => {
                outcome.wrong(&what, &request);
                format!("{:?} broken", request.port)
            }
        };
        *statuses.entry(status).or_default() += 1;
    }
    outcome.add(statuses);
}
