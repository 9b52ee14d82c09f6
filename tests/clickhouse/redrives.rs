//! What a run of a redrive comprises, fixed once whoever wants to fix it.

use std::time::{Duration, Instant};

use highwater::batch::Source;
use highwater::clickhouse::Client;
use highwater::clickhouse::redrives::{self, Begin, Last, Listed, Rewinding, Run};
use highwater::ports::{Answer, Store};

use crate::fixture::{Db, START, batch, endpoint, probes, server, source, visit_message};

fn run(number: u32) -> Run {
    Run { run: number, epoch: 1, topic: "events".into(), plan: "plan".into() }
}

fn letters(offsets: impl IntoIterator<Item = u64>) -> Vec<Listed> {
    let letter =
        |offset| Listed { partition: 0, offset, event: "probe".into(), bytes: 9, duplicate: offset.is_multiple_of(3) };
    offsets.into_iter().map(letter).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_lists_of_one_run_the_first_stands_whole() {
    let db = Db::new("fixing").await;
    assert_eq!(redrives::last(&db.client).await.unwrap(), Last::default());
    assert_eq!(redrives::unfinished(&db.client).await.unwrap(), None);
    let first = letters(0..100_000);
    redrives::fix(&db.client, &run(1), &first).await.unwrap();
    redrives::fix(&db.client, &run(1), &letters(5..9)).await.unwrap();
    assert!(redrives::letters(&db.client, 1).await.unwrap() == first);
    let parts = "(SELECT count() FROM system.parts WHERE active AND database = 'fixing' AND table = 'redrives')";
    assert_eq!(db.number(parts).await, 1, "a list that is not one part could land by halves");
    assert_eq!(redrives::unfinished(&db.client).await.unwrap(), Some(run(1)));

    // At once, from several connections.
    let lists: Vec<Vec<Listed>> = (0..8).map(|n| letters(200_000 + n * 10..200_007 + n * 10)).collect();
    let (client, second) = (&db.client, run(2));
    futures::future::try_join_all(lists.iter().map(|list| redrives::fix(client, &second, list))).await.unwrap();
    let stands = redrives::letters(&db.client, 2).await.unwrap();
    assert_eq!(lists.iter().filter(|list| **list == stands).count(), 1, "{stands:?}");
    assert_eq!(redrives::last(&db.client).await.unwrap(), Last { run: 2, rewinding: None });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_was_begun_before_a_rewind_finds_its_number_taken() {
    let db = Db::new("shut").await;
    let (client, last) = (&db.client, async || redrives::last(&db.client).await.unwrap());
    redrives::fix(client, &run(1), &letters(0..5)).await.unwrap();
    let begin = async |rewind, over| redrives::begin_rewind(client, rewind, over).await.unwrap();
    let [events, other] = ["events", "other"].map(|topic| Rewinding::new(topic, "--to start"));
    assert_eq!(begin(&events, None).await, Begin::Begun);
    assert_eq!(last().await, Last { run: 2, rewinding: Some(events.clone()) });
    redrives::fix(client, &run(2), &letters(5..9)).await.unwrap();
    assert_eq!(redrives::letters(client, 2).await.unwrap(), []);
    assert_eq!(redrives::all_unfinished(client).await.unwrap(), [(run(1), vec![0])], "a rewind's number is no run");

    // No other is begun, be it in the same words, nor does another end this one.
    let same = Rewinding::new("events", "--to start");
    for another in [&same, &other] {
        assert_eq!(begin(another, None).await, Begin::InTheWay(events.clone()));
        redrives::end_rewind(client, another).await.unwrap();
        assert_eq!(last().await, Last { run: 2, rewinding: Some(events.clone()) });
    }
    // One that goes on with it has the turn, and it no longer; of two that do so one has it.
    let again = ["--to start", "--to start"].map(|place| Rewinding::new("events", place));
    let begun = futures::join!(begin(&again[0], Some(&events)), begin(&again[1], Some(&events)));
    let (first, second) = if begun.0 == Begin::Begun { (&again[0], begun.1) } else { (&again[1], begun.0) };
    assert_eq!(second, Begin::InTheWay(first.clone()));
    redrives::end_rewind(client, &events).await.unwrap();
    assert_eq!(last().await, Last { run: 3, rewinding: Some(first.clone()) });
    for _ in 0..2 {
        redrives::end_rewind(client, first).await.unwrap();
        assert_eq!(last().await, Last { run: 4, rewinding: None });
    }
    assert_eq!(begin(&same, Some(first)).await, Begin::Ended);
    redrives::fix(client, &run(5), &letters(5..9)).await.unwrap();
    assert_eq!(redrives::letters(client, 5).await.unwrap(), letters(5..9));

    // Lists and rewinds at once: each number is taken once, and the rewind's are the last.
    let lists: Vec<Run> = (6..10).map(run).collect();
    let (five, six) = (letters(50..55), letters(60..65));
    let fixes = lists.iter().map(|run| redrives::fix(client, run, if run.run % 2 == 0 { &six } else { &five }));
    let (fixed, begun, too) =
        futures::join!(futures::future::try_join_all(fixes), begin(&events, None), begin(&same, None));
    assert_eq!(fixed.unwrap().len(), 4);
    let (first, second) = if begun == Begin::Begun { (&events, too) } else { (&same, begun) };
    assert_eq!((second, last().await.rewinding.as_ref()), (Begin::InTheWay(first.clone()), Some(first)));
    assert_eq!(db.number("(SELECT count() - uniqExact(run, partition, offset) FROM shut.redrives)").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_whose_token_was_spent_in_vain_goes_out_under_the_next() {
    let db = Db::new("spent").await;
    let mut endpoint = endpoint(server(), "spent");
    // Time enough for an insert that has to succeed.
    endpoint.insert_timeout = Duration::from_secs(10);
    let client = Client::new(endpoint);
    redrives::fix(&client, &run(1), &letters(0..5)).await.unwrap();
    // As a server leaves it that was killed between token and part.
    db.run("ALTER TABLE spent.redrives DELETE WHERE true SETTINGS mutations_sync = 2").await;
    let begun = Instant::now();
    redrives::fix(&client, &run(1), &letters(7..9)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(10), "the token was not given time to show its part");
    assert_eq!(redrives::letters(&client, 1).await.unwrap(), letters(7..9));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_one_log_are_found_by_their_ids_whoever_wrote_them() {
    let mut db = Db::new("siblings").await;
    db.run(
        "INSERT INTO siblings.sources (topic, epoch, cluster_id, topic_id, `group`) VALUES ('events', 1, 'c', 'one', 'g'), \
         ('events', 2, 'c', 'one', 'g'), ('events', 3, 'c', 'two', 'g')",
    )
    .await;
    redrives::fix(&db.client, &run(4), &letters(0..5)).await.unwrap();
    let all = redrives::same_log(&db.client, &source(0)).await.unwrap();
    let names: Vec<String> = all.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["1/events/0", "1r4/events/0", "2/events/0"], "an epoch of another topic id is another log");

    // Offsets 10 to 13 of the log, 20 and 21 of the run; of another partition none.
    let redriven = Source { redrive: Some(4), ..source(0) };
    for (source, from, first, count) in [(source(0), 10, 200, 4), (redriven, 20, 300, 2), (source(1), 30, 400, 2)] {
        let written = batch(&db.plan, source, from, &probes(&db.plan, first, count, START));
        db.write(&written);
    }
    let event = db.plan.types[0].event.clone();
    db.store.ids(&source(0), 0, 99);
    let Answer::Ids(Ok(ids)) = db.answer() else { panic!("no ids") };
    assert_eq!(
        ids.iter().map(|id| id.0).collect::<Vec<_>>(),
        [10, 11, 12, 13, 20, 21],
        "redriven letters have ids too"
    );
    let hex = |id: u128| format!("{id:032x}");
    let wanted: Vec<String> = ids.iter().map(|id| hex(id.2)).collect();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let find = async |range| {
        let mut rows = redrives::rows_with_ids(&db.client, &event, &all, range, &wanted).await.unwrap();
        rows.sort();
        let at = |offset: u64| ids.iter().position(|id| id.0 == offset).unwrap();
        rows.into_iter().map(|(offset, id)| (offset, id == wanted[at(offset)])).collect::<Vec<_>>()
    };
    assert_eq!(find((0, 99)).await, [10, 11, 12, 13, 20, 21].map(|offset| (offset, true)));
    assert_eq!(find((12, 20)).await, [(12, true), (13, true), (20, true)]);
    let strays = redrives::rows_with_ids(&db.client, &event, &all, (0, 99), &[&hex(1)]).await.unwrap();
    assert_eq!(strays, []);

    // An id that is no UUID, and would break out of a literal.
    let id = "ünï'id";
    let visits = [(START, visit_message(&db.plan, id, START)), (START, visit_message(&db.plan, "other", START))];
    let visits = batch(&db.plan, source(0), 40, &visits);
    db.write(&visits);
    let hex: String = id.bytes().map(|byte| format!("{byte:02X}")).collect();
    let visit = db.plan.types[1].event.clone();
    let found = redrives::rows_with_ids(&db.client, &visit, &all, (0, 99), &[&hex]).await.unwrap();
    assert_eq!(found, [(40, hex.clone())]);
}
