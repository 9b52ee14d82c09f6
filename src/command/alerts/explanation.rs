//! What was told, held against what is found now: as lines for people, or as one JSON object.

use serde_json::{Value, json};

use super::evidence::{Evidence, Prices, Source};
use super::explain::Found;
use super::shown::{message as shown, short, time};
use crate::alert::{Message, MessageReading};
use crate::command::dead_letters::printable::printable;
use crate::plan::Plan;

/// Floating-point sums may be added up in another order.
const TOLERANCE: f64 = 1e-9;

/// Sources that are named.
const NAMED: usize = 10;

/// All that there is to say of a message.
pub(super) struct Explanation<'a> {
    pub(super) told: &'a Message,
    pub(super) rule_now: RuleNow,
    /// The same computed anew, or why the rule can't be judged any more.
    pub(super) anew: Result<Anew, String>,
}

/// What is found of what was judged then.
pub(super) struct Anew {
    pub(super) rollups: Option<Found>,
    pub(super) evidence: Evidence,
}

/// What became of the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RuleNow {
    Same,
    Changed,
    Gone,
}

impl RuleNow {
    pub(super) fn of(told: &Message, plan: &Plan) -> RuleNow {
        let rules = plan.alerts.rules.iter().map(|rule| &rule.notice);
        let mut notices = rules.chain(plan.alerts.budgets.iter().map(|budget| &budget.notice));
        match notices.find(|notice| notice.name == told.rule) {
            None => RuleNow::Gone,
            Some(notice) if notice.hash == told.rule_hash => RuleNow::Same,
            Some(_) => RuleNow::Changed,
        }
    }

    fn word(self) -> &'static str {
        match self {
            RuleNow::Same => "same",
            RuleNow::Changed => "changed",
            RuleNow::Gone => "gone",
        }
    }
}

impl Explanation<'_> {
    /// In lines for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![shown(self.told), self.circumstances()];
        lines.extend(self.told.rule_text.lines().map(|line| printable(&format!("    {line}")).into_owned()));
        match &self.anew {
            Err(why) => lines.push(format!("with the present packs that rule can't be judged any more: {why}")),
            Ok(anew) => lines.extend(anew.lines(self.told)),
        }
        lines
    }

    /// When it was told, on data how complete, and what became of the rule.
    fn circumstances(&self) -> String {
        let Message { complete_through, lag_ms, late, rule_hash, .. } = self.told;
        let now = match self.rule_now {
            RuleNow::Same => "is the same now",
            RuleNow::Changed => "was changed since",
            RuleNow::Gone => "is gone since",
        };
        format!(
            "complete up to {}, {} s behind the clock, {late} events late of late; the rule, as it was, {now} ({rule_hash}):",
            time(*complete_through),
            lag_ms / 1_000
        )
    }

    /// As one object.
    pub(super) fn json(&self) -> String {
        let told = self.told;
        let found = |found: Option<&Found>| {
            found.map(|found| {
                let Found { value, threshold, readings, spent } = found;
                json!({ "value": value, "threshold": threshold, "readings": readings, "spent": spent, "as_told": found.is_as(told) })
            })
        };
        let mut object = json!({ "message": told, "rule_now": self.rule_now.word() });
        let more = match &self.anew {
            Err(why) => json!({ "error": why }),
            Ok(Anew { rollups, evidence }) => json!({
                "rollups": found(rollups.as_ref()),
                "raw": found(evidence.raw.as_ref()),
                "sources": evidence.sources,
                "before_later": found(evidence.then.as_ref()),
                "gone": evidence.gone(),
                "prices": evidence.prices,
            }),
        };
        if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
            object.extend(more);
        }
        printable(&object.to_string()).into_owned()
    }
}

impl Anew {
    fn lines(&self, told: &Message) -> Vec<String> {
        let Anew { rollups, evidence } = self;
        let mut lines = vec![judged_now(told, rollups.as_ref()), raw(told, rollups.as_ref(), evidence.raw.as_ref())];
        lines.extend(places(&evidence.sources));
        let later: u64 = evidence.sources.iter().map(|source| source.later).sum();
        if later > 0 {
            let then = evidence.then.as_ref();
            let without = match then.is_some_and(|then| then.is_as(told)) {
                true => "without them it is as was told".to_owned(),
                false => format!("without them it is {}", then.map_or("nothing".to_owned(), Found::short)),
            };
            lines.push(format!("{later} of these rows were written after it was published; {without}"));
        }
        if evidence.gone() > 0 {
            lines.push(format!(
                "{} of the {} rows that were counted are gone: they expired (retention.raw) or were deleted",
                evidence.gone(),
                evidence.counted
            ));
        }
        lines.extend(evidence.prices.as_ref().map(prices));
        lines
    }
}

impl Evidence {
    /// How many raw rows are missing of what the rollup has counted.
    fn gone(&self) -> u64 {
        self.counted.saturating_sub(self.sources.iter().map(|source| source.rows).sum())
    }
}

/// What the raw rows say.
fn raw(told: &Message, rollups: Option<&Found>, raw: Option<&Found>) -> String {
    match (raw, rollups) {
        (None, None) => "from raw rows: there are none of that series".to_owned(),
        (None, Some(_)) => "from raw rows: none of that series are left".to_owned(),
        (Some(raw), _) if raw.is_as(told) => format!("from raw rows: {}, as was told", raw.short()),
        (Some(raw), Some(rollups)) if raw.is_like(rollups) => {
            format!("from raw rows: {}, as from the rollups", raw.short())
        }
        (Some(raw), rollups) => format!(
            "from raw rows: {}, and {} from the rollups, which were asked first: rows came in between, or expired, or `highwater audit` \
             says why",
            raw.short(),
            rollups.map_or("nothing".to_owned(), Found::short)
        ),
    }
}

/// The rows' places.
fn places(sources: &[Source]) -> Vec<String> {
    let rows: u64 = sources.iter().map(|source| source.rows).sum();
    let named = sources.iter().take(NAMED);
    let named = named.map(|Source { source, rows, first, last, .. }| {
        format!("    {source}: {rows} rows, offsets {first} to {last}")
    });
    let left = sources.len().saturating_sub(NAMED);
    let more = (left > 0).then(|| format!("    and {left} more partitions"));
    std::iter::once(format!("it rests on {rows} raw rows of that series:")).chain(named).chain(more).collect()
}

/// Which prices the rows were written with.
fn prices(Prices { then, now }: &Prices) -> String {
    match &then[..] {
        [] => "prices: which the rows were written with is not known".to_owned(),
        [one] if one == now => format!("prices: {one}, as now"),
        several => {
            format!("prices: {} then, {now} now; rows keep the cost that they were written with", several.join(" and "))
        }
    }
}

impl Found {
    /// Whether it is what was told.
    pub(super) fn is_as(&self, told: &Message) -> bool {
        match (&self.spent, &told.budget) {
            (Some(spent), Some(budget)) => *spent == budget.spent,
            _ => differences(told, self).is_empty(),
        }
    }

    /// Whether it is what another says.
    pub(super) fn is_like(&self, other: &Found) -> bool {
        let is_alike = |(one, other): (&MessageReading, &MessageReading)| {
            is_equal(Some(one.numerator), Some(other.numerator))
                && is_equal(Some(one.denominator), Some(other.denominator))
                && one.samples == other.samples
        };
        self.spent == other.spent
            && is_equal(self.value, other.value)
            && self.readings.len() == other.readings.len()
            && self.readings.iter().zip(&other.readings).all(is_alike)
    }

    /// In some words.
    pub(super) fn short(&self) -> String {
        match &self.spent {
            Some(spent) => format!("{spent} spent"),
            None => {
                let value = self.value.map_or_else(|| "nothing".to_owned(), short);
                let windows: Vec<String> = self
                    .readings
                    .iter()
                    .map(|reading| {
                        let (numerator, denominator) = (short(reading.numerator), short(reading.denominator));
                        format!("{numerator} of {denominator} from {} to {}", time(reading.from), time(reading.to))
                    })
                    .collect();
                format!("{value} ({})", windows.join("; "))
            }
        }
    }
}

/// Whether what the rollups say is what was told.
fn judged_now(told: &Message, now: Option<&Found>) -> String {
    match (now, told.budget.as_ref().map(|budget| &budget.spent)) {
        (None, Some(_)) => "computed anew: no rows of that series and period are left".to_owned(),
        (None, None) => "computed anew: no rows of that series are left".to_owned(),
        (Some(Found { spent: Some(spent), .. }), Some(then)) if spent == then => {
            format!("computed anew: {spent} spent, as was told")
        }
        (Some(Found { spent: Some(spent), .. }), then) => {
            let then = then.map_or("", String::as_str);
            format!("computed anew: {spent} spent in that period by now, {then} when it was told")
        }
        (Some(now), _) => compared(told, now),
    }
}

/// Whether the same was found as was told, or what is otherwise.
fn compared(told: &Message, now: &Found) -> String {
    let differences = differences(told, now);
    if differences.is_empty() {
        return format!("computed anew: {} against {}, as was told", text(now.value), short(now.threshold));
    }
    format!("computed anew, it is otherwise than was told:\n    {}", differences.join("\n    "))
}

fn text(value: Option<f64>) -> String {
    value.map_or_else(|| "nothing".to_owned(), short)
}

/// What is otherwise than was told.
fn differences(told: &Message, now: &Found) -> Vec<String> {
    let Found { value, threshold, readings, .. } = now;
    let mut differences = Vec::new();
    if !(is_equal(told.value, *value) && is_equal(Some(told.threshold), Some(*threshold))) {
        differences.push(format!(
            "{} against {} when it was told, {} against {} now",
            text(told.value),
            short(told.threshold),
            text(*value),
            short(*threshold)
        ));
    }
    for now in readings {
        let then = told.readings.iter().find(|then| then.name == now.name);
        let of = |reading: &MessageReading| format!("{} of {}", short(reading.numerator), short(reading.denominator));
        let is_same = then.is_some_and(|then| {
            is_equal(Some(then.numerator), Some(now.numerator))
                && is_equal(Some(then.denominator), Some(now.denominator))
                && then.samples == now.samples
        });
        if !is_same {
            let then = then.map_or_else(|| "nothing".to_owned(), of);
            differences.push(format!("{}: {then} when it was told, {} now", now.name, of(now)));
        }
    }
    differences
}

fn is_equal(one: Option<f64>, other: Option<f64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() <= TOLERANCE * one.abs().max(other.abs()),
        (one, other) => one.is_none() && other.is_none(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    fn reading(numerator: f64, denominator: f64) -> MessageReading {
        let value = Some(numerator / denominator);
        let name = "window".to_owned();
        MessageReading { name, from: 0, to: 300_000, numerator, denominator, samples: 50, value, bound: None }
    }

    pub(in super::super) fn message(id: &str, sequence: i64) -> Message {
        let message = serde_json::json!({
            "alert_id": id, "sequence": sequence, "rule": "r", "kind": "threshold", "severity": "page", "state": "firing",
            "previous": "pending", "provisional": false, "corrected": false, "corrects": [], "at": 300_000, "since": 0,
            "dimensions": {}, "labels": {}, "summary": "", "metric": "m", "unit": "", "value": 0.8, "threshold": 0.2,
            "readings": [reading(40.0, 50.0)], "baseline": null, "budget": null, "forecast": null, "complete_through": 0,
            "late": 0, "lag_ms": 0, "rule_text": "", "rule_hash": ""
        });
        serde_json::from_value(message).unwrap()
    }

    #[test]
    fn says_that_it_is_the_same_or_what_is_otherwise() {
        let told = message("a", 1);
        let compared = |told: &Message, value, threshold, readings: &[MessageReading]| {
            super::compared(told, &Found { value, threshold, readings: readings.to_vec(), spent: None })
        };
        let same = "computed anew: 0.8 against 0.2, as was told";
        assert_eq!(compared(&told, Some(0.8 + 1e-12), 0.2, &[reading(40.0, 50.0)]), same);
        assert_eq!(
            compared(&told, Some(0.875), 0.2, &[reading(70.0, 80.0)]),
            "computed anew, it is otherwise than was told:\n    0.8 against 0.2 when it was told, 0.875 against 0.2 now\n    \
             window: 40 of 50 when it was told, 70 of 80 now"
        );
        let gone = compared(&told, None, 0.2, &[]);
        assert!(gone.contains("0.8 against 0.2 when it was told, nothing against 0.2 now"), "{gone}");
        let fewer = MessageReading { samples: 49, ..reading(40.0, 50.0) };
        assert!(compared(&told, Some(0.8), 0.2, &[fewer]).contains("otherwise"));
    }

    /// As the table has it, so it is shown: 37 of 46 is no other number for having been read.
    #[test]
    fn no_digit_of_what_was_told_is_lost_on_the_way() {
        let mut rng = fastrand::Rng::with_seed(4);
        for _ in 0..2_000 {
            let (of, all) = (rng.u32(1..100_000), rng.u32(1..100_000));
            let value = f64::from(of) / f64::from(all);
            let kept = serde_json::to_string(&Message { value: Some(value), ..message("a", 1) }).unwrap();
            let told: Message = serde_json::from_str(&kept).unwrap();
            assert_eq!(told.value, Some(value), "{of}/{all}");
            let explanation = Explanation { told: &told, rule_now: RuleNow::Gone, anew: Err(String::new()) };
            let object = explanation.json();
            assert!(object.contains(&format!("\"unit\":\"\",\"value\":{value:?}}}")), "{of}/{all}: {object}");
        }
    }

    #[test]
    fn a_program_reads_the_same_as_one_object() {
        let told = message("a", 1);
        let found = |rows: f64| Found {
            value: Some(rows / 80.0),
            threshold: 0.2,
            readings: vec![MessageReading { samples: 80, ..reading(rows, 80.0) }],
            spent: None,
        };
        let then = Found { value: Some(0.8), threshold: 0.2, readings: vec![reading(40.0, 50.0)], spent: None };
        let source = Source { source: "t/0".to_owned(), rows: 60, first: 5, last: 99, later: 30 };
        let evidence =
            Evidence { raw: Some(found(50.0)), sources: vec![source], then: Some(then), counted: 80, prices: None };
        let anew = Ok(Anew { rollups: Some(found(70.0)), evidence });
        let explanation = Explanation { told: &told, rule_now: RuleNow::Changed, anew };
        let text = explanation.json();
        assert_eq!(text.lines().count(), 1);
        let object: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["message"]["alert_id"], "a");
        assert_eq!((&object["rule_now"], &object["gone"]), (&"changed".into(), &20.into()));
        let brief = |name: &str| (object[name]["readings"][0]["numerator"].clone(), object[name]["as_told"].clone());
        assert_eq!(brief("rollups"), (70.0.into(), false.into()));
        assert_eq!(brief("raw"), (50.0.into(), false.into()));
        assert_eq!(brief("before_later"), (40.0.into(), true.into()));
        assert_eq!(object["sources"][0]["later"], 30);
        assert_eq!(object["prices"], Value::Null);
        let lines = explanation.lines().join("\n");
        assert!(lines.contains("30 of these rows were written after it was published; without them it is as was told"));
        assert!(lines.contains("20 of the 80 rows that were counted are gone"), "{lines}");

        let explanation = Explanation { told: &told, rule_now: RuleNow::Gone, anew: Err("no metric m".to_owned()) };
        let object: Value = serde_json::from_str(&explanation.json()).unwrap();
        assert_eq!((&object["rule_now"], &object["error"]), (&"gone".into(), &"no metric m".into()));
        assert!(object.get("rollups").is_none(), "{object}");
    }
}
