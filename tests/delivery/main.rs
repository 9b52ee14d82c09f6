//! The whole way, with real servers and the real binary: topic → `highwater run` → tables, held against the truth.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod check;
mod completeness;
mod files;
mod guards;
mod loss;
mod outage;
mod redrive;
mod references;
mod registry;
mod rewind;
#[path = "../shared/mod.rs"]
mod shared;
mod support;
mod telemetry;

use std::io::Write as _;
use std::time::{Duration, Instant};

use highwater::kafka::Producer;
use highwater::kafka::producer::Outgoing;
use shared::truth;
use support::{TOPIC, World};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_stream_becomes_rows_and_minutes() {
    let world = World::new();
    let traffic =
        ["--events", "60000", "--minutes", "7", "--disorder", "20s", "--duplicates", "0.02", "--bad", "0.002"];
    world.generate(&traffic);
    world.done(&["migrate"]);
    let mut process = world.run("first");
    let sent = truth::of(&world.stack.kafka.bootstrap(), TOPIC).messages;
    world.wait_for(sent, &mut process, MINUTE);
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    let truth = world.check();
    assert!(truth.duplicates > 1_000 && truth.dead_letters > 100, "the traffic was too kind");

    // A second run finds nothing to do.
    let ledger = world.query("SELECT * FROM highwater.ledger ORDER BY ALL FORMAT TSV");
    let process = world.run("second");
    std::thread::sleep(Duration::from_secs(4));
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    assert_eq!(world.query("SELECT * FROM highwater.ledger ORDER BY ALL FORMAT TSV"), ledger);
    world.check();
}

/// `DELIVERY_EVENTS` sets how many.
#[test]
fn killed_ten_times_in_a_million_events() {
    let mut world = World::new().missed_soon();
    world.set("BATCH__ROWS", "20000");
    world.set("WORKERS", "2");
    let events = std::env::var("DELIVERY_EVENTS").unwrap_or_else(|_| "1000000".to_owned());
    let rate = "50000";
    world.generate(&["--events", "1000"]);
    world.done(&["migrate"]);
    let arguments = ["generate", "--type", "llm_call", "--topic", TOPIC, "--seed", "2", "--events", &events];
    let shape = ["--rate", rate, "--disorder", "20s", "--duplicates", "0.01", "--bad", "0.001", "--late", "0.01"];
    let mut traffic = world.command(&[&arguments[..], &shape[..]].concat());
    let mut traffic = traffic.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut rng = fastrand::Rng::with_seed(11);
    let mut progress = Vec::new();
    for kill in 0..10 {
        let process = world.run(&format!("kill-{kill}"));
        // From before the group has met until batches are in flight; every other one has written something, however slow
        // the machine is.
        std::thread::sleep(Duration::from_millis(rng.u64(500..4_500)));
        let done = || world.number("SELECT sum(events) FROM highwater.ledger");
        let (begun, before) = (Instant::now(), progress.last().copied().unwrap_or(0));
        while kill % 2 == 1 && done() <= before && begun.elapsed() < MINUTE {
            std::thread::sleep(Duration::from_millis(20));
        }
        progress.push(done());
        process.kill();
    }
    assert!(traffic.wait().unwrap().success());
    assert!(progress[9] > progress[0], "nothing was written between the kills: {progress:?}");
    let mut process = world.run("last");
    let sent = truth::of(&world.stack.kafka.bootstrap(), TOPIC).messages;
    assert!(*progress.last().unwrap() < sent, "all was done before the last kill: {progress:?} of {sent}");
    world.wait_for(sent, &mut process, 5 * MINUTE);
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    let truth = world.check();
    println!("{} messages exact after 10 kills; done before each: {progress:?}", truth.messages);
}

#[test]
fn what_cannot_be_read_costs_one_dead_letter_each() {
    let world = World::new();
    world.generate(&["--events", "1000"]);
    world.done(&["migrate"]);
    let mut producer = Producer::new(&world.stack.kafka.bootstrap(), "test", &Default::default()).unwrap();
    let now = jiff::Timestamp::now().as_millisecond();
    let mut send = |payload: &[u8]| {
        let record = Outgoing {
            topic: TOPIC,
            partition: Some(1),
            key: Some(b"k"),
            payload: Some(payload),
            timestamp_ms: Some(now),
        };
        producer.send(record).unwrap();
    };
    send(b"random bytes, no frame");
    send(&[&[0xC3, 0x01, 1, 2, 3, 4, 5, 6, 7, 8], &b"body"[..]].concat());
    send(&timeless());
    producer.flush(MINUTE).unwrap();
    let mut process = world.run("run");
    world.wait_for(1_003, &mut process, MINUTE);
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    let reasons = world.query("SELECT reason FROM highwater.dead_letters ORDER BY _offset FORMAT TSV");
    assert_eq!(reasons.lines().collect::<Vec<_>>(), ["not_framed", "unknown_schema", "missing_time"]);
    let kept = world.query("SELECT payload FROM highwater.dead_letters WHERE reason = 'not_framed' FORMAT TSV");
    assert_eq!(kept.trim(), "random bytes, no frame");
    assert_eq!(world.check().rows, 1_000);
}

/// An event whose time is 0; of its other fields each is the least that there is, which is a zero or two on the wire.
fn timeless() -> Vec<u8> {
    let schema = include_str!("../../schemas/llm_call.avsc");
    let event = highwater::event::EventType::parse("llm_call.avsc", schema).unwrap();
    let mut body = vec![72];
    body.extend_from_slice(b"6f1f7a5e-2d52-4b5b-9c58-0a7e5f3c1d2b");
    body.push(0);
    let library = apache_avro::Schema::parse_str(schema).unwrap();
    let reader = apache_avro::reader::datum::GenericDatumReader::builder(&library).build().unwrap();
    let is_whole = |body: &[u8]| {
        // The library takes the end of a message that was cut for nulls; it must not have read into this.
        let padded = [body, &[0; 64]].concat();
        let mut rest = padded.as_slice();
        reader.read_value(&mut rest).is_ok() && rest.len() == 64
    };
    while !is_whole(&body) {
        body.push(0);
    }
    let mut framed = Vec::new();
    highwater::event::wire::frame(event.fingerprint, &body, &mut framed);
    framed
}

#[test]
fn servers_that_are_away_are_waited_for() {
    let world = World::new().missed_soon();
    world.generate(&["--events", "20000", "--bad", "0.001"]);
    world.done(&["migrate"]);
    world.stack.clickhouse.kill().unwrap();
    world.stack.kafka.kill().unwrap();
    let mut process = world.run("run");
    process.wait_for_words("waiting for ClickHouse");
    std::thread::sleep(Duration::from_secs(3));
    assert!(process.child.try_wait().unwrap().is_none(), "it gave up: {}", process.said());
    world.stack.clickhouse.restart().unwrap();
    process.wait_for_words("waiting for the topic");
    world.stack.kafka.restart().unwrap();
    world.wait_for(20_000, &mut process, MINUTE);
    let waited = |what: &str| process.said().matches(&format!("waiting for {what}")).count();
    assert_eq!((waited("ClickHouse"), waited("the topic")), (1, 1), "said once each: {}", process.said());

    // Both go away in mid-work.
    world.generate(&["--events", "20000", "--seed", "2", "--rate", "10000"]);
    world.stack.clickhouse.kill().unwrap();
    world.generate(&["--events", "20000", "--seed", "3"]);
    std::thread::sleep(Duration::from_secs(5));
    world.stack.kafka.kill().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    world.stack.kafka.restart().unwrap();
    world.stack.clickhouse.restart().unwrap();
    world.wait_for(60_000, &mut process, MINUTE);

    // Told to stop while nobody is there to write to, it ends all the same.
    world.stack.clickhouse.kill().unwrap();
    world.generate(&["--events", "1000", "--seed", "4"]);
    std::thread::sleep(Duration::from_secs(1));
    world.stack.kafka.kill().unwrap();
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    world.stack.kafka.restart().unwrap();
    world.stack.clickhouse.restart().unwrap();
    let mut process = world.run("after");
    world.wait_for(61_000, &mut process, MINUTE);
    assert!(process.terminate().0.success());
    assert!(said.lines().count() < 60, "too much said about an outage:\n{said}");
    world.check();
}

#[test]
fn a_file_replayed_twice_counts_once() {
    let world = World::new();
    let file = world.folder.path().join("requests.csv");
    let mut text = std::fs::File::create(&file).unwrap();
    writeln!(text, "TIMESTAMP,ContextTokens,GeneratedTokens").unwrap();
    let mut rng = fastrand::Rng::with_seed(5);
    let (mut input, mut output) = (0, 0);
    for second in 0..3_000 {
        let (context, generated) = (rng.u64(1..8_000), rng.u64(1..1_000));
        (input, output) = (input + context, output + generated);
        let (minute, second) = (second / 60, second % 60);
        writeln!(text, "2023-11-16 18:{minute:02}:{second:02}.{:07},{context},{generated}", rng.u32(0..9_999_999))
            .unwrap();
    }
    drop(text);
    let mut arguments =
        vec!["replay", file.to_str().unwrap(), "--type", "llm_call", "--topic", TOPIC, "--partitions", "4"];
    for map in ["TIMESTAMP=occurred_at", "ContextTokens=input_tokens", "GeneratedTokens=output_tokens"] {
        arguments.extend(["--map", map]);
    }
    for set in [
        "app=chat",
        "environment=production",
        "provider=openai",
        "model=gpt-4",
        "operation=chat",
        "endpoint=/chat",
        "feature=chat",
        "status=ok",
        "cache_read_tokens=0",
        "cache_write_tokens=0",
        "streamed=true",
        "retries=0",
    ] {
        arguments.extend(["--set", set]);
    }
    world.done(&arguments);
    world.done(&["migrate"]);
    let mut process = world.run("run");
    world.wait_for(3_000, &mut process, MINUTE);
    let sums =
        || world.query("SELECT count(), sum(input_tokens), sum(output_tokens) FROM highwater.llm_call FORMAT TSV");
    assert_eq!(sums().trim(), format!("3000\t{input}\t{output}"));
    world.done(&arguments);
    world.wait_for(6_000, &mut process, MINUTE);
    assert_eq!(sums().trim(), format!("3000\t{input}\t{output}"));
    assert_eq!(world.number("SELECT sum(duplicates) FROM highwater.ledger"), 3_000);
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    world.check();
}
