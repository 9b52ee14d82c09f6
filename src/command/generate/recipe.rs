//! How the fields of an event are drawn, by what its schema says of them: role, examples, range, unit, price.
//!
//! Rules, which hold for every event type and name none:
//! - a field with `examples` takes one of them, each as often as it is repeated; an enum without takes any symbol;
//! - a measure is log-normal with the ends of `range` as its 1st and 99th percentile; where the range begins at 0, half
//!   of the values are 0; a short range (up to 100) is never left;
//! - times in ms grow with the output tokens of the same event, and none is longer than the one with the longest range;
//! - an event whose `status` or `outcome` is a failure has an `error_…`, no output and none of the measures that may be
//!   null, save the longest time in ms; every other event has no `error_…`;
//! - subjects come from a thousand, a few of them far more active than the rest, each with sessions of its own.

use fastrand::Rng;
use uuid::Uuid;

use crate::command::datum::{Datum, defaults, in_unit, parse};
use crate::event::wire::Writer;
use crate::event::{EventType, Field, Kind, Price, Role};

/// The standard normal's 99th percentile.
const P99: f64 = 2.326_347_874;
/// Words that say that something failed.
const FAILURES: [&str; 6] = ["error", "failed", "failure", "timeout", "cancelled", "canceled"];
/// How strongly times follow the output tokens.
const CORRELATION: f64 = 0.8;
/// How many subjects there are.
const SUBJECTS: f64 = 1_000.0;

/// How events of one type are drawn.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) event: EventType,
    pub(super) writer: Writer,
    fields: Vec<Draw>,
    /// The field that says whether it failed.
    status: Option<usize>,
    /// The time in ms with the longest range.
    longest: Option<usize>,
}

/// How a field is drawn.
#[derive(Debug, Clone)]
enum Draw {
    Id,
    Time,
    Subject,
    Session,
    /// One of these.
    Choice(Vec<Datum>),
    Measure {
        low: f64,
        high: f64,
        /// Half of the values are 0.
        zeros: bool,
    },
    /// True this often.
    Flag(f64),
    Fixed(Datum),
}

/// What the fields of one event share.
struct Shared {
    /// How much output it has, in standard deviations.
    output: f64,
    subject: u32,
    session: u32,
    failed: bool,
}

/// A draw from the standard normal distribution (Box and Muller 1958).
fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

impl Recipe {
    /// Compiles a schema's annotations; messages name it as `writer` does.
    pub(super) fn new(event: EventType, writer: Writer) -> Recipe {
        let defaults = defaults(&event);
        let fields: Vec<Draw> =
            event.fields.iter().zip(&defaults).map(|(field, default)| draw(field, default)).collect();
        let named = |name: &str| event.position(name).filter(|at| matches!(fields[*at], Draw::Choice(_)));
        let milliseconds = (0..fields.len()).filter(|at| event.fields[*at].unit.as_deref() == Some("ms"));
        let longest = milliseconds.max_by(|a, b| high(&fields[*a]).total_cmp(&high(&fields[*b])));
        Recipe { status: named("status").or_else(|| named("outcome")), longest, fields, event, writer }
    }

    /// Draws an event that happens at this time, in microseconds since 1970.
    pub(super) fn draw(&self, micros: i64, rng: &mut Rng) -> Vec<Datum> {
        // Few subjects are very active: the density falls with the square.
        let subject = (SUBJECTS * rng.f64().powi(2)) as u32;
        let mut shared = Shared { output: normal(rng), subject, session: rng.u32(0..20), failed: false };
        let status = self.status.map(|at| self.value(at, micros, &shared, rng));
        shared.failed = match (&status, self.status) {
            (Some(value), Some(at)) => {
                value.json(&self.event.fields[at]).as_str().is_some_and(|s| FAILURES.contains(&s))
            }
            _ => rng.f64() < 0.02,
        };
        let mut values: Vec<Datum> = (0..self.fields.len()).map(|at| self.value(at, micros, &shared, rng)).collect();
        if let (Some(at), Some(status)) = (self.status, status) {
            values[at] = status;
        }
        self.order_times(&mut values, rng);
        values
    }

    fn value(&self, at: usize, micros: i64, shared: &Shared, rng: &mut Rng) -> Datum {
        let field = &self.event.fields[at];
        // The time that it took as a whole is always known, and a nested record is always whole.
        let may_be_null = field.nullable && !field.path.contains('.');
        if may_be_null && self.longest != Some(at) && is_null(field, shared, rng) {
            return Datum::Null;
        }
        match &self.fields[at] {
            // A version 4 UUID of our own bits, so that the seed decides.
            Draw::Id => {
                Datum::Text(uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid().to_string())
            }
            Draw::Time => match field.kind {
                Kind::Timestamp(unit) => Datum::Integer(in_unit(micros, unit)),
                _ => Datum::Integer(micros),
            },
            Draw::Subject => Datum::Text(named_or_uuid(field, "user", shared.subject)),
            Draw::Session => Datum::Text(named_or_uuid(field, "session", shared.subject * 20 + shared.session)),
            Draw::Choice(values) => rng.choice(values).cloned().unwrap_or(Datum::Null),
            Draw::Measure { .. } if shared.failed && field.price == Some(Price::Output) => number(field, 0.0),
            Draw::Measure { low, high, zeros } => number(field, measure(field, (*low, *high), *zeros, shared, rng)),
            Draw::Flag(often) => Datum::Boolean(rng.f64() < *often),
            Draw::Fixed(value) => value.clone(),
        }
    }

    /// Parts of a time are not longer than the whole.
    fn order_times(&self, values: &mut [Datum], rng: &mut Rng) {
        let Some(whole) = self.longest.and_then(|at| as_f64(&values[at])) else { return };
        for (at, field) in self.event.fields.iter().enumerate() {
            if field.unit.as_deref() == Some("ms") && as_f64(&values[at]).is_some_and(|part| part > whole) {
                values[at] = number(field, whole * (0.1 + 0.9 * rng.f64()));
            }
        }
    }
}

fn draw(field: &Field, default: &Option<Datum>) -> Draw {
    match (&field.role, &field.kind) {
        (Some(Role::Id), _) => Draw::Id,
        (Some(Role::Time), _) => Draw::Time,
        (Some(Role::Subject), Kind::String | Kind::Uuid) => Draw::Subject,
        (Some(Role::Session), Kind::String | Kind::Uuid) => Draw::Session,
        (_, Kind::Boolean) => Draw::Flag(0.7),
        (_, Kind::Int | Kind::Long | Kind::Float | Kind::Double | Kind::Decimal { .. })
            if field.examples.is_empty() =>
        {
            let [low, high] = field.range.unwrap_or_else(|| usual_range(field));
            Draw::Measure { low, high, zeros: low == 0.0 }
        }
        (_, Kind::Enum(symbols)) if field.examples.is_empty() => {
            Draw::Choice((0..symbols.len()).map(Datum::Symbol).collect())
        }
        _ => {
            let examples: Vec<Datum> = field.examples.iter().filter_map(|text| parse(field, text).ok()).collect();
            match (examples.is_empty(), default) {
                (false, _) => Draw::Choice(examples),
                (true, Some(default)) if *default != Datum::Null => Draw::Fixed(default.clone()),
                (true, _) => Draw::Choice(invented(field)),
            }
        }
    }
}

/// The range of a measure whose schema names none.
fn usual_range(field: &Field) -> [f64; 2] {
    match field.unit.as_deref() {
        Some("ms") => [1.0, 1_000.0],
        Some("tokens") => [10.0, 2_000.0],
        Some("bytes") => [100.0, 1_000_000.0],
        Some("USD") => [0.000_1, 0.1],
        _ => [1.0, 100.0],
    }
}

/// Three values of a field whose schema names none.
fn invented(field: &Field) -> Vec<Datum> {
    (1..=3).map(|n| invented_of(&field.kind, &field.name, n)).collect()
}

fn invented_of(kind: &Kind, name: &str, n: u8) -> Datum {
    let micros = (1_700_000_000 + i64::from(n)) * 1_000_000;
    match kind {
        Kind::Uuid => Datum::Text(Uuid::new_v5(&Uuid::NAMESPACE_OID, &[n]).to_string()),
        Kind::Bytes => Datum::Bytes(vec![n; 8]),
        Kind::Fixed(size) => Datum::Bytes(vec![n; *size]),
        Kind::Date => Datum::Integer(i64::from(n) + 20_000),
        Kind::Timestamp(unit) | Kind::LocalTimestamp(unit) => Datum::Integer(in_unit(micros, *unit)),
        Kind::TimeOfDay(unit) => Datum::Integer(i64::from(n) * 3_600 * unit.per_second()),
        Kind::Boolean => Datum::Boolean(n == 1),
        Kind::Int | Kind::Long => Datum::Integer(n.into()),
        Kind::Float | Kind::Double => Datum::Float(n.into()),
        Kind::Decimal { .. } => Datum::Decimal((n % 10).into()),
        Kind::Enum(symbols) => Datum::Symbol(usize::from(n) % symbols.len().max(1)),
        Kind::String => Datum::Text(format!("{name}-{n}")),
        Kind::Array(item) => Datum::List((1..=n).map(|n| invented_of(&item.kind, name, n)).collect()),
        Kind::Map(item) => {
            Datum::Entries((1..=n).map(|n| (format!("key-{n}"), invented_of(&item.kind, name, n))).collect())
        }
    }
}

fn named_or_uuid(field: &Field, what: &str, number: u32) -> String {
    let name = format!("{what}-{number:05}");
    if field.kind == Kind::Uuid { Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string() } else { name }
}

fn is_null(field: &Field, shared: &Shared, rng: &mut Rng) -> bool {
    if field.name.starts_with("error_") {
        return !shared.failed;
    }
    match field.role {
        Some(Role::Subject | Role::Session) => rng.f64() < 0.05,
        Some(Role::Measure) => shared.failed || rng.f64() < 0.2,
        _ => rng.f64() < 0.5,
    }
}

fn high(draw: &Draw) -> f64 {
    match draw {
        Draw::Measure { high, .. } => *high,
        _ => 0.0,
    }
}

fn measure(field: &Field, (low, high): (f64, f64), zeros: bool, shared: &Shared, rng: &mut Rng) -> f64 {
    if zeros && rng.bool() {
        return 0.0;
    }
    let deviation = match field.price {
        Some(Price::Output) => shared.output,
        _ if field.unit.as_deref() == Some("ms") => {
            CORRELATION * shared.output + (1.0 - CORRELATION * CORRELATION).sqrt() * normal(rng)
        }
        _ => normal(rng),
    };
    let drawn = if low < 0.0 {
        (low + high) / 2.0 + deviation * (high - low) / (2.0 * P99)
    } else {
        // Log-normal; a range from 0 begins at one step of its scale.
        let least = if zeros { (high / 1_000.0).max(f64::MIN_POSITIVE) } else { low };
        let (from, to) = (least.ln(), high.max(least).ln());
        ((from + to) / 2.0 + deviation * (to - from) / (2.0 * P99)).exp()
    };
    // A short range is a scale (stars, attempts, a share), whose ends are hard; others have a tail.
    if high <= 100.0 { drawn.clamp(low, high) } else { drawn.clamp(low, 4.0 * high) }
}

fn number(field: &Field, value: f64) -> Datum {
    match field.kind {
        Kind::Int => Datum::Integer(i64::from(value.round() as i32)),
        Kind::Long => Datum::Integer(value.round() as i64),
        Kind::Decimal { precision, scale } => {
            let most = 10_f64.powi(i32::from(precision)) - 1.0;
            Datum::Decimal((value * 10_f64.powi(i32::from(scale))).round().clamp(-most, most) as i128)
        }
        // A thousandth is fine enough for a measurement, and readable.
        _ => Datum::Float((value * 1_000.0).round() / 1_000.0),
    }
}

fn as_f64(value: &Datum) -> Option<f64> {
    match value {
        Datum::Integer(number) => Some(*number as f64),
        Datum::Float(number) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn llm_call() -> Recipe {
        let json = include_str!("../../../schemas/llm_call.avsc");
        Recipe::new(EventType::parse("llm_call.avsc", json).unwrap(), Writer::Id(1))
    }

    fn column(recipe: &Recipe, events: &[Vec<Datum>], name: &str) -> Vec<serde_json::Value> {
        let at = recipe.event.position(name).unwrap();
        events.iter().map(|values| values[at].json(&recipe.event.fields[at])).collect()
    }

    fn percentile(numbers: &mut [f64], share: f64) -> f64 {
        numbers.sort_by(f64::total_cmp);
        numbers[(share * (numbers.len() - 1) as f64) as usize]
    }

    #[test]
    fn measures_keep_to_their_ranges_and_choices_to_their_weights() {
        let recipe = llm_call();
        let mut rng = Rng::with_seed(3);
        let events: Vec<_> = (0..20_000).map(|_| recipe.draw(0, &mut rng)).collect();
        let mut input: Vec<f64> = column(&recipe, &events, "input_tokens").iter().filter_map(|v| v.as_f64()).collect();
        let (p01, p99) = (percentile(&mut input, 0.01), percentile(&mut input, 0.99));
        assert!((17.0..24.0).contains(&p01) && (10_000.0..14_500.0).contains(&p99), "{p01} {p99}");
        let models = column(&recipe, &events, "model");
        let haiku = models.iter().filter(|model| *model == "haiku").count();
        let examples = &recipe.event.fields[recipe.event.position("model").unwrap()].examples;
        let share = examples.iter().filter(|model| *model == "haiku").count() as f64 / examples.len() as f64;
        assert!((haiku as f64 / 20_000.0 - share).abs() < 0.02, "{haiku} {share}");
    }

    #[test]
    fn failures_times_and_tokens_belong_together() {
        let recipe = llm_call();
        let mut rng = Rng::with_seed(4);
        let events: Vec<_> = (0..20_000).map(|_| recipe.draw(0, &mut rng)).collect();
        let named = |name: &str| column(&recipe, &events, name);
        let (status, error, output) = (named("status"), named("error_kind"), named("output_tokens"));
        let (latency, first) = (named("latency_ms"), named("time_to_first_token_ms"));
        let (mut short, mut long) = (Vec::new(), Vec::new());
        for at in 0..events.len() {
            let failed = status[at] != "ok";
            assert_eq!(failed, !error[at].is_null(), "{at}");
            assert!(!failed || (output[at] == 0 && first[at].is_null()), "{at}");
            let all = latency[at].as_f64().unwrap();
            assert!(first[at].as_f64().is_none_or(|first| first <= all), "{at}");
            if !failed {
                if output[at].as_f64().unwrap() < 55.0 { short.push(all) } else { long.push(all) }
            }
        }
        assert!(percentile(&mut long, 0.5) > 2.0 * percentile(&mut short, 0.5));
    }
}
