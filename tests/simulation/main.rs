//! Deterministic simulation of the delivery protocol: the real worker, partitions and batches against a model of Kafka and
//! a model of ClickHouse, under crashes, zombies, rebalances, lost answers and server kills.
//!
//! One seed is one schedule. `SIMULATION_SCHEDULES` sets how many are run, `SIMULATION_FIRST` the first of them.
//! `SIMULATION_SEED=n` replays one and prints what happened, a line per step: when, who, what; `SIMULATION_MUTATION=name`
//! breaks a rule while doing so, and without a seed is the only one that is searched for.
//!
//! Random search: that it is clean proves nothing, and it knows only what its models know. Their limits are stated where
//! they are made, in `clickhouse` and `kafka`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod broker;
mod check;
mod clickhouse;
mod directed;
mod finish;
mod kafka;
mod landing;
mod log;
mod mutation;
mod network;
mod plans;
mod race;
mod redrive;
mod rewind;
mod scripted;
mod shared;
mod store;
mod truth;
mod watermarks;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use mutation::Mutation;
use world::World;

/// Schedules that are run when nobody says how many.
const SCHEDULES: u64 = 6_000;
/// Within how many schedules each mutation has to be caught.
const PATIENCE: u64 = 60_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// Runs `work` on both halves of the seeds, one thread each.
fn on_all_cores<T: Send>(work: impl Fn(u64, u64) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = (0..threads).map(|index| scope.spawn(move || work(index, threads))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Runs schedules in order until one is violated; answers the first seed of all and what was wrong there.
fn search(mutation: Mutation, count: u64) -> Option<(u64, String)> {
    let least = AtomicU64::new(count);
    let found = on_all_cores(|index, threads| {
        let mut seed = index;
        while seed < least.load(Ordering::Relaxed) {
            if let Some(wrong) = World::run(seed, mutation, false).violation {
                least.fetch_min(seed, Ordering::Relaxed);
                return Some((seed, wrong));
            }
            seed += threads;
        }
        None
    });
    found.into_iter().flatten().min()
}

/// The rule that is to be broken, if one is named.
fn named_mutation() -> Option<Mutation> {
    let name = std::env::var("SIMULATION_MUTATION").ok()?;
    let named = Mutation::ALL.into_iter().find(|mutation| format!("{mutation:?}") == name);
    Some(named.unwrap_or_else(|| panic!("SIMULATION_MUTATION names no mutation: {name}")))
}

fn replay(seed: u64, mutation: Mutation) -> String {
    let outcome = World::run(seed, mutation, true);
    format!("{}\nseed {seed}: {:?}", outcome.trace.join("\n"), outcome.violation)
}

#[test]
fn every_schedule_ends_with_the_truth() {
    if let Some(seed) = variable("SIMULATION_SEED") {
        println!("{}", replay(seed, named_mutation().unwrap_or(Mutation::None)));
        return;
    }
    let schedules = variable("SIMULATION_SCHEDULES").unwrap_or(SCHEDULES);
    let first = variable("SIMULATION_FIRST").unwrap_or(0);
    let begun = Instant::now();
    let parts = on_all_cores(|index, threads| {
        let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
        for seed in (first + index..first + schedules).step_by(threads as usize) {
            let outcome = World::run(seed, Mutation::None, false);
            if outcome.violation.is_some() {
                return Err(seed);
            }
            *counts.entry("steps").or_default() += outcome.steps;
            for (what, count) in outcome.counts {
                *counts.entry(what).or_default() += count;
            }
        }
        Ok(counts)
    });
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for part in parts {
        match part {
            Ok(part) => part.into_iter().for_each(|(what, count)| *counts.entry(what).or_default() += count),
            Err(seed) => panic!("{}", replay(seed, Mutation::None)),
        }
    }
    println!("{schedules} schedules in {:.1} s", begun.elapsed().as_secs_f64());
    for (what, count) in &counts {
        println!("{count:>12}  {what}");
    }
    // A search that never met the dangerous moments proves nothing.
    for what in MOMENTS {
        let met = counts.get(what).copied().unwrap_or_default();
        assert!(met > schedules / 500, "«{what}» happened only {met} times");
    }
}

/// What has to have happened, and more than once in a while.
const MOMENTS: [&str; 68] = [
    "a clock jumped",
    "a passing error of one month",
    "a passing error of one table",
    "a passing error",
    "answer lost",
    "batch with dead letters",
    "batch with duplicates",
    "batch with late events",
    "client gave up waiting",
    "commit applied late",
    "commit expired",
    "commit lost",
    "commit set back",
    "commit set forward",
    "counted before its row was there",
    "cut before its token's window ended",
    "done and yet a passing error",
    "dropped by its token",
    "ended with all written",
    "gap passed over",
    "ids read from raw rows",
    "insert arrived twice",
    "inserts",
    "killed between part and token",
    "killed between token and part",
    "landed under a suffix",
    "ledger row dropped by its token",
    "ledger back and on again unseen",
    "loss recorded",
    "lost ranges in which raw rows and a rollup differ",
    "part long after its token",
    "partition added",
    "partition given to another",
    "paused",
    "position lost",
    "read of a partition that is another's",
    "redrive begun",
    "redrive done",
    "redrive found another's list",
    "redrive gone",
    "redrive found a rewind's number",
    "redrive goes on with a run",
    "redrive refused during a rewind",
    "redrive stopped as its epoch was over",
    "refused for good",
    "restored",
    "retention took what was not read",
    "rewind",
    "rewind interrupted",
    "rewind refused as a run was not finished",
    "run taken back",
    "rows expired as they landed",
    "rows taken back from a table",
    "rows taken by a TTL",
    "server killed",
    "started with another plan than before",
    "stopped and started again by the operator",
    "token left the window",
    "topic made anew",
    "topic not recognised for long",
    "topic recognised after long",
    "read on in a topic made anew",
    "transaction left open",
    "watermark of a quiet log",
    "watermark of an event",
    "watermarks stored",
    "worker crashed",
    "worker froze",
];

#[test]
fn the_same_seed_is_the_same_schedule() {
    for seed in 0..20 {
        assert_eq!(replay(seed, Mutation::None), replay(seed, Mutation::None));
    }
}

/// Each rule of the protocol, broken, is found out.
#[test]
fn mutations_are_caught() {
    if variable("SIMULATION_SEED").is_some() {
        return;
    }
    let only = named_mutation();
    let mut missed = Vec::new();
    println!("{:<22} {:>9}  what was seen", "mutation", "schedules");
    for mutation in Mutation::ALL.into_iter().filter(|&mutation| only.is_none_or(|only| only == mutation)) {
        let found = match mutation {
            // Chance takes thousands of schedules.
            Mutation::TokenWithoutMark => race::insert_of_a_sleeper(mutation).map(|wrong| (0, wrong)),
            _ => search(mutation, PATIENCE),
        };
        match found {
            Some((seed, wrong)) => println!("{:<22} {:>9}  {wrong}", format!("{mutation:?}"), seed + 1),
            None => missed.push(mutation),
        }
    }
    assert!(missed.is_empty(), "not noticed in {PATIENCE} schedules: {missed:?}");
}
