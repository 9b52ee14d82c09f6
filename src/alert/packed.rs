//! A distribution as it is kept, by the thousand for each series: two or three bytes a bucket instead of sixteen.

use super::stat::Histogram;
use crate::rollup::{bucket, representative};

/// Values and how often each came. Of rollups they are representatives of buckets: the distance from the bucket before and
/// the count, seven bits a byte. Where one is no representative, all are kept as they are, behind a mark.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Packed(Box<[u8]>);

/// What an allocation costs beside its bytes.
const OVERHEAD: usize = 16;
/// The first byte of distances.
const DISTANCES: u8 = 0;
/// The first byte of values as they are.
const VALUES: u8 = 1;

impl Packed {
    /// Packs a distribution, whose values ascend.
    pub(super) fn new(histogram: &[(f64, u64)]) -> Packed {
        if histogram.is_empty() {
            return Packed::default();
        }
        let distances = || {
            let (mut bytes, mut before) = (vec![DISTANCES], 0_i32);
            for (value, count) in histogram {
                let at = bucket(*value).filter(|at| representative(*at).to_bits() == value.to_bits())?;
                let distance = i64::from(at) - i64::from(before);
                put(&mut bytes, ((distance << 1) ^ (distance >> 63)) as u64);
                put(&mut bytes, *count);
                before = at;
            }
            Some(bytes)
        };
        let values = || {
            let each = histogram.iter().flat_map(|(value, count)| [value.to_bits(), *count]).flat_map(u64::to_le_bytes);
            std::iter::once(VALUES).chain(each).collect()
        };
        Packed(distances().unwrap_or_else(values).into_boxed_slice())
    }

    /// The distribution.
    pub(super) fn histogram(&self) -> Histogram {
        match self.0.split_first() {
            Some((&DISTANCES, mut rest)) => {
                let (mut histogram, mut before) = (Histogram::new(), 0_i64);
                while !rest.is_empty() {
                    let distance = get(&mut rest);
                    before += (distance >> 1) as i64 ^ -((distance & 1) as i64);
                    histogram.push((representative(before as i32), get(&mut rest)));
                }
                histogram
            }
            Some((_, rest)) => {
                let (words, _) = rest.as_chunks::<8>();
                let (pairs, _) = words.as_chunks::<2>();
                let pair = |[value, count]: &[[u8; 8]; 2]| (f64::from_le_bytes(*value), u64::from_le_bytes(*count));
                pairs.iter().map(pair).collect()
            }
            None => Histogram::new(),
        }
    }

    /// Bytes that it takes beside its place.
    pub(super) fn bytes(&self) -> usize {
        if self.0.is_empty() { 0 } else { self.0.len() + OVERHEAD }
    }
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn get(bytes: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    while let Some((byte, rest)) = bytes.split_first() {
        *bytes = rest;
        number |= u64::from(byte & 0x7F) << shift;
        if *byte < 0x80 {
            break;
        }
        shift += 7;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollup::stored;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_packed_comes_out(values in prop::collection::vec((-1e9_f64..1e9, 1_u64..), 0..40), exact: bool) {
            let representative = |value: f64| if exact { value } else { stored(value).unwrap_or(0.0) };
            let mut histogram: Histogram = values.into_iter().map(|(value, count)| (representative(value), count)).collect();
            histogram.sort_by(|(one, _), (other, _)| one.total_cmp(other));
            prop_assert_eq!(Packed::new(&histogram).histogram(), histogram);
        }
    }

    #[test]
    fn a_bucket_takes_three_bytes_and_not_sixteen() {
        let values = (0..60).map(|number| 300.0 * 1.02_f64.powi(number));
        let histogram: Histogram = values.filter_map(stored).map(|value| (value, 3)).collect();
        let bytes = Packed::new(&histogram).bytes();
        assert!(bytes <= OVERHEAD + 3 + 2 * histogram.len(), "{bytes}");
        assert_eq!((Packed::new(&[]).bytes(), Packed::new(&[]).histogram()), (0, Vec::new()));
        for odd in [f64::MAX, f64::MIN_POSITIVE, 0.0, 0.1, -0.0, f64::INFINITY] {
            assert_eq!(Packed::new(&[(odd, u64::MAX)]).histogram(), [(odd, u64::MAX)], "{odd}");
        }
    }
}
