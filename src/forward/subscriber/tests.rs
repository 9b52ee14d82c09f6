#![allow(clippy::unwrap_used, clippy::panic)]

use tokio::runtime::Runtime;

use super::super::addresses;
use super::super::courier::Outcome;
use super::super::firing::tests::message;
use super::super::silence::Beat;
use super::*;
use crate::alert::Message;
use crate::tls::TlsFiles;

/// One that is told nothing by Kafka, at a target that nobody listens at, with the partition given to it and read.
fn subscriber(runtime: &Runtime, kind: Kind) -> Subscriber {
    let mut made = started(runtime, kind);
    made.take(assigned());
    made.home.as_mut().unwrap().begun(Begin { offset: 1, is_first: false, goes_on: true });
    made.take(alert(0, "firing"));
    made.take(News::Until(1));
    made
}

fn assigned() -> News {
    News::Assigned(TopicPartition { topic: "alerts".into(), partition: 0 })
}

/// The same, before it is given anything.
fn started(runtime: &Runtime, kind: Kind) -> Subscriber {
    let addresses = addresses(kind, "http://127.0.0.1:1", &TlsFiles::default()).unwrap();
    let manner = Manner {
        timeout: Duration::from_secs(1),
        give_up: Duration::from_secs(60),
        resend: Duration::ZERO,
        silent_after: None,
        heartbeat: Duration::from_secs(30),
        link: None,
    };
    let consumer = ConsumerSettings {
        brokers: "127.0.0.1:1".to_owned(),
        group: "g".to_owned(),
        topics: vec!["alerts".to_owned()],
        ..ConsumerSettings::default()
    };
    let target = Target { kind, addresses };
    Subscriber::new(target, manner, &consumer, Reader::new(None), runtime.handle().clone()).unwrap()
}

/// Looks for longer than a silence may last, which is no time at all.
fn looks_for_long(subscriber: &mut Subscriber) {
    for _ in 0..2 {
        subscriber.look(false);
        std::thread::sleep(Duration::from_millis(5));
    }
    subscriber.look(false);
}

fn watch_of_no_patience() -> Watch {
    Watch::new(Silence::new("alerts", Some(Duration::from_millis(1))))
}

fn alert(offset: u64, state: &str) -> News {
    let sequence = i64::try_from(offset).unwrap() + 1;
    News::Record(offset, Content::Alert(Box::new(message(state, sequence))))
}

fn heartbeat(offset: u64, age: Duration) -> News {
    let sent_at = now_ms() - i64::try_from(age.as_millis()).unwrap();
    News::Record(offset, Content::Beat(Beat { sent_at, judged: None }))
}

fn is_sending(subscriber: &Subscriber) -> bool {
    subscriber.home.as_ref().unwrap().under_way.is_some()
}

#[test]
fn messages_and_reminders_are_never_on_their_way_together() {
    let runtime = Runtime::new().unwrap();
    let mut subscriber = subscriber(&runtime, Kind::Alertmanager);
    subscriber.take(heartbeat(1, Duration::ZERO));
    subscriber.take(alert(2, "resolved"));
    subscriber.reminder = Some(runtime.spawn(std::future::pending()));
    subscriber.send();
    assert!(!is_sending(&subscriber));
    subscriber.reminder = None;
    subscriber.send();
    assert!(is_sending(&subscriber));
    subscriber.remind();
    assert!(subscriber.reminder.is_none());
    // It arrived.
    subscriber.home.as_mut().unwrap().under_way = None;
    subscriber.remind();
    assert!(subscriber.reminder.is_some());
}

#[test]
fn who_has_heard_nothing_for_long_reminds_nobody() {
    let runtime = Runtime::new().unwrap();
    for (age, is_told) in [(None, false), (Some(299), true), (Some(301), false)] {
        let mut subscriber = subscriber(&runtime, Kind::Alertmanager);
        if let Some(age) = age {
            subscriber.take(heartbeat(1, Duration::from_secs(age)));
        }
        subscriber.remind();
        assert_eq!(subscriber.reminder.is_some(), is_told, "{age:?}");
    }
}

#[test]
fn after_a_fault_of_ours_it_begins_anew_later() {
    let runtime = Runtime::new().unwrap();
    let mut subscriber = subscriber(&runtime, Kind::Webhook);
    let task: JoinHandle<(Outcome, bool)> = runtime.spawn(async { panic!("a fault") });
    while !task.is_finished() {
        std::thread::yield_now();
    }
    subscriber.home.as_mut().unwrap().sent(task, Some(2), None);
    subscriber.arrived();
    let home = subscriber.home.as_ref().unwrap();
    assert!(home.from.is_none() && home.done == 0);
    assert!(home.ask_at > Instant::now() + AFTER_PANIC / 2);
    // What the log still delivers is of before.
    subscriber.take(alert(7, "resolved"));
    assert_eq!(subscriber.home.as_ref().unwrap().seen, 0);
}

#[test]
fn what_waits_for_alertmanager_goes_together_once_of_each_alert() {
    let runtime = Runtime::new().unwrap();
    for (kind, sizes) in [(Kind::Alertmanager, &[49, 11, 1][..]), (Kind::Webhook, &[1, 1, 1])] {
        let mut subscriber = subscriber(&runtime, kind);
        let ids = (0..60).map(|number| format!("{number}")).chain(["59".to_owned()]);
        for (offset, alert_id) in (1..).zip(ids) {
            let message = Message { alert_id, ..message("firing", 1) };
            subscriber.take(News::Record(offset, Content::Alert(Box::new(message))));
        }
        let courier = subscriber.courier.clone();
        let home = subscriber.home.as_mut().unwrap();
        let mut offset = 1;
        for size in sizes {
            let next = home.next(&courier, now_ms()).unwrap();
            offset += u64::try_from(*size).unwrap();
            assert_eq!((next.load.ids.len(), next.then), (*size, Some(offset)), "{kind:?}");
        }
    }
}

#[test]
fn what_was_taken_beside_a_stuck_message_is_not_sent_again() {
    let runtime = Runtime::new().unwrap();
    let mut subscriber = subscriber(&runtime, Kind::Webhook);
    let courier = subscriber.courier.clone();
    for (offset, alert_id) in (1..).zip(["bad", "bad", "good", "good", "last"]) {
        let message = Message { alert_id: alert_id.to_owned(), ..message("firing", 1) };
        subscriber.take(News::Record(offset, Content::Alert(Box::new(message))));
    }
    let home = subscriber.home.as_mut().unwrap();
    let first = home.next(&courier, now_ms()).unwrap();
    home.arrived(Outcome::Stuck(first.load, first.attempts), first.then, None);
    let again = home.next(&courier, now_ms()).unwrap();
    let (place, parcel) = again.beside.unwrap();
    // The first of another alert: that of its own, or the second of another, would overtake.
    let beside = if parcel.name.starts_with("good") { 1 } else { 3 };
    assert_eq!((again.load.ids, again.then, place), (vec!["bad".to_owned()], Some(2), beside));
    home.arrived(Outcome::Done, again.then, Some(place));
    assert_eq!(home.done, 2);
    let mut rest = Vec::new();
    while let Some(next) = home.next(&courier, now_ms()) {
        rest.push((next.load.ids[0].clone(), next.then));
        home.arrived(Outcome::Done, next.then, None);
    }
    let left = if beside == 1 { ["bad", "good", "last"] } else { ["bad", "good", "good"] };
    assert_eq!(rest.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), left);
    assert_eq!(home.done, 6);
}

#[test]
fn nothing_behind_what_can_not_be_read_yet_is_taken_in() {
    let runtime = Runtime::new().unwrap();
    let mut subscriber = subscriber(&runtime, Kind::Webhook);
    subscriber.take(News::Halt(1, ReadError::Unknown("u".into())));
    subscriber.take(alert(2, "resolved"));
    subscriber.take(News::Until(3));
    let home = subscriber.home.as_mut().unwrap();
    assert!(home.waiting.is_empty() && home.seen == 1 && home.due().is_none());
}

#[test]
fn who_can_not_read_the_log_tells_of_it_whenever_that_began() {
    let runtime = Runtime::new().unwrap();
    type Prepare = fn(&mut Subscriber);
    let cases: [(&str, Prepare, bool); 6] = [
        ("Kafka was never there", |_| {}, true),
        ("it does not say where to begin", |subscriber| subscriber.take(assigned()), true),
        (
            "the registry was never there",
            |subscriber| {
                subscriber.take(assigned());
                let home = subscriber.home.as_mut().unwrap();
                home.begun(Begin { offset: 5, is_first: false, goes_on: true });
                subscriber.take(News::Halt(0, ReadError::Away("a".into())));
            },
            true,
        ),
        (
            "cut off",
            |subscriber| {
                subscriber.take(assigned());
                subscriber.take(News::Revoked);
            },
            true,
        ),
        (
            "reading",
            |subscriber| {
                subscriber.take(assigned());
                let home = subscriber.home.as_mut().unwrap();
                home.begun(Begin { offset: 5, is_first: false, goes_on: true });
                subscriber.take(alert(0, "firing"));
            },
            false,
        ),
        ("standing by", |subscriber| subscriber.look(true), false),
    ];
    for (case, prepare, is_told) in cases {
        let mut subscriber = started(&runtime, Kind::Alertmanager);
        subscriber.watch = watch_of_no_patience();
        prepare(&mut subscriber);
        looks_for_long(&mut subscriber);
        assert_eq!(subscriber.watch.is_sending(), is_told, "{case}");
        subscriber.watch.arrive();
        subscriber.remind();
        assert_eq!(subscriber.reminder.is_some(), is_told, "{case}");
    }
}

#[test]
fn who_was_cut_off_and_stands_by_again_ends_what_it_told() {
    let runtime = Runtime::new().unwrap();
    let mut subscriber = subscriber(&runtime, Kind::Alertmanager);
    subscriber.watch = watch_of_no_patience();
    subscriber.take(News::Revoked);
    looks_for_long(&mut subscriber);
    assert!(subscriber.watch.is_sending() && !subscriber.watch.owes_an_end());
    // Once it arrived, it is told anew.
    subscriber.watch.arrive();
    subscriber.remind();
    assert!(subscriber.reminder.take().is_some());
    // Not before somebody is known to judge.
    subscriber.look(true);
    assert!(!subscriber.watch.owes_an_end() && subscriber.is_cut_off);
    subscriber.watch.grow();
    subscriber.look(true);
    assert!(subscriber.watch.owes_an_end());
    subscriber.watch.arrive();
    // Said once.
    subscriber.look(true);
    assert!(!subscriber.watch.owes_an_end());
    subscriber.reminded = None;
    subscriber.remind();
    assert!(subscriber.reminder.is_none() && !subscriber.is_cut_off);
}

/// How far the topic grew while another one had it says nothing of what is told after it was ours.
#[test]
fn who_had_the_partition_in_between_waits_anew_for_the_topic_to_grow() {
    let runtime = Runtime::new().unwrap();
    let mut subscriber = subscriber(&runtime, Kind::Webhook);
    subscriber.watch = watch_of_no_patience();
    subscriber.take(News::Revoked);
    looks_for_long(&mut subscriber);
    subscriber.watch.grow();
    subscriber.take(assigned());
    subscriber.take(News::Revoked);
    subscriber.watch.arrive();
    subscriber.look(true);
    assert!(!subscriber.watch.owes_an_end() && subscriber.is_cut_off);
    subscriber.watch.grow();
    subscriber.look(true);
    assert!(subscriber.watch.owes_an_end() && !subscriber.is_cut_off);
}

/// Heartbeats do stop, and then another one is given the partition, who tells the same.
#[test]
fn who_hands_the_partition_over_ends_nothing() {
    let runtime = Runtime::new().unwrap();
    let mut subscriber = subscriber(&runtime, Kind::Webhook);
    subscriber.watch = watch_of_no_patience();
    looks_for_long(&mut subscriber);
    assert!(subscriber.watch.is_sending());
    subscriber.leave(false);
    subscriber.look(true);
    assert!(!subscriber.watch.owes_an_end());
}

#[test]
fn the_last_commit_waits_for_the_end_of_a_silence() {
    let runtime = Runtime::new().unwrap();
    for (age, is_committed) in [(40, true), (400, false)] {
        let mut subscriber = subscriber(&runtime, Kind::Webhook);
        subscriber.watch = Watch::new(Silence::new("alerts", Some(Duration::from_secs(300))));
        subscriber.take(heartbeat(1, Duration::from_secs(age)));
        subscriber.take(heartbeat(2, Duration::ZERO));
        subscriber.home.as_mut().unwrap().done = 3;
        for _ in 0..2 {
            assert_eq!(subscriber.last_commit().map(|(_, offset)| offset), is_committed.then_some(3));
            // The same while it is on its way.
            subscriber.look(true);
        }
        subscriber.watch.arrive();
        assert_eq!(subscriber.last_commit().map(|(_, offset)| offset), Some(3));
    }
}
