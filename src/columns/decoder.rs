//! The decode plan.

/// What a decoded row says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Event time, microseconds since 1970, UTC.
    pub time: i64,
    /// The event's id as 128 bits: the UUID itself, or a hash of another id.
    pub id: u128,
}

/// A schema compiled into the steps that read one message.
#[derive(Debug, Clone)]
pub struct Decoder {}

/// Why a message's bytes are not the event they claim to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {}

impl DecodeError {
    /// A short name to group dead letters by.
    pub fn name(&self) -> &'static str {
        "undecodable"
    }
}
