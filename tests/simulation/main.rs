//! Deterministic simulation of the delivery protocol: the real worker, partitions and batches against a model of Kafka and
//! a model of ClickHouse, under crashes, zombies, rebalances, lost answers and server kills.
//!
//! One seed is one schedule. `SIMULATION_SCHEDULES` sets how many are run (10,000 otherwise), `SIMULATION_SEED=n` replays
//! one and prints what happened.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clickhouse;
mod kafka;
mod truth;
mod world;

use std::collections::BTreeMap;

use world::{Mutation, World};

fn schedules() -> u64 {
    std::env::var("SIMULATION_SCHEDULES").map_or(10_000, |text| text.parse().expect("SIMULATION_SCHEDULES is a number"))
}

/// Runs schedules until one is violated; answers its seed and what was wrong.
fn search(mutation: Mutation, first: u64, count: u64) -> Option<(u64, String)> {
    (first..first + count).find_map(|seed| World::run(seed, mutation, false).violation.map(|wrong| (seed, wrong)))
}

#[test]
fn every_schedule_ends_with_the_truth() {
    if let Ok(seed) = std::env::var("SIMULATION_SEED") {
        let outcome = World::run(seed.parse().expect("SIMULATION_SEED is a number"), Mutation::None, true);
        println!("{}", outcome.trace.join("\n"));
        assert_eq!(outcome.violation, None);
        return;
    }
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..schedules() {
        let outcome = World::run(seed, Mutation::None, false);
        if let Some(wrong) = outcome.violation {
            let replayed = World::run(seed, Mutation::None, true);
            panic!("seed {seed}: {wrong}\n{}", replayed.trace.join("\n"));
        }
        for (what, count) in outcome.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    println!("{} schedules: {counts:?}", schedules());
    // A search that never met the dangerous moments proves nothing.
    for what in [
        "killed between token and part",
        "killed between part and token",
        "answer lost",
        "dropped by its token",
        "sent under a suffix",
        "worker crashed",
        "worker froze",
        "partition given to another",
        "commit applied late",
        "ledger row of a slower writer dropped",
        "row expired as it landed",
        "ids read from raw rows",
        "position lost",
    ] {
        assert!(
            counts.get(what).copied().unwrap_or_default() > schedules() / 500,
            "«{what}» hardly ever happened: {counts:?}"
        );
    }
}

#[test]
fn the_same_seed_is_the_same_schedule() {
    for seed in 0..20 {
        assert_eq!(World::run(seed, Mutation::None, true).trace, World::run(seed, Mutation::None, true).trace);
    }
}

/// Each rule of the protocol, broken, is found out.
#[test]
fn mutations_are_caught() {
    for mutation in Mutation::ALL {
        let found = search(mutation, 0, 20_000);
        let (seed, wrong) = found.unwrap_or_else(|| panic!("{mutation:?} went unnoticed in 20,000 schedules"));
        println!("{mutation:?}: caught after {} schedules: {wrong}", seed + 1);
    }
}
