//! What a user lacks is told before it is needed.

use devstack::ClickHouse;
use highwater::clickhouse::{Client, Endpoint, Grants, grants};

use crate::fixture::Db;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_granted_for_the_database_or_a_table_is_enough_and_all_else_is_named() {
    let base = "GRANT SELECT, ALTER DELETE ON granted.*";
    let elsewhere = "GRANT ALTER UPDATE ON granted.ledger";
    let tables = ["GRANT ALTER UPDATE ON granted.redrives", "GRANT DROP TABLE ON granted.not_there_yet"];
    let server = ClickHouse::options()
        .user("little", "secret", ["GRANT SELECT ON granted.ledger"])
        .user("some", "secret", [base, elsewhere])
        .user("more", "secret", [base, tables[0]])
        .user("enough", "secret", [base, tables[0], tables[1]])
        .start()
        .unwrap();
    let _db = Db::on(&server, "granted").await;
    let needed = [
        ("SELECT", vec!["redrives", "ledger"]),
        ("ALTER DELETE", vec!["ledger", "probe"]),
        ("ALTER UPDATE", vec!["redrives"]),
        ("DROP TABLE", vec!["not_there_yet"]),
    ];
    for (user, lacking) in [
        ("little", "SELECT, ALTER DELETE, ALTER UPDATE, DROP TABLE"),
        ("some", "ALTER UPDATE, DROP TABLE"),
        ("more", "DROP TABLE"),
        ("enough", ""),
    ] {
        let client = Client::new(Endpoint::new(&server.url(), "granted", user, "secret").unwrap());
        match grants::look_for(&client, &needed).await.unwrap() {
            Grants::Lacking(said) => {
                let grant = format!("run: GRANT {lacking} ON `granted`.* TO `{user}`");
                assert!(said.ends_with(&grant), "{user}: {said}");
            }
            other => assert_eq!((other, lacking), (Grants::Enough, "")),
        }
    }
}
