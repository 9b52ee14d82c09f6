//! Reading again on purpose: what was written is taken back, and comes out the same.

use std::time::{Duration, Instant};

use highwater::failpoint::VARIABLE;

use crate::support::{TOPIC, World};

const MINUTE: Duration = Duration::from_secs(60);
/// Each minute and series, whole, and the rows it is made of.
const NUMBERS: [&str; 2] = [
    "SELECT * FROM highwater.llm_call_1m ORDER BY ALL FORMAT TSV",
    "SELECT * EXCEPT (_source, _offset), splitByChar('/', _source)[3], _offset FROM highwater.llm_call ORDER BY ALL FORMAT TSV",
];

fn numbers(world: &World) -> [String; 2] {
    NUMBERS.map(|sql| world.query(sql))
}

fn run_until(world: &World, name: &str, messages: u64) {
    let mut process = world.run(name);
    world.wait_for(messages, &mut process, MINUTE);
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
}

#[test]
fn what_is_taken_back_is_counted_again_and_comes_out_the_same() {
    let mut world = World::new();
    world.set("BATCH__ROWS", "1000");
    world.generate(&[
        "--events",
        "30000",
        "--minutes",
        "9",
        "--disorder",
        "20s",
        "--duplicates",
        "0.02",
        "--bad",
        "0.002",
    ]);
    world.done(&["migrate"]);
    let mut process = world.run("first");
    let sent = crate::shared::truth::of(&world.stack.kafka.bootstrap(), TOPIC).messages;
    world.wait_for(sent, &mut process, MINUTE);
    let before = numbers(&world);

    // Without --yes nothing changes; with it, not while somebody runs.
    let half =
        world.number("SELECT intDiv(max(to), 2) FROM highwater.ledger WHERE source = '1/llm-calls/1'").to_string();
    let one = ["rewind", TOPIC, "--partition", "1", "--to", half.as_str()];
    let explained = world.done(&one);
    assert!(explained.contains("minutes to compute anew") && explained.contains("nothing was changed"), "{explained}");
    let refused = world.command(&[&one[..], &["--yes"]].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("stop all replicas first"), "{said}");
    assert_eq!(numbers(&world), before);
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");

    // One partition by an offset: what stays is exact on its own. An earlier attempt left tokens of first rows and no rows.
    let spent = [
        ("sources", "(topic, epoch, `group`)", "claim/llm-calls/2", "('llm-calls', 2, '')", "epoch = 2"),
        (
            "ledger",
            "(source, kind)",
            "3/llm-calls/0/ledger/new",
            "('3/llm-calls/0', 'start')",
            "source = '3/llm-calls/0'",
        ),
    ];
    for (table, columns, token, values, condition) in spent {
        let row = format!(
            "INSERT INTO highwater.{table} {columns} SETTINGS async_insert = 0, insert_deduplication_token = '{token}' \
             VALUES {values}"
        );
        world.query(&row);
        world.query(&format!("ALTER TABLE highwater.{table} DELETE WHERE {condition} SETTINGS mutations_sync = 1"));
        world.query(&row);
        assert_eq!(
            world.number(&format!("SELECT count() FROM highwater.{table} WHERE {condition}")),
            0,
            "{token} stands"
        );
    }
    let closed = "SELECT count() FROM highwater.sources WHERE epoch = 2 AND `group` = ''";
    world.done(&[&one[..], &["--yes"]].concat());
    assert_eq!(world.number(closed), 1, "the epoch in which nobody writes");
    let begun = "SELECT uniqExact(source) FROM highwater.ledger WHERE startsWith(source, '3/') AND kind = 'start'";
    assert_eq!(
        world.number(begun),
        world.number("SELECT uniqExact(source) FROM highwater.ledger WHERE startsWith(source, '1/')")
    );
    let audit = world.done(&["audit", "--without-kafka"]);
    assert!(audit.contains("clean"), "{audit}");
    assert_eq!(
        world.number("SELECT toUnixTimestamp(through) FROM highwater.completeness"),
        0,
        "complete, and taken back"
    );
    let taken = sent - world.number("SELECT sum(events) FROM highwater.ledger");
    assert!(
        taken > 1_000 && world.number("SELECT count() FROM highwater.llm_call") < sent - taken,
        "{taken} taken back"
    );
    run_until(&world, "second", sent);
    assert_eq!(numbers(&world), before);
    world.check();

    // All partitions, twice: by a time in the middle, then further back than any epoch but the first reaches.
    let middle = world.query("SELECT formatDateTime(toDateTime(avg(toUnixTimestamp(minute)), 'UTC'), '%Y-%m-%dT%H:%i:%SZ') FROM highwater.llm_call_1m");
    for (to, name) in [(middle.trim(), "third"), ("start", "fourth")] {
        world.done(&["rewind", TOPIC, "--to", to, "--yes"]);
        run_until(&world, name, sent);
        assert_eq!(numbers(&world), before, "--to {to}");
        world.check();
    }
    let nothing = world.done(&["rewind", TOPIC, "--partition", "1", "--to", "99999999", "--yes"]);
    assert!(nothing.contains("nothing to take back"), "{nothing}");
}

#[test]
fn what_can_not_be_taken_back_is_refused_with_the_reason() {
    let world = World::new();
    world.generate(&["--events", "2000"]);
    let refused = |arguments: &[&str], code: i32| {
        let output = world.command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    };
    assert!(refused(&["rewind", TOPIC, "--to", "start"], 1).contains("highwater migrate"));
    world.done(&["migrate"]);
    assert!(refused(&["rewind", TOPIC, "--to", "start"], 1).contains("knows no topic"));
    run_until(&world, "run", 2_000);
    assert!(refused(&["rewind", TOPIC, "--to", "5"], 2).contains("--partition"));
    assert!(refused(&["rewind", TOPIC, "--to", "noon"], 2).contains("neither"));
    assert!(refused(&["rewind", TOPIC, "--to", "5", "--partition", "9"], 2).contains("has no partition 9"));
    assert!(refused(&["rewind", "nobody", "--to", "start"], 1).contains("nobody"));
    // Rows that the minutes would be computed from are gone.
    world.query("ALTER TABLE highwater.llm_call DELETE WHERE _source = '1/llm-calls/0' AND _offset % 2 = 0 SETTINGS mutations_sync = 2");
    let said = refused(&["rewind", TOPIC, "--partition", "1", "--to", "0", "--yes"], 1);
    assert!(said.contains("numbers would be lost"), "{said}");
}

/// Has a replica end at a place in the protocol.
fn killed(world: &World, place: &str) {
    let output = world.command(&["run"]).env(VARIABLE, place).output().unwrap();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Rewinds one partition to its beginning, as soon as the group has missed who was killed; what it said, and how it ended.
fn rewind(world: &World, partition: &str) -> (bool, String) {
    let begun = Instant::now();
    loop {
        let arguments = ["rewind", TOPIC, "--partition", partition, "--to", "0", "--yes"];
        let output = world.command(&arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !said.contains("stop all replicas first") {
            return (output.status.success(), said);
        }
        assert!(begun.elapsed() < MINUTE, "{said}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Partitions with rows that the ledger does not know.
fn half_written(world: &World) -> Vec<String> {
    let sql = "SELECT DISTINCT splitByChar('/', toString(_source))[3] AS partition FROM highwater.llm_call LEFT JOIN (SELECT \
               source, max(to) AS end FROM highwater.ledger GROUP BY source) AS ends ON toString(_source) = ends.source WHERE \
               _offset >= end ORDER BY partition";
    world.query(sql).lines().map(str::to_owned).collect()
}

#[test]
fn what_was_left_half_written_goes_too_in_all_partitions() {
    let mut world = World::new().missed_soon();
    world.set("BATCH__ROWS", "500");
    // Of what has nothing in the ledger yet, nothing would be taken back.
    world.generate(&["--events", "4000", "--minutes", "3"]);
    world.done(&["migrate"]);
    run_until(&world, "first", 4_000);
    world.generate(&["--events", "16000", "--minutes", "3", "--seed", "3"]);
    killed(&world, "between_blocks:11:end");
    let halves = half_written(&world);
    assert!(halves.len() > 1, "{halves:?}");
    // The next epoch of all partitions begins at the ledger's end, so nothing may be there beyond it.
    let (done, said) = rewind(&world, &halves[0]);
    assert!(done, "{said}");
    assert_eq!(half_written(&world), [""; 0]);
    run_until(&world, "second", 20_000);
    world.check();

    // Minutes without their rows: nobody can tell which these are. A replica writes the rows first.
    world.generate(&["--events", "4000", "--seed", "2"]);
    killed(&world, "blocks_seen:1:end");
    let halves = half_written(&world);
    let take = "ALTER TABLE highwater.llm_call DELETE WHERE (_source, _offset) NOT IN (SELECT _source, _offset FROM \
         highwater.llm_call AS rows, highwater.ledger AS of WHERE toString(rows._source) = of.source AND rows._offset >= \
         of.from AND rows._offset < of.to) SETTINGS mutations_sync = 2";
    world.query(take);
    assert!(!halves.is_empty() && half_written(&world).is_empty());
    let before = numbers(&world);
    for partition in ["0", "1", "2", "3"] {
        let (done, said) = rewind(&world, partition);
        assert!(!done && said.contains("without the rows") && said.contains("start a replica"), "{said}");
    }
    assert_eq!(numbers(&world), before);
    run_until(&world, "third", 24_000);
    let (done, said) = rewind(&world, &halves[0]);
    assert!(done, "{said}");
    run_until(&world, "fourth", 24_000);
    world.check();
}

/// Rows of the ledger and of events, by epoch.
fn by_epoch(world: &World, epochs: &str) -> u64 {
    let rows = |table: &str, column: &str| {
        world.number(&format!(
            "SELECT count() FROM highwater.{table} WHERE splitByChar('/', toString({column}))[1] IN ({epochs})"
        ))
    };
    rows("ledger", "source") + rows("llm_call", "_source")
}

#[test]
fn who_slept_through_a_rewind_or_starts_during_one_writes_nothing() {
    let mut world = World::new().missed_soon();
    world.set("BATCH__ROWS", "500");
    world.generate(&["--events", "8000", "--minutes", "3"]);
    world.done(&["migrate"]);
    let mut sleeper = world.run("sleeper");
    world.wait_for(8_000, &mut sleeper, MINUTE);
    devstack::sys::send(sleeper.child.id(), devstack::sys::Signal::Pause).unwrap();
    let (done, said) = rewind(&world, "1");
    assert!(done, "{said}");
    // The first epoch, one in which nobody wrote, and the one that is in force.
    assert_eq!(
        world.query("SELECT epoch, `group` = '' FROM highwater.sources ORDER BY epoch FORMAT TSV"),
        "1\t0\n2\t1\n3\t0\n"
    );
    let before = by_epoch(&world, "'1'");

    // Awake, it has all partitions to itself, and what there is to read; and more comes.
    world.generate(&["--events", "2000", "--seed", "2"]);
    devstack::sys::send(sleeper.child.id(), devstack::sys::Signal::Resume).unwrap();
    sleeper.wait_for_words("is in epoch 3");
    let (_, said) = sleeper.terminate();
    assert_eq!(by_epoch(&world, "'1', '2'"), before, "{said}");
    run_until(&world, "second", 10_000);
    world.check();

    // A rewind that was interrupted when it had begun: until it is run again, nobody starts.
    world.query(
        "INSERT INTO highwater.sources (topic, epoch, cluster_id, topic_id, `group`) SELECT topic, 4, cluster_id, topic_id, '' FROM \
         highwater.sources WHERE epoch = 3",
    );
    let output = world.command(&["run"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("is being rewound"), "{said}");
    let again = ["rewind", TOPIC, "--partition", "1", "--to", "99999999", "--yes"];
    let output = world.command(&again).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("was interrupted") && said.contains("--go-on"), "{said}");
    world.done(&[&again[..], &["--go-on"]].concat());
    world.generate(&["--events", "1000", "--seed", "3"]);
    run_until(&world, "third", 11_000);
    assert_eq!(by_epoch(&world, "'4'"), 0);
    world.check();
}

#[test]
fn one_rewinds_at_a_time_and_what_was_interrupted_is_gone_on_with_on_purpose() {
    let world = World::new().missed_soon();
    world.generate(&["--events", "4000", "--minutes", "3"]);
    world.done(&["migrate"]);
    run_until(&world, "first", 4_000);
    let refused = |arguments: &[&str], expected: &str| {
        let output = world.command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{arguments:?}: {said}");
    };
    let begin = |name: &str| {
        let mut begun = world.run_command(name, &["rewind", TOPIC, "--to", "start", "--yes"]);
        begun.wait_for_words("no replica is in the group");
        begun
    };
    let again = ["rewind", TOPIC, "--to", "start", "--yes", "--go-on"];
    refused(&again, "no rewind of llm-calls was interrupted");

    // While it is at work: in the same words, and with nothing to take back.
    let mut at_work = begin("at work");
    let command = "`highwater rewind llm-calls --to start --go-on --yes`";
    for other in [&["--to", "start"][..], &["--partition", "1", "--to", "99999999"]] {
        refused(&[&["rewind", TOPIC, "--yes"], other].concat(), command);
    }
    let ended = |process: &mut crate::support::Process| {
        let begun = Instant::now();
        loop {
            match process.child.try_wait().unwrap() {
                Some(status) => return (status.success(), process.said()),
                None => assert!(begun.elapsed() < MINUTE, "{}", process.said()),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let (done, said) = ended(&mut at_work);
    assert!(done && said.contains("done; "), "{said}");
    run_until(&world, "second", 4_000);
    world.check();

    // Who was taken for dead, and is not, stops where another goes on; that may go to another place.
    let mut asleep = begin("asleep");
    devstack::sys::send(asleep.child.id(), devstack::sys::Signal::Pause).unwrap();
    refused(&["rewind", "other", "--to", "start", "--yes", "--go-on"], command);
    world.done(&["rewind", TOPIC, "--partition", "1", "--to", "0", "--yes", "--go-on"]);
    let before = numbers(&world);
    devstack::sys::send(asleep.child.id(), devstack::sys::Signal::Resume).unwrap();
    let (done, said) = ended(&mut asleep);
    assert!(!done && said.contains("another command has taken the rewind of llm-calls over"), "{said}");
    assert!(!said.contains("--go-on"), "{said}");
    assert_eq!(numbers(&world), before);
    run_until(&world, "third", 4_000);
    world.check();

    // All was taken back and the turn not ended, or only the turn was taken: nobody rewinds again because of that.
    world.query(
        "INSERT INTO highwater.redrives (run, topic, partition, event, taken_back, plan) SELECT max(run) + 1, 'llm-calls', -1, \
         'rewind begun', true, '--to start' FROM highwater.redrives",
    );
    let said = world.done(&again);
    assert!(said.contains("nothing is left to do"), "{said}");
    assert_eq!(world.number("SELECT max(epoch) FROM highwater.sources"), 5);
    refused(&again, "no rewind of llm-calls was interrupted");

    // Its topic is gone: nobody waits for its end.
    begin("gone").kill();
    world.delete_topic();
    refused(&["dead-letters", "redrive", "--yes"], "is being rewound");
    let said = world.done(&again);
    assert!(
        said.contains("is gone, or another one") && said.contains("redrives and rewinds may begin again"),
        "{said}"
    );
    world.done(&["dead-letters", "redrive", "--yes"]);
}

/// An epoch that is entered in the table of watermarks and is nobody's would keep every minute from being complete.
#[test]
fn who_lost_the_turn_in_its_last_statement_leaves_no_epoch_behind() {
    let world = World::new().missed_soon();
    world.generate(&["--events", "3000", "--minutes", "3", "--bad", "0.01"]);
    world.done(&["migrate"]);
    run_until(&world, "first", 3_000);

    world.query("SYSTEM STOP MERGES highwater.dead_letters");
    let rewind = ["rewind", TOPIC, "--to", "start", "--yes"];
    let mut asleep = world.run_command("asleep", &rewind);
    asleep.wait_for_words("deleting from dead_letters");
    devstack::sys::send(asleep.child.id(), devstack::sys::Signal::Pause).unwrap();
    world.query("SYSTEM START MERGES highwater.dead_letters");
    world.done(&[&rewind[..], &["--go-on"]].concat());
    let epochs = || {
        ["sources.epoch", "watermarks.source", "ledger.source"].map(|column| {
            let (table, column) = column.split_once('.').unwrap();
            world.number(&format!(
                "SELECT max(toUInt32(splitByChar('/', toString({column}))[1])) FROM highwater.{table}"
            ))
        })
    };
    let before = epochs();
    assert_eq!(before, [before[0]; 3]);
    devstack::sys::send(asleep.child.id(), devstack::sys::Signal::Resume).unwrap();
    let status = asleep.child.wait().unwrap();
    let said = asleep.said();
    assert!(!status.success() && said.contains("another command has taken the rewind of llm-calls over"), "{said}");
    assert_eq!(epochs(), before);
    run_until(&world, "second", 3_000);
    world.check();
}
