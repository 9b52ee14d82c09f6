//! What comes of the log: which records are alerts, which are heartbeats, and which stop us.

use super::reader::ReadError;
use super::silence::Beat;
use crate::alert::{HEARTBEAT_KEY, Message, RULES_KEY, Record};
use crate::ports::{self, LogEvent, TopicPartition};

/// What came of the log.
pub(super) enum News {
    Assigned(TopicPartition),
    Revoked,
    Record(u64, Content),
    Until(u64),
    OutOfRange,
    /// A record that is to be read before anything behind it is.
    Halt(u64, ReadError),
}

/// What a record is to us.
pub(super) enum Content {
    Alert(Box<Message>),
    Beat(Beat),
    Nothing,
}

/// Alerts stand in the first partition, in the order in which they hold.
pub(super) fn understood(
    event: LogEvent<'_>,
    handed_on: u64,
    read: impl FnOnce(&[u8]) -> Result<Record, ReadError>,
) -> Option<News> {
    let first = |partitions: Vec<TopicPartition>| partitions.into_iter().find(|name| name.partition == 0);
    match event {
        LogEvent::Assigned(partitions) => first(partitions).map(News::Assigned),
        LogEvent::Revoked(partitions) => first(partitions).map(|_| News::Revoked),
        LogEvent::OutOfRange(partition) => first(vec![partition]).map(|_| News::OutOfRange),
        LogEvent::End(partition, offset) => first(vec![partition]).map(|_| News::Until(offset)),
        LogEvent::Record(record) if record.partition != 0 => None,
        LogEvent::Record(record) => Some(content(&record, handed_on, read)),
    }
}

fn content(record: &ports::Record<'_>, handed_on: u64, read: impl FnOnce(&[u8]) -> Result<Record, ReadError>) -> News {
    let offset = record.offset;
    let content = |content| News::Record(offset, content);
    let (topic, partition) = (record.topic, record.partition);
    let is = |key: &str| record.key == Some(key.as_bytes());
    let Some(payload) = record.payload.filter(|_| !is(RULES_KEY)) else { return content(Content::Nothing) };
    match read(payload) {
        Ok(Record::Alert(message)) => content(Content::Alert(message)),
        Ok(Record::Heartbeat(heartbeat)) => content(Content::Beat(heartbeat.into())),
        Ok(Record::Budget(_) | Record::Rules(_)) => content(Content::Nothing),
        // A newer highwater judges: its heart beats too.
        Err(ReadError::Unknown(_)) if is(HEARTBEAT_KEY) => {
            content(Content::Beat(Beat { sent_at: record.timestamp_ms, judged: None }))
        }
        Err(error @ ReadError::Damaged(_)) => {
            tracing::error!(
                "a record of the topic of alerts can't be read and is not handed on: {topic}/{partition} offset {offset}: \
                 {error}"
            );
            content(Content::Nothing)
        }
        Err(error @ ReadError::Unknown(_)) if offset < handed_on => {
            tracing::error!(
                "a record of the topic of alerts that was handed on already can't be read, so that Alertmanager is not told \
                 anew of what it says: {topic}/{partition} offset {offset}: {error}"
            );
            content(Content::Nothing)
        }
        Err(error) => News::Halt(offset, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// | record | what becomes of it |
    /// |---|---|
    /// | damaged, deleted, of rules | it is passed |
    /// | of a schema that is not known, or whose registry is away | it stops us |
    /// | of such a schema, handed on already | it is passed |
    /// | a heartbeat of such a schema | a heartbeat |
    #[test]
    fn what_can_not_be_read_yet_is_not_passed() {
        let record = |key: &'static str, payload| ports::Record {
            topic: "alerts",
            partition: 0,
            offset: 5,
            timestamp_ms: 77,
            key: Some(key.as_bytes()),
            payload,
        };
        let (damaged, unknown, away) =
            (ReadError::Damaged("d".into()), ReadError::Unknown("u".into()), ReadError::Away("a".into()));
        let found =
            |key, handed_on, error: &ReadError| content(&record(key, Some(b"x")), handed_on, |_| Err(error.clone()));
        assert!(matches!(found("a", 0, &damaged), News::Record(5, Content::Nothing)));
        assert!(matches!(found("a", 5, &unknown), News::Halt(5, ReadError::Unknown(_))));
        assert!(matches!(found("a", 6, &unknown), News::Record(5, Content::Nothing)));
        assert!(matches!(found("a", 6, &away), News::Halt(5, ReadError::Away(_))));
        assert!(matches!(found(RULES_KEY, 0, &unknown), News::Record(5, Content::Nothing)));
        let beat = Beat { sent_at: 77, judged: None };
        assert!(matches!(found(HEARTBEAT_KEY, 0, &unknown), News::Record(5, Content::Beat(found)) if found == beat));
        let deleted = content(&record("a", None), 0, |_| Err(damaged.clone()));
        assert!(matches!(deleted, News::Record(5, Content::Nothing)));
    }
}
