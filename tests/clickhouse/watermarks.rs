//! Watermarks in ClickHouse, and what they make complete.

use highwater::batch::Source;
use highwater::ports::{Answer, Store as _};

use crate::fixture::{BY, Db, START, SUMS, batch, pack, plan_with, probes, server, source};

const METRIC: &str =
    "[[metric]]\nname = \"calls\"\nquestion = \"How many?\"\nunit = \"calls\"\nrollup = \"probe_1m\"\ncount = true\n";

impl Db {
    fn report(&mut self, watermarks: &[(Source, i64)]) {
        self.store.report(watermarks.to_vec());
        let Answer::Inserted(Ok(())) = self.answer() else { panic!("the watermarks were not stored") };
    }

    async fn through(&self) -> i64 {
        let sql = format!("(SELECT toUnixTimestamp64Milli(through) FROM {})", self.client.table("completeness"));
        self.number(&sql).await as i64
    }
}

fn other(epoch: u32, topic: &str) -> Source {
    Source { epoch, redrive: None, topic: topic.into(), partition: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_is_complete_when_every_partition_has_passed_it() {
    let mut db = Db::of(server(), "complete", plan_with("", &(pack(SUMS, BY) + METRIC))).await;
    // Three minutes: 23:59, 0:00 and 0:01.
    let batch = batch(&db.plan, source(0), 0, &probes(&db.plan, 0, 180, START));
    db.write(&batch);
    let start = START / 1_000;
    let minute = 60_000;
    let complete = "(SELECT sum(complete) FROM complete.calls)";
    assert_eq!((db.through().await, db.number(complete).await), (0, 0), "nobody has said anything");

    db.client.enter_partitions((0..3).map(source)).await.unwrap();
    db.report(&[(source(0), start + 2 * minute), (source(1), start + 5 * minute)]);
    assert_eq!((db.through().await, db.number(complete).await), (0, 0), "partition 2 was never read");
    db.report(&[(source(2), start + minute - 1)]);
    assert_eq!((db.through().await, db.number(complete).await), (start + minute - 1, 0), "a millisecond is missing");
    db.report(&[(source(2), start + minute)]);
    assert_eq!((db.through().await, db.number(complete).await), (start + minute, 1));
    // A writer that is behind, or begins anew, takes nothing back.
    db.report(&[(source(0), start - 9 * minute), (source(2), start)]);
    db.client.enter_partitions((0..3).map(source)).await.unwrap();
    assert_eq!((db.through().await, db.number(complete).await), (start + minute, 1));
    db.report(&[(source(0), start + 3 * minute), (source(2), start + 3 * minute)]);
    assert_eq!(db.number(complete).await, 3);
    db.run("OPTIMIZE TABLE complete.watermarks FINAL").await;
    assert_eq!((db.through().await, db.number(complete).await), (start + 3 * minute, 3));

    // Of a topic's lives the latest counts; every topic does.
    db.client.enter_partitions([other(1, "more"), other(9, "more"), other(10, "more")]).await.unwrap();
    assert_eq!(db.through().await, 0);
    db.report(&[(other(10, "more"), start + 2 * minute)]);
    assert_eq!((db.through().await, db.number(complete).await), (start + 2 * minute, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_ahead_of_time_completes_nothing_that_is_yet_to_come() {
    let mut db = Db::new("ahead").await;
    db.report(&[(source(0), i64::MAX / 4), (source(1), i64::from(i32::MAX) * 1_000)]);
    let ahead = "(SELECT max(watermark) <= now64(3) FROM ahead.watermarks)";
    assert_eq!((db.number(ahead).await, db.number("(SELECT count() FROM ahead.watermarks)").await), (1, 2));
    // Names are quoted.
    db.report(&[(other(1, "it's"), 5)]);
    db.client.enter_partitions([]).await.unwrap();
}
