//! Reading Avro's binary encoding.

use super::Fault;

/// What is left of a message. Every read either succeeds or tells a fault; no length is believed before it is compared
/// with the bytes there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    /// Exactly `count` bytes: `fixed`.
    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, left) =
            self.0.split_at_checked(count).ok_or(Fault::Truncated { needed: count as u64, left: self.0.len() })?;
        self.0 = left;
        Ok(taken)
    }

    /// As many bytes as the array has.
    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, left) =
            self.0.split_first_chunk::<N>().ok_or(Fault::Truncated { needed: N as u64, left: self.0.len() })?;
        self.0 = left;
        Ok(*taken)
    }

    /// `long`: zigzag in groups of seven bits, least first, at most ten of them.
    #[inline]
    pub(super) fn long(&mut self) -> Result<i64, Fault> {
        let raw = match *self.0 {
            [byte, ref left @ ..] if byte < 0x80 => {
                self.0 = left;
                u64::from(byte)
            }
            [first, second, ref left @ ..] if second < 0x80 => {
                self.0 = left;
                u64::from(first & 0x7f) | u64::from(second) << 7
            }
            _ => self.long_of_many_bytes()?,
        };
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    fn long_of_many_bytes(&mut self) -> Result<u64, Fault> {
        let mut raw = 0;
        for (at, &byte) in self.0.iter().enumerate().take(10) {
            // The tenth byte has room for one bit.
            if at == 9 && byte > 1 {
                return Err(Fault::BadVarint);
            }
            raw |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.take(at + 1)?;
                return Ok(raw);
            }
        }
        Err(Fault::Truncated { needed: self.0.len() as u64 + 1, left: self.0.len() })
    }

    /// `int`.
    #[inline]
    pub(super) fn int(&mut self) -> Result<i32, Fault> {
        let long = self.long()?;
        i32::try_from(long).map_err(|_| Fault::IntOutOfRange(long))
    }

    /// `boolean`, as 0 or 1.
    #[inline]
    pub(super) fn boolean(&mut self) -> Result<u8, Fault> {
        match self.array()? {
            [byte @ 0..=1] => Ok(byte),
            [byte] => Err(Fault::BadBoolean(byte)),
        }
    }

    /// `float`.
    #[inline]
    pub(super) fn float(&mut self) -> Result<f32, Fault> {
        self.array().map(f32::from_le_bytes)
    }

    /// `double`.
    #[inline]
    pub(super) fn double(&mut self) -> Result<f64, Fault> {
        self.array().map(f64::from_le_bytes)
    }

    /// `bytes`, and `string` before it is known to be UTF-8.
    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.long()?;
        let length = u64::try_from(length).map_err(|_| Fault::BadLength(length))?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => Err(Fault::Truncated { needed: length, left: self.0.len() }),
        }
    }

    /// `enum`: the position of one of so many symbols.
    #[inline]
    pub(super) fn symbol(&mut self, symbols: u32) -> Result<u32, Fault> {
        let index = i64::from(self.int()?);
        match u32::try_from(index) {
            Ok(symbol) if symbol < symbols => Ok(symbol),
            _ => Err(Fault::UnknownSymbol { index, symbols }),
        }
    }

    /// How many items the next block of an array or a map has; 0: there is none. A negative count has the block's size
    /// in bytes behind it, which says nothing that the items do not say.
    pub(super) fn block(&mut self) -> Result<u64, Fault> {
        let count = self.long()?;
        if count < 0 {
            let size = self.long()?;
            u64::try_from(size).map_err(|_| Fault::BadLength(size))?;
        }
        Ok(count.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longs_of_every_length_and_no_longer() {
        for (bytes, value) in [
            (&[0][..], 0),
            (&[1], -1),
            (&[0x7f], -64),
            (&[0x80, 1], 64),
            (&[0x80, 0], 0),
            (&[0xfe, 0xff, 0xff, 0xff, 0x0f], i64::from(i32::MAX)),
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], i64::MAX),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], i64::MIN),
        ] {
            let mut input = Input(bytes);
            assert_eq!(input.long(), Ok(value), "{bytes:?}");
            assert!(input.0.is_empty());
            for cut in 0..bytes.len() {
                assert!(matches!(Input(&bytes[..cut]).long(), Err(Fault::Truncated { .. })), "{bytes:?} {cut}");
            }
        }
        assert_eq!(Input(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).long(), Err(Fault::BadVarint));
        assert_eq!(Input(&[0x80; 64]).long(), Err(Fault::BadVarint));
        assert_eq!(Input(&[0x80, 0x80, 0x80, 0x80, 0x10]).int(), Err(Fault::IntOutOfRange(1 << 31)));
    }

    #[test]
    fn lengths_are_not_believed() {
        assert_eq!(Input(&[1]).bytes(), Err(Fault::BadLength(-1)));
        assert_eq!(Input(&[6, b'a', b'b']).bytes(), Err(Fault::Truncated { needed: 3, left: 2 }));
        let giant = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(Input(&giant).bytes(), Err(Fault::Truncated { needed: i64::MAX as u64, left: 0 }));
        assert_eq!(Input(&[4, b'a', b'b']).bytes(), Ok(&b"ab"[..]));
    }

    #[test]
    fn blocks_have_counts_and_perhaps_sizes() {
        assert_eq!(Input(&[0]).block(), Ok(0));
        assert_eq!(Input(&[6]).block(), Ok(3));
        let mut sized = Input(&[5, 8, 9]);
        assert_eq!((sized.block(), sized.0), (Ok(3), &[9][..]));
        assert_eq!(Input(&[5, 1]).block(), Err(Fault::BadLength(-1)));
        assert_eq!(Input(&[5]).block(), Err(Fault::Truncated { needed: 1, left: 0 }));
        let least = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0];
        assert_eq!(Input(&least).block(), Ok(1 << 63));
    }

    #[test]
    fn symbols_are_within_the_enum() {
        assert_eq!(Input(&[4]).symbol(3), Ok(2));
        assert_eq!(Input(&[6]).symbol(3), Err(Fault::UnknownSymbol { index: 3, symbols: 3 }));
        assert_eq!(Input(&[1]).symbol(3), Err(Fault::UnknownSymbol { index: -1, symbols: 3 }));
    }

    #[test]
    fn booleans_are_zero_or_one() {
        assert_eq!(Input(&[0]).boolean(), Ok(0));
        assert_eq!(Input(&[1]).boolean(), Ok(1));
        assert_eq!(Input(&[2]).boolean(), Err(Fault::BadBoolean(2)));
        assert_eq!(Input(&[]).boolean(), Err(Fault::Truncated { needed: 1, left: 0 }));
    }
}
