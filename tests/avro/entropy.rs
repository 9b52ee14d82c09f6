//! Choices, made from bytes: fewer bytes make simpler cases, so that failures shrink.

use proptest::prelude::*;

#[derive(Debug)]
pub struct Entropy<'a> {
    bytes: &'a [u8],
}

/// What a generated case is made from.
pub fn entropy() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..1_500)
}

/// Cases that each property is tried with.
pub fn cases() -> ProptestConfig {
    let cases = std::env::var("AVRO_CASES").ok().map_or(300, |cases| cases.parse().expect("AVRO_CASES is a number"));
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 4_000, ..ProptestConfig::default() }
}

impl<'a> Entropy<'a> {
    pub fn new(bytes: &'a [u8]) -> Entropy<'a> {
        Entropy { bytes }
    }

    pub fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((first, rest)) => {
                self.bytes = rest;
                *first
            }
            None => 0,
        }
    }

    /// Below `bound`, at most 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) * bound / 256
    }

    /// True in so many of 256 cases, and where there are no more bytes never.
    pub fn often(&mut self, of_256: u16) -> bool {
        u16::from(self.byte()) > 255 - of_256
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    pub fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// Often a bound, a small number, or any.
    pub fn integer(&mut self, least: i64, greatest: i64) -> i64 {
        let span = (i128::from(greatest) - i128::from(least) + 1) as u128;
        let number = match self.below(8) {
            0 => 0,
            1 => least,
            2 => greatest,
            3 | 4 => i64::from(self.byte() as i8),
            _ => (i128::from(least) + (u128::from(self.number()) % span) as i128) as i64,
        };
        number.clamp(least, greatest)
    }
}
