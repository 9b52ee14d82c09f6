//! Framing of a message: how it names the schema that it was written with.
//!
//! ```text
//! C3 01 │ fingerprint, 8 bytes little-endian │ Avro body     single-object encoding
//! 00    │ id, 4 bytes big-endian             │ Avro body     Confluent's, with a schema registry
//! ```
//!
//! The first byte tells them apart, so both may stand in one topic.

/// First two bytes of single-object encoding.
pub const MAGIC: [u8; 2] = [0xC3, 0x01];

/// First byte of a schema registry's framing.
pub const REGISTRY_MAGIC: u8 = 0x00;

/// How a message names its writer's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// By its fingerprint (CRC-64-AVRO of its parsing canonical form).
    Fingerprint(u64),
    /// By the id that a schema registry gave it.
    Id(u32),
}

/// Why a message is not framed as an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The record has no value.
    #[error("the record has no value (a tombstone); events are never deleted by key, so send none")]
    Tombstone,
    /// It ends within the header of single-object encoding.
    #[error("{0} bytes are too short for the header of Avro single-object encoding, which has 10")]
    TooShort(usize),
    /// It ends within the header of a registry's framing.
    #[error("{0} bytes are too short for the header of a schema registry's framing, which has 5")]
    TooShortForId(usize),
    /// It begins with something else.
    #[error(
        "it begins with {0:02x} {1:02x} where Avro single-object encoding has c3 01 and a schema registry's framing 00; \
         the producer must use one of them, not bare Avro or JSON"
    )]
    Magic(u8, u8),
    /// Framed for a registry, and there is none.
    #[error(
        "it names its schema by the id {0} of a schema registry, and none is configured; set registry.url, or let the \
         producer use Avro single-object encoding"
    )]
    NoRegistry(u32),
}

/// Splits a message into what it says of its schema and its body.
///
/// # Errors
/// It is framed in neither way.
pub fn split(payload: Option<&[u8]>) -> Result<(Writer, &[u8]), FrameError> {
    let payload = payload.ok_or(FrameError::Tombstone)?;
    let len = payload.len();
    match *payload {
        [REGISTRY_MAGIC, ref rest @ ..] => {
            let (id, body) = rest.split_first_chunk().ok_or(FrameError::TooShortForId(len))?;
            Ok((Writer::Id(u32::from_be_bytes(*id)), body))
        }
        // The magic is judged first: a short message in another framing is better told by what it is.
        [first, second, ..] if [first, second] != MAGIC => Err(FrameError::Magic(first, second)),
        [_, _, ref rest @ ..] => {
            let (fingerprint, body) = rest.split_first_chunk().ok_or(FrameError::TooShort(len))?;
            Ok((Writer::Fingerprint(u64::from_le_bytes(*fingerprint)), body))
        }
        _ => Err(FrameError::TooShort(len)),
    }
}

impl Writer {
    /// Appends the header of a message of this writer to `out`.
    pub fn frame(self, out: &mut Vec<u8>) {
        match self {
            Writer::Fingerprint(fingerprint) => {
                out.extend_from_slice(&MAGIC);
                out.extend_from_slice(&fingerprint.to_le_bytes());
            }
            Writer::Id(id) => {
                out.push(REGISTRY_MAGIC);
                out.extend_from_slice(&id.to_be_bytes());
            }
        }
    }

    /// Bytes of its header.
    pub fn header_len(self) -> usize {
        match self {
            Writer::Fingerprint(_) => 10,
            Writer::Id(_) => 5,
        }
    }
}

/// Appends a single-object message to `out`.
pub fn frame(fingerprint: u64, body: &[u8], out: &mut Vec<u8>) {
    Writer::Fingerprint(fingerprint).frame(out);
    out.extend_from_slice(body);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_apart_as_it_was_put_together() {
        let mut message = Vec::new();
        frame(0x0102_0304_0506_0708, b"body", &mut message);
        assert_eq!(message, b"\xC3\x01\x08\x07\x06\x05\x04\x03\x02\x01body");
        let writer = Writer::Fingerprint(0x0102_0304_0506_0708);
        assert_eq!(split(Some(&message)).unwrap(), (writer, &b"body"[..]));
        assert_eq!(split(Some(&message[..10])).unwrap(), (writer, &b""[..]));
        assert_eq!(writer.header_len(), 10);
    }

    #[test]
    fn a_registrys_frame_comes_apart_as_confluent_lays_it_out() {
        let mut message = Vec::new();
        Writer::Id(0x0102_0304).frame(&mut message);
        assert_eq!(message, b"\x00\x01\x02\x03\x04");
        assert_eq!(message.len(), Writer::Id(1).header_len());
        message.extend_from_slice(b"body");
        assert_eq!(split(Some(&message)).unwrap(), (Writer::Id(0x0102_0304), &b"body"[..]));
        assert_eq!(split(Some(b"\x00\xff\xff\xff\xff")).unwrap(), (Writer::Id(u32::MAX), &b""[..]));
    }

    #[test]
    fn what_is_no_frame_is_told_apart() {
        assert_eq!(split(None), Err(FrameError::Tombstone));
        assert_eq!(split(Some(b"")), Err(FrameError::TooShort(0)));
        assert_eq!(split(Some(b"\xC3")), Err(FrameError::TooShort(1)));
        assert_eq!(split(Some(b"\xC3\x01\x08\x07\x06\x05\x04\x03\x02")), Err(FrameError::TooShort(9)));
        assert_eq!(split(Some(b"\x00")), Err(FrameError::TooShortForId(1)));
        assert_eq!(split(Some(b"\x00\x00\x00\x07")), Err(FrameError::TooShortForId(4)));
        assert_eq!(split(Some(b"{}")), Err(FrameError::Magic(b'{', b'}')));
        assert_eq!(split(Some(b"\xC3\x02345678901")), Err(FrameError::Magic(0xC3, 2)));
    }

    #[test]
    fn it_is_what_the_avro_library_writes() {
        let schema = apache_avro::Schema::parse_str(r#""long""#).unwrap();
        let mut writer = apache_avro::GenericSingleObjectWriter::new_with_capacity(&schema, 32).unwrap();
        let mut theirs = Vec::new();
        writer.write_value_ref(&apache_avro::types::Value::Long(-3), &mut theirs).unwrap();
        let (Writer::Fingerprint(fingerprint), body) = split(Some(&theirs)).unwrap() else { unreachable!() };
        assert_eq!(body, [5]);
        let mut ours = Vec::new();
        frame(fingerprint, body, &mut ours);
        assert_eq!(ours, theirs);
    }
}
