//! The statistics that rules stand on.

/// Both ends of the Wilson score interval of a share, `hits` of `n`, at `z` standard deviations; (0, 1) where `n` is 0.
///
/// With p = hits/n: (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n). E. B. Wilson, "Probable inference, the law of
/// succession, and statistical inference", JASA 22 (1927). It holds for few samples and for shares near 0 and 1, where the
/// usual p ± z √(p(1−p)/n) does not.
pub fn wilson(hits: f64, n: f64, z: f64) -> (f64, f64) {
    if n <= 0.0 {
        return (0.0, 1.0);
    }
    let (share, z2) = ((hits / n).clamp(0.0, 1.0), z * z);
    let centre = share + z2 / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    (((centre - half) / scale).clamp(0.0, share), ((centre + half) / scale).clamp(share, 1.0))
}

/// How many standard deviations around the mean hold this share of a normal distribution: 1.96 for 0.95; 0 for 0.
///
/// By the rational approximation of P. J. Acklam (2003), off by less than 1.2·10⁻⁹ of the value.
pub fn deviations(confidence: f64) -> f64 {
    const CENTRE_ABOVE: [f64; 6] = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.383_577_518_672_69e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    const CENTRE_BELOW: [f64; 6] = [
        -5.447609879822406e1,
        1.615858368580409e2,
        -1.556989798598866e2,
        6.680131188771972e1,
        -1.328068155288572e1,
        1.0,
    ];
    const TAIL_ABOVE: [f64; 6] = [
        -7.784894002430293e-3,
        -3.223964580411365e-1,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ];
    const TAIL_BELOW: [f64; 5] =
        [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416, 1.0];
    let polynomial = |of: &[f64], at: f64| of.iter().fold(0.0, |sum, factor| sum * at + factor);
    let below = 0.5 + confidence / 2.0;
    if below > 0.97575 {
        let at = (-2.0 * (1.0 - below).ln()).sqrt();
        return -polynomial(&TAIL_ABOVE, at) / polynomial(&TAIL_BELOW, at);
    }
    let at = below - 0.5;
    at * polynomial(&CENTRE_ABOVE, at * at) / polynomial(&CENTRE_BELOW, at * at)
}

/// The median: the middle value, or the mean of the two in the middle. `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        even if even % 2 == 0 => Some(f64::midpoint(sorted[half - 1], sorted[half])),
        _ => Some(sorted[half]),
    }
}

/// The median absolute deviation from the median. One wild week moves neither it nor the median.
pub fn mad(values: &[f64], median: f64) -> Option<f64> {
    let distances: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
    self::median(&distances)
}

/// What a normal distribution's MAD is multiplied by to give its standard deviation: 1/Φ⁻¹(3/4).
pub const MAD_TO_DEVIATION: f64 = 1.4826;

/// A distribution: values and how often each came, ascending.
pub type Histogram = Vec<(f64, u64)>;

/// The quantile `level` of a distribution: its least value that so large a share of all values does not exceed.
pub fn quantile(histogram: &[(f64, u64)], level: f64) -> Option<f64> {
    let total: u64 = histogram.iter().map(|(_, count)| count).sum();
    let wanted = level * total as f64;
    let mut seen = 0;
    let reaches = |&&(_, count): &&(f64, u64)| {
        seen += count;
        // Half of an event is less than rounding can move it.
        seen as f64 >= wanted - 1e-9 * total as f64
    };
    histogram.iter().find(reaches).map(|(value, _)| *value)
}

/// One distribution of several.
pub fn merged<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Histogram {
    let mut all: Histogram = histograms.flatten().copied().collect();
    all.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    all.dedup_by(|(value, count), (kept, sum)| {
        let same = *value == *kept;
        *sum += if same { *count } else { 0 };
        same
    });
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    /// Bounds as other programs compute them (R's `prop.test(correct = FALSE)`, statsmodels' `method = "wilson"`).
    #[test]
    fn wilson_bounds_against_known_values() {
        let z = deviations(0.95);
        for (hits, n, lower, upper) in [
            (1.0, 2.0, 0.094_53, 0.905_47),
            (0.0, 10.0, 0.0, 0.277_53),
            (10.0, 10.0, 0.722_47, 1.0),
            (5.0, 10.0, 0.236_59, 0.763_41),
            (81.0, 263.0, 0.255_3, 0.366_2),
            (15.0, 148.0, 0.062_4, 0.160_5),
            (1.0, 29.0, 0.006_1, 0.171_8),
        ] {
            let (low, high) = wilson(hits, n, z);
            assert!((low - lower).abs() < 6e-5 && (high - upper).abs() < 6e-5, "{hits} of {n}: {low}, {high}");
        }
        assert_eq!(wilson(0.0, 0.0, z), (0.0, 1.0), "nothing is known of nothing");
        assert_eq!(wilson(3.0, 4.0, 0.0), (0.75, 0.75), "no confidence: the share itself");
    }

    /// The bound is where a test of the share itself would just reject: p₀ with (p − p₀)² = z² p₀(1 − p₀)/n.
    #[test]
    fn wilson_bounds_solve_the_equation_that_defines_them() {
        for (hits, n) in [(1.0, 2.0), (3.0, 17.0), (999.0, 1_000.0), (1.0, 1e6)] {
            let (share, z) = (hits / n, 2.5);
            let (low, high) = wilson(hits, n, z);
            for bound in [low, high] {
                let (left, right) = ((share - bound) * (share - bound), z * z * bound * (1.0 - bound) / n);
                assert!((left - right).abs() <= 1e-9 * right.max(1e-9), "{hits} of {n}: {bound}");
            }
        }
    }

    #[test]
    fn standard_deviations_of_a_confidence() {
        for (confidence, z) in [
            (0.0, 0.0),
            (0.5, 0.674_489_75),
            (0.8, 1.281_551_566),
            (0.9, 1.644_853_627),
            (0.95, 1.959_963_985),
            (0.99, 2.575_829_304),
            (0.999, 3.290_526_731),
            (0.999_999, 4.891_638_475),
        ] {
            assert!((deviations(confidence) - z).abs() < 1e-7, "{confidence}: {}", deviations(confidence));
        }
    }

    #[test]
    fn median_and_mad_by_hand() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        // 1 1 2 2 4 6 9: the median is 2, the distances 1 1 0 0 2 4 7, sorted 0 0 1 1 2 4 7.
        let values = [1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0];
        assert_eq!((median(&values), mad(&values, 2.0)), (Some(2.0), Some(1.0)));
        // One wild week changes neither.
        let wild = [1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9_000.0];
        assert_eq!((median(&wild), mad(&wild, 2.0)), (Some(2.0), Some(1.0)));
    }

    #[test]
    fn quantiles_of_histograms() {
        let histogram = vec![(10.0, 90), (20.0, 5), (30.0, 4), (99.0, 1)];
        for (level, value) in [(0.0, 10.0), (0.9, 10.0), (0.901, 20.0), (0.95, 20.0), (0.99, 30.0), (1.0, 99.0)] {
            assert_eq!(quantile(&histogram, level), Some(value), "{level}");
        }
        assert_eq!(quantile(&[], 0.5), None);
        let parts = [vec![(1.0, 2), (3.0, 1)], vec![(1.0, 1), (2.0, 5)], vec![]];
        assert_eq!(merged(parts.iter()), [(1.0, 3), (2.0, 5), (3.0, 1)]);
    }
}
