//! What a user lacks is told before it is needed.

use highwater::clickhouse::{Client, Endpoint, Grants, grants};

use crate::fixture::{Db, server};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_granted_for_the_database_or_a_table_is_enough_and_all_else_is_named() {
    let db = Db::new("granted").await;
    db.run("CREATE USER granted_user IDENTIFIED BY 'secret'").await;
    let client = Client::new(Endpoint::new(&server().url(), "granted", "granted_user", "secret").unwrap());
    let needed = [
        ("SELECT", vec!["redrives", "ledger"]),
        ("ALTER DELETE", vec!["ledger", "probe"]),
        ("ALTER UPDATE", vec!["redrives"]),
        ("DROP TABLE", vec!["not_there_yet"]),
    ];
    let lacking = async || match grants::look_for(&client, &needed).await.unwrap() {
        Grants::Lacking(what) => what,
        other => format!("{other:?}"),
    };
    let grant = "run: GRANT SELECT, ALTER DELETE, ALTER UPDATE, DROP TABLE ON `granted`.* TO `granted_user`";
    let said = lacking().await;
    assert!(said.ends_with(grant), "{said}");
    for (granted, left) in [
        ("SELECT, ALTER DELETE ON granted.*", "run: GRANT ALTER UPDATE, DROP TABLE ON "),
        ("ALTER UPDATE ON granted.ledger", "run: GRANT ALTER UPDATE, DROP TABLE ON "),
        ("ALTER UPDATE ON granted.redrives", "run: GRANT DROP TABLE ON "),
        ("DROP TABLE ON granted.not_there_yet", "Enough"),
    ] {
        db.run(&format!("GRANT {granted} TO granted_user")).await;
        let said = lacking().await;
        assert!(said.contains(left), "{granted}: {said}");
    }
}
