//! The one rewind that may be at work: it holds the last number of the runs of redrives, from when it begins until it has ended.

use std::hash::{BuildHasher, Hasher, RandomState};

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

/// How a rewind that wanted to begin stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// It has begun.
    Begun,
    /// Nothing was changed: this one has begun and not ended.
    InTheWay(Rewinding),
    /// Nothing was changed: the one that it was to go on with has ended.
    Ended,
}

/// Shuts out lists of letters, of whichever topic, and other rewinds, until [`end_rewind`]. `over` is the one that it goes on
/// with, which has its turn no longer then.
///
/// # Errors
/// The server's error, or that it did not answer; it may be begun all the same.
pub async fn begin_rewind(client: &Client, rewind: &Rewinding, over: Option<&Rewinding>) -> Result<Begin, QueryError> {
    loop {
        let Last { run, rewinding } = last(client).await?;
        match rewinding {
            Some(last) if last == *rewind => return Ok(Begin::Begun),
            Some(last) if Some(&last) != over => return Ok(Begin::InTheWay(last)),
            None if over.is_some() => return Ok(Begin::Ended),
            _ => take_next(client, run, rewind, REWIND_BEGUN).await?,
        }
    }
}

/// Has letters listed again, and rewinds begin, if this one has the turn. Of who has it, or knows that nobody works in it.
///
/// # Errors
/// The server's error, or that it did not answer; it may be ended all the same.
pub async fn end_rewind(client: &Client, rewind: &Rewinding) -> Result<(), QueryError> {
    loop {
        let Last { run, rewinding } = last(client).await?;
        if rewinding.as_ref() != Some(rewind) {
            return Ok(());
        }
        take_next(client, run, rewind, REWIND_ENDED).await?;
    }
}

/// Takes the number after the last one. Its row lists no letter.
async fn take_next(client: &Client, last: u32, rewind: &Rewinding, event: &str) -> Result<(), QueryError> {
    let Rewinding { topic, place, nonce } = rewind;
    let run = last.saturating_add(1);
    let line = serde_json::json!({
        "run": run, "topic": topic, "partition": NO_PARTITION, "event": event, "taken_back": true, "plan": place, "offset": nonce,
    });
    take(client, run, line.to_string().into()).await
}
