//! What no retry mends: offsets lost, reset or made anew, partitions added, a table that refuses.

use std::time::{Duration, Instant};

use highwater::kafka::identity::{IdentityError, topic_identity};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, error::KafkaResult};

use crate::shared::truth;
use crate::support::{Process, TOPIC, World};

const MINUTE: Duration = Duration::from_secs(60);

fn client(world: &World) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", world.stack.kafka.bootstrap());
    config
}

fn admin(world: &World) -> AdminClient<DefaultClientContext> {
    client(world).create().unwrap()
}

fn on_all<T, E: std::fmt::Debug>(answers: KafkaResult<Vec<Result<T, E>>>) {
    answers.unwrap().into_iter().for_each(|answer| drop(answer.unwrap()));
}

fn ended_well(process: Process) -> String {
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    said
}

#[test]
fn what_retention_took_unread_is_recorded_as_lost_and_the_rest_counted() {
    let world = World::new();
    world.generate(&["--events", "4000"]);
    world.done(&["migrate"]);
    let mut process = world.run("before");
    world.wait_for(4_000, &mut process, MINUTE);
    ended_well(process);
    world.generate(&["--events", "4000", "--seed", "2"]);
    let end = world.number("SELECT max(to) FROM highwater.ledger WHERE source = '1/llm-calls/2'");
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(TOPIC, 2, Offset::Offset(end as i64 + 300)).unwrap();
    futures::executor::block_on(admin(&world).delete_records(&before, &AdminOptions::new())).unwrap();

    let mut process = world.run("after");
    world.wait_for(7_700, &mut process, MINUTE);
    let said = ended_well(process);
    let words = format!("offsets {end}..{} were deleted from the log before they were read", end + 300);
    assert_eq!(said.matches(&words).count(), 1, "{said}");
    let lost = world.query("SELECT source, from, to, events FROM highwater.ledger WHERE kind = 'lost' FORMAT TSV");
    assert_eq!(lost.trim(), format!("1/llm-calls/2\t{end}\t{}\t0", end + 300));
    assert_eq!(
        world.number("SELECT count() + (SELECT sum(duplicates) FROM highwater.ledger) FROM highwater.llm_call"),
        7_700
    );
    let audit = world.done(&["audit"]);
    assert!(audit.contains("clean") && audit.contains("300 offsets were lost"), "{audit}");
}

#[test]
fn told_to_stop_at_a_loss_it_stops_that_partition_and_no_other() {
    let mut world = World::new();
    world.set("KAFKA__ON_LOSS", "stop");
    world.generate(&["--events", "4000"]);
    world.done(&["migrate"]);
    let mut process = world.run("before");
    world.wait_for(4_000, &mut process, MINUTE);
    ended_well(process);
    world.generate(&["--events", "4000", "--seed", "2"]);
    let ends = truth::ends(&world.stack.kafka.bootstrap(), TOPIC);
    let rest: u64 = ends.iter().enumerate().filter(|(number, _)| *number != 2).map(|(_, end)| end).sum();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(TOPIC, 2, Offset::Offset(ends[2] as i64 - 1)).unwrap();
    futures::executor::block_on(admin(&world).delete_records(&before, &AdminOptions::new())).unwrap();
    let of_rest = "SELECT sum(events) FROM highwater.ledger WHERE source != '1/llm-calls/2'";

    let mut process = world.run("stopped");
    process.wait_for_words("kafka.on_loss=record");
    let begun = Instant::now();
    while world.number(of_rest) < rest {
        assert!(begun.elapsed() < MINUTE, "{}", process.said());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(world.number("SELECT countIf(kind = 'lost') FROM highwater.ledger"), 0);
    ended_well(process);
    // As the message says.
    world.set("KAFKA__ON_LOSS", "record");
    let mut process = world.run("recorded");
    process.wait_for_words("were deleted from the log");
    world.wait_for(
        rest + world.number("SELECT sum(events) FROM highwater.ledger WHERE source = '1/llm-calls/2'"),
        &mut process,
        MINUTE,
    );
    ended_well(process);
}

#[test]
fn offsets_that_were_reset_or_set_forward_change_nothing() {
    let world = World::new();
    world.generate(&["--events", "4000"]);
    world.done(&["migrate"]);
    let mut process = world.run("first");
    world.wait_for(4_000, &mut process, MINUTE);
    ended_well(process);
    let ends = truth::ends(&world.stack.kafka.bootstrap(), TOPIC);
    let set = |offset: &dyn Fn(u64) -> i64| {
        let consumer: BaseConsumer = client(&world).set("group.id", "highwater").create().unwrap();
        let mut offsets = TopicPartitionList::new();
        for (number, &end) in ends.iter().enumerate() {
            offsets.add_partition_offset(TOPIC, number as i32, Offset::Offset(offset(end))).unwrap();
        }
        consumer.commit(&offsets, CommitMode::Sync).unwrap();
    };
    set(&|_| 0);
    world.generate(&["--events", "2000", "--seed", "2"]);
    let mut process = world.run("reset");
    world.wait_for(6_000, &mut process, MINUTE);
    let said = ended_well(process);
    assert!(said.contains("starting at the ledger's end, which is ahead of the committed offset 0"), "{said}");
    on_all(futures::executor::block_on(admin(&world).delete_groups(&["highwater"], &AdminOptions::new())));
    let mut process = world.run("expired");
    process.wait_for_words("starting at the ledger's end, as the group has no committed offset");
    ended_well(process);
    world.generate(&["--events", "2000", "--seed", "3"]);
    set(&|end| end as i64 + 900);
    let mut process = world.run("forward");
    world.wait_for(8_000, &mut process, MINUTE);
    let said = ended_well(process);
    assert!(said.contains("the committed offset is ahead of the ledger; the ledger decides"), "{said}");
    world.check();
}

#[test]
fn partitions_that_are_added_are_read_from_their_beginning() {
    let mut world = World::new();
    world.set("KAFKA__PROPERTIES__TOPIC__METADATA__REFRESH__INTERVAL__MS", "1000");
    world.generate(&["--events", "4000"]);
    world.done(&["migrate"]);
    let mut process = world.run("run");
    world.wait_for(4_000, &mut process, MINUTE);
    let more = [NewPartitions::new(TOPIC, 7)];
    on_all(futures::executor::block_on(admin(&world).create_partitions(&more, &AdminOptions::new())));
    world.done(&["generate", "--type", "llm_call", "--topic", TOPIC, "--events", "7000", "--seed", "2"]);
    world.wait_for(11_000, &mut process, MINUTE);
    ended_well(process);
    assert_eq!(world.number("SELECT uniqExact(source) FROM highwater.ledger WHERE events > 0"), 7);
    world.check();
}

#[test]
fn a_topic_made_anew_is_stopped_at_and_counted_under_a_new_epoch_by_an_operators_word() {
    let world = World::new();
    world.generate(&["--events", "4000"]);
    world.done(&["migrate"]);
    let mut process = world.run("old");
    world.wait_for(4_000, &mut process, MINUTE);
    let admin = admin(&world);
    on_all(futures::executor::block_on(admin.delete_topics(&[TOPIC], &AdminOptions::new())));
    let begun = Instant::now();
    while !matches!(topic_identity(admin.inner(), TOPIC, MINUTE), Err(IdentityError::NotFound(_))) {
        assert!(begun.elapsed() < MINUTE, "the topic is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
    world.generate(&["--events", "9000", "--seed", "2"]);
    process.wait_for_words("is another one than when it was claimed");
    assert_eq!(world.number("SELECT count() FROM highwater.llm_call WHERE _offset >= 4000"), 0);
    let written = world.number("SELECT sum(events) FROM highwater.ledger");
    let said = ended_well(process);
    assert_eq!(written, 4_000, "{said}");

    // A restart is refused with the statement that goes on.
    let output = world.command(&["run"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let fix =
        said.lines().find(|line| line.trim_start().starts_with("INSERT INTO")).unwrap_or_else(|| panic!("{said}"));
    world.query(fix.trim());
    let mut process = world.run("anew");
    world.wait_for(13_000, &mut process, MINUTE);
    ended_well(process);
    assert_eq!(world.number("SELECT sum(events) FROM highwater.ledger WHERE source LIKE '2/%'"), 9_000);
    assert!(world.done(&["audit", "--without-kafka"]).contains("clean"));
}

#[test]
fn another_group_on_the_same_database_writes_nothing_until_an_operator_hands_the_topic_over() {
    let mut world = World::new();
    world.generate(&["--events", "4000"]);
    world.done(&["migrate"]);
    let mut process = world.run("first");
    world.wait_for(4_000, &mut process, MINUTE);
    ended_well(process);
    world.generate(&["--events", "2000", "--seed", "2"]);
    let refused = |world: &World, found: &str, asked: &str| {
        let rows = "SELECT name, total_rows FROM system.tables WHERE database = 'highwater' AND engine LIKE '%MergeTree' \
                    ORDER BY name FORMAT TSV";
        let (before, sources) = (world.query(rows), world.query("SELECT * FROM highwater.sources FORMAT TSV"));
        let output = world.command(&["run"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let words = format!("by the consumer group {found:?}, and this is the group {asked:?}");
        assert!(said.contains(&words), "{said}");
        assert_eq!(world.query(rows), before);
        assert_eq!(world.query("SELECT * FROM highwater.sources FORMAT TSV"), sources);
        said
    };
    world.set("KAFKA__GROUP", "other");
    let said = refused(&world, "highwater", "other");
    let fix =
        said.lines().find(|line| line.trim_start().starts_with("ALTER TABLE")).unwrap_or_else(|| panic!("{said}"));

    // As the message says: it goes on at the ledger's end, and whoever had the topic is refused in turn.
    world.query(fix.trim());
    let mut process = world.run("other");
    world.wait_for(6_000, &mut process, MINUTE);
    ended_well(process);
    world.check();
    world.set("KAFKA__GROUP", "highwater");
    refused(&world, "other", "highwater");
}

#[test]
fn a_table_that_refuses_for_good_stops_partitions_loudly_until_it_is_mended() {
    let world = World::new();
    world.generate(&["--events", "4000"]);
    world.done(&["migrate"]);
    let mut process = world.run("run");
    world.wait_for(4_000, &mut process, MINUTE);
    world.query("ALTER TABLE highwater.llm_call RENAME COLUMN retries TO tries");
    world.generate(&["--events", "4000", "--seed", "2"]);
    process.wait_for_words("mend the cause, then restart");
    ended_well(process);
    world.query("ALTER TABLE highwater.llm_call RENAME COLUMN tries TO retries");
    let mut process = world.run("mended");
    world.wait_for(8_000, &mut process, MINUTE);
    ended_well(process);
    world.check();
}

#[test]
fn a_table_that_refuses_the_rows_of_one_partition_stops_that_one_and_no_other() {
    const REFUSED: &str = "1/llm-calls/2";
    let world = World::new();
    world.generate(&["--events", "4000"]);
    world.done(&["migrate"]);
    let mut process = world.run("run");
    world.wait_for(4_000, &mut process, MINUTE);
    let end_of_it = || world.number(&format!("SELECT max(to) FROM highwater.ledger WHERE source = '{REFUSED}'"));
    let end = end_of_it();
    world.query(&format!("ALTER TABLE highwater.llm_call ADD CONSTRAINT by_hand CHECK _source != '{REFUSED}'"));
    // The others go on, at once and later.
    let rest_is_written = |process: &Process| {
        let ends = truth::ends(&world.stack.kafka.bootstrap(), TOPIC);
        let rest: u64 = ends.iter().enumerate().filter(|(number, _)| *number != 2).map(|(_, end)| end).sum();
        let events = format!("SELECT sum(events) FROM highwater.ledger WHERE source != '{REFUSED}'");
        let begun = Instant::now();
        while world.number(&events) < rest {
            assert!(begun.elapsed() < MINUTE, "{}", process.said());
            std::thread::sleep(Duration::from_millis(100));
        }
        let found = format!(
            "SELECT count() + (SELECT sum(duplicates) FROM highwater.ledger WHERE source != '{REFUSED}'), \
             uniqExact(_source, _offset) = count() FROM highwater.llm_call WHERE _source != '{REFUSED}' FORMAT TSV"
        );
        assert_eq!(world.query(&found).trim(), format!("{rest}\t1"));
    };
    world.generate(&["--events", "4000", "--seed", "2"]);
    process.wait_for_words(&format!("partition stopped: ClickHouse refuses the insert {REFUSED}/llm_call/"));
    rest_is_written(&process);
    world.generate(&["--events", "2000", "--seed", "3"]);
    rest_is_written(&process);
    assert_eq!(end_of_it(), end);
    let said = ended_well(process);
    let stopped: Vec<&str> = said.lines().filter(|line| line.contains("partition stopped")).collect();
    assert!(matches!(stopped[..], [one] if one.contains(" ERROR ") && one.contains("partition=2")), "{stopped:?}");
    assert!(stopped[0].contains("by_hand") && stopped[0].contains("mend the cause, then restart"), "{stopped:?}");

    world.query("ALTER TABLE highwater.llm_call DROP CONSTRAINT by_hand");
    let mut process = world.run("mended");
    world.wait_for(10_000, &mut process, MINUTE);
    ended_well(process);
    world.check();
}
