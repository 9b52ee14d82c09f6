//! `highwater alerts forward`: every alert at every target, whatever the targets do and however the process ends.

mod refusals;
mod silence;

use std::time::Duration;

use devstack::sys::{Signal, send};
use highwater::alert::{ALERT_SCHEMA, Framing, Message, Record};
use highwater::kafka::{ConsumerSettings, Observer};
use highwater::ports::{Registered, TopicPartition};
use highwater::registry::{Client, Endpoint};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::groups::GroupInfo;
use serde_json::{Value, json};

use crate::receiver::{Receiver, Then, nobody};
use crate::support::{Process, World};
use crate::topic::{ALERTS, Topic, message};
use crate::wait_until;

/// What a URL ends with that nobody may read.
const SECRET: &str = "/services/s3cr3t?token=s3cr3t";

fn world() -> World {
    let mut world = World::new();
    world.set("ALERTS__TOPIC", ALERTS);
    world
}

fn forward(world: &World, name: &str) -> Process {
    world.run_command(name, &["alerts", "forward"])
}

/// (alert, number) of what a webhook took, in its order.
fn numbers(bodies: &[Value]) -> Vec<(String, i64)> {
    let number =
        |body: &Value| (body["dimensions"]["app"].as_str().unwrap().to_owned(), body["sequence"].as_i64().unwrap());
    bodies.iter().map(number).collect()
}

fn of(messages: &[Message]) -> Vec<(String, i64)> {
    messages.iter().map(|message| (message.dimensions["app"].clone(), message.sequence)).collect()
}

#[test]
fn each_target_gets_all_in_order_whatever_the_others_do() {
    let mut world = world();
    let [hook, slack, manager] = std::array::from_fn(|_| Receiver::start());
    world.set("FORWARD__WEBHOOK_URL", &hook.url(SECRET));
    world.set("FORWARD__SLACK_URL", &slack.url(SECRET));
    // One member of the cluster is away.
    world.set("FORWARD__ALERTMANAGER_URL", &format!("http://127.0.0.1:{},{}", nobody(), manager.url("/s3cr3t")));
    world.set("FORWARD__RESEND", "1h");
    world.set("FORWARD__TIMEOUT", "4s");
    world.set("FORWARD__LINK", "https://grafana.example.com/d/x?alert={alert_id}");
    let mut topic = Topic::new(&world);
    let telling = Then::Answer(500, "", "Cannot POST /services/s3cr3t?token=s3cr3t");
    let moved = Then::Answer(404, "", "no s3cr3t");
    let limited = Then::Answer(429, "Retry-After: 2\r\n", "slowly");
    hook.then(&[telling, moved, Then::HangUp, Then::Late(Duration::from_secs(12)), limited]);
    slack.always(Then::Answer(400, "", "no_service: s0me\u{1b} words"));
    let mut command = world.command(&["alerts", "forward"]);
    command.env("RUST_LOG", "trace");
    let process = world.spawn("forward", command);
    wait_until("handing on", || process.said().matches("handing on alerts of the topic").count() == 3, &|| {
        process.said()
    });
    // What is published before it has joined its groups is what the first start finds.
    let states = ["firing", "resolved", "firing", "withdrawn"];
    let told: Vec<Message> =
        (1..=4).flat_map(|at| ["a", "b"].map(|app| message(app, at, states[at as usize - 1]))).collect();
    topic.publish(&told[..2]);
    let said = || process.said();
    wait_until("first", || numbers(&hook.taken()).len() == 2, &said);
    for pair in told[2..].chunks(2) {
        topic.publish(pair);
    }
    wait_until("all", || numbers(&hook.taken()).len() == told.len(), &said);
    assert_eq!(numbers(&hook.taken()), of(&told));
    let first = &hook.requests()[0];
    assert_eq!(first.path, "/services/s3cr3t?token=s3cr3t");
    assert!(first.head.contains(&format!("idempotency-key: {}/1\r\n", told[0].alert_id)), "{}", first.head);
    let mut expected = json!(told[0]);
    expected["link"] = json!(format!("https://grafana.example.com/d/x?alert={}", told[0].alert_id));
    assert_eq!(first.body, expected);
    // Five attempts in vain, and one that came late: it was taken, for all that we know.
    assert_eq!(
        numbers(&hook.requests().iter().map(|request| request.body.clone()).collect::<Vec<_>>())[..6],
        vec![("a".to_owned(), 1); 6]
    );

    // What Slack refuses three times is left out, and said.
    wait_until("refused", || slack.requests().len() == 3 * told.len(), &said);
    wait_until("said", || said().matches("an alert was not handed on").count() == told.len(), &said);
    for told in &told {
        let name = format!("the alert and its number are {}/{}", told.alert_id, told.sequence);
        let line = said().lines().find(|line| line.contains(&name)).unwrap().to_owned();
        let refused = "refused it: it answered 400 Bad Request: no_service: s0me  words";
        assert!(line.contains(&format!("slack at http://127.0.0.1:{} {refused}", slack.port)), "{line}");
    }
    assert!(slack.requests()[0].body["text"].as_str().unwrap().contains("*firing page*"), "{:?}", slack.requests()[0]);

    // Alertmanager is told of the same.
    let told_manager = || manager.taken().iter().flat_map(|body| body.as_array().unwrap().clone()).collect::<Vec<_>>();
    wait_until("alertmanager", || told_manager().len() >= told.len(), &said);
    assert_eq!(manager.requests()[0].path, "/s3cr3t/api/v2/alerts");
    let all = told_manager();
    let of_a = all.iter().filter(|alert| alert["labels"]["app"] == "a").collect::<Vec<_>>();
    let ends: Vec<bool> = of_a.iter().map(|alert| alert["endsAt"].is_string()).collect();
    assert!(ends.ends_with(&[false, true, false, true]), "{of_a:#?}");
    assert!(!said().contains("s3cr3t"), "{}", said());
    assert!(said().contains("waiting for the webhook at http://127.0.0.1:"), "{}", said());

    // All is committed: whoever comes next has nothing to say.
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    let counts = || [&hook, &slack].map(|receiver| receiver.requests().len());
    let before = counts();
    let process = forward(&world, "second");
    let more = [message("c", 1, "firing")];
    topic.publish(&more);
    wait_until("more", || hook.requests().len() > before[0] && slack.requests().len() > before[1] + 2, &|| {
        process.said()
    });
    assert_eq!(counts(), [before[0] + 1, before[1] + 3], "{}", process.said());
    assert_eq!(numbers(&hook.taken()).last().unwrap(), &("c".to_owned(), 1));
}

#[test]
fn nothing_is_lost_when_it_is_killed() {
    let mut world = world().missed_soon();
    let hook = Receiver::start();
    world.set("FORWARD__WEBHOOK_URL", &hook.url("/"));
    let mut topic = Topic::new(&world);
    topic.publish(&[]);
    let mut process = forward(&world, "first");
    // From its first commit on nothing is left out.
    wait_until("joined", || committed(&world) > 0, &|| process.said());
    let told: Vec<Message> =
        (1..=150).map(|at| message("a", at, if at % 2 == 1 { "firing" } else { "resolved" })).collect();
    let kills = 5;
    for (round, part) in told.chunks(told.len() / kills).enumerate() {
        topic.publish(part);
        let aim = hook.taken().len() + part.len() / 2;
        let begun = std::time::Instant::now();
        let (said, log) = (process.said(), format!("round-{round}"));
        wait_until(&log, || hook.taken().len() >= aim, &|| said.clone());
        assert!(begun.elapsed() < crate::MINUTE);
        // Another one stands by before it is killed.
        let next = forward(&world, &log);
        if round % 2 == 1 {
            std::thread::sleep(Duration::from_millis(700));
        }
        process.kill();
        process = next;
    }
    let all = || {
        let mut first: Vec<(String, i64)> = Vec::new();
        for number in numbers(&hook.taken()) {
            if !first.contains(&number) {
                first.push(number);
            }
        }
        first
    };
    wait_until("all", || all().len() == told.len(), &|| format!("{:?} {}", all(), process.said()));
    assert_eq!(all(), of(&told));
    let twice = hook.taken().len() - told.len();
    println!("{twice} of {} came twice, {kills} kills", told.len());
    // What was on its way, and what was taken since the last commit that arrived: never more than since the kill before.
    assert!(twice <= told.len(), "{twice}");
}

/// The offset that the webhook's group has committed.
fn committed(world: &World) -> u64 {
    // While nobody has joined a group, nobody may know who coordinates it.
    observer(world).bounds(ALERTS, 1).ok().and_then(|bounds| bounds[0].1.committed).unwrap_or(0)
}

/// How many have their place in the group.
fn members(world: &World) -> usize {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", world.stack.kafka.bootstrap()).create().unwrap();
    let listed = client.fetch_group_list(Some("highwater-forward-webhook"), Duration::from_secs(5));
    let of = |group: &GroupInfo| if group.state() == "Stable" { group.members().len() } else { 0 };
    listed.ok().and_then(|listed| listed.groups().first().map(of)).unwrap_or(0)
}

fn observer(world: &World) -> Observer {
    let settings = ConsumerSettings {
        brokers: world.stack.kafka.bootstrap(),
        group: "highwater-forward-webhook".into(),
        topics: vec![ALERTS.into()],
        ..Default::default()
    };
    Observer::new(&settings, Duration::from_secs(5)).unwrap()
}

#[test]
fn the_first_start_tells_what_fires_and_records_of_others_are_left_out() {
    let mut world = world();
    let hook = Receiver::start();
    let file = world.folder.path().join("url");
    std::fs::write(&file, format!("{}\n", hook.url("/"))).unwrap();
    world.set("FORWARD__WEBHOOK_URL_FILE", &file.display().to_string());
    let mut topic = Topic::new(&world);
    let states: [(&str, &[&str]); 4] = [
        ("over", &["firing", "resolved"]),
        ("again", &["firing", "resolved", "firing"]),
        ("never", &["firing", "withdrawn"]),
        ("lasting", &["firing"]),
    ];
    for (app, states) in states {
        for (at, state) in states.iter().enumerate() {
            topic.publish(&[message(app, at as i64 + 1, state)]);
        }
    }
    topic.raw(&[("strange", b"no Avro"), ("strange", b"")]);
    let process = forward(&world, "forward");
    let said = || process.said();
    wait_until("what fires", || hook.taken().len() == 2, &said);
    topic.raw(&[("strange", b"still no Avro")]);
    topic.publish(&[message("over", 3, "firing")]);
    wait_until("the next", || hook.taken().len() == 3, &said);
    let mut told = numbers(&hook.taken());
    told[..2].sort();
    assert_eq!(told, [("again", 3), ("lasting", 1), ("over", 3)].map(|(app, at)| (app.to_owned(), at)));
    assert_eq!(
        said().matches("a record of the topic of alerts can't be read and is not handed on").count(),
        3,
        "{}",
        said()
    );
}

/// It is killed when one of two was told. The alert that was told as firing is over before it is started anew.
#[test]
fn a_first_start_that_is_killed_leaves_no_end_out() {
    let mut world = world().missed_soon();
    let hook = Receiver::start();
    world.set("FORWARD__WEBHOOK_URL", &hook.url("/"));
    let mut topic = Topic::new(&world);
    topic.publish(&[message("a", 1, "firing"), message("b", 1, "firing")]);
    hook.then(&[Then::Answer(200, "", "")]);
    hook.always(Then::Answer(503, "", "away"));
    let process = forward(&world, "first");
    wait_until("tried", || hook.requests().len() > 2, &|| process.said());
    process.kill();
    let (first, _) = numbers(&hook.taken())[0].clone();
    topic.publish(&[message(&first, 2, "resolved"), message("c", 1, "firing")]);
    hook.always(Then::Answer(200, "", ""));
    let process = forward(&world, "second");
    wait_until("the last", || numbers(&hook.taken()).contains(&("c".to_owned(), 1)), &|| process.said());
    let told = numbers(&hook.taken());
    let (ended, other) = ((first.clone(), 2), (if first == "a" { "b" } else { "a" }.to_owned(), 1));
    assert!(told.contains(&ended) && told.contains(&other), "{told:?} {}", process.said());
    // From then on it goes on where it was.
    let before = hook.requests().len();
    assert!(process.terminate().0.success());
    topic.publish(&[message("d", 1, "firing")]);
    let process = forward(&world, "third");
    wait_until("the next", || hook.taken().len() > told.len(), &|| process.said());
    assert_eq!(numbers(&hook.taken())[told.len()..], [("d".to_owned(), 1)]);
    assert_eq!(hook.requests().len(), before + 1);
}

#[test]
fn a_record_of_an_unknown_schema_stops_it_and_is_not_committed_past() {
    let mut world = world();
    let hook = Receiver::start();
    world.set("FORWARD__WEBHOOK_URL", &hook.url("/"));
    let mut topic = Topic::new(&world);
    topic.publish(&[]);
    let process = forward(&world, "first");
    wait_until("joined", || committed(&world) > 0, &|| process.said());
    topic.publish(&[message("a", 1, "firing")]);
    let newer = message("b", 1, "firing");
    let mut payload = newer.encode().unwrap();
    payload[2] ^= 1;
    topic.raw(&[(newer.alert_id.as_str(), &payload)]);
    topic.publish(&[message("c", 1, "firing")]);
    // Heartbeat and its marker, a, heartbeat, marker.
    let stands_at = 5;
    let said = || process.said();
    let line =
        format!("before {ALERTS}/0 offset {stands_at} can be read: it was written with the schema of the fingerprint");
    wait_until("stopped", || said().contains(&line), &said);
    assert!(said().contains("Update this highwater"), "{}", said());
    // Longer than it takes to look again.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(numbers(&hook.taken()), [("a".to_owned(), 1)]);
    assert!(committed(&world) <= stands_at, "{}", committed(&world));
    assert!(process.terminate().0.success());
    assert!(committed(&world) <= stands_at, "{}", committed(&world));
}

/// A subscriber looks schemas up and registers none, and waits for a registry that is away.
#[test]
fn schemas_are_looked_up_in_the_registry() {
    let registry = devstack::Registry::start().unwrap();
    let mut world = world();
    let hook = Receiver::start();
    world.set("FORWARD__WEBHOOK_URL", &hook.url("/"));
    world.set("ALERTS__FRAMING", "confluent");
    world.set("REGISTRY__URL", &registry.url());
    let client = Client::new(Endpoint::new(&registry.url(), "", "", Duration::from_secs(10)).unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let id = runtime.block_on(client.register("by somebody else", ALERT_SCHEMA)).unwrap();
    let framing = Framing { ids: Some([id; 4]), ..Framing::default() };
    let mut topic = Topic::new(&world);
    let mut publish = |app: &str| {
        let told = message(app, 1, "firing");
        let payload = framing.encode(&Record::Alert(Box::new(told.clone()))).unwrap();
        topic.raw(&[(&told.alert_id, &payload)]);
    };
    publish("a");
    registry.pause().unwrap();
    world.set("REGISTRY__TIMEOUT", "1s");
    let process = forward(&world, "forward");
    let said = || process.said();
    wait_until("waiting", || said().contains("can't be read yet: what schema the id"), &said);
    registry.resume().unwrap();
    wait_until("a", || hook.taken().len() == 1, &said);
    publish("b");
    wait_until("b", || hook.taken().len() == 2, &said);
    assert_eq!(numbers(&hook.taken()), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
    world.set("REGISTRY__TIMEOUT", "30s");
    let printed = world.done(&["alerts"]);
    assert_eq!(printed.matches("failures").count(), 2, "{printed}");
    assert_eq!(runtime.block_on(client.latest(&format!("{ALERTS}-dev.highwater.alert"))).unwrap(), Registered::Missing);
}

#[test]
fn a_topic_that_is_missing_is_said_to_be() {
    let mut world = world();
    let hook = Receiver::start();
    world.set("FORWARD__WEBHOOK_URL", &hook.url("/"));
    let mut process = forward(&world, "forward");
    process.wait_for_words(&format!("the Kafka topic {ALERTS} does not exist, so nobody is told of alerts"));
    let mut topic = Topic::new(&world);
    topic.publish(&[]);
    wait_until("joined", || committed(&world) > 0, &|| process.said());
    topic.publish(&[message("a", 1, "firing")]);
    wait_until("told", || hook.taken().len() == 1, &|| process.said());
}

/// More than wait in memory, behind a target that is away; and what a target fails at for too long.
#[test]
fn what_waits_is_read_on_later_and_what_fails_for_ever_is_left_out() {
    let mut world = world().missed_soon();
    let hook = Receiver::start();
    world.set("FORWARD__WEBHOOK_URL", &hook.url("/"));
    let mut topic = Topic::new(&world);
    topic.publish(&[]);
    hook.always(Then::Answer(503, "", "away"));
    let process = forward(&world, "first");
    wait_until("joined", || committed(&world) > 0, &|| process.said());
    let told: Vec<Message> = (1..=1_500).map(|at| message("a", at, "firing")).collect();
    topic.publish(&told);
    wait_until("tried", || hook.requests().len() > 2, &|| process.said());
    hook.always(Then::Answer(200, "", ""));
    wait_until("some", || hook.taken().len() > 100, &|| process.said());
    // It sleeps for so long that the group gives up on it, and comes back.
    send(process.child.id(), Signal::Pause).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    send(process.child.id(), Signal::Resume).unwrap();
    let all = || numbers(&hook.taken());
    wait_until("all", || all().last() == of(&told).last(), &|| format!("{} {}", all().len(), process.said()));
    // What was taken before it slept may have come twice.
    let mut taken = all();
    taken.sort();
    taken.dedup();
    assert_eq!(taken, of(&told));
    let before = all().len();
    assert!(process.terminate().0.success());

    world.set("FORWARD__GIVE_UP", "1s");
    hook.always(Then::Answer(500, "", "never"));
    let process = forward(&world, "second");
    topic.publish(&[message("b", 1, "firing"), message("b", 2, "resolved")]);
    let left_out =
        "did not take it within 1 s: it answered 500 Internal Server Error: never; the alert and its number are";
    wait_until("left out", || process.said().matches(left_out).count() == 2, &|| process.said());
    hook.always(Then::Answer(200, "", ""));
    topic.publish(&[message("b", 3, "firing")]);
    wait_until("the next", || hook.taken().len() > before, &|| process.said());
    assert_eq!(numbers(&hook.taken()[before..]), [("b".to_owned(), 3)]);
}

/// The topic was deleted and made anew: offsets begin again.
#[test]
fn a_topic_made_anew_is_read_from_its_begin() {
    let mut world = world();
    let hook = Receiver::start();
    world.set("FORWARD__WEBHOOK_URL", &hook.url("/"));
    let mut topic = Topic::new(&world);
    for at in 1..=9 {
        topic.publish(&[message("a", at, "firing")]);
    }
    let process = forward(&world, "forward");
    wait_until("what fires", || committed(&world) >= 18, &|| process.said());
    assert!(process.terminate().0.success());
    drop(topic);
    let brokers = world.stack.kafka.bootstrap();
    let admin: rdkafka::admin::AdminClient<_> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    let options = rdkafka::admin::AdminOptions::new();
    futures::executor::block_on(admin.delete_topics(&[ALERTS], &options)).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let mut topic = Topic::new(&world);
    topic.publish(&[message("b", 1, "firing")]);
    let before = hook.taken().len();
    // Where brokers keep what a group committed of a topic that is gone.
    let name = TopicPartition { topic: ALERTS.into(), partition: 0 };
    observer(&world).commit_alone(&[(name, 1_000)]).unwrap();
    let process = forward(&world, "second");
    wait_until("what fires anew", || hook.taken().len() > before, &|| process.said());
    assert_eq!(numbers(&hook.taken()).last().unwrap(), &("b".to_owned(), 1));
    assert!(process.said().contains("so it was made anew; what fires is told again"), "{}", process.said());
}
