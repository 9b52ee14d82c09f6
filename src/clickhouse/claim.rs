//! Who may write a topic: one consumer group, for one life of the topic.
//!
//! A topic's life is a cluster id and a topic id; its number, the epoch, is part of every source's name. A claim is an
//! insert under a token that is read back: of two that claim at once one row stands, and both see which.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::client::Client;
use super::error::QueryError;
use super::sql::literal;
use super::tables::{LEDGER, SOURCES};

/// How often a claim's token is varied before giving up; one is enough, but for rows that were deleted by hand.
const ATTEMPTS: u32 = 20;

/// The group that stands for an epoch in which nobody writes: the topic is being rewound.
pub(crate) const CLOSED: &str = "";

/// Why a topic can't be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// ClickHouse did not answer as asked.
    #[error("can't claim the topic {topic}: {error}")]
    Query {
        /// The topic.
        topic: String,
        /// What ClickHouse said.
        error: QueryError,
    },
    /// Another group has it.
    #[error(
        "the topic {topic} is written to this database by the consumer group {found:?}, and this is the group {asked:?}: two \
         groups would each read all of it. Use the same group, or another database; if {found:?} is gone for good, hand the \
         topic over by\n  {fix}"
    )]
    OtherGroup {
        /// The topic.
        topic: String,
        /// The group that has it.
        found: String,
        /// The group that asked.
        asked: String,
        /// What hands it over.
        fix: String,
    },
    /// It is being rewound.
    #[error(
        "the topic {topic} is being rewound, or a rewind of it was interrupted: let `highwater rewind` end, or go on with it \
         (--go-on). What it has taken back by then is read again only once it has ended"
    )]
    Rewound {
        /// The topic.
        topic: String,
    },
    /// The topic is another one than before.
    #[error(
        "the topic {topic} is not the one that this database knows: it was {found}, now it is {asked}. If the topic was made \
         anew, or moved, its offsets begin anew: use another database, or begin epoch {next}, at the log's start, by\n  {fix}"
    )]
    OtherTopic {
        /// The topic.
        topic: String,
        /// Topic id and cluster id on record.
        found: String,
        /// Topic id and cluster id now.
        asked: String,
        /// The next epoch.
        next: u32,
        /// What begins it.
        fix: String,
    },
    /// There are rows of a topic that nobody claimed.
    #[error(
        "the ledger has rows of the topic {topic} up to epoch {epoch}, but the table sources has none of it: its row was \
         deleted. To go on where the ledger ends, put it back by\n  {again}\nto begin epoch {next}, by\n  {anew}"
    )]
    RowDeleted {
        /// The topic.
        topic: String,
        /// Last epoch in the ledger.
        epoch: u32,
        /// The one after it.
        next: u32,
        /// What puts the row back.
        again: String,
        /// What begins the next epoch.
        anew: String,
    },
    /// Inserts succeed and nothing is there.
    #[error(
        "claimed the topic {0} {ATTEMPTS} times, and the table sources shows none of them; is somebody deleting its rows?"
    )]
    NeverSeen(String),
}

#[derive(Debug, Deserialize)]
struct Row {
    epoch: u32,
    cluster_id: String,
    topic_id: String,
    group: String,
}

/// Claims a topic for a group, or finds that it is claimed for it; answers the epoch.
///
/// # Errors
/// Another group has the topic, or it is another topic; says what was found and what an operator can do.
pub async fn claim(
    client: &Client,
    topic: &str,
    cluster_id: &str,
    topic_id: &str,
    group: &str,
) -> Result<u32, ClaimError> {
    let failed = |error| ClaimError::Query { topic: topic.to_owned(), error };
    for attempt in 0..ATTEMPTS {
        if let Some(epoch) = look(client, topic, cluster_id, topic_id, group).await? {
            return Ok(epoch);
        }
        // A token whose row was deleted still stands: the next in the sequence, which is the same for every claimant.
        let token = if attempt == 0 { format!("claim/{topic}") } else { format!("claim/{topic}/{attempt}") };
        let line = json!({
            "topic": topic, "epoch": 1, "cluster_id": cluster_id, "topic_id": topic_id, "group": group,
        });
        client.insert(SOURCES, &token, line.to_string()).await.map_err(failed)?;
    }
    let seen = look(client, topic, cluster_id, topic_id, group).await?;
    seen.ok_or_else(|| ClaimError::NeverSeen(topic.to_owned()))
}

/// The epoch in which a topic is claimed for a group; `None`: nobody has claimed it. Changes nothing.
///
/// # Errors
/// As [`claim`].
pub async fn look(
    client: &Client,
    topic: &str,
    cluster_id: &str,
    topic_id: &str,
    group: &str,
) -> Result<Option<u32>, ClaimError> {
    let failed = |error| ClaimError::Query { topic: topic.to_owned(), error };
    let asked = Row { epoch: 1, cluster_id: cluster_id.into(), topic_id: topic_id.into(), group: group.into() };
    if let Some(found) = current(client, topic).await.map_err(failed)? {
        // The first rows of an epoch that a rewind began and did not enter are in the ledger.
        let last = if is_other(&found, &asked) { last_epoch(client, topic).await.map_err(failed)? } else { None };
        return judge(client, topic, &found, last.unwrap_or(0), &asked).map(Some);
    }
    match last_epoch(client, topic).await.map_err(failed)? {
        Some(epoch) => Err(ClaimError::RowDeleted {
            topic: topic.to_owned(),
            epoch,
            next: epoch + 1,
            again: insertion(client, topic, &Row { epoch, ..row(&asked) }),
            anew: insertion(client, topic, &Row { epoch: epoch + 1, ..row(&asked) }),
        }),
        None => Ok(None),
    }
}

fn row(of: &Row) -> Row {
    Row { epoch: of.epoch, cluster_id: of.cluster_id.clone(), topic_id: of.topic_id.clone(), group: of.group.clone() }
}

/// The row that stands: of the latest epoch, the first.
async fn current(client: &Client, topic: &str) -> Result<Option<Row>, QueryError> {
    let sql = format!(
        "SELECT epoch, cluster_id, topic_id, `group` FROM {} WHERE topic = {} ORDER BY epoch DESC, claimed_at LIMIT 1",
        client.table(SOURCES),
        literal(topic)
    );
    Ok(client.rows(&sql).await?.into_iter().next())
}

/// The epoch that a topic is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct InForce {
    /// Its number.
    pub epoch: u32,
    /// Whether nobody may write in it: the topic is being rewound.
    pub closed: bool,
}

/// The epoch that each topic is in; those that nobody has claimed are left out.
///
/// # Errors
/// The server's error, or that it did not answer.
pub async fn in_force(client: &Client) -> Result<BTreeMap<String, InForce>, QueryError> {
    #[derive(Deserialize)]
    struct OfTopic {
        topic: String,
        #[serde(flatten)]
        in_force: InForce,
    }
    let sql = format!(
        "SELECT topic, epoch, toBool(`group` = {}) AS closed FROM {} ORDER BY topic, epoch DESC, claimed_at LIMIT 1 BY topic",
        literal(CLOSED),
        client.table(SOURCES)
    );
    let found = client.rows::<OfTopic>(&sql).await?.into_iter();
    Ok(found.map(|OfTopic { topic, in_force }| (topic, in_force)).collect())
}

/// The last epoch of a topic that the ledger has rows of.
pub async fn last_epoch(client: &Client, topic: &str) -> Result<Option<u32>, QueryError> {
    #[derive(Deserialize)]
    struct Epoch {
        epoch: u32,
    }
    // A topic's name has no slash, so the three parts of a source are told apart.
    let sql = format!(
        "SELECT max(toUInt32OrZero(splitByChar('/', source)[1])) AS epoch FROM {} WHERE splitByChar('/', source)[2] = {} \
         HAVING epoch > 0",
        client.table(LEDGER),
        literal(topic)
    );
    Ok(client.rows::<Epoch>(&sql).await?.first().map(|row| row.epoch))
}

fn is_other(found: &Row, asked: &Row) -> bool {
    (&found.cluster_id, &found.topic_id) != (&asked.cluster_id, &asked.topic_id)
}

fn judge(client: &Client, topic: &str, found: &Row, last: u32, asked: &Row) -> Result<u32, ClaimError> {
    if is_other(found, asked) {
        let next = found.epoch.max(last) + 1;
        return Err(ClaimError::OtherTopic {
            topic: topic.to_owned(),
            found: identity(found),
            asked: identity(asked),
            next,
            fix: insertion(client, topic, &Row { epoch: next, ..row(asked) }),
        });
    }
    if found.group == CLOSED {
        return Err(ClaimError::Rewound { topic: topic.to_owned() });
    }
    if found.group != asked.group {
        let fix = format!(
            "ALTER TABLE {} UPDATE `group` = {} WHERE topic = {} SETTINGS mutations_sync = 1",
            client.table(SOURCES),
            literal(&asked.group),
            literal(topic)
        );
        let (found, asked) = (found.group.clone(), asked.group.clone());
        return Err(ClaimError::OtherGroup { topic: topic.to_owned(), found, asked, fix });
    }
    Ok(found.epoch)
}

fn identity(of: &Row) -> String {
    format!("topic id {} in cluster {}", of.topic_id, of.cluster_id)
}

fn insertion(client: &Client, topic: &str, row: &Row) -> String {
    format!(
        "INSERT INTO {} (topic, epoch, cluster_id, topic_id, `group`) VALUES ({}, {}, {}, {}, {})",
        client.table(SOURCES),
        literal(topic),
        row.epoch,
        literal(&row.cluster_id),
        literal(&row.topic_id),
        literal(&row.group)
    )
}
