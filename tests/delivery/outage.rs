//! ClickHouse away for long: the process holds no more than it may, and catches up by itself.
//!
//! What it may hold is `memory.limit` of batches, and a fixed amount beside them. Far more than both comes in meanwhile, so
//! that a process that does not keep to its limit is found out.
//!
//! `OUTAGE_MINUTES` says for how long, `OUTAGE_RATE` how many events a second come meanwhile, `OUTAGE_MEMORY` what
//! `memory.limit` is, in MiB, `OUTAGE_PARTITIONS` how many partitions there are. `make outage` sets them.

use std::process::Stdio;
use std::str::FromStr;
use std::time::{Duration, Instant};

use highwater::kafka::Producer;
use highwater::kafka::producer::Outgoing;

use super::MINUTE;
use super::support::{Process, TOPIC, World};
use super::telemetry::{Scrape, free_port};
use crate::shared::truth;

/// What the process may need beside `memory.limit`, in MiB: code, threads and plan (60 in a debug build), the last 10,000
/// ids of each partition (2 each), messages that the Kafka client fetched ahead (8, and twice as much for what it keeps of
/// each), the answer that it is taking apart (2, unpacked several times that), the block under way to ClickHouse.
const BESIDE: u64 = 160;
/// What of that may come on top while nothing can be written: ids, and what was fetched ahead.
const BESIDE_WAITING: u64 = 32;
/// The same until all is caught up: it fetches, decodes and writes at once.
const BESIDE_CATCHING_UP: u64 = 96;
/// What batches may hold beyond `memory.limit`, in MiB: the records of the poll that reached it, of the next one until its
/// partitions are paused, and what each record costs beside its bytes.
const LAST_POLLS: u64 = 4;
/// Messages that nobody can read, kept whole as dead letters, and the bytes of each: 78 MiB within moments.
const FAT: (u64, usize) = (10_000, 8 << 10);

fn setting<T: FromStr>(name: &str, default: T) -> T {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} makes no sense")))
}

#[test]
fn a_long_outage_is_sat_out_in_bounded_memory() {
    let outage = Duration::from_secs_f64(setting("OUTAGE_MINUTES", 1.0 / 6.0) * 60.0);
    let rate: u64 = setting("OUTAGE_RATE", 5_000);
    let limit: u64 = setting("OUTAGE_MEMORY", 16);
    // So many that `memory.limit` is reached long before `batch.bytes` and `batch.rows` hold each of them back.
    let partitions: u64 = setting("OUTAGE_PARTITIONS", 8);
    let mut world = World::new();
    let port = free_port();
    world.set("TELEMETRY__LISTEN", &format!("127.0.0.1:{port}"));
    world.set("MEMORY__LIMIT", &format!("{limit}MiB"));
    world.set("BATCH__BYTES", &format!("{}MiB", (limit / 2).min(64)));
    world.set("BATCH__INTERVAL", "1s");
    let warm_up = Duration::from_secs(5);
    let made = ["--partitions", &partitions.to_string(), "--events", "1000"];
    world.done(&[&["generate", "--type", "llm_call", "--topic", TOPIC], &made[..]].concat());
    world.done(&["migrate"]);
    let mut process = world.run("outage");
    world.wait_for(1_000, &mut process, MINUTE);

    // They go on for a while after ClickHouse is back: to catch up is to be faster than they are.
    let seconds = format!("{}s", (2 * warm_up + outage).as_secs());
    let rates = ["--rate", &rate.to_string(), "--duration", &seconds, "--seed", "2"];
    let shape = ["--type", "llm_call", "--topic", TOPIC, "--disorder", "20s", "--duplicates", "0.01", "--bad", "0.001"];
    let mut traffic = world.command(&[&["generate"], &shape[..], &rates[..]].concat());
    devstack::sys::end_with_this_thread(&mut traffic);
    let mut traffic = traffic.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(warm_up);
    let memory = |process: &Process, field| in_mebibytes(process.child.id(), field);
    let before = memory(&process, "VmRSS");
    println!("{} s of {rate} events a second, memory.limit {limit} MiB; RSS before {before} MiB", outage.as_secs());
    world.stack.clickhouse.kill().unwrap();
    let begun = Instant::now();
    send_fat(&world, partitions);
    let mut full = false;
    while !full || begun.elapsed() < outage {
        std::thread::sleep(outage / 20);
        let (rss, second) = (memory(&process, "VmRSS"), begun.elapsed().as_secs());
        let scrape = Scrape::of(port);
        let held = scrape.sum("highwater_held_bytes", TOPIC) / f64::from(1 << 20);
        println!(
            "  away for {second:>4} s: {held:.1} MiB held, RSS {rss} MiB, greatest {} MiB",
            memory(&process, "VmHWM")
        );
        assert!(held <= (limit + LAST_POLLS) as f64, "{held} MiB are held, and memory.limit is {limit} MiB");
        // So that what comes is held back and not merely slow to come.
        full = scrape.sum("highwater_partition_paused", TOPIC) as u64 == partitions && held > limit as f64 / 2.0;
        assert!(full || begun.elapsed() < outage + MINUTE, "never full: {held} MiB held: {}", process.said());
        assert!(process.child.try_wait().unwrap().is_none(), "it gave up: {}", process.said());
    }
    let waiting = memory(&process, "VmHWM");
    world.stack.clickhouse.restart().unwrap();
    let (back, done) = (Instant::now(), world.number("SELECT sum(events) FROM highwater.ledger"));
    assert!(traffic.wait().unwrap().success());
    let sent: u64 = truth::ends(&world.stack.kafka.bootstrap(), TOPIC).iter().sum();
    let mut said = Instant::now();
    loop {
        let now = world.number("SELECT sum(events) FROM highwater.ledger");
        if said.elapsed() > outage / 20 || now >= sent {
            said = Instant::now();
            let (rss, second) = (memory(&process, "VmRSS"), back.elapsed().as_secs_f64());
            println!("  back for {second:>6.1} s: RSS {rss} MiB, {} events behind", sent - now.min(sent));
        }
        if now >= sent {
            break;
        }
        assert!(back.elapsed() < 4 * outage + 3 * MINUTE, "{now} of {sent}; highwater says:\n{}", process.said());
        assert!(process.child.try_wait().unwrap().is_none(), "it gave up: {}", process.said());
        std::thread::sleep(Duration::from_millis(100));
    }
    let took = back.elapsed();
    let greatest = memory(&process, "VmHWM");
    let caught_up = (sent - done) as f64 / took.as_secs_f64();
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    let truth = world.check();
    println!(
        "{} events behind were written within {:.1} s, {caught_up:.0} a second; greatest RSS {waiting} MiB \
         while ClickHouse was away, {greatest} MiB in all, with memory.limit {limit} MiB; {} messages exact, audit clean",
        sent - done,
        took.as_secs_f64(),
        truth.messages
    );
    assert!(said.lines().count() < 60 + outage.as_secs() as usize / 20, "too much said about an outage:\n{said}");
    for (when, grown, beside) in [
        ("while ClickHouse was away", waiting - before, BESIDE_WAITING),
        ("until all was caught up", greatest - before, BESIDE_CATCHING_UP),
        ("in all", greatest, BESIDE),
    ] {
        assert!(
            grown <= limit + beside,
            "{grown} MiB {when} are more than memory.limit, {limit} MiB, and {beside} MiB"
        );
    }
}

/// Sends the fat messages, to all partitions alike, in bytes that can't be compressed.
fn send_fat(world: &World, partitions: u64) {
    let mut producer = Producer::new(&world.stack.kafka.bootstrap(), "fat", &Default::default()).unwrap();
    let (mut rng, mut payload) = (fastrand::Rng::with_seed(3), vec![0; FAT.1]);
    for number in 0..FAT.0 {
        rng.fill(&mut payload);
        producer
            .send(Outgoing {
                topic: TOPIC,
                partition: Some((number % partitions) as i32),
                key: None,
                payload: Some(&payload),
                timestamp_ms: Some(jiff::Timestamp::now().as_millisecond()),
            })
            .unwrap();
    }
    producer.flush(MINUTE).unwrap();
}

/// Of `/proc/{pid}/status`.
fn in_mebibytes(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
}
