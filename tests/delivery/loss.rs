//! What retention takes before it was read: from a replica at work, whose position is gone from the log, and where a replica
//! ends or sleeps beside the row of the ledger that says so.

use std::time::{Duration, Instant};

use highwater::failpoint::{Point, VARIABLE};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::MINUTE;
use crate::shared::truth;
use crate::support::{Process, TOPIC, World};
use crate::telemetry::{Scrape, free_port};

/// What is written and what is lost, all together.
const ACCOUNTED: &str = "SELECT sum(events) + sumIf(to - from, kind = 'lost') FROM highwater.ledger";
/// A replica that could not write for so long that retention took, of one partition, far more than it had read.
struct Overrun {
    world: World,
    process: Process,
    port: u16,
    /// The partition: which one is read the farthest is the broker's choice.
    number: usize,
    /// One past the last offset of each partition.
    ends: Vec<u64>,
    /// The offset that it wants to read next.
    position: u64,
    /// Where the log begins now.
    start: u64,
}

impl Overrun {
    fn new(policy: &str) -> Overrun {
        let mut world = World::new();
        let port = free_port();
        world.set("TELEMETRY__LISTEN", &format!("127.0.0.1:{port}"));
        world.set("KAFKA__ON_LOSS", policy);
        // It is full soon, and hardly anything is fetched ahead.
        world.set("MEMORY__LIMIT", "1MiB");
        world.set("BATCH__BYTES", "512KiB");
        // Batches are small then, and nobody may forget one before who wrote it is missed.
        world.set("CLICKHOUSE__TOKEN_WINDOW", "400000");
        world.set("KAFKA__PROPERTIES__QUEUED__MAX__MESSAGES__KBYTES", "64");
        world.set("KAFKA__PROPERTIES__MAX__PARTITION__FETCH__BYTES", "65536");
        world.generate(&["--events", "4000"]);
        world.done(&["migrate"]);
        let mut process = world.run(policy);
        world.wait_for(4_000, &mut process, MINUTE);
        world.stack.clickhouse.kill().unwrap();
        world.generate(&["--events", "40000", "--seed", "2"]);
        until("never full", &mut process, || Scrape::of(port).sum("highwater_partition_paused", TOPIC) == 4.0);
        let ends = truth::ends(&world.stack.kafka.bootstrap(), TOPIC);
        let scrape = Scrape::of(port);
        let read = |number: &usize| scrape.sum("highwater_position_offset", &format!("partition=\"{number}\"")) as u64;
        let number = (0..ends.len()).max_by_key(read).unwrap();
        let (position, start) = (read(&number), ends[number] - 500);
        assert!(
            (1_001..start - 1_000).contains(&position),
            "it has read too little or too much: {position} of {start}"
        );
        delete(&world, &[(number as i32, start)]);
        world.stack.clickhouse.restart().unwrap();
        Overrun { world, process, port, number, ends, position, start }
    }

    fn others(&self) -> u64 {
        self.ends.iter().sum::<u64>() - self.ends[self.number]
    }

    /// The partition's name in the ledger.
    fn source(&self) -> String {
        format!("1/llm-calls/{}", self.number)
    }
}

/// Deletes what lies before these offsets, as retention does.
fn delete(world: &World, starts: &[(i32, u64)]) {
    let mut before = TopicPartitionList::new();
    for &(partition, start) in starts {
        before.add_partition_offset(TOPIC, partition, Offset::Offset(start as i64)).unwrap();
    }
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", world.stack.kafka.bootstrap()).create().unwrap();
    futures::executor::block_on(admin.delete_records(&before, &AdminOptions::new())).unwrap();
}

/// The rows of the ledger that say what was lost.
fn lost_rows(world: &World) -> String {
    let rows = world.query("SELECT source, from, to, events FROM highwater.ledger WHERE kind = 'lost' FORMAT TSV");
    rows.trim_end().to_owned()
}

fn until(otherwise: &str, process: &mut Process, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < MINUTE, "{otherwise}: {}", process.said());
        assert!(process.child.try_wait().unwrap().is_none(), "it ended: {}", process.said());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_retention_takes_from_a_running_replica_is_recorded_told_and_gone_on_behind() {
    let overrun = Overrun::new("record");
    let source = overrun.source();
    let Overrun { world, mut process, port, ends, position, start, .. } = overrun;
    let all: u64 = ends.iter().sum();
    until("never all", &mut process, || world.number(ACCOUNTED) == all);
    // What it had read is written, and nothing of the rest is said to be.
    assert_eq!(lost_rows(&world), format!("{source}\t{position}\t{start}\t0"), "{}", process.said());
    let kept = format!(
        "SELECT countIf(_offset < {position}), count() FROM highwater.llm_call WHERE _source = '{source}' FORMAT TSV"
    );
    assert_eq!(world.query(&kept).trim(), format!("{position}\t{}", position + 500));
    let lost = start - position;
    until("never told", &mut process, || Scrape::of(port).sum("highwater_lost_offsets_total", TOPIC) == lost as f64);
    assert_eq!(Scrape::of(port).sum("highwater_partition_stopped", "reason=\"none\""), 0.0);

    // It goes on, in all partitions.
    world.generate(&["--events", "4000", "--seed", "3"]);
    until("never more", &mut process, || world.number(ACCOUNTED) == all + 4_000);
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    let words = format!("offsets {position}..{start} were deleted from the log before they were read");
    let told: Vec<&str> = said.lines().filter(|line| line.contains("were deleted from the log")).collect();
    assert!(matches!(told[..], [one] if one.contains(&words) && one.contains(" ERROR ")), "{said}");
    let audit = world.done(&["audit"]);
    assert!(audit.contains("clean") && audit.contains(&format!("{} offsets were lost", thousands(lost))), "{audit}");
}

#[test]
fn told_to_stop_at_a_loss_a_running_replica_stops_that_partition_and_no_other() {
    let mut overrun = Overrun::new("stop");
    let (source, others) = (overrun.source(), overrun.others());
    let written = format!("SELECT sum(events) FROM highwater.ledger WHERE source != '{source}'");
    overrun.process.wait_for_words("kafka.on_loss=record");
    let port = overrun.port;
    let world = &overrun.world;
    until("the others stopped", &mut overrun.process, || world.number(&written) == others);
    until("never told", &mut overrun.process, || {
        let scrape = Scrape::of(port);
        scrape.sum("highwater_partition_stopped", TOPIC) == 1.0
            && scrape.sum("highwater_partition_stopped", "reason=\"log_starts_later\"") == 1.0
    });
    assert_eq!(lost_rows(world), "");
    let end = format!("SELECT max(to) FROM highwater.ledger WHERE source = '{source}'");
    assert_eq!(world.number(&end), overrun.position, "what it had read is written");

    let Overrun { mut world, process, ends, position, start, .. } = overrun;
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    assert_eq!(said.matches("partition stopped").count(), 1, "{said}");
    // As the message says.
    world.set("KAFKA__ON_LOSS", "record");
    let mut process = world.run("recorded");
    let all: u64 = ends.iter().sum();
    until("never all", &mut process, || world.number(ACCOUNTED) == all);
    assert_eq!(lost_rows(&world), format!("{source}\t{position}\t{start}\t0"));
    assert!(process.terminate().0.success());
    assert!(world.done(&["audit"]).contains("clean"));
}

/// Has replicas end before and after a row of the ledger that stands for no event, and one sleep before it until another has
/// done all: then it wakes, and goes on alone with `more` events.
fn attack(world: &World, [before, after]: [Point; 2], all: u64, more: u64) {
    let killed = |point: Point| {
        let output = world.command(&["run"]).env(VARIABLE, format!("{}:1:end", point.name())).output().unwrap();
        assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    killed(before);
    let frozen = format!("{}:1:freeze", before.name());
    let mut sleeper = world.run_with(before.name(), &[(VARIABLE, &frozen)]);
    let stat = format!("/proc/{}/stat", sleeper.child.id());
    until("never asleep", &mut sleeper, || std::fs::read_to_string(&stat).unwrap().contains(") T "));
    killed(after);
    let mut other = world.run("other");
    until("never all", &mut other, || world.number(ACCOUNTED) == all);
    devstack::sys::send(sleeper.child.id(), devstack::sys::Signal::Resume).unwrap();
    let (status, said) = other.terminate();
    assert!(status.success(), "{status}: {said}");
    world.generate(&["--events", &more.to_string(), "--seed", &all.to_string()]);
    until("never more", &mut sleeper, || world.number(ACCOUNTED) == all + more);
    let (status, said) = sleeper.terminate();
    assert!(status.success(), "{status}: {said}");
}

#[test]
fn a_row_that_stands_for_no_event_is_there_once_whoever_ends_or_sleeps_beside_it() {
    let world = World::new().missed_soon();
    world.generate(&["--events", "4000"]);
    world.done(&["migrate"]);
    attack(&world, [Point::StartRow, Point::StartRowSent], 4_000, 1_000);
    let starts =
        "SELECT source, count() FROM highwater.ledger WHERE kind = 'start' GROUP BY source ORDER BY source FORMAT TSV";
    let each: Vec<String> = (0..4).map(|partition| format!("1/llm-calls/{partition}\t1")).collect();
    assert_eq!(world.query(starts).lines().collect::<Vec<_>>(), each);
    world.check();

    let from = truth::ends(&world.stack.kafka.bootstrap(), TOPIC);
    world.generate(&["--events", "4000", "--seed", "2"]);
    delete(&world, &[(1, from[1] + 300), (2, from[2] + 200)]);
    attack(&world, [Point::LostRow, Point::LostRowSent], 9_000, 1_000);
    let lost: Vec<String> = [(1, 300), (2, 200)]
        .map(|(number, count)| format!("1/llm-calls/{number}\t{}\t{}\t0", from[number], from[number] + count))
        .into();
    let mut rows: Vec<String> = lost_rows(&world).lines().map(str::to_owned).collect();
    rows.sort();
    assert_eq!(rows, lost);
    let audit = world.done(&["audit"]);
    assert!(audit.contains("clean") && audit.contains("500 offsets were lost"), "{audit}");
}

/// As reports write numbers.
fn thousands(number: u64) -> String {
    if number < 1_000 { number.to_string() } else { format!("{},{:03}", number / 1_000, number % 1_000) }
}
