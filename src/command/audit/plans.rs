//! Which ranges wrote into a minute, and by which plan.
//!
//! The ledger names the plan of who finished a batch. Where a worker died in the middle of one and another with new
//! schemas, packs or prices finished it, some tables hold the old plan's rows and others the new plan's. Only the first
//! range after a change of plans can be such a one.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::Audit;
use super::finding::{Written, time};
use crate::clickhouse::QueryError;
use crate::clickhouse::tables::LEDGER;

/// Changes of plans that are looked at.
const CHANGES: usize = 1_000;
/// Ranges that a finding names.
const NAMED: usize = 3;

/// The first range of a source after its plan changed.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Change {
    source: String,
    from: u64,
    to: u64,
    plan: String,
    plan_before: String,
    /// First and last second of its events.
    least: u32,
    greatest: u32,
}

/// What wrote into some minutes.
#[derive(Debug, Default)]
pub(super) struct Writers {
    /// How many ranges.
    ranges: u64,
    /// Their plans.
    plans: BTreeSet<String>,
    /// Some of them, those with two plans first.
    pub(super) some: Vec<Written>,
    /// The minutes of all ranges with two plans.
    mixed: Option<(u32, u32)>,
}

impl Audit<'_> {
    /// The first ranges after each change of plans, by source.
    pub(super) async fn changes(&self) -> Result<BTreeMap<String, Vec<Change>>, QueryError> {
        let sql = format!(
            "SELECT toString(source) AS source, `from`, `to`, toString(plan) AS plan, plan_before, \
             toUnixTimestamp(toDateTime(min_time, 'UTC')) AS least, toUnixTimestamp(toDateTime(max_time, 'UTC')) AS greatest \
             FROM (SELECT source, `from`, `to`, plan, min_time, max_time, toString(lagInFrame(plan) OVER (PARTITION BY source \
             ORDER BY `from`, `to` ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)) AS plan_before FROM {} WHERE kind IN \
             ('batch', 'redrive')) WHERE plan_before != '' AND plan_before != plan AND isNotNull(min_time) ORDER BY greatest DESC \
             LIMIT {CHANGES}",
            self.client.table(LEDGER)
        );
        let mut changes: BTreeMap<String, Vec<Change>> = BTreeMap::new();
        for change in self.client.rows::<Change>(&sql).await? {
            changes.entry(change.source.clone()).or_default().push(change);
        }
        Ok(changes)
    }

    /// What wrote into the minutes that begin from `first` to `last`, in seconds since 1970.
    pub(super) async fn writers(
        &self,
        first: u32,
        last: u32,
        changes: Option<&BTreeMap<String, Vec<Change>>>,
    ) -> Result<Writers, QueryError> {
        #[derive(Deserialize)]
        struct Row {
            ranges: u64,
            plans: BTreeSet<String>,
            some: Vec<(String, u64, u64, String)>,
        }
        let end = last.saturating_add(60);
        let sql = format!(
            "SELECT count() AS ranges, groupUniqArray(10)(toString(plan)) AS plans, groupArray({NAMED})((s, a, b, p)) AS some \
             FROM (SELECT toString(source) AS s, `from` AS a, `to` AS b, toString(plan) AS p, plan FROM {} WHERE kind IN \
             ('batch', 'redrive') AND min_time < toDateTime({end}, 'UTC') AND max_time >= toDateTime({first}, 'UTC') \
             ORDER BY source, `from`)",
            self.client.table(LEDGER)
        );
        let mut writers = Writers::default();
        for change in changes.into_iter().flat_map(BTreeMap::values).flatten() {
            if change.least < end && change.greatest >= first {
                let (least, greatest) = writers.mixed.unwrap_or((u32::MAX, 0));
                writers.mixed = Some((least.min(change.least), greatest.max(change.greatest)));
                writers.some.push(change.written());
            }
        }
        if let Some(row) = self.client.rows::<Row>(&sql).await?.into_iter().next() {
            (writers.ranges, writers.plans) = (row.ranges, row.plans);
            for (source, from, to, plan) in row.some {
                if !writers.some.iter().any(|known| (&known.source, known.from) == (&source, from)) {
                    writers.some.push(Written { source, from, to, plan, plan_before: None });
                }
            }
        }
        writers.some.truncate(NAMED);
        Ok(writers)
    }
}

impl Change {
    fn written(&self) -> Written {
        Written {
            source: self.source.clone(),
            from: self.from,
            to: self.to,
            plan: self.plan.clone(),
            plan_before: Some(self.plan_before.clone()),
        }
    }
}

impl Writers {
    /// As the middle of a sentence; `plan` is the present one.
    pub(super) fn words(&self, plan: &str) -> String {
        let range = |written: &Written| format!("{} [{}, {})", written.source, written.from, written.to);
        let mut words = match self.ranges {
            0 => return "; no range of the ledger has events of this time".to_owned(),
            _ => format!("; written by {}", self.some.iter().map(range).collect::<Vec<_>>().join(", ")),
        };
        if let Some(more) = self.ranges.checked_sub(self.some.len() as u64).filter(|&more| more > 0) {
            words.push_str(&format!(" and {more} more ranges"));
        }
        let plans: Vec<&str> = self.plans.iter().map(String::as_str).collect();
        words.push_str(&format!(" by plan {}", plans.join(" and ")));
        if !self.plans.contains(plan) {
            words.push_str(&format!(", where {plan} is the plan now"));
        }
        if let Some((least, greatest)) = self.mixed {
            let minute = |at: u32| time(i64::from(at - at % 60));
            let mixed = self.some.iter().filter_map(|written| {
                let before = written.plan_before.as_ref()?;
                Some(format!("{} may hold parts of plan {before} and of plan {}", range(written), written.plan))
            });
            words.push_str(&format!(
                "; {}: the minutes to rebuild are {} to {}",
                mixed.collect::<Vec<_>>().join(", "),
                minute(least),
                minute(greatest)
            ));
        }
        words
    }
}
