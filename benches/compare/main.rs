//! The proxy beside others at the same work: processor time for each request, and latency.
//!
//! `cargo bench --bench compare` installs the peers, verifies that each does the same work, and times
//! them in turn, round by round, the subject on one core, clients and origin on another. It ends with
//! a table, and leaves `results.json` and `plot.svg` in `target/compare`. After `--`:
//!
//! - `rounds=11 window=400`: how many rounds, and how many milliseconds each takes
//! - `peers=haproxy,nginx shapes=json,sse`: only these
//! - `also=NAME=PROGRAM`: another build of patgate, to be compared with this one
//! - `audit=dropped`: beside it, this build with its audit records dropped before they are written
//! - `latency=off`: no open loop at the end
//! - `workers=2`: so many threads for each subject, on as many cores, the clients' among them
//! - `tokens=1000`: so many tokens
//!
//! `PATGATE_PROGRAM`, in the environment, is the program to be timed instead of the one that is built with this.
//! `cargo test --bench compare` tries it all out with patgate alone, in seconds, and judges no figure.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]

#[path = "../common/http.rs"]
mod http;
mod origin;
mod report;
mod subjects;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use report::{Series, median, quantile};
use subjects::{PEERS, Stage, Subject, Tokens};
use traffic::{Clients, SHAPES, Shape};

const WARM_UP: Duration = Duration::from_millis(60);
const RATE: u32 = 5_000;

/// Latency is taken in many short rounds: where a shared machine stands still for some milliseconds, all of a round's
/// slowest answers are from there, and with long rounds that is each of them.
const LATENCY_WINDOW: Duration = Duration::from_millis(100);

/// How many of them come to one round of processor time.
const LATENCY_ROUNDS: usize = 10;

struct Options {
    smoke: bool,
    rounds: usize,
    window: Duration,
    peers: Vec<String>,
    shapes: Vec<String>,
    also: Vec<(String, PathBuf)>,
    audit_dropped: bool,
    latency: bool,
    workers: usize,
    tokens: usize,
}

impl Options {
    fn read() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        // what `cargo bench` says, and `cargo test` does not
        let smoke = !arguments.iter().any(|argument| argument == "--bench");
        let value = |name: &str| arguments.iter().filter_map(move |argument| argument.strip_prefix(name)).next_back();
        let list = |name: &str, all: Vec<&str>| -> Vec<String> {
            let names = value(name).map_or(all, |text| text.split(',').filter(|name| !name.is_empty()).collect());
            names.into_iter().map(str::to_owned).collect()
        };
        let also = arguments.iter().filter_map(|argument| argument.strip_prefix("also=")?.split_once('='));
        Self {
            smoke,
            rounds: value("rounds=").map_or(if smoke { 1 } else { 11 }, |text| text.parse().unwrap()),
            window: Duration::from_millis(
                value("window=").map_or(if smoke { 40 } else { 400 }, |text| text.parse().unwrap()),
            ),
            peers: list("peers=", if smoke { Vec::new() } else { PEERS.to_vec() }),
            shapes: list("shapes=", SHAPES.iter().map(|shape| shape.name).collect()),
            also: also.map(|(name, program)| (name.to_owned(), std::path::absolute(program).unwrap())).collect(),
            audit_dropped: value("audit=") == Some("dropped"),
            latency: value("latency=") != Some("off"),
            workers: value("workers=").map_or(1, |text| text.parse().unwrap()),
            tokens: value("tokens=").map_or(if smoke { 100 } else { 10_000 }, |text| text.parse().unwrap()),
        }
    }
}

fn main() {
    let options = Options::read();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !options.peers.is_empty() {
        let installed = Command::new(root.join("benches/compare/peers/setup.sh")).status().unwrap();
        assert!(installed.success(), "the peers could not be installed");
    }
    // this process, clients and origin in one thread, keeps off the subject's core
    let alone = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    if alone {
        let pinned = Command::new("taskset").args(["-cp", "1", &std::process::id().to_string()]).output().unwrap();
        assert!(pinned.status.success(), "{}", String::from_utf8_lossy(&pinned.stderr));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, compare(&options, &root.join("target/compare")));
}

async fn compare(options: &Options, peers: &Path) {
    let events = origin::Events::default();
    let origin = origin::start(&events).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tokens = Tokens::mint(options.tokens);
    tokens.write(folder.path());
    let stage = Stage { folder: folder.path(), peers, origin, tokens: &tokens, workers: options.workers };

    let program =
        &std::env::var_os("PATGATE_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_patgate").into(), PathBuf::from);
    let mut subjects = vec![stage.patgate("patgate", program)];
    if options.audit_dropped {
        subjects.push(stage.patgate_without_records("dropped", program));
    }
    subjects.extend(options.also.iter().map(|(name, program)| stage.patgate(name, program)));
    subjects.extend(options.peers.iter().map(|name| stage.peer(name)));
    for subject in &subjects {
        subject.verify(&tokens).await;
    }
    for subject in &subjects {
        subject.verify_log();
        let (ready, memory) = (subject.ready.as_millis(), subject.memory());
        println!("{:10} verified; ready after {ready} ms, {memory:.1} MiB resident before any load", subject.name);
    }

    let mut series = Vec::new();
    for shape in SHAPES.iter().filter(|shape| options.shapes.iter().any(|name| name == shape.name)) {
        let mut of_shape: Vec<Series> = subjects
            .iter()
            .map(|subject| Series { shape: shape.about, subject: subject.name.clone(), rounds: Vec::new() })
            .collect();
        for round in 0..options.rounds {
            // another order each time, so that nobody always comes first
            for turn in 0..subjects.len() {
                let index = (turn + round) % subjects.len();
                let time = time(&subjects[index], shape, &events, options.window).await;
                of_shape[index].rounds.push(time);
            }
        }
        let medians = of_shape.iter().map(|series| format!("{} {:.1}", series.subject, median(&series.rounds)));
        println!("{:25} {}", shape.about, medians.collect::<Vec<_>>().join(", "));
        series.extend(of_shape);
    }
    println!("\nprocessor time for each request, medians of {} rounds\n\n{}", options.rounds, report::table(&series));
    let latencies = if options.latency { latencies(&subjects, origin, &tokens, options).await } else { Vec::new() };
    for (name, latency) in &latencies {
        println!("{name:10} at {RATE} requests a second: p50 {:6.0} µs, p99 {:6.0} µs", latency[0], latency[1]);
    }
    for subject in &subjects {
        println!("{:10} {:6.1} MiB resident after the load", subject.name, subject.memory());
    }
    if !options.smoke {
        let results = serde_json::json!({ "processor_time": report::json(&series), "latency": latencies });
        std::fs::create_dir_all(peers).unwrap();
        std::fs::write(peers.join("results.json"), format!("{results:#}\n")).unwrap();
        std::fs::write(peers.join("plot.svg"), report::plot(&series)).unwrap();
    }
}

/// Microseconds of processor time for each answer.
async fn time(subject: &Subject, shape: &'static Shape, events: &origin::Events, window: Duration) -> f64 {
    let clients = Clients::start(subject.address, shape, &subject.tokens, events);
    tokio::time::sleep(WARM_UP).await;
    let (answers, cpu) = (clients.answers(), subject.cpu());
    let begun = Instant::now();
    while begun.elapsed() < window || clients.answers() == answers {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(begun.elapsed() < 20 * window + Duration::from_secs(10), "{} does not answer", subject.name);
    }
    let (answers, cpu) = (clients.answers() - answers, subject.cpu() - cpu);
    drop(clients);
    // the ends of these connections belong to nobody else's time
    tokio::time::sleep(WARM_UP).await;
    cpu * 1e6 / answers as f64
}

/// The median and the 99th percentile, in microseconds, of each subject and of the origin itself.
async fn latencies(
    subjects: &[Subject],
    origin: std::net::SocketAddr,
    tokens: &Tokens,
    options: &Options,
) -> Vec<(String, [f64; 2])> {
    let targets = subjects.iter().map(|subject| (subject.name.clone(), subject.address, &subject.tokens));
    let targets: Vec<_> = targets.chain([("direct".to_owned(), origin, &tokens.all)]).collect();
    let mut found = vec![[Vec::new(), Vec::new()]; targets.len()];
    for _ in 0..LATENCY_ROUNDS * options.rounds {
        for ((_, address, tokens), found) in targets.iter().zip(&mut found) {
            let taken = traffic::latencies(*address, tokens, RATE, LATENCY_WINDOW).await;
            found[0].push(quantile(&taken, 0.5));
            found[1].push(quantile(&taken, 0.99));
        }
    }
    let medians = found.iter().map(|found| [median(&found[0]), median(&found[1])]);
    targets.into_iter().map(|(name, ..)| name).zip(medians).collect()
}
