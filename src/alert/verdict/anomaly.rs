//! A window against the same hour of earlier weeks.

use super::{Baseline, Beyond, Moment, Outcome, Reader, Verdict, verdict};
use crate::alert::period::Minute;
use crate::alert::rule::{Side, Test};
use crate::alert::stat::{MAD_TO_DEVIATION, mad, median};

impl Reader<'_> {
    pub(super) fn anomaly(&self, moment: &Moment, test: &Test) -> Verdict {
        let Test::Anomaly { side, deviations, resolve, tolerance, window, min_weeks, min_samples, quantile, .. } = test
        else {
            return verdict(Outcome::Unknown, None, None, 0.0);
        };
        let full = Reader { full: true, ..*self };
        let (reading, _) = full.read("window", moment.at - window, moment.at, *quantile);
        let answer = |outcome, reading, value| verdict(outcome, Some(reading), value, *deviations);
        let is_there = self.is_there(moment.at - window, moment.at);
        if !is_there && !self.is_additive() {
            return answer(Outcome::Absent, reading, None);
        }
        let week = |end: &Minute| {
            let (reading, _) = full.read("week", end - window, *end, *quantile);
            // A few events that do add up are all there were; of all else they say nothing.
            let enough = self.is_additive() || reading.samples >= *min_samples;
            let is_there = enough && self.is_there(end - window, *end);
            reading.value.filter(|_| is_there).map(|value| (value, reading.samples as f64))
        };
        let (values, samples): (Vec<f64>, Vec<f64>) = moment.weeks.iter().filter_map(week).unzip();
        let found = median(&values).and_then(|middle| Some((middle, mad(&values, middle)?)));
        let Some((middle, mad)) = found.filter(|_| values.len() >= *min_weeks) else {
            let outcome = if is_there { Outcome::Unknown } else { Outcome::Absent };
            return answer(outcome, reading, None);
        };
        let deviation = (MAD_TO_DEVIATION * mad).max(tolerance * middle.abs());
        // What vanished has no samples, but used to have.
        let used_to = || self.is_additive() && median(&samples).is_some_and(|usual| usual >= *min_samples as f64);
        let enough = reading.samples >= *min_samples || used_to();
        let score = reading.value.and_then(|value| match value - middle {
            0.0 => Some(0.0),
            distance => (deviation > 0.0).then_some(distance / deviation),
        });
        let outcome = score.filter(|_| enough).map_or(Outcome::Unknown, |score| {
            let distance = match side {
                Some(Side::Above) => score,
                Some(Side::Below) => -score,
                None => score.abs(),
            };
            Beyond { side: Side::Above, level: *deviations, resolve: *resolve }.outcome(distance, distance)
        });
        let baseline = Some(Baseline { values, median: middle, deviation });
        Verdict { baseline, ..answer(outcome, reading, score) }
    }
}
