//! Redrives and rewinds of one topic: what was redriven is taken back, and both at the same time.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use devstack::{ClickHouse, Kafka, Stack};
use highwater::event::EventType;
use highwater::event::wire::Writer;
use highwater::failpoint::{Point, VARIABLE};

use super::scene::{LOOKUP, MINUTE, REDRIVE, Scene, ended, registry_of_lookups, said};
use crate::registry::Gate;
use crate::shared::truth;
use crate::support::{TOPIC, World};

const BEING_REWOUND: &str = "is being rewound, or a rewind of it was interrupted";

impl Scene {
    /// A command that is refused and changes nothing.
    fn refused(&self, arguments: &[&str], expected: &str) {
        let before = self.state();
        let output = self.output(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(expected), "{arguments:?}: {}", said(&output));
        assert_eq!(self.state(), before, "{arguments:?}");
    }

    fn rewind(&self, to: &[&str]) {
        // Who was killed is a member of the group for a while.
        let begun = Instant::now();
        let arguments = [&["rewind", TOPIC], to, &["--yes"]].concat();
        loop {
            let output = self.output(&arguments);
            if output.status.success() {
                return;
            }
            let waits = said(&output).contains("stop all replicas first") && begun.elapsed() < MINUTE;
            assert!(waits, "{}", said(&output));
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Replicas read until all messages of the log are in the ledger under the last epoch.
    fn read_all(&self, name: &str) {
        let messages = truth::of(&self.world.stack.kafka.bootstrap(), TOPIC).messages;
        let log = "SELECT sum(events) FROM highwater.ledger WHERE kind != 'redrive'";
        let mut process = self.world.run(name);
        let begun = Instant::now();
        while self.world.number(log) < messages {
            assert!(begun.elapsed() < MINUTE, "{}", process.said());
            assert!(process.child.try_wait().unwrap().is_none(), "{}", process.said());
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(process.terminate().0.success());
    }

    /// Rows and counts of minutes that come of events.
    fn written(&self) -> (u64, u64) {
        let number = |sql| self.world.number(sql);
        (number("SELECT count() FROM highwater.llm_call"), number("SELECT sum(count) FROM highwater.llm_call_1m"))
    }
}

#[test]
fn neither_begins_before_the_other_has_ended() {
    let mut scene = Scene::new();
    scene.world.set("BATCH__ROWS", "150");
    let sent = scene.letters(&["--events", "3000"]);
    scene.mend();
    // A run is not finished, and what its process had sent has landed: nothing is taken back, whatever of it.
    let mut killed = scene.world.command(&[&REDRIVE[..], &["--at-most", "1500"]].concat());
    assert!(!killed.env(VARIABLE, "blocks_sent:2:end").output().unwrap().status.success());
    let mut before = String::new();
    while std::mem::replace(&mut before, scene.state()) != before {
        std::thread::sleep(Duration::from_secs(1));
    }
    let rewind = ["rewind", TOPIC, "--to", "start"];
    let unfinished = "run 1 of letters of llm-calls still has letters to write";
    scene.refused(&rewind, unfinished);
    scene.refused(&[&rewind[..], &["--yes"]].concat(), unfinished);
    scene.refused(&["rewind", TOPIC, "--partition", "3", "--to", "0", "--yes"], unfinished);
    scene.world.done(&[&REDRIVE[..], &["--at-most", "1"]].concat());
    scene.clean();

    // A rewind that was killed when it had closed the epoch, and one when it had not.
    let mut begun = scene.world.run_command("begun", &[&rewind[..], &["--yes"]].concat());
    begun.wait_for_words("no replica is in the group");
    begun.kill();
    scene.refused(&REDRIVE, BEING_REWOUND);
    scene.refused(&["dead-letters", "redrive"], BEING_REWOUND);
    scene.clean();
    scene.rewind(&["--to", "start", "--go-on"]);
    assert_eq!(scene.written(), (0, 0));
    scene.world.query(
        "INSERT INTO highwater.redrives (run, topic, partition, event, taken_back) SELECT max(run) + 1, 'llm-calls', -1, 'rewind \
         begun', true FROM highwater.redrives",
    );
    scene.refused(&REDRIVE, BEING_REWOUND);
    scene.rewind(&["--partition", "1", "--to", "99999999", "--go-on"]);
    scene.read_all("after");
    assert!(scene.world.done(&REDRIVE).contains("nothing to redrive"));
    assert_eq!(scene.written(), (sent, sent));
    scene.world.check();

    // Another topic's rewind was interrupted.
    scene.world.query(
        "INSERT INTO highwater.redrives (run, topic, partition, event, taken_back) SELECT max(run) + 1, 'other', -1, 'rewind \
         begun', true FROM highwater.redrives",
    );
    scene.refused(&[&rewind[..], &["--yes"]].concat(), "the topic other is being rewound");
}

#[test]
fn a_run_whose_topic_is_gone_is_given_up_with_the_rows_that_it_left() {
    let mut scene = Scene::new();
    scene.world.set("BATCH__ROWS", "150");
    scene.letters(&["--events", "2000"]);
    scene.mend();
    let mut killed = scene.world.command(&REDRIVE);
    assert!(!killed.env(VARIABLE, "blocks_sent:2:end").output().unwrap().status.success());
    let ahead = "SELECT count() FROM highwater.llm_call WHERE (toString(_source), _offset) NOT IN (SELECT toString(source), \
                 arrayJoin(range(`from`, `to`)) FROM highwater.ledger WHERE kind = 'redrive')";
    let begun = Instant::now();
    while scene.world.number(ahead) == 0 {
        assert!(begun.elapsed() < MINUTE, "what it had sent never landed");
        std::thread::sleep(Duration::from_millis(100));
    }
    scene.world.delete_topic();
    scene.world.done(&["dead-letters", "redrive", "--give-up", "1", "--yes"]);
    assert_eq!(scene.world.number(ahead), 0);
    let audit = scene.output(&["audit", "--without-kafka"]);
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));

    // It was being rewound: a list of its letters could never be finished, and would be in everybody's way.
    scene.world.query(
        "INSERT INTO highwater.sources (topic, epoch, cluster_id, topic_id, `group`) SELECT topic, 2, cluster_id, topic_id, '' FROM \
         highwater.sources WHERE epoch = 1",
    );
    let said = scene.world.done(&REDRIVE);
    assert!(said.contains("its letters are left alone") && said.contains("nothing to redrive"), "{said}");
    assert_eq!(scene.world.number("SELECT max(run) FROM highwater.redrives"), 1);
}

#[test]
fn a_redrive_that_slept_through_a_rewind_writes_nothing() {
    let mut scene = Scene::new();
    scene.world.set("BATCH__ROWS", "150");
    let sent = scene.letters(&["--events", "2000"]);
    for (round, point) in [Point::StartRow, Point::Sealed, Point::Recognised].iter().enumerate() {
        scene.mend();
        let mut command = scene.world.command(&REDRIVE);
        command.env(VARIABLE, format!("{}:1:freeze", point.name()));
        let mut sleeper = scene.world.spawn(point.name(), command);
        let stat = format!("/proc/{}/stat", sleeper.child.id());
        let begun = Instant::now();
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            assert!(begun.elapsed() < MINUTE && sleeper.child.try_wait().unwrap().is_none(), "{}", sleeper.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        // Another finishes what it has begun, and all is taken back.
        scene.world.done(&REDRIVE);
        assert_eq!(scene.written(), (sent, sent));
        scene.rewind(&["--to", "start"]);
        assert_eq!(scene.written(), (0, 0));
        devstack::sys::send(sleeper.child.id(), devstack::sys::Signal::Resume).unwrap();
        let (done, said) = ended(sleeper);
        // By the marks, or because its letters are gone, if it comes to ask for these first.
        let words = ["may take letters off the list", "was rewound while this redrive slept"];
        assert!(!done && words.iter().any(|words| said.contains(words)), "{}: {said}", point.name());
        assert_eq!(scene.written(), (0, 0), "{}", point.name());
        let audit = scene.output(&["audit", "--without-kafka"]);
        assert!(audit.status.success(), "{}: {}", point.name(), String::from_utf8_lossy(&audit.stdout));
        if round < 2 {
            scene.spoil();
            scene.world.done(&["migrate"]);
        }
        scene.read_all("again");
    }
    assert!(scene.world.done(&REDRIVE).contains("nothing to redrive"));
    assert_eq!(scene.written(), (sent, sent));
    scene.world.check();

    // What it has ready to be sent may land all the same, and the audit finds it: rows of a run that was taken back, or what a
    // rollup counts of one.
    let row = "INSERT INTO highwater.llm_call SELECT * REPLACE ('1r1/llm-calls/0' AS _source) FROM highwater.llm_call WHERE \
               _source LIKE '%/0' LIMIT 1";
    scene.world.query(row);
    assert_eq!(scene.findings(), ["minutes", "unfinished"]);
    let delete = "DELETE WHERE _source = '1r1/llm-calls/0' SETTINGS mutations_sync = 2";
    scene.world.query(&format!("ALTER TABLE highwater.llm_call {delete}"));
    scene.clean();
    scene.world.query(
        "INSERT INTO highwater.llm_call_1m_parts SELECT * REPLACE ('1r1/llm-calls/0' AS _source) FROM \
         highwater.llm_call_1m_parts WHERE _source LIKE '%/0' LIMIT 1",
    );
    let found = scene.findings();
    assert!(found.iter().any(|kind| kind == "unfinished" || kind == "unknown_source"), "{found:?}");
}

#[test]
fn a_list_that_was_begun_before_a_rewind_does_not_stand_after_it() {
    let mut scene = Scene::new();
    let (registry, id) = registry_of_lookups();
    scene.generate(&["--events", "40"]);
    scene.send_lookups((1..=30).map(|event| (Writer::Id(id), event)));
    scene.world.done(&["migrate"]);
    scene.read_all("before");

    // It waits for the registry while it lists, and until all is taken back and read again.
    let gate = Gate::before(&registry.url());
    gate.open.store(false, Ordering::SeqCst);
    scene.world.set("REGISTRY__URL", &gate.url);
    scene.world.set("REGISTRY__TIMEOUT", "1s");
    let mut sleeper = scene.world.run_command("sleeper", &REDRIVE);
    sleeper.wait_for_words("waiting for the schema registry");
    scene.world.unset("REGISTRY__URL");
    scene.world.unset("REGISTRY__TIMEOUT");
    scene.rewind(&["--to", "start"]);
    scene.read_all("again");
    assert_eq!(scene.world.number("SELECT count() FROM highwater.redrives WHERE NOT taken_back"), 0);
    gate.open.store(true, Ordering::SeqCst);
    let (done, said) = ended(sleeper);
    assert!(done && said.contains("done: 30 letters"), "{said}");
    let listed = "SELECT DISTINCT run, epoch FROM highwater.redrives WHERE NOT taken_back FORMAT TSV";
    assert_eq!(scene.world.query(listed), "3\t3\n", "the rewind has two numbers");
    assert_eq!(scene.world.number("SELECT count() FROM highwater.lookup"), 30);
    assert_eq!(scene.world.number("SELECT sum(count) FROM highwater.lookup_1m"), 30);
    scene.clean();
}

#[test]
fn a_rewind_takes_redriven_letters_back_and_leaves_none_out() {
    // Users who may do what the documentation says is enough, and one thing less.
    let documented =
        include_str!("../../../docs/connections.md").lines().filter_map(|line| line.trim().strip_prefix("GRANT "));
    let grants: Vec<String> =
        documented.map(|grant| format!("GRANT {}", grant.split(" TO ").next().unwrap_or_default())).collect();
    let less: Vec<String> = grants.iter().map(|grant| grant.replace("ALTER UPDATE, ", "")).collect();
    assert!(grants.len() == 5 && grants != less, "{grants:?}");
    let clickhouse = ClickHouse::options().user("highwater", "secret", grants.iter().map(String::as_str)).user(
        "less",
        "secret",
        less.iter().map(String::as_str),
    );
    let mut scene = Scene::of(World::of(Stack::start_with(Kafka::options(), clickhouse).unwrap()).missed_soon());
    scene.world.set("BATCH__ROWS", "500");
    let sent = scene.letters(&["--events", "4000", "--duplicates", "0.02", "--bad", "0.01", "--disorder", "20s"]);
    scene.mend();
    scene.world.done(&["dead-letters", "redrive", "--at-most", "1500", "--yes"]);
    scene.world.done(&REDRIVE);
    scene.check(sent);
    // Half of a partition is read again: what was redriven there is taken back, and goes in once, by one way or the other.
    let half = scene.world.number("SELECT intDiv(max(to), 2) FROM highwater.ledger WHERE source = '1/llm-calls/1'");
    let half = half.to_string();
    let one = ["rewind", TOPIC, "--partition", "1", "--to", half.as_str()];
    // What a user lacks is told before anything is changed.
    scene.world.set("CLICKHOUSE__PASSWORD", "secret");
    scene.world.set("CLICKHOUSE__USER", "less");
    let before = scene.state();
    let refused = scene.output(&[&one[..], &["--yes"]].concat());
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("run: GRANT ALTER UPDATE ON `highwater`.* TO `less`"), "{}", said(&refused));
    assert_eq!(scene.state(), before);
    scene.world.set("CLICKHOUSE__USER", "highwater");
    let explained = scene.world.done(&one);
    assert!(explained.contains("redrove are taken back"), "{explained}");
    scene.world.done(&[&one[..], &["--yes"]].concat());
    let audit = scene.output(&["audit", "--without-kafka"]);
    assert!(audit.status.success(), "{}", said(&audit));
    let kept = scene.world.number("SELECT count() FROM highwater.dead_letters");
    assert!(kept < sent, "no letter was taken back");
    let truth = truth::of(&scene.world.stack.kafka.bootstrap(), TOPIC);
    let log = "SELECT sum(events) FROM highwater.ledger WHERE kind != 'redrive'";
    let mut process = scene.world.run("after");
    let begun = Instant::now();
    while scene.world.number(log) < truth.messages {
        assert!(begun.elapsed() < MINUTE, "{}", process.said());
        assert!(process.child.try_wait().unwrap().is_none(), "{}", process.said());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(process.terminate().0.success());
    scene.world.done(&REDRIVE);
    let kept = scene.world.number("SELECT count() FROM highwater.dead_letters");
    scene.check(kept);

    // All of it: nothing of any run is left, and the tables are those of a topic that was read once.
    scene.world.done(&["rewind", TOPIC, "--to", "start", "--yes"]);
    assert_eq!(scene.world.number("SELECT count() FROM highwater.redrives WHERE NOT taken_back"), 0);
    scene.run("again", truth.messages);
    scene.world.check();
}

#[test]
fn a_rewind_does_not_lose_an_event_to_a_letter_that_was_its_duplicate() {
    let mut scene = Scene::new();
    let (registry, id) = registry_of_lookups();
    let fingerprint = EventType::parse("lookup.avsc", LOOKUP).unwrap().fingerprint;
    let (letter, event) = (Writer::Id(id), Writer::Fingerprint(fingerprint));
    scene.generate(&["--events", "40"]);
    // A letter, and later, in another batch, its event as one that can be read.
    scene.send_lookups([(letter, 1), (event, 2), (event, 3)]);
    scene.world.done(&["migrate"]);
    scene.run("first", 43);
    let place = scene.world.query("SELECT max(to) FROM highwater.ledger WHERE source = '1/llm-calls/1'");
    scene.send_lookups([4, 1, 5].map(|id| (event, id)));
    scene.run("second", 46);
    scene.world.set("REGISTRY__URL", &registry.url());
    scene.world.done(&REDRIVE);
    assert_eq!(scene.world.number("SELECT countIf(duplicate) FROM highwater.redrives"), 1);

    let rewind = ["rewind", TOPIC, "--partition", "1", "--to", place.trim()];
    let explained = scene.world.done(&rewind);
    assert!(explained.contains("1 dead letters from before offset"), "{explained}");
    scene.world.done(&[&rewind[..], &["--yes"]].concat());
    scene.run("third", 46);
    scene.world.done(&REDRIVE);
    let ids = "SELECT toString(event_id) FROM highwater.lookup ORDER BY event_id FORMAT TSV";
    let expected: String = [1, 2, 3, 4, 5].map(|id| format!("00000000-0000-0000-0000-{id:012}\n")).concat();
    assert_eq!(scene.world.query(ids), expected);
    assert_eq!(scene.world.number("SELECT sum(count) FROM highwater.lookup_1m"), 5);
    scene.clean();
}
