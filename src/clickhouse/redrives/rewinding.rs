//! The one rewind that may be at work: it holds the last number of the runs of redrives, from when it begins until it has ended.

use std::hash::{BuildHasher, Hasher, RandomState};

use bytes::Bytes;

use super::{Client, Last, QueryError, last, take};

/// What a row has for a partition whose number a rewind took, and for an event.
pub(super) const NO_PARTITION: i32 = -1;
pub(super) const REWIND_BEGUN: &str = "rewind begun";
const REWIND_ENDED: &str = "rewind ended";

/// A rewind that has begun and not ended: it is at work, or was interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewinding {
    /// The topic.
    pub topic: String,
    /// Where to, as its command was told.
    pub place: String,
    /// Tells it from another that began at the same time with the same words.
    pub(super) nonce: u64,
}

impl Rewinding {
    /// One that is about to begin.
    pub fn new(topic: &str, place: &str) -> Rewinding {
        let nonce = RandomState::new().build_hasher().finish();
        Rewinding { topic: topic.to_owned(), place: place.to_owned(), nonce }
    }
}

/// Shuts out lists of letters, of whichever topic, and other rewinds, until [`end_rewind`]; answers the rewind in whose way it
/// is, if one has begun and not ended, and changes nothing then.
///
/// # Errors
/// The server's error, or that it did not answer; it may be begun all the same.
pub async fn begin_rewind(client: &Client, rewind: &Rewinding) -> Result<Option<Rewinding>, QueryError> {
    loop {
        let Last { run, rewinding } = last(client).await?;
        match rewinding {
            Some(rewinding) => return Ok(Some(rewinding).filter(|rewinding| rewinding != rewind)),
            None => {
                take(client, run.saturating_add(1), rewind_line(run.saturating_add(1), rewind, REWIND_BEGUN)).await?
            }
        }
    }
}

/// Has letters listed again, and rewinds begin. Of who began this rewind, or goes on with it.
///
/// # Errors
/// The server's error, or that it did not answer; it may be ended all the same.
pub async fn end_rewind(client: &Client, rewind: &Rewinding) -> Result<(), QueryError> {
    loop {
        let Last { run, rewinding } = last(client).await?;
        if rewinding.as_ref() != Some(rewind) {
            return Ok(());
        }
        take(client, run.saturating_add(1), rewind_line(run.saturating_add(1), rewind, REWIND_ENDED)).await?;
    }
}

/// The row under a number that a rewind takes: it lists no letter.
fn rewind_line(run: u32, rewind: &Rewinding, event: &str) -> Bytes {
    let Rewinding { topic, place, nonce } = rewind;
    let line = serde_json::json!({
        "run": run, "topic": topic, "partition": NO_PARTITION, "event": event, "taken_back": true, "plan": place, "offset": nonce,
    });
    line.to_string().into()
}
