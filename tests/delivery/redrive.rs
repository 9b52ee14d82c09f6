//! Dead letters read again once their schema is mended: exactly once, whatever is killed.

mod rewind;
mod scene;

use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use highwater::event::EventType;
use highwater::event::wire::Writer;
use highwater::failpoint::{Point, VARIABLE};

use crate::registry::Gate;
use crate::shared::compare;
use crate::shared::truth;
use crate::support::TOPIC;

use scene::{LOOKUP, MINUTE, REDRIVE, Scene, ended, registry_of_lookups, said};

#[test]
fn letters_go_in_once_their_schema_is_mended() {
    let scene = Scene::new();
    let world = &scene.world;
    let sent = scene.letters(&["--events", "6000", "--duplicates", "0.03", "--bad", "0.01", "--disorder", "20s"]);
    let nothing = world.done(&["dead-letters", "redrive"]);
    assert!(nothing.contains("nothing to redrive") && nothing.contains("stay as they are"), "{nothing}");
    let listed = world.done(&["dead-letters", "list"]);
    assert!(listed.contains("unknown_schema") && listed.contains("0 can be read now"), "{listed}");

    scene.mend();
    let truth = truth::of(&world.stack.kafka.bootstrap(), TOPIC);
    assert!(truth.duplicates > 100 && truth.dead_letters > 20, "the traffic was too kind");
    let list: serde_json::Value = serde_json::from_str(&world.done(&["dead-letters", "list", "--json"])).unwrap();
    assert_eq!(list["totals"]["letters"], sent);
    assert_eq!(list["totals"]["readable"], truth.rows + truth.duplicates);
    let before = scene.state();
    let explained = world.done(&["dead-letters", "redrive"]);
    assert!(explained.contains("nothing was changed"), "{explained}");
    assert_eq!(scene.state(), before);

    // A few first, by filters; then those of a reason that none has; then all.
    world.done(&["dead-letters", "redrive", "--reason", "unknown_schema", "--since", "1h", "--at-most", "70", "--yes"]);
    let listed = || world.number("SELECT count() FROM highwater.redrives");
    assert_eq!(listed(), 70);
    for none in [["--reason", "noise"], ["--topic", "nobody"], ["--until", "2020-01-01T00:00:00Z"]] {
        let nothing = world.done(&[&REDRIVE[..], &none[..]].concat());
        assert!(nothing.contains("nothing to redrive"), "{nothing}");
        assert_eq!(listed(), 70);
        // What there is instead is said, by whoever is asked.
        let there = match none[0] {
            "--reason" => "no dead letter with the reason noise; there are some with the reason not_framed",
            "--topic" => "no dead letter of the topic nobody; there are some of the topic llm-calls\n",
            _ => "",
        };
        let list = world.done(&[&["dead-letters", "list"], &none[..]].concat());
        assert!(nothing.contains(there) && list.contains(there), "{nothing}{list}");
        assert!(list.starts_with("no dead letters that the filters leave\n"), "{list}");
    }
    let done = world.done(&REDRIVE);
    assert!(done.contains("rows of llm_call") && done.contains("stay as they are"), "{done}");
    scene.check(sent);
    assert_eq!(listed(), truth.rows + truth.duplicates);
    assert_eq!(world.number("SELECT countIf(duplicate) FROM highwater.redrives"), truth.duplicates);

    // Again: nothing. Workers go on beside it, and do not count it twice.
    let before = scene.state();
    assert!(world.done(&REDRIVE).contains("nothing to redrive"));
    assert_eq!(scene.state(), before);
    let list: serde_json::Value = serde_json::from_str(&world.done(&["dead-letters", "list", "--json"])).unwrap();
    assert_eq!(list["totals"]["redriven"], truth.rows);
    assert_eq!(list["totals"]["duplicates"], truth.duplicates);
    assert_eq!(list["totals"]["readable"], 0);
    scene.generate(&["--events", "2000", "--seed", "5"]);
    scene.run("after", sent + 2_000 + truth.rows);
    scene.check(sent);
    assert!(world.number("SELECT count() FROM highwater.watermarks WHERE source LIKE '%r%/%'") == 0);

    // What somebody deletes of it the audit finds.
    let victim = "ALTER TABLE highwater.llm_call DELETE WHERE _source = '1r2/llm-calls/1' AND _offset IN (SELECT \
                  max(_offset) FROM highwater.llm_call WHERE _source = '1r2/llm-calls/1') SETTINGS mutations_sync = 2";
    world.query(victim);
    assert_eq!(scene.findings(), ["minutes", "missing_rows", "redriven"]);
    // So it does with lists that were tampered with.
    world.query(
        "INSERT INTO highwater.redrives SELECT toUInt32(99), * EXCEPT (run) FROM highwater.redrives WHERE run = 1 LIMIT 1",
    );
    assert_eq!(scene.findings(), ["listed_twice", "minutes", "missing_rows", "redriven"]);
    world.query("ALTER TABLE highwater.redrives DELETE WHERE run IN (2, 99) SETTINGS mutations_sync = 2");
    assert_eq!(scene.findings(), ["minutes", "missing_rows", "unknown_run"]);
}

#[test]
fn killed_anywhere_and_two_at_once_each_letter_goes_in_once() {
    let mut scene = Scene::new();
    scene.world.set("BATCH__ROWS", "150");
    let sent = scene.letters(&["--events", "6000", "--duplicates", "0.03", "--bad", "0.01", "--disorder", "20s"]);
    scene.mend();
    for point in Point::ALL {
        let hit = if point == Point::BlocksSent { 2 } else { 1 };
        let mut command = scene.world.command(&REDRIVE);
        let output = command.env(VARIABLE, format!("{}:{hit}:end", point.name())).output().unwrap();
        assert!(!output.status.success(), "it came to its end past {}: {}", point.name(), said(&output));
    }
    let rows = scene.world.number("SELECT count() FROM highwater.llm_call");
    assert!(rows > 0, "nothing was written between the kills");
    // Killed at any moment.
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..4 {
        let mut child = scene.world.command(&REDRIVE).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(rng.u64(50..600)));
        let _ = child.kill();
        child.wait().unwrap();
    }
    let spawn = || scene.world.command(&REDRIVE).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let both = [spawn(), spawn()].map(|child| child.wait_with_output().unwrap());
    assert!(both.iter().all(|output| output.status.success()), "{}\n{}", said(&both[0]), said(&both[1]));
    let truth = scene.check(sent);
    println!("{rows} of {} rows were there before the last two", truth.rows);
}

#[test]
fn several_at_once_with_other_filters_list_no_letter_twice() {
    let scene = Scene::new();
    let sent = scene.letters(&["--events", "4000", "--bad", "0.01"]);
    scene.mend();
    let spawn = |more: &[&str]| {
        let mut command = scene.world.command(&[&REDRIVE[..], more].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children = [spawn(&["--at-most", "900"]), spawn(&[]), spawn(&["--at-most", "300"]), spawn(&["--since", "1h"])];
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    scene.check(sent);
    let twice = "SELECT count() - uniqExact(partition, offset) FROM highwater.redrives";
    assert_eq!(scene.world.number(twice), 0);
}

#[test]
fn a_schema_that_is_taken_away_in_the_middle_stops_it_and_loses_nothing() {
    let mut scene = Scene::new();
    scene.world.set("BATCH__ROWS", "150");
    let sent = scene.letters(&["--events", "2000"]);
    scene.mend();
    let mut command = scene.world.command(&REDRIVE);
    assert!(!command.env(VARIABLE, "blocks_sent:3:end").output().unwrap().status.success());
    scene.spoil();
    let refused = scene.output(&REDRIVE);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("put them back"), "{}", said(&refused));
    assert_eq!(scene.world.number("SELECT count() FROM highwater.dead_letters"), sent, "a second dead letter");
    scene.mend();
    let explained = scene.world.done(&["dead-letters", "redrive"]);
    assert!(explained.contains("run 1") && explained.contains("interrupted"), "{explained}");
    let listed = scene.world.done(&["dead-letters", "list"]);
    assert!(listed.contains("2,000 are being redriven by run 1, which is not finished"), "{listed}");
    let finished = scene.world.done(&REDRIVE);
    assert!(finished.contains("finishing it"), "{finished}");
    let listed = scene.world.done(&["dead-letters", "list"]);
    assert!(listed.contains("were redriven") && !listed.contains("being redriven"), "{listed}");
    scene.check(sent);

    // A letter that is gone before it was written is said, with the way on; those that were written stay.
    let gone = "INSERT INTO highwater.redrives (run, epoch, topic, partition, offset, event, bytes, duplicate) VALUES \
                (9, 1, 'llm-calls', 2, 999999, 'llm_call', 5, false)";
    scene.world.query(gone);
    let stuck = scene.output(&REDRIVE);
    assert_eq!(stuck.status.code(), Some(1), "{}", said(&stuck));
    let words = said(&stuck);
    assert!(words.contains("redrive --give-up 9"), "{words}");
    let explained = scene.world.done(&["dead-letters", "redrive", "--give-up", "9"]);
    assert!(explained.contains("nothing was changed"), "{explained}");
    scene.world.done(&["dead-letters", "redrive", "--give-up", "9", "--yes"]);
    assert_eq!(scene.world.number("SELECT count() FROM highwater.redrives WHERE run = 9 AND NOT taken_back"), 0);
    assert!(scene.world.done(&REDRIVE).contains("nothing to redrive"));
    scene.check(sent);
}

#[test]
fn letters_of_a_batch_that_nobody_finished_are_left_to_the_worker() {
    let scene = Scene::new();
    let world = &scene.world;
    scene.generate(&["--events", "2000"]);
    world.done(&["migrate"]);
    let sent = truth::of(&world.stack.kafka.bootstrap(), TOPIC).messages;
    // Killed between the letters of a batch and the ledger's row.
    let killed = world.command(&["run"]).env(VARIABLE, "blocks_sent:1:end").output().unwrap();
    assert!(!killed.status.success(), "{}", said(&killed));
    // What it had sent when it was killed may still be landing.
    let mut strays = 0;
    while std::mem::replace(&mut strays, world.number("SELECT count() FROM highwater.dead_letters")) != strays {
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(strays > 0 && world.number("SELECT sum(events) FROM highwater.ledger") == 0, "{strays} letters");
    scene.mend();
    let list: serde_json::Value = serde_json::from_str(&world.done(&["dead-letters", "list", "--json"])).unwrap();
    assert_eq!((&list["totals"]["unsettled"], &list["totals"]["readable"]), (&strays.into(), &0.into()));
    let listed = world.done(&["dead-letters", "list"]);
    assert!(listed.contains("are not settled yet"), "{listed}");
    let done = world.done(&REDRIVE);
    assert!(done.contains("not settled yet"), "{done}");
    assert_eq!(world.number("SELECT count() FROM highwater.redrives"), 0);

    // Another makes rows of their messages, and then they are duplicates of these.
    scene.run("after", sent);
    let exact = || {
        let truth = truth::of(&world.stack.kafka.bootstrap(), TOPIC);
        let verdict = compare::hold_tables(&truth, &|sql| world.query(sql));
        assert!(verdict.is_exact(), "{verdict}");
    };
    exact();
    world.done(&REDRIVE);
    exact();
    assert_eq!(world.number("SELECT countIf(duplicate) FROM highwater.redrives"), strays);
    assert_eq!(world.number("SELECT countIf(NOT duplicate) FROM highwater.redrives"), 0);
    // What is there beside the rows is known as such.
    assert_eq!(scene.findings(), ["extra_rows"]);
}

#[test]
fn what_a_run_has_written_may_expire_before_it_is_finished() {
    let mut scene = Scene::new();
    scene.world.set("BATCH__ROWS", "100");
    let sent = scene.letters(&["--events", "10000"]);
    scene.mend();
    let mut command = scene.world.command(&REDRIVE);
    assert!(!command.env(VARIABLE, "before_commit:1:end").output().unwrap().status.success());
    for (partition, end) in scene.ends(1) {
        scene.expire(&format!("_source = '1/{TOPIC}/{partition}' AND _offset < {end}"));
    }
    assert!(scene.world.number("SELECT count() FROM highwater.expired") > 0, "nothing was written that could expire");
    let done = scene.world.done(&REDRIVE);
    assert!(done.contains("finishing it"), "{done}");
    scene.put_back();
    scene.check(sent);

    // A type whose schema is retired is not what the list is held against.
    scene.spoil();
    let audit = String::from_utf8(scene.output(&["audit", "--json"]).stdout).unwrap();
    assert!(audit.contains("were not checked: llm_call"), "{audit}");
    assert!(!scene.findings().contains(&"redriven".to_owned()), "{audit}");
}

#[test]
fn a_run_that_can_not_be_finished_is_given_up_and_blocks_nobody() {
    let scene = Scene::new();
    let sent = scene.letters(&["--events", "4000"]);
    scene.mend();
    let killed = |letters: &str, point: &str| {
        let mut command = scene.world.command(&[&REDRIVE[..], &["--at-most", letters]].concat());
        assert!(!command.env(VARIABLE, point).output().unwrap().status.success());
    };
    // Minutes without their rows: nobody can tell which. It is finished, and one letter more is written.
    killed("300", "blocks_sent:1:end");
    let of_run = "FROM highwater.llm_call WHERE _source LIKE '1r1/%'";
    scene.world.query("CREATE TABLE highwater.aside AS highwater.llm_call");
    scene.world.query(&format!("INSERT INTO highwater.aside SELECT * {of_run}"));
    scene.world.query("ALTER TABLE highwater.llm_call DELETE WHERE _source LIKE '1r1/%' SETTINGS mutations_sync = 2");
    let before = scene.state();
    let refused = scene.output(&["dead-letters", "redrive", "--give-up", "1", "--yes"]);
    assert!(!refused.status.success() && said(&refused).contains("without the rows"), "{}", said(&refused));
    assert_eq!(scene.state(), before);
    scene.world.query("INSERT INTO highwater.llm_call SELECT * FROM highwater.aside");
    scene.world.query("DROP TABLE highwater.aside");
    scene.world.done(&[&REDRIVE[..], &["--at-most", "1"]].concat());
    scene.clean();

    // Rows without the ledger's line, and a letter that is gone.
    killed("200", "blocks_sent:1:end");
    let halves = scene.world.number("SELECT count() FROM highwater.llm_call WHERE _source LIKE '1r3/%'");
    assert_eq!((halves, scene.ends(3)[0].1 > 0), (200, true), "no batch was written in part");
    let last = scene.world.number("SELECT max(offset) FROM highwater.redrives WHERE run = 3");
    scene.expire(&format!("_source = '1/{TOPIC}/0' AND _offset = {last}"));
    let give_up = ["dead-letters", "redrive", "--give-up", "3"];
    let before = scene.state();
    let explained = scene.world.done(&give_up);
    assert!(explained.contains("rows were written without the ledger's line"), "{explained}");
    assert!(explained.contains(&format!("llm_call: {halves} rows to delete")), "{explained}");
    assert!(explained.contains("nothing was changed"), "{explained}");
    assert_eq!(scene.state(), before);
    // Not while replicas run, whose rows would be lost.
    let process = scene.world.run("beside");
    let begun = Instant::now();
    while !process.said().contains("starting at the ledger's end") {
        assert!(begun.elapsed() < MINUTE, "{}", process.said());
        std::thread::sleep(Duration::from_millis(50));
    }
    let refused = scene.output(&[&give_up[..], &["--yes"]].concat());
    assert!(!refused.status.success() && said(&refused).contains("stop all replicas first"), "{}", said(&refused));
    assert_eq!(scene.state(), before);
    assert!(process.terminate().0.success());
    let stuck = scene.output(&REDRIVE);
    assert!(!stuck.status.success() && said(&stuck).contains("redrive --give-up 3"), "{}", said(&stuck));
    scene.world.done(&[&give_up[..], &["--yes"]].concat());
    assert!(scene.world.done(&[&give_up[..], &["--yes"]].concat()).contains("nothing to give up"));
    // Of the letters that are gone, and of nothing else.
    assert_eq!(scene.findings(), ["missing_rows"]);
    scene.world.done(&REDRIVE);
    scene.put_back();
    assert!(scene.world.done(&REDRIVE).contains("done: 1 letters"));
    scene.check(sent);
    let refused = scene.output(&["dead-letters", "redrive", "--give-up", "77", "--yes"]);
    assert!(said(&refused).contains("no run 77"), "{}", said(&refused));
}

#[test]
fn what_a_producer_sent_again_is_no_second_row_and_a_registry_is_waited_for() {
    let mut scene = Scene::new();
    let (registry, id) = registry_of_lookups();
    let fingerprint = EventType::parse("lookup.avsc", LOOKUP).unwrap().fingerprint;
    scene.generate(&["--events", "40"]);
    // No registry is configured: what is framed for one is a dead letter. 3 was sent before, 4 and 5 afterwards, as events
    // that could be read; 7 twice as a letter.
    let (letter, event) = (Writer::Id(id), Writer::Fingerprint(fingerprint));
    scene.send_lookups([
        (event, 3),
        (letter, 1),
        (letter, 2),
        (letter, 3),
        (letter, 4),
        (letter, 5),
        (event, 4),
        (letter, 7),
        (letter, 7),
        (event, 5),
        (Writer::Id(777_777), 8),
    ]);
    scene.world.done(&["migrate"]);
    scene.run("run", 51);
    assert_eq!(scene.world.number("SELECT count() FROM highwater.lookup"), 3);
    assert_eq!(scene.world.number("SELECT count() FROM highwater.dead_letters"), 48);

    let gate = Gate::before(&registry.url());
    scene.world.set("REGISTRY__URL", &gate.url);
    gate.open.store(false, Ordering::SeqCst);
    let mut waiting = scene.world.run_command("waiting", &REDRIVE);
    waiting.wait_for_words("waiting for the schema registry");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(scene.world.number("SELECT count() FROM highwater.redrives"), 0);
    gate.open.store(true, Ordering::SeqCst);
    let (is_well, said_then) = ended(waiting);
    assert!(is_well, "{said_then}");
    let ids = "SELECT toString(event_id) FROM highwater.lookup ORDER BY event_id FORMAT TSV";
    let expected: String = [1, 2, 3, 4, 5, 7].map(|id| format!("00000000-0000-0000-0000-{id:012}\n")).concat();
    assert_eq!(scene.world.query(ids), expected);
    assert_eq!(scene.world.number("SELECT sum(count) FROM highwater.lookup_1m"), 6);
    assert_eq!(scene.world.number("SELECT countIf(duplicate) FROM highwater.redrives"), 4);
    assert_eq!(scene.world.number("SELECT count() FROM highwater.dead_letters"), 48);
    scene.clean();

    // One letter, whole; what is personal is withheld among its fields.
    let offset = scene.world.query("SELECT max(offset) FROM highwater.redrives WHERE NOT duplicate");
    let shown = scene.world.done(&["dead-letters", "show", &format!("{TOPIC}/1/{}", offset.trim())]);
    for expected in [
        "not_framed",
        "epoch 1",
        "by run 1",
        "a schema registry's, schema id",
        "an event of the type lookup",
        "00000000-0000-0000-0000-000000000007",
        "(withheld: pii pseudonymize)",
        "bytes_read                   7",
        "73 6f 6d 65 62 6f",
    ] {
        assert!(shown.contains(expected), "{expected:?} is not in\n{shown}");
    }
    let stray = scene.world.query("SELECT max(_offset) FROM highwater.dead_letters WHERE _source = '1/llm-calls/1'");
    let shown = scene.world.done(&["dead-letters", "show", TOPIC, "1", stray.trim()]);
    assert!(shown.contains("still not readable: unknown_schema") && shown.contains("redriven:  no"), "{shown}");

    // Half an hour before it expires a redrive leaves it alone, and the list says so.
    scene.world.set("RETENTION__DEAD_LETTERS", "1d");
    scene.world.done(&["migrate"]);
    let counts = || -> (u64, u64) {
        let list = scene.world.done(&["dead-letters", "list", "--json"]);
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        let unreadable = list["totals"]["unreadable"].as_object().unwrap().values();
        let unreadable = unreadable.map(|letters| letters.as_u64().unwrap()).sum();
        (unreadable, list["totals"]["expiring"].as_u64().unwrap())
    };
    let (unreadable, expiring) = counts();
    assert_eq!(expiring, 0);
    scene.world.query(&format!(
        "ALTER TABLE highwater.dead_letters UPDATE received_at = now64(3) - INTERVAL 1410 MINUTE WHERE _offset = {} AND \
         _source = '1/llm-calls/1' SETTINGS mutations_sync = 2",
        stray.trim()
    ));
    assert_eq!(counts(), (unreadable - 1, 1));
    let listed = scene.world.done(&["dead-letters", "list"]);
    assert!(listed.contains("1 expire within the hour and are not redriven any more"), "{listed}");
}

#[test]
fn what_can_not_be_done_is_said_with_the_way_on() {
    let scene = Scene::new();
    let refused = |arguments: &[&str], code: i32, expected: &str| {
        let begun = Instant::now();
        let output = scene.output(&[&["dead-letters"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(expected), "{arguments:?}: {}", said(&output));
        assert!(begun.elapsed() < Duration::from_secs(30), "{arguments:?} took {:?}", begun.elapsed());
    };
    refused(&["list"], 1, "highwater migrate");
    refused(&["redrive", "--yes"], 1, "highwater migrate");
    scene.world.done(&["migrate"]);
    refused(&["list"], 0, "no dead letters");
    refused(&["list", "--topic", "nobody"], 0, "no dead letters that the filters leave\n");
    refused(&["redrive", "--yes"], 0, "nothing to redrive");
    refused(&["show", "t", "0", "5"], 1, "there is no dead letter t/0/5");
    refused(&["show", "t/0"], 2, "expected its topic, partition and offset");
    refused(&["show", "t", "x", "5"], 2, "expected its topic, partition and offset");
    refused(&["show"], 2, "required");
    refused(&["list", "--since", "yesterday"], 2, "expected a time");
    refused(&["redrive", "--at-most", "0"], 2, "at-most");
    refused(&["redrive", "--setting", "clickhouse.url=http://127.0.0.1:1"], 1, "127.0.0.1:1");
    refused(&["list", "--setting", "clickhouse.url=http://127.0.0.1:1"], 1, "127.0.0.1:1");
}
