//! Log-linear histogram buckets: 128 to the octave, as in an HDR histogram of two significant digits.
//!
//! A bucket is a sign, an exponent and the 7 leading bits of the mantissa, so its index is a shift of the double's bits
//! and its bounds need no logarithm: every machine puts a value into the same bucket and gives the bucket the same
//! representative. The representative stands for all values of its bucket in what is stored; two histograms are merged
//! by adding the counts of equal representatives.
//!
//! | values (magnitude) | representative | greatest relative error |
//! |---|---|---|
//! | below 2⁻¹⁰²², zero | 0 | (absolute: 2⁻¹⁰²²) |
//! | an integer up to 256 begins the bucket | that integer, so integers up to 256 are exact | 1/128 = 0.78 % |
//! | all others | the bucket's middle | 1/257 = 0.39 % |
//!
//! Negative values mirror the positive ones. NaN and infinities have no bucket.

/// Bits of the mantissa that are left within a bucket: 52 less the 7 that number it.
const WITHIN: u32 = 45;
/// Index of the first bucket of normal numbers (exponent bits 1, mantissa 0).
const FIRST_NORMAL: i32 = 1 << 7;
/// Integers up to here begin a bucket that holds no other integer.
const EXACT: f64 = 256.0;

/// The bucket of a value; buckets ascend as their values do. `None` for NaN and infinities.
pub(crate) fn bucket(value: f64) -> Option<i32> {
    if !value.is_finite() {
        return None;
    }
    // 11 bits of exponent and 7 of mantissa are left, so the cast loses nothing.
    let magnitude = (value.abs().to_bits() >> WITHIN) as i32;
    let magnitude = if magnitude < FIRST_NORMAL { 0 } else { magnitude };
    Some(if value < 0.0 { -magnitude } else { magnitude })
}

/// The value that stands for all of a bucket.
pub(crate) fn representative(bucket: i32) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    let bits = u64::from(bucket.unsigned_abs()) << WITHIN;
    let lowest = f64::from_bits(bits);
    let magnitude = if lowest <= EXACT && f64::from(lowest as u32) == lowest {
        lowest
    } else {
        f64::from_bits(bits | 1 << (WITHIN - 1))
    };
    if bucket < 0 { -magnitude } else { magnitude }
}

/// The value that stands for this one in what is stored. `None` for NaN and infinities.
pub(crate) fn stored(value: f64) -> Option<f64> {
    bucket(value).map(representative)
}

/// Below this many values sorting is fastest.
const FEW: usize = 12;

/// Counts equal buckets. Keeps its scratch space from one histogram to the next.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Counts by distance from the least bucket; all zero between two calls.
    counts: Vec<u32>,
    /// One bit for each of `counts` that is not zero; all zero between two calls.
    occupied: Vec<u64>,
    counted: Vec<(f64, u64)>,
}

impl Tally {
    /// Representative and count of each distinct bucket, ascending. `buckets` is left in any order.
    ///
    /// Values in a range that is not too wide for their number are counted in an array over that range, all others are
    /// sorted.
    pub(super) fn count(&mut self, buckets: &mut [i32]) -> &[(f64, u64)] {
        self.counted.clear();
        let least = buckets.iter().min().copied().unwrap_or(0);
        let greatest = buckets.iter().max().copied().unwrap_or(0);
        let range = (greatest - least) as usize + 1;
        if buckets.len() < FEW || range > buckets.len() * 64 {
            buckets.sort_unstable();
            let runs = buckets.chunk_by(|a, b| a == b);
            self.counted.extend(runs.map(|run| (representative(run[0]), run.len() as u64)));
        } else {
            self.count_in_array(buckets, least, range);
        }
        &self.counted
    }

    fn count_in_array(&mut self, buckets: &[i32], least: i32, range: usize) {
        let words = range.div_ceil(64);
        if self.occupied.len() < words {
            self.occupied.resize(words, 0);
            self.counts.resize(words * 64, 0);
        }
        for &bucket in buckets {
            let at = (bucket - least) as usize;
            self.counts[at] += 1;
            self.occupied[at / 64] |= 1 << (at % 64);
        }
        for word in 0..words {
            let mut bits = std::mem::take(&mut self.occupied[word]);
            while bits != 0 {
                let at = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let count = std::mem::take(&mut self.counts[at]);
                self.counted.push((representative(least + at as i32), u64::from(count)));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Histograms of each chunk by [`Tally`], merged as ClickHouse's `sumMap` merges them.
    fn merged(values: &[f64], chunks: usize) -> Vec<(f64, u64)> {
        let mut sum: Vec<(f64, u64)> = Vec::new();
        let mut tally = Tally::default();
        for chunk in values.chunks(values.len().div_ceil(chunks).max(1)) {
            let mut buckets: Vec<i32> = chunk.iter().filter_map(|&v| bucket(v)).collect();
            let out = tally.count(&mut buckets);
            assert!(out.windows(2).all(|pair| pair[0].0 < pair[1].0), "{out:?}");
            for &(value, count) in out {
                match sum.iter_mut().find(|(known, _)| *known == value) {
                    Some((_, total)) => *total += count,
                    None => sum.push((value, count)),
                }
            }
        }
        sum.sort_by(|a, b| a.0.total_cmp(&b.0));
        sum
    }

    /// ClickHouse's `quantileExactWeighted(level)(values, counts)`: the least value whose cumulated count reaches
    /// `ceil(total * level)`, in doubles.
    fn quantile(histogram: &[(f64, u64)], level: f64) -> f64 {
        let total: u64 = histogram.iter().map(|(_, count)| count).sum();
        let threshold = (total as f64 * level).ceil();
        let mut accumulated = 0.0;
        for &(value, count) in histogram {
            accumulated += count as f64;
            if accumulated >= threshold {
                return value;
            }
        }
        histogram.last().map_or(0.0, |last| last.0)
    }

    /// The same definition on the values themselves.
    fn exact_quantile(sorted: &[f64], level: f64) -> f64 {
        let rank = (sorted.len() as f64 * level).ceil().max(1.0) as usize;
        sorted[rank.min(sorted.len()) - 1]
    }

    fn relative_error(found: f64, truth: f64) -> f64 {
        if found == truth { 0.0 } else { (found - truth).abs() / truth.abs() }
    }

    fn finite() -> impl Strategy<Value = f64> {
        prop_oneof![
            3 => 0.01..60_000.0,
            1 => -1_000.0..1_000.0,
            1 => (0_u32..300).prop_map(f64::from),
            1 => Just(0.0),
            1 => prop::num::f64::NORMAL,
        ]
    }

    proptest! {
        #[test]
        fn quantiles_of_any_partition_are_within_one_percent(
            values in prop::collection::vec(finite(), 1..400), chunks in 1_usize..9, odd in 0.0..=1.0,
        ) {
            let histogram = merged(&values, chunks);
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            for level in [0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 1.0, odd] {
                let (found, truth) = (quantile(&histogram, level), exact_quantile(&sorted, level));
                prop_assert!(relative_error(found, truth) <= 0.008, "level {level}: {found} for {truth}");
            }
        }

        #[test]
        fn merging_is_counting_at_once(values in prop::collection::vec(finite(), 1..200), chunks in 1_usize..9) {
            prop_assert_eq!(merged(&values, chunks), merged(&values, 1));
        }

        #[test]
        fn buckets_ascend_and_their_representative_is_close(a in prop::num::f64::NORMAL, b in prop::num::f64::NORMAL) {
            let (low, high) = if a <= b { (a, b) } else { (b, a) };
            prop_assert!(bucket(low).unwrap() <= bucket(high).unwrap());
            for value in [a, b] {
                let found = representative(bucket(value).unwrap());
                prop_assert!(relative_error(found, value) <= 1.0 / 128.0);
                prop_assert_eq!(bucket(found), bucket(value), "a representative lies in its own bucket");
            }
        }

        #[test]
        fn every_bucket_is_counted_by_one_tally_after_another(histograms in prop::collection::vec(prop_oneof![
            prop::collection::vec(-260_000..260_000, 0..200),
            prop::collection::vec(130_000..130_040, 0..200),
            prop::collection::vec(130_000..133_000, 0..200),
        ], 1..6)) {
            let mut tally = Tally::default();
            for buckets in histograms {
                // Buckets below the first normal one are never made.
                let real = |bucket: i32| if bucket.abs() < FIRST_NORMAL { 0 } else { bucket };
                let mut buckets: Vec<i32> = buckets.into_iter().map(real).collect();
                let mut truth: BTreeMap<i32, u64> = BTreeMap::new();
                for &bucket in &buckets {
                    *truth.entry(bucket).or_default() += 1;
                }
                let truth: Vec<(f64, u64)> =
                    truth.into_iter().map(|(bucket, count)| (representative(bucket), count)).collect();
                prop_assert_eq!(tally.count(&mut buckets), truth);
            }
        }
    }

    #[test]
    fn integers_up_to_256_are_exact() {
        for integer in -256..=256 {
            let value = f64::from(integer);
            assert_eq!(representative(bucket(value).unwrap()), value);
        }
        assert_eq!(bucket(200.0), bucket(200.99), "one bucket an integer");
        assert_ne!(bucket(200.0), bucket(201.0));
    }

    #[test]
    fn error_bound_holds_at_the_edges_of_buckets() {
        for exponent in -40..40 {
            for step in 0..128 {
                let low = (1.0 + f64::from(step) / 128.0) * 2_f64.powi(exponent);
                let high = f64::from_bits(low.to_bits() + (1 << WITHIN) - 1);
                assert_eq!(bucket(low), bucket(high));
                let found = representative(bucket(low).unwrap());
                let bound = if found == low { 1.0 / 128.0 } else { 1.0 / 256.0 };
                assert!(relative_error(found, low) <= bound, "{found} for {low}");
                assert!(relative_error(found, high) <= bound, "{found} for {high}");
            }
        }
    }

    #[test]
    fn extremes_have_buckets_and_what_is_no_number_has_none() {
        for value in [0.0, -0.0, 5e-324, -5e-324, f64::MIN_POSITIVE / 2.0] {
            assert_eq!(bucket(value), Some(0), "{value}");
        }
        assert_eq!(representative(0).to_bits(), 0, "never -0, which ClickHouse would count apart");
        for value in [f64::MAX, f64::MIN, f64::MIN_POSITIVE, -f64::MIN_POSITIVE] {
            let found = representative(bucket(value).unwrap());
            assert!(found.is_finite() && relative_error(found, value) <= 1.0 / 128.0, "{found} for {value}");
        }
        for value in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(bucket(value), None, "{value}");
        }
    }

    /// `hdrhistogram` with two significant digits is the peer: same buckets to the octave, integers only.
    #[test]
    fn no_worse_than_hdrhistogram() {
        let mut rng = fastrand::Rng::with_seed(11);
        let mut values: Vec<f64> = (0..50_000).map(|_| (rng.f64() * 14.0).exp().floor()).collect();
        let mut peer = hdrhistogram::Histogram::<u64>::new(2).unwrap();
        for &value in &values {
            peer.record(value as u64).unwrap();
        }
        let histogram = merged(&values, 7);
        values.sort_by(f64::total_cmp);
        let (mut ours, mut theirs) = (0.0_f64, 0.0_f64);
        for percent in 1..=100 {
            let level = f64::from(percent) / 100.0;
            let truth = exact_quantile(&values, level);
            ours = ours.max(relative_error(quantile(&histogram, level), truth));
            theirs = theirs.max(relative_error(peer.value_at_quantile(level) as f64, truth));
        }
        assert!(ours <= theirs, "greatest error {ours} against {theirs}");
        assert!(histogram.len() < 128 * 21, "{} buckets for 21 octaves", histogram.len());
    }
}
