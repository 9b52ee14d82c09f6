//! Levels that there is a point in.

use super::Asked;
use crate::alert::rule::Side;
use crate::rollup::Quantity;

impl Asked<'_, '_> {
    /// What the value can be at least and at most.
    pub(super) fn possible(&self) -> (f64, f64) {
        match (&self.subject.metric.quantity, &self.entry.change) {
            (Quantity::Count | Quantity::Cost | Quantity::Counts { .. }, Some(_)) => (-1.0, f64::INFINITY),
            (Quantity::Count | Quantity::Cost, None) => (0.0, f64::INFINITY),
            (Quantity::Counts { .. }, None) => (0.0, 1.0),
            _ => (f64::NEG_INFINITY, f64::INFINITY),
        }
    }

    /// Why there is no point in a level: it is passed always, or never.
    pub(super) fn pointless(&self, side: Side, level: f64) -> Option<String> {
        let (least, most) = self.possible();
        let is_change = self.entry.change.is_some();
        let is_share = !is_change && most == 1.0;
        let (always, never, remedy) = match side {
            Side::Above if is_change => (level < 0.0, false, "a number from 0, as 0.5 for half as much again"),
            Side::Below if is_change => (level > 0.0, level <= -1.0, "a number from -1 to 0, as -0.5 for half as much"),
            Side::Above if is_share => (level < least, level >= most, "a number from 0 to below 1, as 0.05 for 5 %"),
            Side::Below if is_share => (level > most, level <= least, "a number above 0 to 1, as 0.95 for 95 %"),
            Side::Above => (level < least, false, "a number from 0"),
            Side::Below => (false, level <= least, "a number above 0"),
        };
        match (always, never) {
            (_, true) if is_change => {
                Some(format!("nothing falls by more than all of it; {level} is never reached, give -0.5 for half"))
            }
            (true, _) if is_change => Some(format!("it holds where nothing changes; give {remedy}")),
            (true, _) => Some(format!("it always is; give {remedy}")),
            (_, true) => Some(format!("it never is; give {remedy}")),
            _ => None,
        }
    }
}
