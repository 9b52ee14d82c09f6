//! The types that settings have: what is accepted, how it is read, and how documentation names it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use config::{Value, ValueKind};

/// A type that a setting can have.
pub(super) trait Setting: Sized {
    /// What is accepted, as the predicate of "allowed is …".
    const ALLOWED: &'static str;
    /// Whether it holds a secret: never shown, and taken from the environment only.
    const SECRET: bool = false;

    /// Reads it; `None` where the value is not of this type. `text` allows numbers and lists to be written as text, as
    /// the environment and the command line can't do otherwise.
    fn read(value: &Value, text: bool) -> Option<Self>;
}

/// The text of a value that is written as text everywhere.
pub(super) fn text_of(value: &Value) -> Option<&str> {
    match &value.kind {
        ValueKind::String(text) => Some(text.trim()),
        _ => None,
    }
}

impl Setting for String {
    const ALLOWED: &'static str = "a text that is not empty";

    fn read(value: &Value, _: bool) -> Option<Self> {
        text_of(value).filter(|text| !text.is_empty()).map(str::to_owned)
    }
}

/// A text that may be left empty.
impl Setting for Option<String> {
    const ALLOWED: &'static str = "a text, or \"\" for none";

    fn read(value: &Value, _: bool) -> Option<Self> {
        text_of(value).map(|text| (!text.is_empty()).then(|| text.to_owned()))
    }
}

impl Setting for PathBuf {
    const ALLOWED: &'static str = "a path";

    fn read(value: &Value, _: bool) -> Option<Self> {
        String::read(value, false).map(PathBuf::from)
    }
}

/// A path that may be left empty.
impl Setting for Option<PathBuf> {
    const ALLOWED: &'static str = "a path, or \"\" for none";

    fn read(value: &Value, _: bool) -> Option<Self> {
        text_of(value).map(|text| (!text.is_empty()).then(|| PathBuf::from(text)))
    }
}

/// An address to listen on; `None`: nowhere.
impl Setting for Option<SocketAddr> {
    const ALLOWED: &'static str =
        "an IP address and a port such as \"0.0.0.0:9464\" or \"[::1]:9464\", or \"\" for none";

    fn read(value: &Value, _: bool) -> Option<Self> {
        match text_of(value)? {
            "" => Some(None),
            address => address.parse().ok().map(Some),
        }
    }
}

impl Setting for u64 {
    const ALLOWED: &'static str = "a whole number";

    fn read(value: &Value, text: bool) -> Option<Self> {
        match &value.kind {
            ValueKind::I64(number) => u64::try_from(*number).ok(),
            ValueKind::String(number) if text => parse_digits(number.trim()),
            _ => None,
        }
    }
}

impl Setting for Vec<String> {
    const ALLOWED: &'static str = "a list of at least one text (in the environment: separated by commas)";

    fn read(value: &Value, text: bool) -> Option<Self> {
        let items: Vec<String> = match &value.kind {
            ValueKind::Array(items) => {
                items.iter().map(|item| text_of(item).map(str::to_owned)).collect::<Option<_>>()?
            }
            ValueKind::String(list) if text => list.split(',').map(|item| item.trim().to_owned()).collect(),
            _ => return None,
        };
        (!items.is_empty() && items.iter().all(|item| !item.is_empty())).then_some(items)
    }
}

/// Units of time, longest first, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of size in bytes.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn parse_digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Splits `5s` into its number and its unit, and what follows.
fn quantity(text: &str) -> Option<(u64, &str, &str)> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = text.split_at(unit_at);
    let rest_at = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(rest_at);
    Some((parse_digits(number)?, unit, rest))
}

/// Reads a duration such as `5s`, `10m` or `1h30m`: whole numbers, each with a unit (d, h, m, s, ms), longest first.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (mut total, mut rest, mut units) = (0_u64, text, TIME_UNITS.as_slice());
    while !rest.is_empty() {
        let (number, unit, after) = quantity(rest)?;
        let at = units.iter().position(|(name, _)| *name == unit)?;
        total = total.checked_add(number.checked_mul(units.get(at)?.1)?)?;
        units = units.get(at + 1..)?;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

impl Setting for Duration {
    const ALLOWED: &'static str = "a duration such as \"500ms\", \"5s\", \"10m\", \"1h30m\" or \"30d\"";

    fn read(value: &Value, _: bool) -> Option<Self> {
        parse_duration(text_of(value)?)
    }
}

/// Days that something is kept; 0: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepDays(pub u32);

impl KeepDays {
    /// As a duration; `None`: for ever.
    pub fn duration(self) -> Option<Duration> {
        (self.0 > 0).then(|| Duration::from_secs(u64::from(self.0) * 86_400))
    }
}

impl Setting for KeepDays {
    const ALLOWED: &'static str = "whole days such as \"730d\", or \"0\" to keep it for ever";

    fn read(value: &Value, _: bool) -> Option<Self> {
        let text = text_of(value)?;
        let days = parse_digits(text.strip_suffix('d').unwrap_or(text))?;
        // Zero days would delete all; a number without unit could be anything.
        if (days == 0) == text.ends_with('d') {
            return None;
        }
        u32::try_from(days).ok().map(KeepDays)
    }
}

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl Setting for ByteSize {
    const ALLOWED: &'static str = "a size such as \"512KiB\", \"64MiB\" or \"2GiB\"";

    fn read(value: &Value, _: bool) -> Option<Self> {
        let (number, unit, rest) = quantity(text_of(value)?)?;
        let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
        if rest.is_empty() { number.checked_mul(*bytes).map(ByteSize) } else { None }
    }
}

/// A password: never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Secret(secret.into())
    }

    /// The secret itself, to be sent to the server it belongs to.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(secret)" })
    }
}

impl Setting for Secret {
    const ALLOWED: &'static str = "a text";
    const SECRET: bool = true;

    fn read(value: &Value, _: bool) -> Option<Self> {
        match &value.kind {
            ValueKind::String(secret) => Some(Secret(secret.clone())),
            _ => None,
        }
    }
}

/// Properties handed to librdkafka by name. Those that hold secrets are not shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Properties(pub BTreeMap<String, Property>);

/// The value of a property, and whether it stood where others can read it: in a file or on the command line.
#[derive(Clone, PartialEq, Eq)]
pub struct Property {
    /// As librdkafka takes it.
    pub value: String,
    /// Not from the environment.
    pub exposed: bool,
}

impl Properties {
    /// Whether the value of this property must not be shown: passwords, client secrets, private keys and tokens.
    pub fn is_secret(name: &str) -> bool {
        let parts = ["password", "passphrase", "secret", "key", "token", "jaas", "oauthbearer.config"];
        parts.iter().any(|part| name.contains(part)) && !name.ends_with(".location") && !name.ends_with(".file")
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self
            .0
            .iter()
            .map(|(name, held)| (name, if Properties::is_secret(name) { "(secret)" } else { held.value.as_str() }));
        f.debug_map().entries(shown).finish()
    }
}

impl Setting for Properties {
    const ALLOWED: &'static str = "a table of librdkafka's properties: texts, whole numbers and booleans by name";

    fn read(value: &Value, _: bool) -> Option<Self> {
        let mut found = BTreeMap::new();
        flatten("", value, &mut found)?;
        let property = |rank, value| Property { value, exposed: rank != FROM_ENVIRONMENT };
        Some(Properties(found.into_iter().map(|(name, (rank, text))| (name, property(rank, text))).collect()))
    }
}

/// Rank of the environment among sources: the flag is nearer, a file is not.
const FROM_ENVIRONMENT: u8 = 1;

/// Collects `a.b.c = value` however deep it is nested: TOML nests unquoted names with points, and so do environment
/// variables. Where one name is found in two spellings, the nearer source wins, as everywhere.
fn flatten(prefix: &str, value: &Value, found: &mut BTreeMap<String, (u8, String)>) -> Option<()> {
    let text = match &value.kind {
        ValueKind::Table(table) => {
            for (name, inner) in table {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, inner, found)?;
            }
            return Some(());
        }
        ValueKind::String(text) => text.clone(),
        ValueKind::I64(number) => number.to_string(),
        ValueKind::Boolean(flag) => flag.to_string(),
        _ => return None,
    };
    if prefix.is_empty() {
        return None;
    }
    let rank = match value.origin() {
        Some(super::FLAG) => 2,
        Some(super::ENVIRONMENT) => FROM_ENVIRONMENT,
        _ => 0,
    };
    match found.get(prefix) {
        Some((nearer, _)) if *nearer > rank => {}
        _ => {
            found.insert(prefix.to_owned(), (rank, text));
        }
    }
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::new(None, text)
    }

    #[test]
    fn durations_are_read_strictly() {
        let good = [
            ("0s", 0),
            ("500ms", 500),
            ("5s", 5_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
        ];
        for (written, millis) in good {
            assert_eq!(parse_duration(written), Some(Duration::from_millis(millis)), "{written}");
        }
        let bad = [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "+5s",
            "1.5h",
            "5S",
            "5sec",
            "5s1m",
            "5s5s",
            "1h30",
            "99999999999999999999s",
            "300000000000000000d",
            "٣s",
        ];
        for written in bad {
            assert_eq!(parse_duration(written), None, "{written}");
        }
    }

    #[test]
    fn sizes_are_read_strictly() {
        for (written, bytes) in [("0B", 0), ("1KiB", 1024), ("64MiB", 67_108_864), ("2GiB", 2_147_483_648)] {
            assert_eq!(ByteSize::read(&text(written), false), Some(ByteSize(bytes)), "{written}");
        }
        for written in ["", "64", "64MB", "64 MiB", "64mib", "1.5GiB", "-1B", "1GiB1MiB", "99999999999999GiB"] {
            assert_eq!(ByteSize::read(&text(written), false), None, "{written}");
        }
    }

    #[test]
    fn days_are_whole_and_0_is_for_ever() {
        for (written, days) in [("0", 0), ("1d", 1), ("730d", 730)] {
            assert_eq!(KeepDays::read(&text(written), false), Some(KeepDays(days)), "{written}");
        }
        for written in ["", "d", "0d", "730", "1h", "1.5d", "-1d", "1d1d", "99999999999d"] {
            assert_eq!(KeepDays::read(&text(written), false), None, "{written}");
        }
    }

    #[test]
    fn a_number_as_text_is_for_the_environment_only() {
        assert_eq!(u64::read(&text("5"), true), Some(5));
        assert_eq!(u64::read(&text("5"), false), None);
        for written in ["", "-5", "+5", "5.0", "0x5", "five"] {
            assert_eq!(u64::read(&text(written), true), None, "{written}");
        }
        assert_eq!(u64::read(&Value::new(None, -5_i64), false), None);
    }

    #[test]
    fn lists_have_no_empty_items() {
        assert_eq!(Vec::<String>::read(&text("a, b"), true), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(Vec::<String>::read(&text("a"), false), None);
        for written in ["", "a,", ",a", "a,,b"] {
            assert_eq!(Vec::<String>::read(&text(written), true), None, "{written}");
        }
        assert_eq!(Vec::<String>::read(&Value::new(None, Vec::<String>::new()), false), None);
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "(secret)");
        let properties = [("sasl.password", "hunter2"), ("ssl.key.pem", "hunter3"), ("ssl.key.location", "/key")];
        let held = |value: &str| Property { value: value.to_owned(), exposed: false };
        let properties = Properties(properties.map(|(name, value)| (name.to_owned(), held(value))).into());
        let shown = format!("{properties:?}");
        assert!(!shown.contains("hunter") && shown.contains("/key"), "{shown}");
    }
}
