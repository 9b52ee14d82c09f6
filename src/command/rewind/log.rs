//! Which of a topic's epochs are of the log that it has now: a rewind goes back in all of these.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::clickhouse::sql::{literal, literals};
use crate::clickhouse::tables::{LEDGER, SOURCES};
use crate::clickhouse::{CLOSED, Client, InForce, in_force};
use crate::kafka::TopicIdentity;

/// Tokens that are tried for one row; the second is enough, but for servers that were killed again and again.
const ATTEMPTS: u32 = 5;

/// A topic in all its epochs that were of the same log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) topic: String,
    epochs: Vec<Epoch>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Epoch {
    epoch: u32,
    cluster_id: String,
    topic_id: String,
    group: String,
}

/// Varies the token of a row that did not come.
fn suffix(attempt: u32) -> String {
    if attempt == 0 { String::new() } else { format!("/{attempt}") }
}

/// Makes sure that Kafka is the cluster from which a topic was read last, before the topic is taken for gone.
pub(in crate::command) async fn ensure_of_cluster(client: &Client, topic: &str, cluster: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Read {
        cluster_id: String,
    }
    let (sources, name) = (client.table(SOURCES), literal(topic));
    let sql = format!("SELECT cluster_id FROM {sources} WHERE topic = {name} ORDER BY epoch DESC LIMIT 1");
    let Some(Read { cluster_id: read }) = client.rows::<Read>(&sql).await?.into_iter().next() else {
        return Ok(());
    };
    ensure!(
        read == cluster,
        "the topic {topic} was read from the cluster {read}, and this one is {cluster}: correct kafka.brokers; nothing was changed"
    );
    Ok(())
}

impl Log {
    /// `None`: the database does not know the topic as it is now.
    pub(super) async fn of(client: &Client, topic: &str, identity: &TopicIdentity) -> Result<Option<Log>> {
        let TopicIdentity { cluster_id, topic_id, .. } = identity;
        let sql = format!(
            "SELECT epoch, cluster_id, topic_id, `group` FROM {} WHERE topic = {} ORDER BY epoch, claimed_at LIMIT 1 BY epoch",
            client.table(SOURCES),
            literal(topic)
        );
        let mut epochs: Vec<Epoch> = client.rows(&sql).await?;
        let is_same = |epoch: &Epoch| (&epoch.cluster_id, &epoch.topic_id) == (cluster_id, topic_id);
        if !epochs.last().is_some_and(is_same) {
            return Ok(None);
        }
        epochs.retain(is_same);
        Ok(Some(Log { topic: topic.to_owned(), epochs }))
    }

    /// Has the topic enter an epoch, and sees that it is there: a ClickHouse that was killed in an earlier attempt may know
    /// the insert's token and have no row.
    pub(super) async fn enter(&self, client: &Client, epoch: u32, group: &str) -> Result<()> {
        let last = self.epochs.last().context("the topic has an epoch")?;
        let row = serde_json::json!({
            "topic": self.topic, "epoch": epoch, "cluster_id": last.cluster_id, "topic_id": last.topic_id, "group": group,
        });
        for attempt in 0..ATTEMPTS {
            let token = format!("claim/{}/{epoch}{}", self.topic, suffix(attempt));
            client.insert(SOURCES, &token, row.to_string()).await?;
            if in_force(client).await?.get(&self.topic) == Some(&InForce { epoch, closed: group == CLOSED }) {
                return Ok(());
            }
        }
        bail!("{SOURCES} does not take epoch {epoch} of {}: no row of it is there after {ATTEMPTS} inserts", self.topic)
    }

    /// Writes first rows of the ledger for partitions in an epoch, and sees that they are there, likewise: a partition that
    /// has none would be read from the log's start. One that is there and lies elsewhere is another rewind's.
    pub(super) async fn begin(
        &self,
        client: &Client,
        epoch: u32,
        plan: &str,
        begins: impl Iterator<Item = (i32, u64)>,
    ) -> Result<()> {
        #[derive(Deserialize)]
        struct Begun {
            source: String,
            at: u64,
        }
        let mut missing: BTreeMap<String, u64> =
            begins.map(|(partition, at)| (self.source(epoch, partition), at)).collect();
        for attempt in 0..ATTEMPTS {
            if missing.is_empty() {
                return Ok(());
            }
            for (source, at) in &missing {
                let row = serde_json::json!({"source": source, "kind": "start", "from": at, "to": at, "plan": plan});
                let token = format!("{source}/ledger/new{}", suffix(attempt));
                client.insert(LEDGER, &token, row.to_string()).await?;
            }
            let (ledger, sources) = (client.table(LEDGER), literals(missing.keys()));
            let sql =
                format!("SELECT source, max(`from`) AS at FROM {ledger} WHERE source IN ({sources}) GROUP BY source");
            for Begun { source, at } in client.rows::<Begun>(&sql).await? {
                let wanted = missing.remove(&source);
                ensure!(
                    wanted.is_none_or(|wanted| wanted == at),
                    "another rewind of {} has begun {source} at {at} meanwhile, which is not where this one goes; nothing is read \
                     before one of them has ended: let the other end, or rewind with --go-on",
                    self.topic
                );
            }
        }
        ensure!(
            missing.is_empty(),
            "{LEDGER} does not take the first row of {}: none is there after {ATTEMPTS} inserts",
            missing.keys().cloned().collect::<Vec<_>>().join(", ")
        );
        Ok(())
    }

    /// The group that writes the topic.
    pub(super) fn group(&self) -> &str {
        self.epochs.iter().rev().map(|epoch| epoch.group.as_str()).find(|&group| group != CLOSED).unwrap_or_default()
    }

    /// Whether a rewind of it was interrupted.
    pub(super) fn is_closed(&self) -> bool {
        self.epochs.last().is_some_and(|epoch| epoch.group == CLOSED)
    }

    pub(super) fn last(&self) -> u32 {
        self.epochs.last().map_or(0, |epoch| epoch.epoch)
    }

    /// The epochs, as a list.
    pub(super) fn numbers(&self) -> String {
        self.epochs.iter().map(|epoch| epoch.epoch.to_string()).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn source(&self, epoch: u32, partition: i32) -> String {
        format!("{epoch}/{}/{partition}", self.topic)
    }

    /// The names of a partition in all epochs, as a list of literals.
    pub(super) fn sources(&self, partition: i32) -> String {
        literals(self.epochs.iter().map(|epoch| self.source(epoch.epoch, partition)))
    }
}
