//! Writing Avro's binary encoding.

/// `int` and `long`: zigzag, then seven bits a byte, least significant first.
pub(crate) fn long(number: i64, out: &mut Vec<u8>) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// `bytes` and `string`: the length, then the bytes.
pub(crate) fn bytes(value: &[u8], out: &mut Vec<u8>) {
    // No slice is longer than an i64 can say.
    long(value.len() as i64, out);
    out.extend_from_slice(value);
}

/// The items of an array or a map as one block, and the end.
pub(crate) fn block<T>(
    items: &[T],
    out: &mut Vec<u8>,
    mut item: impl FnMut(&T, &mut Vec<u8>) -> Option<()>,
) -> Option<()> {
    if !items.is_empty() {
        long(items.len() as i64, out);
        items.iter().try_for_each(|value| item(value, out))?;
    }
    long(0, out);
    Some(())
}
