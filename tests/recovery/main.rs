//! How soon the partitions of a replica that is gone are read again: of two replicas one is killed or told to end, and the
//! other's log and the ledger tell when each partition was assigned to it, read again and visible.
//!
//! `RECOVERY_ROUNDS` says how often for each way to end and each group protocol, `RECOVERY_PARTITIONS` how many partitions
//! the topic has, half of which are the dead replica's. `make recovery` sets them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../shared/mod.rs"]
mod shared;
#[path = "../delivery/support.rs"]
#[allow(dead_code, reason = "each test program uses its part")]
mod support;
mod table;
mod timeline;

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

use support::{Process, TOPIC, World};
use table::{Round, Table};
use timeline::Timeline;

/// Messages that each partition has at least before anybody is killed: the duplicates window's 10,000, and some more.
const FILL: u64 = 11_000;
/// Messages a second while replicas come and go.
const RATE: u64 = 2_000;
/// After how long a member that is not heard of counts as dead: what the brokers here have for the protocol of their own.
const SESSION: Duration = Duration::from_secs(6);
/// Greatest age of a batch, as it is by default.
const SEAL: Duration = Duration::from_secs(5);
/// What is ours of a recovery, and all of one after SIGTERM.
const LIMIT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(120);

fn setting<T: FromStr>(name: &str, default: T) -> T {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} makes no sense")))
}

#[test]
fn another_replica_goes_on_soon() {
    let rounds: usize = setting("RECOVERY_ROUNDS", 1);
    let partitions: i32 = setting("RECOVERY_PARTITIONS", 64);
    let mut world = World::new();
    world.set("LOG__LEVEL", "debug");
    world.set("BATCH__INTERVAL", &format!("{}ms", SEAL.as_millis()));
    world.unset("KAFKA__PROPERTIES__HEARTBEAT__INTERVAL__MS");
    world.set("KAFKA__PROPERTIES__SESSION__TIMEOUT__MS", &SESSION.as_millis().to_string());
    fill(&world, partitions);

    let mut production = produce(&world);
    let mut table = Table::default();
    for protocol in ["classic", "consumer"] {
        world.set("KAFKA__PROTOCOL", protocol);
        if protocol == "consumer" {
            world.unset("KAFKA__PROPERTIES__SESSION__TIMEOUT__MS");
        }
        for (how, kill) in [("kill -9", true), ("SIGTERM", false)] {
            let mut replicas = [0, 1].map(|number| world.run(&format!("{protocol}-{how}-{number}")));
            for round in 0..rounds {
                let owned = settle(&mut replicas, partitions);
                let [victim, survivor] = replicas;
                let found = recover(&world, victim, &survivor, &owned[0], kill);
                println!("{protocol}, {how}: {found}");
                table.add(protocol, how, found);
                // Who survived is the next to go.
                replicas = [survivor, world.run(&format!("{protocol}-{how}-{}", round + 2))];
            }
            for replica in replicas {
                let (status, said) = replica.terminate();
                assert!(status.success(), "{status}: {said}");
            }
        }
    }
    production.kill().unwrap();
    production.wait().unwrap();
    let mut last = world.run("last");
    let sent = shared::truth::of(&world.stack.kafka.bootstrap(), TOPIC).messages;
    world.wait_for(sent, &mut last, PATIENCE);
    assert!(last.terminate().0.success());
    let truth = world.check();
    println!("\n{table}");
    println!(
        "{partitions} partitions, half of them taken over, with {} messages in each in the end; {RATE} messages a second; \
         session time-out {SESSION:?}; batches sealed after {SEAL:?}; exact after all of it",
        truth.messages / partitions as u64
    );
    table.hold(LIMIT);
}

/// Puts messages into all partitions and has them written.
fn fill(world: &World, partitions: i32) {
    let events = (FILL * partitions as u64).to_string();
    let topic = partitions.to_string();
    world.done(&["generate", "--type", "llm_call", "--topic", TOPIC, "--partitions", &topic, "--events", &events]);
    world.done(&["migrate"]);
    let mut process = world.run("fill");
    world.wait_for(FILL * partitions as u64, &mut process, 5 * PATIENCE);
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
}

/// Sends messages to all partitions until it is ended.
fn produce(world: &World) -> Child {
    let rate = RATE.to_string();
    let arguments = ["generate", "--type", "llm_call", "--topic", TOPIC, "--seed", "2", "--duration", "10h", "--rate"];
    let mut command = world.command(&[&arguments[..], &[&rate]].concat());
    devstack::sys::end_with_this_thread(&mut command);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits until two replicas read half of the partitions each; which those are.
fn settle(replicas: &mut [Process; 2], partitions: i32) -> [BTreeSet<i32>; 2] {
    let begun = Instant::now();
    loop {
        let owned = replicas.each_ref().map(|replica| Timeline::of(&replica.said()).reading());
        let all: BTreeSet<i32> = owned.iter().flatten().copied().collect();
        let half = partitions as usize / 2;
        if all.len() == partitions as usize && owned.iter().all(|owned| owned.len() == half) {
            // And until nothing is under way any more.
            std::thread::sleep(SEAL);
            return owned;
        }
        let sizes = owned.each_ref().map(BTreeSet::len);
        assert!(begun.elapsed() < PATIENCE, "they read {sizes:?} of {partitions} partitions");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Ends a replica and looks when the other one reads all that it had.
fn recover(world: &World, victim: Process, survivor: &Process, lost: &BTreeSet<i32>, kill: bool) -> Round {
    let before = survivor.said().len();
    let ended = SystemTime::now();
    if kill {
        victim.kill();
    } else {
        let (status, said) = victim.terminate();
        assert!(status.success(), "{status}: {said}");
    }
    let begun = Instant::now();
    let taken = loop {
        let timeline = Timeline::of(&survivor.said()[before..]);
        if lost.iter().all(|partition| timeline.is_reading(*partition)) {
            break timeline;
        }
        assert!(begun.elapsed() < PATIENCE, "{} of {} partitions are read", timeline.reading().len(), lost.len());
        std::thread::sleep(Duration::from_millis(50));
    };
    // An event counts as visible when it happened after the last partition changed hands and the ledger has it.
    let since = lost.iter().map(|partition| taken.assigned(*partition)).max().unwrap();
    let micros = since.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
    let list = lost.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT count(), toUnixTimestamp64Milli(max(at)) FROM (SELECT source, min(written_at) AS at FROM highwater.ledger \
         WHERE max_time >= fromUnixTimestamp64Micro({micros}) AND toInt32(splitByChar('/', toString(source))[-1]) IN \
         ({list}) GROUP BY source) FORMAT TSV"
    );
    let visible = loop {
        let answer = world.query(&sql);
        let (count, millis) = answer.trim().split_once('\t').unwrap();
        if count.parse::<usize>().unwrap() == lost.len() {
            break SystemTime::UNIX_EPOCH + Duration::from_millis(millis.parse().unwrap());
        }
        assert!(begun.elapsed() < PATIENCE, "{count} of {} partitions are written", lost.len());
        std::thread::sleep(Duration::from_millis(200));
    };
    Round::new(ended, lost, &taken, visible)
}
