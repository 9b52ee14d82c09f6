//! Real servers, the real binary, and everything that can go wrong with them at once, for minutes: then every number is
//! held against the truth.
//!
//! `CHAOS_MINUTES` says for how long, `CHAOS_SEED` which actions are drawn, `CHAOS_PROTOCOL` (`classic`, `consumer`) how the
//! group divides its work (else the seed does), `CHAOS_RATE` how many messages a second are produced. `make chaos` sets them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod actions;
mod events;
mod fleet;
mod performance;
mod production;
mod report;
mod sent;
#[path = "../shared/mod.rs"]
mod shared;
mod stage;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use fastrand::Rng;

use actions::Action;
use events::VISIT;
use fleet::Fleet;
use performance::Performance;
use production::Production;
use shared::kind::LLM_CALL;
use shared::truth::{self, Truth};
use stage::{PARTITIONS, Stage, TOPIC};

/// How long nothing more may be written while something is left: a slow machine is no fault, a standstill is.
const STANDSTILL: Duration = Duration::from_secs(120);

fn setting<T: FromStr>(name: &str, default: T) -> T {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} makes no sense")))
}

#[test]
fn nothing_is_lost_and_nothing_is_counted_twice() {
    let minutes: f64 = setting("CHAOS_MINUTES", 3.0);
    let seed: u64 = setting("CHAOS_SEED", fastrand::u64(..1_000_000));
    let by_seed = if seed.is_multiple_of(2) { "classic" } else { "consumer" };
    let protocol: String = setting("CHAOS_PROTOCOL", by_seed.to_owned());
    let rate: u64 = setting("CHAOS_RATE", 2_000);
    let again = format!("make chaos MINUTES={minutes} SEED={seed} PROTOCOL={protocol} RATE={rate}");
    println!("chaos: {again}");
    let _again = Again(again);

    let stage = Stage::new(&protocol);
    println!("logs while it runs: {}", stage.folder.display());
    stage.create_topic();
    let (migrated, said) = stage.ask(&["migrate"]);
    assert!(migrated, "{said}");
    let mut rng = Rng::with_seed(seed);
    let fleet = Fleet::new(rng.fork());
    let production = Production::start(stage.stack.kafka.bootstrap(), TOPIC, PARTITIONS, rate, seed);
    let mut performance = Performance::new(stage, fleet);
    play(&mut performance, &production, &mut rng, Duration::from_secs_f64(minutes * 60.0));

    performance.calm();
    let sent = production.stop();
    let truth = truth::of_kinds(&performance.stage.stack.kafka.bootstrap(), TOPIC, &[LLM_CALL, VISIT]);
    drain(&mut performance, &truth);
    let Performance { stage, mut fleet, mut report, .. } = performance;
    fleet.end(&stage, &mut report);

    let verdict = shared::compare::hold(&truth, &|sql| stage.query(sql));
    let summary = sent::check(&sent, &truth);
    let (clean, audit) = stage.ask(&["audit"]);
    let logs = logs(&stage);
    report.print(logs.iter().map(|(_, text)| text.as_str()));
    println!(
        "{} messages acknowledged, {} transactions committed, {} aborted, {} unknown",
        summary.acknowledged, summary.committed, summary.aborted, summary.unknown
    );
    println!(
        "{} messages in the topic: {} rows, {} dead letters, {} duplicates",
        truth.messages, truth.rows, truth.dead_letters, truth.duplicates
    );
    println!("{}", audit.lines().last().unwrap_or_default());
    println!("{verdict}");
    complaints(&logs).into_iter().for_each(|line| report.violation(line));
    let exact = verdict.is_exact() && clean && summary.wrong.is_empty() && report.violations().is_empty();
    assert!(exact, "{verdict}\n{:#?}\n{:#?}\n{audit}", summary.wrong, report.violations());
    let lacking = report.lacks(minutes);
    assert!(lacking.is_empty(), "nothing is wrong, but too little was done to it: {}", lacking.join("; "));
}

/// However a run fails, its last line says how to have it again.
struct Again(String);

impl Drop for Again {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the run that failed: {}", self.0);
        }
    }
}

/// Does one thing after the other to the system, for so long; on a slow machine up to twice as long, where too little was done.
fn play(performance: &mut Performance, production: &Production, rng: &mut Rng, time: Duration) {
    let (begun, mut next, mut said) = (Instant::now(), Instant::now() + Duration::from_secs(3), Instant::now());
    let mut until = time;
    let minutes = time.as_secs_f64() / 60.0;
    let most = time.mul_f64(2.0);
    while begun.elapsed() < until || (begun.elapsed() < most && !performance.report.lacks(minutes).is_empty()) {
        performance.tick();
        if Instant::now() >= next {
            performance.perform(Action::draw(rng));
            // What lacks in the end are mostly replicas that came to their places: they come there sooner if they are left alone.
            let pause = if begun.elapsed() < until { 800..4_000 } else { 8_000..20_000 };
            next = Instant::now() + Duration::from_millis(rng.u64(pause));
        }
        if begun.elapsed() > time.mul_f64(0.4) {
            if performance.add_schema() {
                production.send_visits();
                // Time for some of them to be sent.
                until = until.max(begun.elapsed() + Duration::from_secs(15));
            } else if !performance.is_added() {
                until = until.max(begun.elapsed() + Duration::from_secs(1));
            }
        }
        if said.elapsed() > Duration::from_secs(30) {
            said = Instant::now();
            let done = performance.stage.stack.clickhouse.query("SELECT sum(events) FROM highwater.ledger");
            let done = done.map_or_else(|_| "?".to_owned(), |done| done.trim().to_owned());
            let (minute, sent, kills) =
                (begun.elapsed().as_secs() / 60, production.sent(), performance.report.killed());
            println!("minute {minute}: {sent} messages sent, {done} in the ledger, {kills} kills");
        }
        assert!(performance.report.violations().is_empty(), "{:#?}", performance.report.violations());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the ledger has all of the topic.
fn drain(performance: &mut Performance, truth: &Truth) {
    let begun = Instant::now();
    let (mut least, mut moved) = (u64::MAX, begun);
    loop {
        performance.tick();
        // The server may have ended by itself; it is brought back by the next tick.
        let sql = "SELECT source, max(to) FROM highwater.ledger GROUP BY source FORMAT TSV";
        let answer = performance.stage.stack.clickhouse.query(sql).unwrap_or_default();
        let mut left = truth.messages;
        let mut behind = truth.partitions.len();
        for line in answer.lines() {
            let (source, end) = line.split_once('\t').unwrap();
            let (number, end): (usize, u64) =
                (source.rsplit('/').next().unwrap().parse().unwrap(), end.parse().unwrap());
            let log = &truth.partitions[number].log;
            let done = log.partition_point(|(offset, _)| *offset < end);
            left -= done as u64;
            behind -= usize::from(done == log.len());
        }
        if behind == 0 {
            println!("drained within {:?}", begun.elapsed());
            return;
        }
        if left < least {
            (least, moved) = (left, Instant::now());
        }
        assert!(
            moved.elapsed() < STANDSTILL,
            "{left} messages in {behind} partitions are not written, and none was for {STANDSTILL:?}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// What replicas said, by file.
fn logs(stage: &Stage) -> Vec<(PathBuf, String)> {
    let paths = std::fs::read_dir(&stage.folder).unwrap().map(|entry| entry.unwrap().path());
    let replicas =
        paths.filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"replica-")));
    replicas.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Lines that must never stand there.
fn complaints(logs: &[(PathBuf, String)]) -> Vec<String> {
    let bad = |line: &&str| line.contains("partition stopped") || line.contains("panicked");
    let of = |(path, text): &(PathBuf, String)| -> Vec<String> {
        text.lines().filter(bad).map(|line| format!("{}: {line}", path.display())).collect()
    };
    logs.iter().flat_map(of).collect()
}
