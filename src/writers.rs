//! What is known of the schemas that messages were written with.
//!
//! A fingerprint is that of a schema of the plan, present or former, or of none. An id means what a schema registry says, which is asked once
//! and kept, since a registry never gives an id to another schema. Until it has answered, whoever needs the id waits.
//!
//! ```text
//! due ──ids──▶ Registry ──▶ answered        readable: by a type of the plan
//!  ▲                           │            unreadable: a dead letter, with the reason
//!  └── later, while it fails ──┘            missing: a dead letter, if the message is old enough
//! ```
//!
//! What becomes of a message must not depend on when the registry was asked. A producer registers first and sends then, so
//! an id is missing for good once the message is some seconds old: long enough for a registry's replica to catch up.

use std::collections::BTreeSet;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::batch::Reason;
use crate::columns::Decoder;
use crate::event::avro::Schema;
use crate::event::wire::{self, FrameError, Writer};
use crate::partition::Backoff;
use crate::plan::Plan;
use crate::ports::{Record, Registered, RegistryError};

/// Age from which on a message's id is believed to be missing.
const SETTLED: Duration = Duration::from_secs(10);
/// Between two questions for an id that was missing.
const AGAIN: Duration = Duration::from_secs(1);
/// Questions that may be out at a time.
const MOST_OUT: usize = 16;
/// How much of a problem is told, bytes: it stands in the dead letter of each message.
const TOLD: usize = 2_000;
/// Missing ids that are kept: noise may name any number of them.
const MISSING_KEPT: usize = 10_000;

/// The ids that are known, and those that are being asked for.
#[derive(Debug, Default)]
pub struct Writers {
    known: FxHashMap<u32, Known>,
    asked: FxHashMap<u32, Asked>,
}

#[derive(Debug)]
enum Known {
    /// By the type at this position of the plan, with this decoder.
    Readable {
        event: usize,
        decoder: Decoder,
    },
    Unreadable(Reason),
    /// The registry did not have it then.
    Missing {
        at: Duration,
    },
}

/// A question that is out, or was in vain.
#[derive(Debug, Default)]
struct Asked {
    out: bool,
    /// When it may be asked again.
    due: Duration,
    backoff: Backoff,
}

/// A message out of its frame, and how it is read.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// Position of its type in the plan.
    pub event: usize,
    /// Reads what its writer wrote into columns of that type.
    pub decoder: &'a Decoder,
    /// The Avro body.
    pub body: &'a [u8],
}

/// What can be said of a message now.
#[derive(Debug)]
pub enum Opened<'a> {
    /// How it is read, or why it never will be.
    Known(Result<Content<'a>, Reason>),
    /// Not before the registry has said what this id means.
    Unknown(u32),
}

impl Writers {
    /// Takes a message out of its frame. `seen` is when it was first looked at: a record dated later than that counts as
    /// of then, so that a fast clock keeps nobody waiting for long.
    pub fn open<'a>(&'a self, plan: &'a Plan, record: &Record<'a>, seen: Duration) -> Opened<'a> {
        Opened::Known(match wire::split(record.payload) {
            Err(error) => Err(error.into()),
            Ok((Writer::Fingerprint(fingerprint), body)) => match plan.reader_of(fingerprint) {
                Some((event, decoder)) => Ok(Content { event, decoder, body }),
                None => Err(Reason::UnknownSchema(fingerprint)),
            },
            Ok((Writer::Id(id), _)) if !plan.sources.registry => Err(FrameError::NoRegistry(id).into()),
            // Registries count in 31 bits, and some answer nothing conclusive about what is beyond.
            Ok((Writer::Id(id), _)) if i32::try_from(id).is_err() => Err(Reason::UnknownId(id)),
            Ok((Writer::Id(id), body)) => match self.known.get(&id) {
                Some(Known::Readable { event, decoder }) => Ok(Content { event: *event, decoder, body }),
                Some(Known::Unreadable(reason)) => Err(reason.clone()),
                Some(Known::Missing { at }) if *at >= dated(record).min(seen) + SETTLED => Err(Reason::UnknownId(id)),
                Some(Known::Missing { .. }) | None => return Opened::Unknown(id),
            },
        })
    }

    /// Those of the `wanted` ids that the registry is to be asked for now. Each will be [`Writers::answered`].
    pub fn due(&mut self, wanted: &BTreeSet<u32>, now: Duration) -> Vec<u32> {
        self.asked.retain(|id, asked| asked.out || wanted.contains(id));
        let mut room = MOST_OUT.saturating_sub(self.asked.values().filter(|asked| asked.out).count());
        let mut due = Vec::new();
        for &id in wanted {
            if room == 0 {
                break;
            }
            let asked = self.asked.entry(id).or_default();
            if !asked.out && asked.due <= now {
                asked.out = true;
                room -= 1;
                due.push(id);
            }
        }
        due
    }

    /// Takes in what came of a question.
    pub fn answered(&mut self, plan: &Plan, id: u32, answer: Result<Registered, RegistryError>, now: Duration) {
        let asked = self.asked.entry(id).or_default();
        asked.out = false;
        let known = match answer {
            Err(_) => {
                asked.due = asked.backoff.after_failure(now);
                return;
            }
            Ok(Registered::Missing) => {
                *asked = Asked { due: now + AGAIN, ..Asked::default() };
                self.make_room();
                Known::Missing { at: now }
            }
            Ok(Registered::Unusable(problem)) => Known::Unreadable(unresolvable(id, problem)),
            Ok(Registered::Avro(text)) => match read(plan, id, &text) {
                Ok((event, decoder)) => Known::Readable { event, decoder },
                Err(reason) => Known::Unreadable(reason),
            },
        };
        if !matches!(known, Known::Missing { .. }) {
            self.asked.remove(&id);
        }
        self.known.insert(id, known);
    }

    /// Whether an answer of the registry is awaited.
    pub fn is_waiting(&self) -> bool {
        self.asked.values().any(|asked| asked.out)
    }

    fn make_room(&mut self) {
        if self.known.len() >= MISSING_KEPT {
            self.known.retain(|_, known| !matches!(known, Known::Missing { .. }));
        }
    }
}

/// The record's own timestamp; the beginning of time where it has none.
fn dated(record: &Record<'_>) -> Duration {
    Duration::from_millis(u64::try_from(record.timestamp_ms).unwrap_or(0))
}

/// That no message of an id can be read, and why.
fn unresolvable(id: u32, problem: String) -> Reason {
    Reason::Unresolvable { id, problem: told(problem) }
}

/// A text of somebody else, cut short if need be.
fn told(mut text: String) -> String {
    if text.len() > TOLD {
        text.truncate(text.floor_char_boundary(TOLD));
        text.push('…');
    }
    text
}

/// The type that a registered schema is of, and how its messages are read: by Avro's schema resolution.
fn read(plan: &Plan, id: u32, text: &str) -> Result<(usize, Decoder), Reason> {
    let unresolvable = |problem: String| unresolvable(id, problem);
    let schema =
        Schema::parse(text).map_err(|problem| unresolvable(format!("it is not a valid Avro schema: {problem}")))?;
    let Some((record, _)) = schema.record() else {
        let kind = schema.name(&schema.root);
        return Err(unresolvable(format!("it is an Avro {kind}, and an event is a record")));
    };
    let Some(event) = plan.type_written_as(&record.name) else {
        return Err(Reason::UnknownType { id, name: told(record.name.clone()) });
    };
    match Decoder::resolve(text, &plan.types[event].event) {
        Ok(decoder) => Ok((event, decoder)),
        Err(error) => Err(unresolvable(error.to_string())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
