//! Alerts the whole way, with real servers and the real binary: events → `highwater run` → the topics and the table, held
//! against a list that was worked out by hand; also where whoever judges is killed and frozen again and again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cost;
mod history;
mod limits;
mod script;
#[path = "../shared/mod.rs"]
mod shared;
#[allow(dead_code, reason = "shared with the tests of delivery")]
#[path = "../delivery/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use apache_avro::reader::datum::GenericDatumReader;
use devstack::sys::{Signal, send};
use highwater::failpoint::{Point, VARIABLE};
use highwater::ports::Registered;
use script::{STAGES, Script, Subscriber};
use support::Process;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_scripted_history_is_told_exactly() {
    let script = Script::new();
    let now = || script.world.done(&["alerts"]);
    assert!(now().contains("the topic of alerts is not there yet"), "{}", now());
    let process = script.world.run("run");
    for (at, stage) in STAGES.into_iter().enumerate() {
        script.play(stage);
        script.wait_for(stage, &mut [&process]);
        if at == 4 {
            let firing = now();
            let failing = firing
                .lines()
                .filter(|line| line.contains("page     firing    failures app=zest: zest: 0.8 of 50 calls"));
            assert_eq!(failing.count(), 1, "{firing}");
            assert!(
                firing.contains("0.8 against 0.2; window ") && firing.contains(": 40 of 50, 50 events"),
                "{firing}"
            );
            assert!(firing.contains("3 alerts fire; 3 rules and budgets are judged up to"), "{firing}");
        }
    }
    let firing = now();
    assert!(firing.contains("1 alert fires") && firing.contains("stop     firing    lasting app=zest"), "{firing}");
    assert_eq!(script.world.done(&["alerts", "--json"]).lines().count(), 1);
    let mut tail = script.world.run_command("tail", &["alerts", "tail", "--all", "--json"]);
    wait_until("all messages", || tail.said().lines().filter(|line| line.starts_with('{')).count() == 13, &|| {
        tail.said()
    });
    assert!(tail.child.try_wait().unwrap().is_none(), "{}", tail.said());
    tail.kill();
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    script.check();
    script.check_budgets();
    explain(&script);
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");

    // Whoever comes next finds nothing to tell.
    let before = script.told();
    let process = script.world.run_with("second", &[("HIGHWATER_ALERTS__HEARTBEAT", "1s")]);
    script.wait_for_heartbeat(&process);
    assert!(process.terminate().0.success());
    assert_eq!(script.told(), before);
    script.check();
}

#[test]
fn servers_that_go_away_are_waited_for() {
    let script = Script::new().missed_soon();
    let process = script.world.run("run");
    let stack = &script.world.stack;
    for (at, stage) in STAGES.into_iter().enumerate() {
        script.play(stage);
        script.wait_for(stage, &mut [&process]);
        match at {
            // One after the other, and both; long enough for an open transaction to be given up.
            1 => stack.clickhouse.kill().unwrap(),
            2 => stack.kafka.kill().unwrap(),
            3 => [stack.clickhouse.kill(), stack.kafka.kill()].into_iter().for_each(Result::unwrap),
            _ => continue,
        }
        std::thread::sleep(Duration::from_secs(4));
        if at != 2 {
            stack.clickhouse.restart().unwrap();
        }
        if at != 1 {
            stack.kafka.restart().unwrap();
        }
    }
    script.check();
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    let waited = said.matches("waiting for what alerts need").count();
    assert!((1..6).contains(&waited), "{waited} times: {said}");
}

/// Where nobody is told of alerts, a database from before there was a table for them is as good. Where somebody is, events are
/// consumed without it, and alerts are judged once it is made: of all that came meanwhile.
#[test]
fn the_table_of_alerts_is_needed_by_who_judges_and_by_nobody_else() {
    let mut script = Script::new();
    script.world.set("ALERTS__TOPIC", "");
    script.world.query("DROP TABLE highwater.alerts");
    let mut process = script.world.run("run");
    script.play(STAGES[1]);
    script.world.wait_for(100, &mut process, MINUTE);
    assert!(process.terminate().0.success());
    assert!(script.world.done(&["check"]).contains("tables and"), "nor does check miss it");
    script.world.set("ALERTS__TOPIC", "told");
    let missing = "the table alerts is missing; make it with `highwater migrate`";
    let output = script.world.command(&["check"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("tables and views are missing: alerts"), "{output:?}");
    let mut process = script.world.run("without");
    process.wait_for_words(&format!("ERROR alerts are not judged: {missing}; events are consumed all the same"));
    script.play(STAGES[2]);
    script.all_is_in(&mut process);
    assert!(!process.said().contains("judging alerts"), "{}", process.said());
    script.world.done(&["migrate"]);
    process.wait_for_words("judging alerts");
    let said = process.terminate().1;
    assert_eq!(said.matches(missing).count(), 1, "{said}");

    // Packs without a rule need none, whatever the topic.
    let pack = script.world.folder.path().join("packs/call.toml");
    let rules = std::fs::read_to_string(&pack).unwrap();
    std::fs::write(&pack, rules.split("[[alert]]").next().unwrap().split("[[budget]]").next().unwrap()).unwrap();
    script.world.query("DROP TABLE highwater.alerts");
    assert!(script.world.done(&["check"]).contains("tables and"), "nor does check miss it then");
}

/// The topics as consumers of a schema registry read them.
#[test]
fn messages_are_framed_for_the_schema_registry() {
    let registry = devstack::Registry::start().unwrap();
    let mut script = Script::new();
    script.world.set("ALERTS__FRAMING", "confluent");
    script.world.set("REGISTRY__URL", &registry.url());
    script.world.set("ALERTS__TOPIC", "framed");
    script.world.set("ALERTS__BUDGET_TOPIC", "framed-budgets");
    let process = script.world.run("run");
    process_is_judging(&process);
    script.play(STAGES[1]);
    let client = highwater::registry::Client::new(
        highwater::registry::Endpoint::new(&registry.url(), "", "", Duration::from_secs(10)).unwrap(),
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let begun = Instant::now();
    let mut found = BTreeMap::new();
    while found.get("dev.highwater.alert") != Some(&2) || !found.contains_key("dev.highwater.budget_state") {
        assert!(begun.elapsed() < MINUTE, "{found:?}: {}", process.said());
        found = BTreeMap::new();
        for payload in ["framed", "framed-budgets"].into_iter().flat_map(|topic| script.payloads(topic)) {
            assert_eq!(payload[0], 0);
            let id = u32::from_be_bytes(payload[1..5].try_into().unwrap());
            let Registered::Avro(text) = runtime.block_on(client.schema(id)).unwrap() else { panic!("{id}") };
            let schema = apache_avro::Schema::parse_str(&text).unwrap();
            let reader = GenericDatumReader::builder(&schema).build().unwrap();
            let mut body = &payload[5..];
            reader.read_value(&mut body).unwrap();
            assert!(body.is_empty());
            *found.entry(schema.name().unwrap().fullname(None).to_string()).or_insert(0) += 1;
        }
    }
    assert_eq!(found["dev.highwater.rule_set"], 1);
    process.kill();

    // The next one reads that back, and goes on.
    let before = script.payloads("framed").len();
    let process = script.world.run("second");
    process_is_judging(&process);
    assert!(process.said().contains("known=2"), "{}", process.said());
    script.play(STAGES[2]);
    wait_until("goes on", || script.payloads("framed").len() > before, &|| process.said());
}

/// From the event to «stop» on the topic.
#[test]
fn a_budget_that_is_spent_is_told_of_at_once() {
    let script = Script::new();
    let variables = [("HIGHWATER_BATCH__INTERVAL", "1s"), ("HIGHWATER_ALERTS__INTERVAL", "1s")];
    let process = script.world.run_with("run", &variables);
    process_is_judging(&process);
    let subscriber = Subscriber::new(&script);
    let mut took = Vec::new();
    for number in 0..11 {
        let app = format!("app-{number}");
        let sent = script.spend(&app, 1_000);
        while !subscriber.next(&process).is_some_and(|told| told.severity == "stop" && told.dimensions["app"] == app) {}
        took.push(sent.elapsed().as_millis());
        // Whenever the batch and the round began.
        std::thread::sleep(Duration::from_millis(fastrand::u64(..1_000)));
    }
    took.sort_unstable();
    println!("from event to stop, ms: {took:?}");
    // A batch of a second, and two seconds.
    assert!(took[took.len() / 2] < 3_000, "{took:?}");
}

fn process_is_judging(process: &Process) {
    wait_until("judging", || process.said().contains("judging alerts"), &|| process.said());
}

/// Each message is explained by what is there now; what was told before late events came is known to be otherwise.
fn explain(script: &Script) {
    for (id, sequence, rule) in script.ids() {
        let said = script.world.done(&["alerts", "explain", &id[..13], "--sequence", &sequence.to_string()]);
        assert!(said.contains("the rule, as it was, is the same now"), "{said}");
        let expected = match (rule.as_str(), sequence) {
            ("failures", 1) => {
                "0.8 against 0.2 when it was told, 0.875 against 0.2 now\n    window: 40 of 50 when it was told, 70 of 80 now"
            }
            ("failures", 3) => "computed anew: 0.625 against 0.2, as was told",
            ("failures", _) => "computed anew: 0 against 0.2, as was told",
            // It may have been told of when half of the calls had come.
            (_, 1) => "1000 spent in that period by now, 500 when it was told",
            _ => "computed anew: 1000 spent",
        };
        assert!(said.contains(expected), "{rule} {sequence}: {said}");
    }
    let (id, ..) = &script.ids()[0];
    let missing = script.world.command(&["alerts", "explain", id, "--sequence", "99"]).output().unwrap();
    let missing = (missing.status.code(), String::from_utf8(missing.stderr).unwrap());
    assert!(missing.0 == Some(1) && missing.1.contains("there is no message 99"), "{missing:?}");
}

/// Stages at which somebody is killed and frozen unless `ALERTS_KILLS` says to do so at each: levels of a budget, and a
/// correction.
const SHORT: [usize; 2] = [3, 7];

/// `ALERTS_KILLS` sets how often it is killed beside the eighteen times of the script.
#[test]
fn killed_and_frozen_in_the_middle_of_it_each_is_told_once() {
    let kills: Option<usize> = std::env::var("ALERTS_KILLS").ok().map(|kills| kills.parse().unwrap());
    let (more, is_short) = (kills.unwrap_or(0), kills.is_none());
    let more = [(Point::AlertsJudged, End), (Point::AlertsSent, End)].repeat(more.div_ceil(2 * STAGES.len()));
    let script = Script::new().missed_soon();
    let (mut killed, mut frozen) = (0, 0);
    for (at, stage) in STAGES.into_iter().enumerate() {
        script.play(stage);
        if is_short && !SHORT.contains(&at) {
            let process = script.world.run(&format!("stage-{at}"));
            script.wait_for(stage, &mut [&process]);
            process.kill();
            continue;
        }
        // Frozen when all is in the log and not committed, and when it is committed and not in the table.
        let places = if at % 2 == 0 {
            let frozen = vec![(Point::AlertsSent, Freeze)];
            [frozen, more.clone(), vec![(Point::AlertsSent, End), (Point::AlertsPublished, End)]].concat()
        } else {
            let frozen = vec![(Point::AlertsPublished, Freeze), (Point::AlertsKept, End)];
            [vec![(Point::AlertsJudged, End)], more.clone(), frozen].concat()
        };
        let mut sleeper = None;
        for (number, (point, then)) in places.into_iter().enumerate() {
            let (point, variable) = (point.name(), then.word());
            let name = format!("stage-{at}-{number}-{point}-{variable}");
            let mut process = script.world.run_with(&name, &[(VARIABLE, &format!("{point}:1:{variable}"))]);
            if then == End {
                wait_until(&name, || process.child.try_wait().unwrap().is_some(), &process_log(&script, &name));
                killed += 1;
            } else {
                let stat = || std::fs::read_to_string(format!("/proc/{}/stat", process.child.id())).unwrap();
                wait_until(&name, || stat().contains(") T "), &process_log(&script, &name));
                sleeper = Some(process);
                frozen += 1;
            }
        }
        let successor = script.world.run(&format!("stage-{at}-successor"));
        script.wait_for(stage, &mut [&successor]);
        let sleeper = sleeper.unwrap();
        send(sleeper.child.id(), Signal::Resume).unwrap();
        if at % 2 == 0 {
            // It finds its producer shut out, or first that its partition is another's.
            let ends = ["shut out of judging alerts", "is no longer ours"];
            wait_until("shut out", || ends.iter().any(|end| sleeper.said().contains(end)), &|| sleeper.said());
        } else {
            // It writes the table's rows, which are there by now.
            std::thread::sleep(Duration::from_secs(1));
        }
        sleeper.kill();
        let (status, said) = successor.terminate();
        assert!(status.success(), "{status}: {said}");
        script.check_once();
    }
    // What the last that was killed had no time to write into the table, the next one writes.
    let last = script.world.run("last");
    script.check();
    assert!(last.terminate().0.success());
    println!("killed {killed} times and frozen {frozen} times");
}

/// What becomes of a process at its failpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    End,
    Freeze,
}
use Then::{End, Freeze};

impl Then {
    fn word(self) -> &'static str {
        match self {
            End => "end",
            Freeze => "freeze",
        }
    }
}

fn process_log(script: &Script, name: &str) -> impl Fn() -> String + use<> {
    let path = script.world.folder.path().join(name);
    move || std::fs::read_to_string(&path).unwrap()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool, said: &dyn Fn() -> String) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < MINUTE, "{what}: it never came to that: {}", said());
        std::thread::sleep(Duration::from_millis(50));
    }
}
