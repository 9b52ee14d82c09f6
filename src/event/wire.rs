//! Framing of a message: Avro single-object encoding (`C3 01`, fingerprint as 8 bytes little-endian, body).

/// Why a message is not framed as an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {}
