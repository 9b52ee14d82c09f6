//! Values of an event on their way into a message: generated, or read from a file.

mod default;
mod encode;
mod parse;

use serde_json::{Value, json};

use crate::event::{Field, Kind};

pub use default::defaults;
pub use encode::encode;
pub use parse::{in_unit, parse, parse_time};

/// One value. Which variant a field takes follows from its kind, null apart.
#[derive(Debug, Clone, PartialEq)]
pub enum Datum {
    /// Null, where the field allows it.
    Null,
    /// `boolean`
    Boolean(bool),
    /// `int`, `long`, `date` (days since 1970), timestamps (in the field's unit since 1970) and times of day (since
    /// midnight).
    Integer(i64),
    /// `float` and `double`
    Float(f64),
    /// `string`, also as a UUID
    Text(String),
    /// `bytes` and `fixed`
    Bytes(Vec<u8>),
    /// `enum`: the symbol's position
    Symbol(usize),
    /// `decimal`: the value times 10 to its scale
    Decimal(i128),
    /// `array`
    List(Vec<Datum>),
    /// `map`
    Entries(Vec<(String, Datum)>),
}

impl Datum {
    /// As JSON: integers and timestamps as the numbers in the message, a decimal as exact text, bytes in hexadecimal.
    pub fn json(&self, field: &Field) -> Value {
        self.json_of(&field.kind)
    }

    fn json_of(&self, kind: &Kind) -> Value {
        match (self, kind) {
            (Datum::Null, _) => Value::Null,
            (Datum::Boolean(value), _) => json!(value),
            (Datum::Integer(value), _) => json!(value),
            // What is written is what the message holds: a float's value, not the double it was made of.
            (Datum::Float(value), Kind::Float) => json!(*value as f32),
            (Datum::Float(value), _) => json!(value),
            (Datum::Text(text), _) => json!(text),
            (Datum::Bytes(bytes), _) => json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
            (Datum::Symbol(at), Kind::Enum(symbols)) => json!(symbols.get(*at)),
            (Datum::Decimal(unscaled), Kind::Decimal { scale, .. }) => json!(decimal_text(*unscaled, *scale)),
            (Datum::List(items), Kind::Array(item)) => items.iter().map(|value| value.json_of(&item.kind)).collect(),
            (Datum::Entries(entries), Kind::Map(item)) => {
                entries.iter().map(|(key, value)| (key.clone(), value.json_of(&item.kind))).collect()
            }
            (Datum::Symbol(_) | Datum::Decimal(_) | Datum::List(_) | Datum::Entries(_), _) => Value::Null,
        }
    }
}

/// An unscaled decimal as text: -1234 with scale 3 is `-1.234`.
fn decimal_text(unscaled: i128, scale: u8) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_exactly() {
        for (unscaled, scale, expected) in [
            (0, 0, "0"),
            (5, 0, "5"),
            (-1234, 3, "-1.234"),
            (7, 9, "0.000000007"),
            (-10, 1, "-1.0"),
            (1000, 3, "1.000"),
        ] {
            assert_eq!(decimal_text(unscaled, scale), expected);
        }
    }
}
