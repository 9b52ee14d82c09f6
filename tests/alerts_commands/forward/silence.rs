//! Nothing is heard of highwater, or of Kafka: who is told, and when it is over.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{committed, forward, members, numbers, world};
use crate::receiver::Receiver;
use crate::support::Process;
use crate::topic::{Topic, message};
use crate::wait_until;

/// Whether Alertmanager is told that an alert is over.
fn is_over(alert: &Value) -> bool {
    alert["endsAt"].is_string()
}

#[test]
fn people_are_told_when_heartbeats_stop_and_when_they_come_again() {
    let mut world = world();
    let [hook, manager] = std::array::from_fn(|_| Receiver::start());
    world.set("FORWARD__WEBHOOK_URL", &hook.url("/"));
    world.set("FORWARD__ALERTMANAGER_URL", &manager.url(""));
    world.set("FORWARD__RESEND", "1s");
    world.set("FORWARD__SILENT_AFTER", "2s");
    world.set("ALERTS__HEARTBEAT", "1s");
    let mut topic = Topic::new(&world);
    topic.publish(&[message("a", 1, "firing")]);
    // Who does not come to read within the longest silence tells of one, however slow or quick it is otherwise.
    world.stack.kafka.pause().unwrap();
    let process = forward(&world, "first");
    let said = || process.said();
    let of = |rule| move |body: &Value| body["rule"] == rule;
    let silent = || -> Vec<Value> { hook.taken().into_iter().filter(of("highwater_silent")).collect() };
    let real = || -> Vec<Value> { hook.taken().into_iter().filter(of("failures")).collect() };
    let told_manager = || -> Vec<Value> {
        let alerts = manager.taken().into_iter().flat_map(|body| body.as_array().unwrap().clone());
        alerts.filter(|alert| alert["labels"]["alertname"] == "highwater_silent").collect()
    };
    wait_until("never heard", || !silent().is_empty() && !told_manager().is_empty(), &said);
    world.stack.kafka.resume().unwrap();
    wait_until("a", || real().len() == 1, &said);
    topic.publish(&[]);
    wait_until("heard", || silent().len() > 1 && told_manager().iter().any(is_over), &said);
    wait_until("silent", || silent().len() > 2, &said);
    // As often as what fires.
    let reminders = || told_manager().into_iter().rev().take_while(|alert| !is_over(alert)).count();
    wait_until("reminded", || reminders() > 2, &said);
    let told = silent();
    let is_told: Vec<_> = told.iter().map(|body| body["state"].as_str().unwrap()).collect();
    assert_eq!(is_told, ["firing", "resolved", "firing"]);
    assert!(told.iter().all(|body| body["severity"] == "page" && body["alert_id"] == told[0]["alert_id"]), "{told:#?}");
    let summary = |at: usize| told[at]["summary"].as_str().unwrap();
    assert!(summary(0).starts_with("no heartbeat of highwater: none was ever read. "), "{}", summary(0));
    let stopped = summary(2);
    let begin = "no heartbeat of highwater: the last came at 20";
    assert!(stopped.starts_with(begin) && stopped.contains("was judged"), "{stopped}");
    let before = committed(&world);
    let ends = || told_manager().into_iter().filter(is_over).count();
    let ended = ends();

    topic.publish(&[message("a", 2, "resolved")]);
    wait_until("over", || silent().len() > 3 && real().len() == 2, &said);
    let told = silent();
    assert_eq!((&told[3]["state"], &told[3]["alert_id"]), (&json!("resolved"), &told[2]["alert_id"]));
    let numbered: Vec<i64> = told.iter().map(|body| body["sequence"].as_i64().unwrap()).collect();
    assert!(numbered.is_sorted_by(|one, next| one < next), "{numbered:?}");
    wait_until("over there", || ends() > ended, &said);
    assert_eq!(numbers(&real()), [("a".to_owned(), 1), ("a".to_owned(), 2)]);
    wait_until("committed", || committed(&world) > before, &said);
    // What is told anew is no message that may come twice.
    let heads = manager.requests().into_iter().map(|request| request.head);
    let keys = heads.filter_map(|head| Some(head.split_once("idempotency-key: ")?.1.lines().next()?.to_owned()));
    let (mut keys, all) = (keys.collect::<Vec<_>>(), manager.requests().len());
    keys.sort();
    let count = keys.len();
    keys.dedup();
    assert!(keys.len() == count && count < all, "{keys:?} of {all}");
    assert!(process.terminate().0.success());
}

/// Whoever has the partition is cut off from it, and stands by no more than before.
#[test]
fn people_are_told_when_kafka_is_away() {
    let mut world = world().missed_soon();
    let hook = Receiver::start();
    world.set("FORWARD__WEBHOOK_URL", &hook.url("/"));
    world.set("FORWARD__SILENT_AFTER", "5s");
    world.set("ALERTS__HEARTBEAT", "1s");
    let mut topic = Topic::new(&world);
    topic.publish(&[message("a", 1, "firing")]);
    let (process, standby) = (forward(&world, "first"), forward(&world, "second"));
    let said = || format!("{}\n{}", process.said(), standby.said());
    let silent =
        || -> Vec<Value> { hook.taken().into_iter().filter(|body| body["rule"] == "highwater_silent").collect() };
    wait_until("a", || hook.taken().len() > silent().len(), &said);
    // Who is no member yet knows of nobody who watches, and tells of itself. What was told by whoever joined slowly is over
    // with the next heartbeats.
    let (mut since, mut told) = (Instant::now(), 0);
    let settled = || {
        topic.publish(&[]);
        if members(&world) != 2 || silent().len() != told {
            (since, told) = (Instant::now(), silent().len());
        }
        since.elapsed() > Duration::from_secs(3)
    };
    wait_until("settled", settled, &|| format!("{}\n{:?}", said(), silent()));
    let before = silent().len();
    world.stack.kafka.kill().unwrap();
    wait_until("silent", || silent().len() > before, &said);
    // Another one may have come to have it in the last moment.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(hook.taken().len(), silent().len() + 1, "{:?}", hook.taken());
    let told = &silent()[before..];
    assert!(told.len() <= 2, "{told:?}");
    assert!(told.iter().all(|body| body["state"] == "firing"), "{told:?}");
    assert!(told.iter().all(|body| body["sequence"] == told[0]["sequence"]), "{told:?}");
}

/// One of the two that begin without Kafka will stand by. Neither ends what it told before there is a heartbeat: an end of the
/// one, told while the other one still hears nothing, would stand as the last word.
#[test]
fn people_are_told_though_kafka_was_never_there() {
    let mut world = world();
    let hook = Receiver::start();
    world.set("FORWARD__WEBHOOK_URL", &hook.url("/"));
    world.set("FORWARD__SILENT_AFTER", "8s");
    world.set("ALERTS__HEARTBEAT", "1s");
    let mut topic = Topic::new(&world);
    topic.publish(&[message("a", 1, "firing")]);
    world.stack.kafka.pause().unwrap();
    let processes = ["first", "second"].map(|name| forward(&world, name));
    let said = || processes.each_ref().map(Process::said).join("\n");
    let states = || -> Vec<String> {
        let own = hook.taken().into_iter().filter(|body| body["rule"] == "highwater_silent");
        own.map(|body| body["state"].as_str().unwrap().to_owned()).collect()
    };
    wait_until("silent", || states() == ["firing"; 2], &said);
    world.stack.kafka.resume().unwrap();
    wait_until("a", || hook.taken().iter().any(|body| body["rule"] == "failures"), &said);
    // Longer than either may be silent, and than standing by takes.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(states(), ["firing"; 2], "{}", said());
    let is_over = || states() == ["firing", "firing", "resolved", "resolved"];
    // Heartbeats go on coming, so that it does not matter when the one that stands by looked first.
    let beats = || {
        topic.publish(&[]);
        is_over()
    };
    wait_until("over", beats, &said);
}
