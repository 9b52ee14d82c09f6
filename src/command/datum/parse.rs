//! Text as a value of a field, strictly.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Datum;
use crate::event::{Field, Item, Kind, TimeUnit};

/// What a text should have been.
pub type Expected = String;

/// Reads a text as a value of this field. An empty text is null where the field may be null.
///
/// # Errors
/// What was expected instead.
pub fn parse(field: &Field, text: &str) -> Result<Datum, Expected> {
    if text.is_empty() && field.nullable { Ok(Datum::Null) } else { parse_as(&field.kind, text) }
}

fn parse_as(kind: &Kind, text: &str) -> Result<Datum, Expected> {
    let (datum, expected) = match kind {
        Kind::Boolean => (text.parse().ok().map(Datum::Boolean), "true or false"),
        Kind::Int => (text.parse::<i32>().ok().map(|n| Datum::Integer(n.into())), "a whole number of 32 bits"),
        Kind::Long => (text.parse().ok().map(Datum::Integer), "a whole number of 64 bits"),
        Kind::Float => {
            let number = text.parse::<f32>().ok().filter(|number| number.is_finite());
            (number.map(|number| Datum::Float(number.into())), "a finite number")
        }
        Kind::Double => {
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
            (number.map(Datum::Float), "a finite number")
        }
        Kind::String => (Some(Datum::Text(text.to_owned())), ""),
        Kind::Bytes => (Some(Datum::Bytes(text.as_bytes().to_vec())), ""),
        Kind::Fixed(size) => {
            let bytes = (text.len() == *size).then(|| Datum::Bytes(text.as_bytes().to_vec()));
            return bytes.ok_or_else(|| format!("text of {size} bytes"));
        }
        Kind::Enum(symbols) => {
            return match symbols.iter().position(|symbol| symbol == text) {
                Some(at) => Ok(Datum::Symbol(at)),
                None => Err(format!("one of {}", symbols.join(", "))),
            };
        }
        Kind::Uuid => (Uuid::try_parse(text).ok().map(|id| Datum::Text(id.to_string())), "a UUID"),
        Kind::Date => (days(text).map(Datum::Integer), "a date as YYYY-MM-DD"),
        Kind::Timestamp(unit) => (parse_time(text).map(|micros| Datum::Integer(in_unit(micros, *unit))), TIME),
        Kind::LocalTimestamp(unit) => {
            let local = (!text.contains(['[', 'z', 'Z', '+'])).then(|| parse_time(text)).flatten();
            (local.map(|micros| Datum::Integer(in_unit(micros, *unit))), "a time as YYYY-MM-DD HH:MM:SS[.fraction]")
        }
        Kind::TimeOfDay(unit) => {
            let micros = since_midnight(text);
            (micros.map(|micros| Datum::Integer(in_unit(micros, *unit))), "a time of day as HH:MM:SS[.fraction]")
        }
        Kind::Array(item) => {
            let values = serde_json::from_str::<Vec<Value>>(text).map_err(|_| "a JSON array".to_owned())?;
            return values.iter().map(|value| parse_item(item, value)).collect::<Result<_, _>>().map(Datum::List);
        }
        Kind::Map(item) => {
            let members = serde_json::from_str::<Map<String, Value>>(text).map_err(|_| "a JSON object".to_owned())?;
            let entry = |(key, value): (&String, &Value)| Ok((key.clone(), parse_item(item, value)?));
            return members.iter().map(entry).collect::<Result<_, _>>().map(Datum::Entries);
        }
        Kind::Decimal { precision, scale } => {
            return decimal(text, *precision, *scale)
                .map(Datum::Decimal)
                .ok_or_else(|| format!("a decimal of at most {precision} digits, {scale} of them behind the point"));
        }
    };
    datum.ok_or_else(|| expected.to_owned())
}

/// An item of an array or a value of a map, given as JSON.
fn parse_item(item: &Item, value: &Value) -> Result<Datum, Expected> {
    let text = match value {
        Value::Null if item.nullable => return Ok(Datum::Null),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        _ => return Err(format!("items of type {}", item.kind.name())),
    };
    parse_as(&item.kind, &text).map_err(|expected| format!("items that are {expected}"))
}

/// What a time looks like.
const TIME: &str = "a time: RFC 3339, YYYY-MM-DD HH:MM:SS[.fraction] (UTC), or a number since 1970 (up to 11 digits: \
                    seconds, up to 14: milliseconds, up to 17: microseconds)";

/// Reads a time into microseconds since 1970; what is finer is cut off.
///
/// RFC 3339; `YYYY-MM-DD HH:MM:SS` with up to nine digits of fraction, in UTC; or a whole number since 1970, whose unit
/// follows from its digits: up to 11 are seconds, up to 14 milliseconds, up to 17 microseconds.
pub fn parse_time(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = text.parse().ok()?;
        return match digits.len() {
            ..=11 => number.checked_mul(1_000_000),
            12..=14 => number.checked_mul(1_000),
            15..=17 => Some(number),
            _ => None,
        };
    }
    let time = match text.parse::<Timestamp>() {
        Ok(time) => time,
        // Without a zone, and strict about what a date alone would leave open.
        Err(_) if text.len() >= 19 && !text.contains(['[', 'z', 'Z', '+']) => {
            text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp()
        }
        Err(_) => return None,
    };
    i64::try_from(time.as_nanosecond().div_euclid(1_000)).ok()
}

/// Microseconds in the unit of a field.
pub fn in_unit(micros: i64, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Micros => micros,
        TimeUnit::Millis => micros.div_euclid(1_000),
        TimeUnit::Nanos => micros.saturating_mul(1_000),
    }
}

fn since_midnight(text: &str) -> Option<i64> {
    let time = (text.len() >= 8 && text.is_char_boundary(8)).then(|| text.parse::<Time>().ok()).flatten()?;
    let seconds = (i64::from(time.hour()) * 60 + i64::from(time.minute())) * 60 + i64::from(time.second());
    Some(seconds * 1_000_000 + i64::from(time.subsec_nanosecond()) / 1_000)
}

fn days(text: &str) -> Option<i64> {
    let date = (text.len() == 10).then(|| text.parse::<Date>().ok()).flatten()?;
    let midnight = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
    Some(midnight.as_second().div_euclid(86_400))
}

fn decimal(text: &str, precision: u8, scale: u8) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) || digits.ends_with('.') {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let missing = usize::from(scale).checked_sub(fraction.len())?;
    let all = format!("{whole}{fraction}{}", "0".repeat(missing));
    let significant = all.trim_start_matches('0');
    if significant.len() > usize::from(precision) {
        return None;
    }
    let unscaled: i128 = if significant.is_empty() { 0 } else { significant.parse().ok()? };
    Some(if negative { -unscaled } else { unscaled })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn field(kind: Kind, nullable: bool) -> Field {
        Field {
            name: "f".into(),
            path: "f".into(),
            doc: String::new(),
            kind,
            nullable,
            role: None,
            unit: None,
            pii: None,
            price: None,
            examples: Vec::new(),
            range: None,
            otel: None,
        }
    }

    #[test]
    fn times_are_read_to_the_microsecond() {
        let micros = 1_700_158_546_680_590;
        let good = [
            ("2023-11-16 18:15:46.6805900", micros),
            ("2023-11-16 18:15:46.680590999", micros),
            ("2023-11-16T18:15:46.680590Z", micros),
            ("2023-11-16T19:15:46.680590+01:00", micros),
            ("2023-11-16T13:15:46.680590-05:00", micros),
            ("2023-11-16 18:15:46", 1_700_158_546_000_000),
            ("1700158546", 1_700_158_546_000_000),
            ("1700158546680", 1_700_158_546_680_000),
            ("1700158546680590", micros),
            ("-1", -1_000_000),
            ("1969-12-31 23:59:59.9999999", -1),
            ("0", 0),
        ];
        for (text, expected) in good {
            assert_eq!(parse_time(text), Some(expected), "{text}");
        }
        let bad = [
            "",
            "-",
            "now",
            "2023-11-16",
            "2023-11-16 18:15",
            "2023-13-16 18:15:46",
            "2023-11-16 25:15:46",
            "2023-02-29 00:00:00",
            "16.11.2023 18:15:46",
            "1700158546680590000",
            "1700158546.5",
            "2023-11-16 18:15:46.",
            "2023-11-16 18:15:46 Berlin",
            "2023-11-16 18:15:46.1234567890",
        ];
        for text in bad {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn values_are_read_by_the_kind_of_their_field() {
        let decimal = Kind::Decimal { precision: 5, scale: 2 };
        let ints = |nullable| Kind::Array(Box::new(Item { kind: Kind::Int, nullable }));
        let color = Kind::Enum(vec!["red".into(), "green".into()]);
        let good = [
            (Kind::Boolean, "true", Datum::Boolean(true)),
            (Kind::Int, "-5", Datum::Integer(-5)),
            (Kind::Long, "374", Datum::Integer(374)),
            (Kind::Double, "1.5e3", Datum::Float(1500.0)),
            (Kind::String, "", Datum::Text(String::new())),
            (Kind::Bytes, "ab", Datum::Bytes(b"ab".to_vec())),
            (color.clone(), "green", Datum::Symbol(1)),
            (Kind::Date, "1970-01-02", Datum::Integer(1)),
            (Kind::Date, "1969-12-31", Datum::Integer(-1)),
            (Kind::Timestamp(TimeUnit::Millis), "1700158546", Datum::Integer(1_700_158_546_000)),
            (Kind::Timestamp(TimeUnit::Nanos), "1700158546", Datum::Integer(1_700_158_546_000_000_000)),
            (Kind::LocalTimestamp(TimeUnit::Millis), "1970-01-01 00:00:01.5", Datum::Integer(1_500)),
            (Kind::TimeOfDay(TimeUnit::Micros), "01:00:00.000002", Datum::Integer(3_600_000_002)),
            (Kind::TimeOfDay(TimeUnit::Millis), "23:59:59", Datum::Integer(86_399_000)),
            (Kind::Fixed(2), "ab", Datum::Bytes(b"ab".to_vec())),
            (ints(false), "[1, \"2\"]", Datum::List(vec![Datum::Integer(1), Datum::Integer(2)])),
            (ints(true), "[null]", Datum::List(vec![Datum::Null])),
            (
                Kind::Map(Box::new(Item { kind: Kind::String, nullable: false })),
                r#"{"a": "b"}"#,
                Datum::Entries(vec![("a".into(), Datum::Text("b".into()))]),
            ),
            (decimal.clone(), "-123.45", Datum::Decimal(-12_345)),
            (decimal.clone(), "1", Datum::Decimal(100)),
            (decimal.clone(), "0.50000", Datum::Decimal(50)),
            (
                Kind::Uuid,
                "67E55044-10B1-426F-9247-BB680E5FE0C8",
                Datum::Text("67e55044-10b1-426f-9247-bb680e5fe0c8".into()),
            ),
        ];
        for (kind, text, expected) in good {
            assert_eq!(parse(&field(kind, false), text), Ok(expected), "{text}");
        }
        let bad = [
            (Kind::Boolean, "1"),
            (Kind::Int, "2147483648"),
            (Kind::Long, "1.0"),
            (Kind::Long, " 1"),
            (Kind::Long, ""),
            (Kind::Double, "NaN"),
            (Kind::Float, "1e39"),
            (color, "blue"),
            (Kind::Date, "1970-1-2"),
            (decimal.clone(), "1234"),
            (decimal.clone(), "1.234"),
            (decimal.clone(), "1."),
            (decimal.clone(), ".5"),
            (decimal, "--1"),
            (Kind::Uuid, "x"),
            (Kind::LocalTimestamp(TimeUnit::Millis), "1970-01-01T00:00:01Z"),
            (Kind::TimeOfDay(TimeUnit::Millis), "24:00:00"),
            (Kind::TimeOfDay(TimeUnit::Millis), "noon"),
            (Kind::Fixed(2), "abc"),
            (ints(false), "[null]"),
            (ints(false), "[1.5]"),
            (ints(false), "1"),
            (ints(false), "[[1]]"),
        ];
        for (kind, text) in bad {
            assert!(parse(&field(kind.clone(), false), text).is_err(), "{kind:?} {text}");
        }
        assert_eq!(parse(&field(Kind::Long, true), ""), Ok(Datum::Null));
        assert_eq!(parse(&field(Kind::Enum(vec!["a".into(), "b".into()]), false), "c"), Err("one of a, b".into()));
    }
}
