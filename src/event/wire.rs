//! Framing of a message: Avro single-object encoding (`C3 01`, fingerprint as 8 bytes little-endian, body).

/// First two bytes of every message.
pub const MAGIC: [u8; 2] = [0xC3, 0x01];

/// Bytes before the body.
pub const HEADER_LEN: usize = 10;

/// Why a message is not framed as an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The record has no value.
    #[error("the record has no value (a tombstone); events are never deleted by key, so send none")]
    Tombstone,
    /// It ends within the header.
    #[error("{0} bytes are too short for the header of Avro single-object encoding, which has 10")]
    TooShort(usize),
    /// It begins with something else.
    #[error(
        "it begins with {0:02x} {1:02x} where Avro single-object encoding has c3 01; \
         the producer must use that encoding, not bare Avro, JSON or a schema registry's framing"
    )]
    Magic(u8, u8),
}

/// Splits a message into its schema's fingerprint and its body.
pub fn split(payload: Option<&[u8]>) -> Result<(u64, &[u8]), FrameError> {
    let payload = payload.ok_or(FrameError::Tombstone)?;
    // The magic is judged first: a short message in another framing is better told by what it is.
    if let [first, second, ..] = *payload
        && [first, second] != MAGIC
    {
        return Err(FrameError::Magic(first, second));
    }
    match payload.split_at_checked(HEADER_LEN) {
        Some((&[_, _, ref fingerprint @ ..], body)) => match <[u8; 8]>::try_from(fingerprint) {
            Ok(fingerprint) => Ok((u64::from_le_bytes(fingerprint), body)),
            Err(_) => Err(FrameError::TooShort(payload.len())),
        },
        _ => Err(FrameError::TooShort(payload.len())),
    }
}

/// Appends a framed message to `out`.
pub fn frame(fingerprint: u64, body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&fingerprint.to_le_bytes());
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
        assert_eq!(split(Some(&message)).unwrap(), (0x0102_0304_0506_0708, &b"body"[..]));
        assert_eq!(split(Some(&message[..10])).unwrap(), (0x0102_0304_0506_0708, &b""[..]));
    }

    #[test]
    fn what_is_no_frame_is_told_apart() {
        assert_eq!(split(None), Err(FrameError::Tombstone));
        assert_eq!(split(Some(b"")), Err(FrameError::TooShort(0)));
        assert_eq!(split(Some(b"\xC3")), Err(FrameError::TooShort(1)));
        assert_eq!(split(Some(b"\xC3\x01\x08\x07\x06\x05\x04\x03\x02")), Err(FrameError::TooShort(9)));
        assert_eq!(split(Some(b"\x00\x00\x00\x00\x07rest")), Err(FrameError::Magic(0, 0)));
        assert_eq!(split(Some(b"{}")), Err(FrameError::Magic(b'{', b'}')));
        assert_eq!(split(Some(b"\xC3\x02345678901")), Err(FrameError::Magic(0xC3, 2)));
    }

    #[test]
    fn it_is_what_the_avro_library_writes() {
        let schema = apache_avro::Schema::parse_str(r#""long""#).unwrap();
        let mut writer = apache_avro::GenericSingleObjectWriter::new_with_capacity(&schema, 32).unwrap();
        let mut theirs = Vec::new();
        writer.write_value_ref(&apache_avro::types::Value::Long(-3), &mut theirs).unwrap();
        let (fingerprint, body) = split(Some(&theirs)).unwrap();
        assert_eq!(body, [5]);
        let mut ours = Vec::new();
        frame(fingerprint, body, &mut ours);
        assert_eq!(ours, theirs);
    }
}
