//! Who may write a topic.

use highwater::clickhouse::{ClaimError, claim};

use crate::fixture::{Db, ledger_row, source};
use highwater::batch::LedgerKind;

#[tokio::test(flavor = "multi_thread")]
async fn one_group_has_a_topic() {
    let db = Db::new("claims").await;
    let claims =
        (0..8).map(|index| {
            let client = db.client.clone();
            async move {
                claim(&client, "events", "c", "t", &format!("group{index}")).await.ok().map(|epoch| (index, epoch))
            }
        });
    let won: Vec<_> = futures::future::join_all(claims).await.into_iter().flatten().collect();
    assert_eq!(won.len(), 1, "{won:?}");
    assert_eq!(won[0].1, 1);
    assert_eq!(db.number("(SELECT count() FROM claims.sources)").await, 1);
    let winner = format!("group{}", won[0].0);
    assert_eq!(claim(&db.client, "events", "c", "t", &winner).await.unwrap(), 1);
    assert_eq!(claim(&db.client, "other", "c", "u", &winner).await.unwrap(), 1);

    // What the error says to do does it.
    let error = claim(&db.client, "events", "c", "t", "new").await.unwrap_err();
    assert!(error.to_string().contains(&winner), "{error}");
    let ClaimError::OtherGroup { fix, .. } = error else { panic!("{error}") };
    db.run(&fix).await;
    assert_eq!(claim(&db.client, "events", "c", "t", "new").await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_begins_an_epoch_by_an_operators_word() {
    let db = Db::new("epochs").await;
    claim(&db.client, "events", "c", "t", "g").await.unwrap();
    for (cluster, topic_id) in [("c", "t2"), ("c2", "t")] {
        let error = claim(&db.client, "events", cluster, topic_id, "g").await.unwrap_err();
        assert!(matches!(error, ClaimError::OtherTopic { next: 2, .. }), "{error}");
    }
    let error = claim(&db.client, "events", "c", "t2", "g").await.unwrap_err();
    let ClaimError::OtherTopic { fix, .. } = error else { panic!("{error}") };
    db.run(&fix).await;
    assert_eq!(claim(&db.client, "events", "c", "t2", "g").await.unwrap(), 2);
    assert!(claim(&db.client, "events", "c", "t", "g").await.is_err(), "the old topic is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_claim_is_no_new_beginning() {
    let mut db = Db::new("deleted").await;
    claim(&db.client, "events", "c", "t", "g").await.unwrap();
    let delete = "ALTER TABLE deleted.sources DELETE WHERE 1 SETTINGS mutations_sync = 1";
    // Nothing was written yet: the token of the old claim stands in the way, and the next one is taken.
    db.run(delete).await;
    assert_eq!(claim(&db.client, "events", "c", "t", "g").await.unwrap(), 1);
    db.write_ledger(ledger_row(source(0), LedgerKind::Start, 0, 0));
    db.run(delete).await;
    let error = claim(&db.client, "events", "c", "t", "g").await.unwrap_err();
    let ClaimError::RowDeleted { epoch: 1, again, .. } = error else { panic!("{error}") };
    db.run(&again).await;
    assert_eq!(claim(&db.client, "events", "c", "t", "g").await.unwrap(), 1);
}
