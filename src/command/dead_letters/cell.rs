//! A value of a column, in words.

use crate::columns::{Column, Values};

/// The value of a row, as ClickHouse would say it; 'null' where there is none.
pub(super) fn text(column: &Column, row: usize) -> String {
    if column.is_null(row) {
        return "null".to_owned();
    }
    let kind = column.clickhouse_type.trim_start_matches("Nullable(");
    match &column.values {
        Values::UInt8(values) if kind.starts_with("Bool") => at(values, row, |value| (value != 0).to_string()),
        Values::UInt8(values) => at(values, row, |value| value.to_string()),
        Values::UInt32(values) => at(values, row, |value| value.to_string()),
        Values::UInt64(values) => at(values, row, |value| value.to_string()),
        Values::Int32(values) if kind.starts_with("Date32") => at(values, row, date),
        Values::Int32(values) => at(values, row, |value| value.to_string()),
        Values::Int64(values) => match kind.strip_prefix("DateTime64(").and_then(|rest| rest.chars().next()) {
            Some(digits) => at(values, row, |value| time(value, digits.to_digit(10).unwrap_or(0))),
            None => at(values, row, |value| value.to_string()),
        },
        Values::Float32(values) => at(values, row, |value| value.to_string()),
        Values::Float64(values) => at(values, row, |value| value.to_string()),
        Values::Int128(values) => {
            let scale = kind.split([',', ')']).nth(1).and_then(|scale| scale.trim().parse().ok()).unwrap_or(0);
            at(values, row, |value| decimal(value, scale))
        }
        Values::Uuid(values) => at(values, row, uuid),
        Values::String(values) => format!("{:?}", String::from_utf8_lossy(values.get(row))),
        Values::LowCardinality(values) => format!("{:?}", values.get(row)),
        Values::Distributions(values) => format!("{:?}", values.get(row)),
        Values::Nested(values) => {
            let item = |item| values.columns.iter().map(|column| text(column, item)).collect::<Vec<_>>().join(": ");
            format!("[{}]", values.row(row).map(item).collect::<Vec<_>>().join(", "))
        }
    }
}

fn at<T: Copy>(values: &[T], row: usize, text: impl Fn(T) -> String) -> String {
    values.get(row).map_or_else(String::new, |value| text(*value))
}

/// A time in units of `10^-digits` seconds since 1970.
fn time(value: i64, digits: u32) -> String {
    let unit = 10_i128.pow(9_u32.saturating_sub(digits));
    let shown = jiff::Timestamp::from_nanosecond(i128::from(value) * unit);
    shown.map_or_else(|_| value.to_string(), |time| time.to_string())
}

fn date(days: i32) -> String {
    let second = i64::from(days) * 86_400;
    let shown = jiff::Timestamp::from_second(second).map(|time| time.to_zoned(jiff::tz::TimeZone::UTC).date());
    shown.map_or_else(|_| days.to_string(), |date| date.to_string())
}

fn decimal(value: i128, scale: usize) -> String {
    if scale == 0 {
        return value.to_string();
    }
    let digits = format!("{:0>width$}", value.unsigned_abs().to_string(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{}{whole}.{fraction}", if value < 0 { "-" } else { "" })
}

fn uuid(value: u128) -> String {
    let hex = format!("{value:032x}");
    let [a, b, c, d, e] = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    format!("{a}-{b}-{c}-{d}-{e}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::{Nested, Strings};

    fn column(kind: &str, values: Values) -> Column {
        Column { name: "c".to_owned(), clickhouse_type: kind.to_owned(), values, nulls: None }
    }

    #[test]
    fn values_are_said_as_clickhouse_says_them() {
        let mut strings = Strings::default();
        strings.push(b"it's \"\n");
        for (kind, values, said) in [
            ("Bool", Values::UInt8(vec![1]), "true"),
            ("DateTime64(3, 'UTC')", Values::Int64(vec![1_738_324_800_250]), "2025-01-31T12:00:00.25Z"),
            ("DateTime64(9, 'UTC')", Values::Int64(vec![-1]), "1969-12-31T23:59:59.999999999Z"),
            ("Nullable(DateTime64(6, 'UTC'))", Values::Int64(vec![i64::MAX]), "9223372036854775807"),
            ("Int64", Values::Int64(vec![-7]), "-7"),
            ("Date32", Values::Int32(vec![-1]), "1969-12-31"),
            ("Nullable(Decimal(38, 12))", Values::Int128(vec![-1_500_000_000]), "-0.001500000000"),
            ("Decimal(5, 0)", Values::Int128(vec![42]), "42"),
            (
                "UUID",
                Values::Uuid(vec![0x6f1f_7a5e_2d52_4b5b_9c58_0a7e_5f3c_1d2b]),
                "6f1f7a5e-2d52-4b5b-9c58-0a7e5f3c1d2b",
            ),
            ("Float64", Values::Float64(vec![f64::NAN]), "NaN"),
            ("String", Values::String(strings), r#""it's \"\n""#),
            (
                "Array(Int32)",
                Values::Nested(Nested { ends: vec![2], columns: vec![column("Int32", Values::Int32(vec![1, 2]))] }),
                "[1, 2]",
            ),
        ] {
            assert_eq!(text(&column(kind, values), 0), said, "{kind}");
        }
    }

    #[test]
    fn a_null_and_a_row_that_is_not_there_are_no_values() {
        let null = Column { nulls: Some(vec![1]), ..column("Nullable(Int64)", Values::Int64(vec![0])) };
        assert_eq!((text(&null, 0).as_str(), text(&null, 5).as_str()), ("null", ""));
    }
}
