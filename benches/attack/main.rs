//! The proxy under attack, while honest clients go on asking.
//!
//! `cargo bench --bench attack` installs slowhttptest and h2load, and then, for each attack in turn, starts the proxy with
//! the settings that it has by default, an origin behind it and honest clients in front, attacks, and looks at what
//! became of everybody: how long the honest ones waited, whether each got the verdict and the answer that is its own,
//! who reached the origin, how much memory and how many descriptors it took, and whether they came back. It ends with
//! a table, and fails if the lock did not hold. After `--`:
//!
//! - `attacks=tokens,h2load`: only these
//! - `rounds=2`: how often each, on the same process
//! - `connections=1000 seconds=20 tokens=1000000 requests=200000`: how much of it, requests by h2load
//!
//! `cargo test --bench attack` tries out what needs no installation, in seconds.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]

mod attacks;
// the tests use the rest of it
#[allow(dead_code)]
#[path = "../../tests/it/floods.rs"]
mod floods;
mod honest;
// the comparison uses the rest of it
#[allow(dead_code)]
#[path = "../common/http.rs"]
mod http;
mod origin;
mod proxy;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use attacks::{ATTACKS, Attack, Scale};
use honest::{Experience, Honest};
use origin::Arrivals;
use proxy::Proxy;

/// How long honest clients are watched before and after an attack.
const QUIET: Duration = Duration::from_secs(3);

struct Options {
    smoke: bool,
    attacks: Vec<String>,
    scale: Scale,
    rounds: usize,
    tokens: usize,
    installed: PathBuf,
}

impl Options {
    fn read() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        // what `cargo bench` says, and `cargo test` does not
        let smoke = !arguments.iter().any(|argument| argument == "--bench");
        let value = |name: &str| arguments.iter().filter_map(move |argument| argument.strip_prefix(name)).next_back();
        let number = |name: &str, small: usize, large: usize| {
            value(name).map_or(if smoke { small } else { large }, |text| text.parse().unwrap())
        };
        let all = ATTACKS.iter().filter(|attack| !smoke || attack.is_ours()).map(|attack| attack.name.to_owned());
        Self {
            smoke,
            attacks: value("attacks=").map_or(all.collect(), |text| text.split(',').map(str::to_owned).collect()),
            scale: Scale {
                connections: number("connections=", 150, 1000),
                seconds: number("seconds=", 1, 20) as u64,
                tokens: number("tokens=", 2000, 1_000_000),
                requests: number("requests=", 2000, 200_000),
            },
            rounds: number("rounds=", 2, 2),
            tokens: if smoke { 100 } else { 10_000 },
            installed: Path::new(env!("CARGO_MANIFEST_DIR")).join("target/attack"),
        }
    }
}

fn main() {
    proxy::raise_descriptors();
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == "attacker") {
        return attacks::carry_out(&arguments[2..]);
    }
    let options = Options::read();
    let chosen: Vec<_> =
        ATTACKS.iter().filter(|attack| options.attacks.iter().any(|name| name == attack.name)).collect();
    assert_eq!(chosen.len(), options.attacks.len(), "an attack is not known: {:?}", options.attacks);
    if chosen.iter().any(|attack| !attack.is_ours()) {
        let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/attack/setup.sh");
        assert!(Command::new(setup).status().unwrap().success(), "slowhttptest and h2load could not be installed");
    }
    // honest clients and the origin keep off the proxy's core
    if has_cores() {
        let pinned = Command::new("taskset").args(["-cp", "1", &std::process::id().to_string()]).output().unwrap();
        assert!(pinned.status.success(), "{}", String::from_utf8_lossy(&pinned.stderr));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rows = tokio::task::LocalSet::new().block_on(&runtime, async {
        let (origin, arrivals) = origin::start().await.unwrap();
        let mut rows = Vec::new();
        for attack in chosen {
            rows.push(withstand(attack, &options, origin, &arrivals).await);
        }
        rows
    });
    println!("\n{}", HEAD.trim());
    for row in &rows {
        println!("{}", row.line());
    }
    let broken: Vec<_> = rows.iter().flat_map(|row| row.broken(&options)).collect();
    assert!(broken.is_empty(), "the lock did not hold:\n{}", broken.join("\n"));
}

fn has_cores() -> bool {
    std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
}

/// A program on one core, if there are several.
fn on_core(core: usize, program: &str) -> Command {
    if !has_cores() {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

/// Memory in MiB, and descriptors.
#[derive(Clone, Copy, Default)]
struct Holds {
    memory: f64,
    descriptors: usize,
}

/// What came of an attack.
struct Row {
    attack: &'static Attack,
    before: Experience,
    during: Experience,
    after: Experience,
    /// Before, at most during the attack, each time, and after.
    held: Vec<Holds>,
    arrivals: Arrivals,
    audit: proxy::Audit,
}

async fn withstand(
    attack: &'static Attack,
    options: &Options,
    origin: SocketAddr,
    arrivals: &RefCell<Arrivals>,
) -> Row {
    let quiet = if options.smoke { QUIET / 10 } else { QUIET };
    let proxy = Proxy::start(origin, options.tokens);
    arrivals.take();
    let honest = Honest::start(proxy.address, &proxy.honest);
    sleep(quiet / 2).await;
    let warming = honest.experience();
    sleep(quiet).await;
    let before = honest.experience().after(warming);
    let now = || Holds { memory: proxy.memory(), descriptors: proxy.descriptors() };
    let (before_it, mut held) = (now(), vec![now()]);
    if let Some(left) = attack.descriptors {
        proxy.limit_descriptors(before_it.descriptors + left);
    }

    // on a busy machine it takes a while until the ends of connections are noticed
    let are_back = async || {
        let over = Instant::now();
        while proxy.descriptors() > before_it.descriptors + SLACK && over.elapsed() < Duration::from_mins(1) {
            sleep(Duration::from_millis(100)).await;
        }
    };

    let mut during = Experience::default();
    let begun = Instant::now();
    for _ in 0..options.rounds {
        let mut most = Holds::default();
        proxy.forget_most_memory();
        let said = tempfile::NamedTempFile::new().unwrap();
        let mut command = attack.command(&proxy, &options.scale, &options.installed);
        command.stdin(Stdio::null()).stdout(said.reopen().unwrap()).stderr(said.reopen().unwrap());
        let mut attacker = command.spawn().unwrap();
        let patience = Instant::now() + Duration::from_secs(3 * options.scale.seconds + 120);
        let ended = loop {
            most.descriptors = most.descriptors.max(proxy.descriptors());
            if let Some(ended) = attacker.try_wait().unwrap() {
                break ended;
            }
            if Instant::now() > patience {
                attacker.kill().unwrap();
            }
            sleep(Duration::from_millis(200)).await;
        };
        most.memory = proxy.most_memory();
        held.push(most);
        during = honest.experience().with(during);
        let said = std::fs::read_to_string(said.path()).unwrap();
        assert!(ended.success(), "the attacker failed: {ended}: {said}");
        for line in said.lines().filter(|line| attack.is_ours() || line.starts_with("finished in")) {
            println!("{}: {line}", attack.about);
        }
        // the rest is what the end of the attack sets free
        are_back().await;
    }
    sleep(quiet / 2).await;
    let meanwhile = honest.experience();
    sleep(quiet).await;
    are_back().await;
    held.push(now());
    let after = honest.stop().await.after(meanwhile);
    let row = Row { attack, before, during, after, held, arrivals: arrivals.take(), audit: proxy.stop() };
    println!("{}: {:.0} s", attack.about, begun.elapsed().as_secs_f64());
    row
}

const HEAD: &str = "
| attack | honest p50, p99 before | during | worst | after | failed | MiB before, most, most again, after | descriptors | the attacker was told |
|---|---|---|---|---|---|---|---|---|
";

/// How many descriptors come and go with honest clients.
const SLACK: usize = 12;

impl Row {
    fn line(&self) -> String {
        let times = |met: &Experience| format!("{:.1}, {:.1}", met.quantile(0.5), met.quantile(0.99));
        let all = |what: &dyn Fn(&Holds) -> String| self.held.iter().map(what).collect::<Vec<_>>().join(", ");
        let (memory, descriptors) =
            (all(&|held| format!("{:.1}", held.memory)), all(&|held| held.descriptors.to_string()));
        format!(
            "| {} | {} | {} | {:.0} | {} | {} | {memory} | {descriptors} | {} |",
            self.attack.about,
            times(&self.before),
            times(&self.during),
            self.during.quantile(1.0),
            times(&self.after),
            self.failed().len(),
            self.told(),
        )
    }

    fn told(&self) -> String {
        let told = self.audit.attackers.iter().map(|(what, count)| format!("{what} × {count}"));
        told.collect::<Vec<_>>().join(", ")
    }

    fn failed(&self) -> Vec<String> {
        let all = [&self.before, &self.during, &self.after].map(|met| met.failed.iter());
        all.into_iter().flatten().map(|(what, count)| format!("{what} × {count}")).collect()
    }

    /// What should not be.
    fn broken(&self, options: &Options) -> Vec<String> {
        let Self { attack, before, during, after, held, arrivals, audit, .. } = self;
        let mut broken = self.failed();
        let mut hold = |holds: bool, what: String| {
            if !holds {
                broken.push(what);
            }
        };
        let allowed = before.allowed + during.allowed + after.allowed;
        hold(arrivals.strangers.is_empty(), format!("nobody's requests reached the origin: {:?}", arrivals.strangers));
        hold(attack.is_known() || arrivals.mallory == 0, format!("{} requests had another's token", arrivals.mallory));
        let let_in: u64 =
            audit.attackers.iter().filter(|(told, _)| told.starts_with('2')).map(|(_, count)| count).sum();
        hold(attack.is_known() || let_in == 0, format!("the attacker was let in {let_in} times"));
        hold(
            arrivals.honest == allowed && audit.honest == allowed,
            format!("{allowed} honest answers, {} at the origin, {} in the log", arrivals.honest, audit.honest),
        );
        if attack.name == "tokens" {
            let guesses = (options.rounds * options.scale.tokens) as u64;
            let refused = audit.attackers.get("401 unknown_token").copied().unwrap_or_default();
            hold(refused == guesses, format!("{refused} of {guesses} guesses were refused"));
        }
        let [first, most, .., again, last] = &held[..] else { unreachable!("at least two rounds") };
        let (had, has) = (first.descriptors, last.descriptors);
        hold(has <= had + SLACK, format!("{has} descriptors are open, {had} were before"));
        // what the allocator keeps is used again
        let (once, twice) = (most.memory, again.memory);
        hold(twice <= once * 1.15 + 3.0, format!("{twice:.1} MiB the last time, {once:.1} the first"));
        let (rest, busy) = (before.quantile(0.99), during.quantile(0.99));
        let may_wait = options.smoke || attack.descriptors.is_some();
        hold(may_wait || busy <= 10.0 * rest + 100.0, format!("honest p99 {busy:.1} ms, {rest:.1} at rest"));
        broken.into_iter().map(|what| format!("{}: {what}", attack.about)).collect()
    }
}
