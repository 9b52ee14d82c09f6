//! A rule that asks for too much is not judged, and said to be so; all others are.

use highwater::alert::Heartbeat;

use crate::script::Script;
use crate::wait_until;

/// Over two weeks and all apps, so that it has a question of its own, of a row every quarter of an hour.
const ALL: &str = r#"
[[alert]]
name = "all"
metric = "used"
window = "2w"
above = 1000
severity = "page"
"#;
/// More than the fewest rows that an answer may be limited to.
const APPS: usize = 1_100;

#[test]
fn a_question_beyond_a_limit_costs_its_rules_only() {
    let pack = include_str!("call.toml").replace("ENDING", "UTC").replace("LASTING", "UTC");
    let hour = jiff::Timestamp::now().as_second().div_euclid(3_600) - 3;
    let mut script = Script::of(&(pack + ALL), hour * 60);
    script.world.set("ALERTS__QUERY_ROWS", "1000");
    let process = script.world.run("run");
    script.wait("the begin", (0, 0), &mut [&process]);
    script.send_apps(7, APPS, 5);
    script.wait("the calls", (0, 0), &mut [&process]);
    script.complete(20);
    // 5,500 tokens of all apps together.
    script.wait("one rule", (1, 20), &mut [&process]);
    let told = script.told();
    assert!(told.len() == 1 && told.contains_key("all"), "{told:#?}");
    let last = |script: &Script| -> Heartbeat { script.heartbeats().last().unwrap().clone() };
    assert_eq!(last(&script).unjudged, ["ending", "failures", "lasting"]);
    let firing = script.world.done(&["alerts"]);
    assert!(firing.contains("1 alert fires; 1 of 4 rules and budgets are judged up to"), "{firing}");
    assert!(firing.contains("\nnot judged: ending, failures, lasting\nnobody is told of what these watch"), "{firing}");
    let said = process.said();
    assert!(
        said.contains("are not judged: the question to ClickHouse") && said.contains("or raise alerts.query_rows"),
        "{said}"
    );
    assert_eq!(said.matches("ERROR").count(), 2, "once for each question: {said}");
    process.kill();

    // Who may ask for more judges what was left.
    script.world.set("ALERTS__QUERY_ROWS", "100000");
    let process = script.world.run("second");
    let judged = || last(&script).unjudged.is_empty();
    wait_until("all are judged", judged, &|| process.said());
    assert!(process.terminate().0.success());

    // And who has no room for rows says so.
    script.world.set("ALERTS__MEMORY", "1MiB");
    script.world.set("ALERTS__CORRECT_WITHIN", "2d");
    script.send_apps(9, 40_000, 1);
    let process = script.world.run("third");
    let said = || process.said().contains("do not fit into the 1 MiB that all rows may take");
    wait_until("no room", said, &|| process.said());
    wait_until("told", || !last(&script).unjudged.is_empty(), &|| process.said());
    assert!(process.said().contains("or raise alerts.memory"), "{}", process.said());
    assert!(process.terminate().0.success());
}

/// Without a restart, and heartbeats come as ever.
#[test]
fn a_question_that_failed_is_asked_again() {
    let pack = include_str!("call.toml").replace("ENDING", "UTC").replace("LASTING", "UTC");
    let hour = jiff::Timestamp::now().as_second().div_euclid(3_600) - 3;
    let mut script = Script::of(&pack, hour * 60);
    script.world.set("ALERTS__QUERY_ROWS", "1000");
    script.world.set("ALERTS__HEARTBEAT", "1s");
    let process = script.world.run("run");
    script.wait("the begin", (0, 0), &mut [&process]);
    script.send_apps(7, APPS, 5);
    let unjudged = || script.heartbeats().last().unwrap().unjudged.len();
    wait_until("too much", || unjudged() == 2, &|| process.said());
    // Half of the apps' rows go away, as rows that expire do.
    script.world.query("ALTER TABLE highwater.call_1m_parts DELETE WHERE app < 'app-5' SETTINGS mutations_sync = 2");
    wait_until("all are judged", || unjudged() == 0, &|| process.said());
    assert!(process.said().contains("are judged again"), "{}", process.said());
    let sent: Vec<i64> = script.heartbeats().iter().map(|heartbeat| heartbeat.sent_at).collect();
    let longest = sent.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest < 10_000, "{longest} ms without a heartbeat: {}", process.said());
    assert!(process.terminate().0.success());
}
