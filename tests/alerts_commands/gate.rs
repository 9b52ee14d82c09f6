//! `examples/budget_gate.rs`: a service that stops by itself, before the real evaluator.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater::alert::{BudgetState, Framing, Heartbeat, Record};

use crate::budget_gate::{Answer, BEHIND, Fail, Gate, PATIENCE, follow};
use crate::script::{STAGES, Script};
use crate::wait_until;

fn request(app: &str) -> BTreeMap<String, String> {
    [("app".to_owned(), app.to_owned()), ("team".to_owned(), "search".to_owned())].into()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[test]
fn requests_stop_when_the_budget_is_spent() {
    let script = Script::new();
    let process = script.world.run("run");
    script.play(STAGES[1]);
    let (gate, goes_on) = (Mutex::new(Gate::new(Fail::Closed, ["lasting"]).unwrap()), AtomicBool::new(true));
    let brokers = script.world.stack.kafka.bootstrap();
    script.wait_for(STAGES[1], &mut [&process]);
    let topics = ["highwater-budgets", "highwater-alerts"];
    std::thread::scope(|scope| {
        // However the test ends.
        let _end = End(&goes_on);
        scope.spawn(|| follow(&brokers, topics, &gate, || goes_on.load(Ordering::Relaxed)).unwrap());
        let ask = |app: &str| gate.lock().unwrap().ask(&request(app), now());
        // What happened was hours ago, and nobody has judged since.
        let is_behind = || matches!(ask("zest"), Answer::Blind(_, why) if why.starts_with("nothing was judged for"));
        wait_until("behind", is_behind, &|| format!("{:?} {}", ask("zest"), process.said()));
        script.complete((now() - script.begin) / 60_000);
        wait_until("allowed", || ask("zest") == Answer::Allowed, &|| format!("{:?} {}", ask("zest"), process.said()));
        // All of it is spent now.
        script.play(STAGES[3]);
        wait_until("denied", || matches!(ask("zest"), Answer::Denied(_)), &|| format!("{:?}", ask("zest")));
        let Answer::Denied(why) = ask("zest") else { unreachable!() };
        assert!(why.starts_with("1000 of 1000 of lasting is spent until 20"), "{why}");
        assert_eq!(ask("other"), Answer::Allowed);
        // Whoever keeps the table is gone: what is spent stays so, and of all else nobody knows.
        process.kill();
        let later = now() + PATIENCE.as_millis() as i64 + 5_000;
        let gate = gate.lock().unwrap();
        assert!(matches!(gate.ask(&request("zest"), later), Answer::Denied(_)));
        let blind = gate.ask(&request("other"), later);
        assert!(
            matches!(&blind, Answer::Blind(Fail::Closed, why) if why.starts_with("the last heartbeat is ")),
            "{blind:?}"
        );
        assert!(!blind.is_allowed());
    });
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn state(app: &str, spent: &str, period: (i64, i64)) -> (Vec<u8>, Vec<u8>) {
    let record = Record::Budget(Box::new(BudgetState {
        key: format!("key of {app}"),
        budget: "b".into(),
        dimensions: [("app".to_owned(), app.to_owned())].into(),
        labels: BTreeMap::new(),
        period_start: period.0,
        period_end: period.1,
        amount: "50".into(),
        spent: spent.into(),
        percent: "0".into(),
        overshoot: "0".into(),
        // Whatever its levels are called.
        state: "sold out".into(),
        forecast: None,
        unpriced: 0,
        complete_through: 0,
    }));
    (record.key().as_bytes().to_vec(), Framing::default().encode(&record).unwrap())
}

fn heartbeat(sent_at: i64, judged: i64, unjudged: &[&str]) -> Vec<u8> {
    let unjudged = unjudged.iter().map(|&name| name.to_owned()).collect();
    let heartbeat = Heartbeat { round: 1, sent_at, judged, unjudged, ..Heartbeat::default() };
    Framing::default().encode(&Record::Heartbeat(heartbeat)).unwrap()
}

/// | what comes | what is said |
/// |---|---|
/// | nothing, no heartbeat, an old one, one that says that judging is behind or left the budget out | that nobody knows, and the gate's choice |
/// | an end of one topic, twice | that it is not read yet |
/// | a state whose period is over or to come, of another series, a deleted one | allowed |
/// | what is no record of ours | of alerts: nothing changes; of budgets: what is spent stays so, of all else nobody knows |
/// | a budget that the gate does not enforce, and one that was never judged | allowed; that nobody knows |
#[test]
fn without_word_it_fails_as_was_chosen() {
    for (fail, is_allowed) in [(Fail::Open, true), (Fail::Closed, false)] {
        let mut gate = Gate::new(fail, ["b", "never"]).unwrap();
        let blind = |why: &str| Answer::Blind(fail, why.to_owned());
        for topic in [1, 1, 0] {
            assert_eq!(gate.ask(&request("a"), 1_000), blind("the topics are not read yet"));
            gate.at_end(topic);
        }
        let found = gate.ask(&request("a"), 1_000);
        assert_eq!((found.is_allowed(), found), (is_allowed, blind("there was never a heartbeat")));
        gate.take_heartbeat(Some(&heartbeat(1_000, 1_000, &[])));
        assert_eq!(gate.ask(&request("a"), 121_000), Answer::Allowed);
        assert_eq!(gate.ask(&request("a"), 121_001), blind("the last heartbeat is 120 s old"));
        let (key, payload) = state("a", "50.01", (10_000, 20_000));
        gate.take_state(&key, Some(&payload));
        let denied = "50.01 of 50 of b is spent until 1970-01-01T00:00:20Z";
        assert_eq!(gate.ask(&request("a"), 10_000), Answer::Denied(denied.to_owned()));
        for (app, now) in [("a", 9_999), ("a", 20_000), ("b", 15_000)] {
            assert_eq!(gate.ask(&request(app), now), Answer::Allowed, "{app} {now}");
        }
        assert_eq!(gate.ask(&BTreeMap::new(), 15_000), Answer::Allowed);
        // Of another topic.
        gate.take_heartbeat(None);
        for strange in [&b""[..], b"{}", &payload[..12], &[0xC3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]] {
            gate.take_heartbeat(Some(strange));
            gate.take_state(&key, Some(strange));
            assert!(matches!(gate.ask(&request("a"), 15_000), Answer::Denied(_)));
            // The next period may be in it.
            assert_eq!(gate.ask(&request("a"), 20_000), blind("the last record of key of a can't be read"));
            assert_eq!(gate.ask(&request("b"), 20_000), Answer::Allowed);
            gate.take_state(b"new", Some(strange));
            assert_eq!(gate.ask(&request("b"), 20_000), blind("the last record of new can't be read"));
            gate.take_state(b"new", None);
            gate.take_state(&key, Some(&payload));
            assert_eq!(gate.ask(&request("a"), 20_000), Answer::Allowed);
        }
        gate.take_state(&key, None);
        assert_eq!(gate.ask(&request("a"), 15_000), Answer::Allowed);
        judging_that_falls_behind_or_leaves_a_budget_out(gate, fail);
    }
}

fn judging_that_falls_behind_or_leaves_a_budget_out(mut gate: Gate, fail: Fail) {
    let blind = |why: &str| Answer::Blind(fail, why.to_owned());
    let now = 10_000_000;
    let behind = now - BEHIND.as_millis() as i64;
    let (key, payload) = state("a", "49.99", (0, 20_000_000));
    gate.take_state(&key, Some(&payload));
    gate.take_heartbeat(Some(&heartbeat(now, behind, &["another", "b:forecast"])));
    assert_eq!(gate.ask(&request("a"), now), Answer::Allowed);
    assert_eq!(gate.ask(&request("a"), now + 1), blind("nothing was judged for 600 s"));
    gate.take_heartbeat(Some(&heartbeat(now, now, &["b"])));
    // A series that nobody has spent from is one of that budget too; a request without its dimension is not.
    for app in ["a", "new"] {
        assert_eq!(gate.ask(&request(app), now), blind("b was not judged the last time"));
    }
    assert_eq!(gate.ask(&BTreeMap::new(), now), Answer::Allowed);
    // One that was never judged may be by anything.
    gate.take_heartbeat(Some(&heartbeat(now, now, &["never"])));
    assert_eq!(gate.ask(&BTreeMap::new(), now), blind("never was not judged the last time"));
    let (_, spent) = state("a", "50", (0, 20_000_000));
    gate.take_state(&key, Some(&spent));
    assert!(matches!(gate.ask(&request("a"), now), Answer::Denied(_)));
    gate.take_heartbeat(Some(&heartbeat(now, now, &[])));
    assert_eq!(gate.ask(&request("new"), now), Answer::Allowed);
}

#[test]
fn budgets_of_others_deny_nothing() {
    let mut gate = Gate::new(Fail::Closed, ["another"]).unwrap();
    gate.at_end(0);
    gate.at_end(1);
    gate.take_heartbeat(Some(&heartbeat(1_000, 1_000, &["b"])));
    let (key, payload) = state("a", "60", (0, 2_000));
    gate.take_state(&key, Some(&payload));
    assert_eq!(gate.ask(&request("a"), 1_000), Answer::Allowed);
}

#[test]
fn what_is_spent_is_held_against_the_amount_exactly() {
    let mut gate = Gate::new(Fail::Closed, ["b"]).unwrap();
    gate.at_end(0);
    gate.at_end(1);
    gate.take_heartbeat(Some(&heartbeat(1_000, 1_000, &[])));
    for (spent, is_denied) in [
        ("49.999999999999", false),
        ("9", false),
        ("0", false),
        ("-60", false),
        ("50", true),
        ("50.00", true),
        ("050.000000000001", true),
        ("100000000000000000000000000000000000000000", true),
    ] {
        let (key, payload) = state("a", spent, (0, 2_000));
        gate.take_state(&key, Some(&payload));
        let found = gate.ask(&request("a"), 1_000);
        assert_eq!(matches!(found, Answer::Denied(_)), is_denied, "{spent}: {found:?}");
        assert_eq!(found == Answer::Allowed, !is_denied, "{spent}: {found:?}");
    }
    for odd in ["", ".", "5.", "much", "1e9", "--1"] {
        let (key, payload) = state("a", odd, (0, 2_000));
        gate.take_state(&key, Some(&payload));
        let found = gate.ask(&request("a"), 1_000);
        assert!(matches!(&found, Answer::Blind(Fail::Closed, why) if why.ends_with("are no numbers")), "{found:?}");
    }
}
