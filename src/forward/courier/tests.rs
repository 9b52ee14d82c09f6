#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use super::super::addresses;
use super::super::firing::tests::message;
use super::super::fixture::Server;
use super::*;
use crate::tls::TlsFiles;

/// Longer than anything that answers takes to.
const PATIENT: Duration = Duration::from_secs(60);

fn courier(kind: Kind, urls: &str, give_up: Duration) -> Courier {
    let addresses = addresses(kind, urls, &TlsFiles::default()).unwrap();
    let manner = Manner {
        timeout: PATIENT,
        give_up,
        resend: Duration::from_secs(60),
        silent_after: None,
        heartbeat: Duration::from_secs(30),
        link: None,
    };
    Courier { stuck: Duration::ZERO, ..Courier::new(Target { kind, addresses }, manner) }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn of(app: &str, sequence: i64) -> (Message, Vec<Alert>) {
    let message = Message { alert_id: app.to_owned(), ..message("firing", sequence) };
    let alerts = Firing::default().take(&message, None, 1_700_000_100_000);
    (message, alerts)
}

fn is_about(body: &str, app: &str) -> bool {
    body.contains(&format!("\"{app}\""))
}

#[tokio::test]
async fn a_message_that_fails_for_ever_is_left_out_once_another_is_taken() {
    let server = Server::start(|_, body| (if is_about(body, "bad") { 500 } else { 200 }, String::new())).await;
    let courier = courier(Kind::Webhook, &server.url("/"), DAY);
    let load = courier.load(&[of("bad", 1)]);
    // Nothing else waits: it is tried on.
    let (outcome, is_taken) = courier.deliver(load, Attempts::default(), None).await;
    let Outcome::Stuck(load, attempts) = outcome else { unreachable!("{outcome:?}") };
    assert!(!is_taken && load.ids == ["bad"]);
    let (message, alerts) = of("good", 1);
    let other = courier.parcel(&message, &alerts);
    let (outcome, is_taken) = courier.deliver(load, attempts, Some(other)).await;
    assert!(matches!(outcome, Outcome::Done) && is_taken, "{outcome:?}");
    let asked: Vec<bool> = server.requests().iter().map(|(_, body)| is_about(body, "bad")).collect();
    assert_eq!(asked, [true, true, false, true]);
}

#[tokio::test]
async fn while_the_target_fails_at_all_nothing_is_left_out() {
    let is_back = Arc::new(AtomicBool::new(false));
    let look = Arc::clone(&is_back);
    let server = Server::start(move |_, _| (if look.load(Ordering::Relaxed) { 200 } else { 503 }, String::new())).await;
    let courier = courier(Kind::Webhook, &server.url("/"), DAY);
    let (mut load, mut attempts) = (courier.load(&[of("one", 1)]), Attempts::default());
    let (message, alerts) = of("two", 1);
    for _ in 0..2 {
        let other = courier.parcel(&message, &alerts);
        let (outcome, is_taken) = courier.deliver(load, attempts, Some(other)).await;
        assert!(!is_taken);
        let Outcome::Stuck(again, so_far) = outcome else { unreachable!("{outcome:?}") };
        (load, attempts) = (again, so_far);
    }
    is_back.store(true, Ordering::Relaxed);
    let (outcome, is_taken) = courier.deliver(load, attempts, Some(courier.parcel(&message, &alerts))).await;
    assert!(matches!(outcome, Outcome::Done) && !is_taken, "{outcome:?}");
    assert!(is_about(&server.requests().last().unwrap().1, "one"));
}

#[tokio::test]
async fn one_of_many_at_fault_does_not_take_the_others_with_it() {
    for status in [400, 500] {
        let server =
            Server::start(move |_, body| (if is_about(body, "bad") { status } else { 200 }, String::new())).await;
        let courier = courier(Kind::Alertmanager, &server.url(""), DAY);
        let load = courier.load(&[of("a", 1), of("bad", 1), of("b", 1)]);
        let mut outcome = courier.deliver(load, Attempts::default(), None).await.0;
        while let Outcome::Stuck(load, attempts) = outcome {
            outcome = courier.deliver(load, attempts, None).await.0;
        }
        let requests = server.requests();
        let alone =
            |app: &str, other: &str| requests.iter().any(|(_, body)| is_about(body, app) && !is_about(body, other));
        assert!(alone("a", "bad") && alone("b", "bad") && alone("bad", "a"), "{requests:?}");
        let together = requests.iter().filter(|(_, body)| ["a", "b", "bad"].iter().all(|app| is_about(body, app)));
        assert!(together.count() > 0);
    }
}

#[tokio::test]
async fn what_is_not_the_messages_fault_is_tried_until_it_is_given_up() {
    let mut all = JoinSet::new();
    for status in [302, 401, 403, 404, 405, 503] {
        all.spawn(async move {
            let server = Server::start(move |_, _| (status, String::new())).await;
            let courier = courier(Kind::Slack, &server.url("/"), Duration::from_secs(2));
            let courier = Courier { stuck: STUCK, ..courier };
            let begun = Instant::now();
            let (outcome, _) = courier.deliver(courier.load(&[of("a", 1)]), Attempts::default(), None).await;
            assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
            assert!(begun.elapsed() >= Duration::from_secs(2), "{status}: {:?}", begun.elapsed());
        });
    }
    all.join_all().await;
}

/// One member answers, one is not there, and one takes the connection and says nothing.
#[tokio::test]
async fn a_cluster_has_it_as_soon_as_one_member_has() {
    let server = Server::start(|_, _| (200, String::new())).await;
    let dumb = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dumb = format!("http://{}", dumb.local_addr().unwrap());
    let urls = format!("{dumb},http://127.0.0.1:1,{}", server.url(""));
    let courier = courier(Kind::Alertmanager, &urls, DAY);
    let begun = Instant::now();
    for sequence in 1..=20 {
        let (outcome, _) = courier.deliver(courier.load(&[of("a", sequence)]), Attempts::default(), None).await;
        assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(server.requests().len(), 20);
}

#[tokio::test]
async fn one_request_that_is_refused_keeps_no_other_reminder() {
    let server = Server::start(|_, body| (if is_about(body, "bad") { 400 } else { 200 }, String::new())).await;
    let courier = courier(Kind::Alertmanager, &server.url(""), DAY);
    courier.outage().failed(&"it was away");
    courier.remind(["a", "bad", "b"].map(|app| of(app, 1).1).to_vec()).await;
    let asked: Vec<bool> = server.requests().iter().map(|(_, body)| is_about(body, "bad")).collect();
    assert_eq!(asked, [false, true, false]);
}

/// One member that is away makes nothing of what the others answer.
#[tokio::test]
async fn a_cluster_is_judged_by_those_who_answer() {
    for status in [400, 500] {
        let server =
            Server::start(move |_, body| (if is_about(body, "bad") { status } else { 200 }, String::new())).await;
        let courier = courier(Kind::Alertmanager, &format!("http://127.0.0.1:1,{}", server.url("")), DAY);
        let work = courier.deliver(courier.load(&[of("bad", 1)]), Attempts::default(), None);
        let (outcome, _) = tokio::time::timeout(Duration::from_secs(10), work).await.unwrap();
        assert!(matches!(outcome, Outcome::Done), "{status}: {outcome:?}");
    }
}

#[tokio::test]
async fn what_is_given_up_together_is_tried_alone() {
    let server = Server::start(|_, body| (if is_about(body, "bad") { 404 } else { 200 }, String::new())).await;
    let courier = courier(Kind::Alertmanager, &server.url(""), Duration::ZERO);
    let load = courier.load(&[of("a", 1), of("bad", 1), of("b", 1)]);
    assert!(matches!(courier.deliver(load, Attempts::default(), None).await.0, Outcome::Done));
    let asked: Vec<bool> = server.requests().iter().map(|(_, body)| is_about(body, "bad")).collect();
    assert_eq!(asked, [true, false, true, false]);
}

#[test]
fn answers_of_several_members_come_to_one() {
    let away = || Answer::Failed(Failure::of("away"));
    let failed = |is_fault| Answer::Failed(Failure { is_answer: true, is_fault, ..Failure::of("failed") });
    let refused = || Answer::Refused("no".to_owned());
    // (refused, its own fault)
    for (answers, expected) in [
        (vec![away(), refused()], (true, false)),
        (vec![refused(), refused()], (true, false)),
        (vec![refused(), failed(true)], (false, false)),
        (vec![refused(), failed(false), away()], (false, false)),
        (vec![away(), failed(true)], (false, true)),
        (vec![failed(true), failed(true)], (false, true)),
        (vec![failed(true), failed(false)], (false, false)),
        (vec![away(), failed(false)], (false, false)),
        (vec![away(), away()], (false, false)),
    ] {
        let named: Vec<(String, Answer)> = answers.iter().map(|answer| ("m".to_owned(), answer.clone())).collect();
        let found = match together(&named) {
            Answer::Taken => unreachable!(),
            Answer::Refused(_) => (true, false),
            Answer::Failed(failure) => (false, failure.is_fault),
        };
        assert_eq!(found, expected, "{answers:?}");
    }
}

/// Beside an alert of our own nothing is tried; what the target takes of others on their way is told apart all the same.
#[tokio::test]
async fn an_alert_of_our_own_that_fails_for_ever_is_left_out_once_another_is_taken() {
    let server = Server::start(|_, body| (if is_about(body, "bad") { 500 } else { 200 }, String::new())).await;
    let courier = courier(Kind::Webhook, &server.url("/"), DAY);
    let good = || courier.load(&[of("good", 1)]);
    // What was taken before says nothing.
    courier.deliver(good(), Attempts::default(), None).await;
    let bad = courier.parcel(&of("bad", 1).0, &[]);
    let own = courier.bring_alone(&bad, Attempts::default());
    tokio::pin!(own);
    assert!(tokio::time::timeout(Duration::from_secs(2), &mut own).await.is_err());
    courier.deliver(good(), Attempts::default(), None).await;
    tokio::time::timeout(Duration::from_secs(10), own).await.unwrap();
    let asked: Vec<bool> = server.requests().iter().map(|(_, body)| is_about(body, "bad")).collect();
    assert!(asked.len() > 4 && asked.ends_with(&[true, false, true, true]), "{asked:?}");
}
