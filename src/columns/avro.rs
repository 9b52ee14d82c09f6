//! Reading Avro's binary encoding.

use super::Fault;

/// What is left of a message. Every read either succeeds or tells a fault; no length is believed before it is compared
/// with the bytes there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    /// Exactly `count` bytes.
    #[inline]
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, left) =
            self.0.split_at_checked(count).ok_or(Fault::Truncated { needed: count as u64, left: self.0.len() })?;
        self.0 = left;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
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

    /// `bytes` with logical type `decimal`: two's complement, greatest byte first, of any length; none is zero.
    #[inline]
    pub(super) fn decimal(&mut self, precision: u8) -> Result<i128, Fault> {
        let too_wide = Fault::DecimalTooWide { precision };
        let bytes = self.bytes()?;
        let sign = match bytes.first() {
            Some(first) if *first >= 0x80 => 0xff,
            _ => 0,
        };
        // Java writes no more bytes than needed; others pad with the sign.
        let (padding, low) = bytes.split_at(bytes.len().saturating_sub(16));
        let mut wide = [sign; 16];
        wide.iter_mut().rev().zip(low.iter().rev()).for_each(|(to, from)| *to = *from);
        let value = i128::from_be_bytes(wide);
        let sign_kept = (value < 0) == (sign == 0xff);
        if padding.iter().any(|&byte| byte != sign) || !sign_kept {
            return Err(too_wide);
        }
        match 10u128.checked_pow(u32::from(precision)) {
            Some(limit) if value.unsigned_abs() < limit => Ok(value),
            _ => Err(too_wide),
        }
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
    fn decimals_up_to_their_precision() {
        let decimal = |bytes: &[u8], precision| {
            let message = [&[bytes.len() as u8 * 2], bytes].concat();
            Input(&message).decimal(precision)
        };
        assert_eq!(decimal(&[], 1), Ok(0));
        assert_eq!(decimal(&[9], 1), Ok(9));
        assert_eq!(decimal(&[0xf7], 1), Ok(-9));
        assert_eq!(decimal(&[10], 1), Err(Fault::DecimalTooWide { precision: 1 }));
        assert_eq!(decimal(&[0xf6], 1), Err(Fault::DecimalTooWide { precision: 1 }));
        assert_eq!(decimal(&[0x00, 0xff], 3), Ok(255));
        assert_eq!(decimal(&[&[0xff; 20][..], &[0x85]].concat(), 3), Ok(-123));
        assert_eq!(decimal(&[&[0; 20][..], &[0x7b]].concat(), 3), Ok(123));
        assert_eq!(decimal(&[&[1][..], &[0; 16]].concat(), 38), Err(Fault::DecimalTooWide { precision: 38 }));
        // A sign that only the padding knows.
        assert_eq!(decimal(&[&[0][..], &[0xff; 16]].concat(), 38), Err(Fault::DecimalTooWide { precision: 38 }));
        let most = 10i128.pow(38) - 1;
        assert_eq!(decimal(&most.to_be_bytes(), 38), Ok(most));
        assert_eq!(decimal(&(-most).to_be_bytes(), 38), Ok(-most));
        assert!(decimal(&(most + 1).to_be_bytes(), 38).is_err());
    }

    #[test]
    fn booleans_are_zero_or_one() {
        assert_eq!(Input(&[0]).boolean(), Ok(0));
        assert_eq!(Input(&[1]).boolean(), Ok(1));
        assert_eq!(Input(&[2]).boolean(), Err(Fault::BadBoolean(2)));
        assert_eq!(Input(&[]).boolean(), Err(Fault::Truncated { needed: 1, left: 0 }));
    }
}
