//! `prices.toml`: what tokens cost, by model, token class and date.
//!
//! ```toml
//! currency = "USD"
//!
//! [[price]]
//! model = "claude-3-5-sonnet-20241022"      # the exact name that events carry
//! aliases = ["claude-3-5-sonnet-latest"]    # other exact names for it
//! from = 2024-10-22                         # in force from 00:00 UTC until the model's next entry
//! input = "3.00"                            # USD per million tokens, at most 6 decimals
//! output = "15.00"
//! cache_read = "0.30"
//! cache_write = "3.75"
//! ```
//!
//! A price of at most 6 decimals per million tokens is a whole number of 10⁻¹² USD per token, so a cost is an exact
//! integer of that unit: `Σ tokens × price × 10⁶`. Where the list can't say what something costs there is no cost
//! (*unpriced*), never 0.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use jiff::{civil, tz::TimeZone};
use serde::Deserialize;

use crate::event::Price;

/// Decimal digits of a cost behind the point.
pub const COST_SCALE: u8 = 12;

/// A cost at or beyond 10¹⁶ USD is refused as garbage; so 10¹⁰ costs add up within the 38 digits of their column.
const COST_LIMIT: i128 = 10_i128.pow(16 + COST_SCALE as u32);

/// Most decimals of a price.
const PRICE_DECIMALS: usize = 6;

/// Most digits of a price before the point: with its decimals it stays within 64 bits.
const PRICE_DIGITS: usize = 12;

/// All prices known. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub struct PriceList {
    /// Position in `tariffs` of each model name and alias.
    models: Arc<HashMap<String, usize>>,
    /// The prices of one name, latest first.
    tariffs: Arc<Vec<Vec<Tariff>>>,
}

/// The prices of a model from a moment on.
#[derive(Debug, Clone)]
struct Tariff {
    /// Microseconds since 1970, UTC.
    from: i64,
    /// 10⁻¹² USD per token, by [`class`].
    prices: [Option<i128>; CLASSES],
}

/// Token classes, disjoint: input, output, cache read, cache write.
const CLASSES: usize = 4;

/// Position of a token class; `None` for what is no token class.
fn class(price: Price) -> Option<usize> {
    match price {
        Price::Model => None,
        Price::Input => Some(0),
        Price::Output => Some(1),
        Price::CacheRead => Some(2),
        Price::CacheWrite => Some(3),
    }
}

/// Why a price list can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// Not TOML, or not the keys of a price list.
    #[error("{file}: not a price list: {error}")]
    Syntax {
        /// The file.
        file: String,
        /// The parser's message, with line and column.
        error: String,
    },
    /// Another currency than the one costs are stored in.
    #[error("{file}: currency: {found:?} can't be used, costs are stored as `cost_usd`; list prices in \"USD\"")]
    Currency {
        /// The file.
        file: String,
        /// The currency found.
        found: String,
    },
    /// One entry is wrong.
    #[error("{file}: [[price]] number {number} (model {model:?}): {what}")]
    Entry {
        /// The file.
        file: String,
        /// Which entry, counted from 1.
        number: usize,
        /// Its model.
        model: String,
        /// What is wrong, where, and what to do.
        what: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    currency: String,
    #[serde(default)]
    price: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    model: String,
    #[serde(default)]
    aliases: Vec<String>,
    from: toml::value::Datetime,
    input: Option<String>,
    output: Option<String>,
    cache_read: Option<String>,
    cache_write: Option<String>,
}

impl PriceList {
    /// Reads a price list; `file` is its name for error messages.
    pub fn parse(file: &str, text: &str) -> Result<PriceList, PriceError> {
        let list: File = toml::from_str(text)
            .map_err(|error| PriceError::Syntax { file: file.to_owned(), error: error.to_string() })?;
        if list.currency != "USD" {
            return Err(PriceError::Currency { file: file.to_owned(), found: list.currency });
        }
        let mut by_name: BTreeMap<String, BTreeMap<i64, Tariff>> = BTreeMap::new();
        for (number, entry) in (1..).zip(&list.price) {
            let wrong = |what| PriceError::Entry { file: file.to_owned(), number, model: entry.model.clone(), what };
            let tariff = entry.tariff().map_err(wrong)?;
            for name in std::iter::once(&entry.model).chain(&entry.aliases) {
                if name.is_empty() {
                    return Err(wrong("a name is empty; give the name that events carry".to_owned()));
                }
                let tariffs = by_name.entry(name.clone()).or_default();
                if tariffs.insert(tariff.from, tariff.clone()).is_some() {
                    let what = format!("{name:?} has a price from {} already; keep one of them", entry.from);
                    return Err(wrong(what));
                }
            }
        }
        let models = by_name.keys().cloned().zip(0..).collect();
        let tariffs = by_name.into_values().map(|dated| dated.into_values().rev().collect()).collect();
        Ok(PriceList { models: Arc::new(models), tariffs: Arc::new(tariffs) })
    }

    /// The cost of `tokens` of a model at a time (microseconds since 1970, UTC) in 10⁻¹² USD.
    ///
    /// `None`, unpriced: the model is not listed; none of its prices is in force yet; tokens of a class without a price;
    /// a negative count; a cost of 10¹⁶ USD or more.
    pub fn cost(&self, model: &str, at_micros: i64, tokens: &[(Price, i64)]) -> Option<i128> {
        self.cost_at(self.model(model)?, at_micros, tokens)
    }

    /// Position of a model's prices.
    pub(super) fn model(&self, name: &str) -> Option<usize> {
        self.models.get(name).copied()
    }

    /// [`PriceList::cost`] with the model looked up already.
    pub(super) fn cost_at(&self, model: usize, at_micros: i64, tokens: &[(Price, i64)]) -> Option<i128> {
        let tariff = self.tariffs.get(model)?.iter().find(|tariff| tariff.from <= at_micros)?;
        let mut cost: i128 = 0;
        for &(price, count) in tokens {
            let class = class(price)?;
            match (count, tariff.prices[class]) {
                (0, _) => {}
                (1.., Some(price)) => cost = cost.checked_add(price.checked_mul(i128::from(count))?)?,
                _ => return None,
            }
        }
        (cost < COST_LIMIT).then_some(cost)
    }
}

impl Entry {
    fn tariff(&self) -> Result<Tariff, String> {
        let classes = [
            ("input", &self.input),
            ("output", &self.output),
            ("cache_read", &self.cache_read),
            ("cache_write", &self.cache_write),
        ];
        let mut prices = [None; CLASSES];
        for (slot, (key, text)) in prices.iter_mut().zip(classes) {
            if let Some(text) = text {
                *slot = Some(millionths(text).map_err(|what| format!("{key}: {text:?} {what}"))?);
            }
        }
        if prices.iter().all(Option::is_none) {
            return Err("no price given; give one of input, output, cache_read, cache_write".to_owned());
        }
        Ok(Tariff { from: midnight(&self.from)?, prices })
    }
}

/// A decimal number of at most 6 decimals, times 10⁶.
fn millionths(text: &str) -> Result<i128, String> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) {
        return Err("is not a price; write USD per million tokens as \"3.00\"".to_owned());
    }
    if decimals.len() > PRICE_DECIMALS {
        return Err(format!("has {} decimals; at most {PRICE_DECIMALS} can be exact", decimals.len()));
    }
    if whole.len() > PRICE_DIGITS {
        return Err(format!("has {} digits before the point; at most {PRICE_DIGITS} can be used", whole.len()));
    }
    let number = format!("{whole}{decimals:0<PRICE_DECIMALS$}");
    number.parse().map_err(|error| format!("is not a price: {error}"))
}

/// A date's first moment, in microseconds since 1970, UTC.
fn midnight(from: &toml::value::Datetime) -> Result<i64, String> {
    let wrong = || format!("from: {from} is not a plain date; write 2025-01-31 (it begins at 00:00 UTC)");
    let (Some(date), None, None) = (from.date, from.time, from.offset) else {
        return Err(wrong());
    };
    civil::Date::new(date.year as i16, date.month as i8, date.day as i8)
        .and_then(|date| date.to_zoned(TimeZone::UTC))
        .map(|midnight| midnight.timestamp().as_microsecond())
        .map_err(|_| wrong())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 86_400_000_000;

    fn list(entries: &str) -> PriceList {
        PriceList::parse("prices.toml", &format!("currency = \"USD\"\n{entries}")).unwrap()
    }

    fn error(text: &str) -> String {
        PriceList::parse("prices.toml", text).unwrap_err().to_string()
    }

    /// Product of two non-negative decimal strings without points, digit by digit.
    fn product(a: &str, b: &str) -> Vec<u32> {
        let mut digits = vec![0; a.len() + b.len()];
        for (i, x) in a.bytes().rev().enumerate() {
            for (j, y) in b.bytes().rev().enumerate() {
                digits[i + j] += u32::from(x - b'0') * u32::from(y - b'0');
            }
        }
        digits
    }

    /// The cost in 10⁻¹² USD as decimal digits, by schoolbook arithmetic.
    fn schoolbook(terms: &[(String, usize, i64)]) -> String {
        let mut total = vec![0_u32; 60];
        for (digits, decimals, tokens) in terms {
            let scaled = format!("{digits}{}", "0".repeat(6 - decimals));
            for (sum, digit) in total.iter_mut().zip(product(&scaled, &tokens.to_string())) {
                *sum += digit;
            }
        }
        for at in 0..total.len() - 1 {
            total[at + 1] += total[at] / 10;
            total[at] %= 10;
        }
        let text: String = total.iter().rev().map(u32::to_string).collect();
        let text = text.trim_start_matches('0');
        if text.is_empty() { "0".to_owned() } else { text.to_owned() }
    }

    proptest! {
        #[test]
        fn cost_is_exact(
            prices in prop::array::uniform4((0_u64..1_000_000_000, 0_usize..=6)),
            tokens in prop::array::uniform4(prop_oneof![0_i64..10, 0_i64..2_000_000_000]),
        ) {
            let classes = [Price::Input, Price::Output, Price::CacheRead, Price::CacheWrite];
            let keys = ["input", "output", "cache_read", "cache_write"];
            let mut text = "[[price]]\nmodel = \"m\"\nfrom = 1970-01-01\n".to_owned();
            let (mut terms, mut counts) = (Vec::new(), Vec::new());
            for (at, (number, decimals)) in prices.into_iter().enumerate() {
                let digits = format!("{number:0>7}");
                let (whole, fraction) = digits.split_at(digits.len() - decimals);
                let point = if decimals > 0 { "." } else { "" };
                text += &format!("{} = \"{whole}{point}{fraction}\"\n", keys[at]);
                terms.push((digits.clone(), decimals, tokens[at]));
                counts.push((classes[at], tokens[at]));
            }
            let cost = list(&text).cost("m", 0, &counts).unwrap();
            prop_assert_eq!(cost.to_string(), schoolbook(&terms));
        }
    }

    #[test]
    fn a_cost_worked_out_by_hand() {
        let list = list(
            "[[price]]\nmodel = \"sonnet\"\nfrom = 2024-01-01\ninput = \"3\"\noutput = \"15.00\"\ncache_read = \"0.30\"",
        );
        let tokens = [(Price::Input, 1_234), (Price::Output, 567), (Price::CacheRead, 89), (Price::CacheWrite, 0)];
        // 1234 × 3 + 567 × 15 + 89 × 0.3 = 12,233.7 millionths of a dollar
        assert_eq!(list.cost("sonnet", 20_000 * DAY, &tokens), Some(12_233_700_000));
        assert_eq!(list.cost("sonnet", 20_000 * DAY, &[]), Some(0), "no tokens of a listed model cost nothing");
    }

    #[test]
    fn a_price_holds_from_its_date_until_the_next() {
        let list = list(
            "[[price]]\nmodel = \"m\"\naliases = [\"m-latest\"]\nfrom = 2025-03-01\ninput = \"2\"\n\
             [[price]]\nmodel = \"m\"\nfrom = 2024-03-01\ninput = \"1\"",
        );
        let (old, new) = (19_783 * DAY, 20_148 * DAY);
        let cost = |model, at| list.cost(model, at, &[(Price::Input, 1)]);
        assert_eq!(cost("m", old - 1), None);
        assert_eq!(cost("m", old), Some(1_000_000));
        assert_eq!(cost("m", new - 1), Some(1_000_000));
        assert_eq!(cost("m", new), Some(2_000_000));
        assert_eq!(cost("m", i64::MAX), Some(2_000_000));
        assert_eq!(cost("m", i64::MIN), None);
        assert_eq!(cost("m-latest", new - 1), None, "an alias has only the prices of entries that list it");
        assert_eq!(cost("m-latest", new), Some(2_000_000));
    }

    #[test]
    fn what_the_list_does_not_say_is_unpriced() {
        let list = list("[[price]]\nmodel = \"m\"\nfrom = 2024-01-01\ninput = \"3\"\noutput = \"0\"");
        let cost = |model, tokens: &[(Price, i64)]| list.cost(model, 20_000 * DAY, tokens);
        for unknown in ["", "M", "m ", "m-2024", "gpt"] {
            assert_eq!(cost(unknown, &[(Price::Input, 0)]), None, "{unknown:?}");
        }
        assert_eq!(cost("m", &[(Price::Input, 1), (Price::CacheRead, 1)]), None, "a class without a price");
        assert_eq!(cost("m", &[(Price::Input, 1), (Price::CacheRead, 0)]), Some(3_000_000));
        assert_eq!(cost("m", &[(Price::Output, 7)]), Some(0), "listed as free");
        assert_eq!(cost("m", &[(Price::Input, -1)]), None);
        assert_eq!(cost("m", &[(Price::Input, 5), (Price::Output, -5)]), None);
        assert_eq!(cost("m", &[(Price::Model, 1)]), None);
        assert_eq!(PriceList::default().cost("m", 20_000 * DAY, &[]), None);
    }

    #[test]
    fn a_cost_beyond_all_reason_is_unpriced() {
        let list = list("[[price]]\nmodel = \"m\"\nfrom = 2024-01-01\ninput = \"999999999999.999999\"");
        let cost = |tokens| list.cost("m", 20_000 * DAY, &[(Price::Input, tokens)]);
        assert_eq!(cost(10_000_000_000), Some(9_999_999_999_999_999_990_000_000_000));
        assert_eq!(cost(10_000_000_001), None);
        assert_eq!(cost(i64::MAX), None);
        assert_eq!(list.cost("m", 20_000 * DAY, &[(Price::Input, i64::MAX); 40]), None);
    }

    #[test]
    fn errors_name_file_entry_and_key() {
        let entry = "currency = \"USD\"\n[[price]]\nmodel = \"m\"\nfrom = 2024-01-01\n";
        let first = "prices.toml: [[price]] number 1 (model \"m\"): ";
        for (line, what) in [
            ("input = \"3.0000001\"", "input: \"3.0000001\" has 7 decimals; at most 6 can be exact"),
            ("output = \"1234567890123\"", "output: \"1234567890123\" has 13 digits before the point"),
            ("input = \"-1\"", "input: \"-1\" is not a price"),
            ("input = \"+1\"", "input: \"+1\" is not a price"),
            ("input = \"1e3\"", "input: \"1e3\" is not a price"),
            ("input = \"\"", "input: \"\" is not a price"),
            ("input = \".5\"", "input: \".5\" is not a price"),
            ("input = \"5.\"", "input: \"5.\" is not a price"),
            ("input = \" 5\"", "input: \" 5\" is not a price"),
            ("input = \"1.2.3\"", "input: \"1.2.3\" is not a price"),
            ("input = \"١\"", "input: \"١\" is not a price"),
            ("", "no price given; give one of input, output, cache_read, cache_write"),
            ("aliases = [\"m\"]\ninput = \"1\"", "\"m\" has a price from 2024-01-01 already"),
            ("aliases = [\"\"]\ninput = \"1\"", "a name is empty"),
        ] {
            let found = error(&format!("{entry}{line}"));
            assert!(found.starts_with(&format!("{first}{what}")), "{found}");
        }
        let twice = format!("{entry}input = \"1\"\n[[price]]\nmodel = \"m\"\nfrom = 2024-01-01\ninput = \"2\"");
        assert!(error(&twice).starts_with("prices.toml: [[price]] number 2 (model \"m\"): \"m\" has a price"));
        let time = entry.replace("2024-01-01", "2024-01-01T10:00:00Z") + "input = \"1\"";
        assert!(error(&time).contains("from: 2024-01-01T10:00:00Z is not a plain date"), "{}", error(&time));
    }

    #[test]
    fn errors_of_the_file_name_line_and_key() {
        for (text, parts) in [
            ("", ["missing field `currency`", ""]),
            ("currency = \"EUR\"", ["currency: \"EUR\" can't be used", "USD"]),
            ("currency = \"USD\"\n[[prices]]", ["unknown field `prices`", "line 2"]),
            ("currency = \"USD\"\n[[price]]\nfrom = 2024-01-01", ["missing field `model`", "line 2"]),
            ("currency = \"USD\"\n[[price]]\nmodel = \"m\"", ["missing field `from`", ""]),
            ("currency = \"USD\"\n[[price]]\nmodel = \"m\"\nfrom = 2024-02-30", ["line 4", ""]),
            ("currency = \"USD\"\n[[price]]\nmodel = \"m\"\nfrom = \"2024-02-03\"", ["line 4", "datetime"]),
            ("currency = \"USD\"\n[[price]]\nmodel = \"m\"\nfrom = 2024-01-01\ninput = 3.0", ["line 5", "string"]),
            ("currency = \"USD\"\n[[price]]\nmodel = \"m\"\nfrom = 2024-01-01\ninputs = \"3\"", ["`inputs`", "line 5"]),
            ("currency = ", ["line 1", ""]),
        ] {
            let found = error(text);
            assert!(found.starts_with("prices.toml: "), "{found}");
            assert!(parts.iter().all(|part| found.contains(part)), "{parts:?} not in {found}");
        }
    }

    #[test]
    fn shipped_prices_are_valid() {
        let list = PriceList::parse("prices.toml", include_str!("../../prices.toml")).unwrap();
        let cost =
            |model, class| list.cost(model, 20_089 * DAY, &[(class, 1_000_000)]).map(|cost| cost / 10_i128.pow(10));
        for (model, input, output) in [("haiku", 80, 400), ("sonnet", 300, 1_500), ("opus", 1_500, 7_500)] {
            assert_eq!(cost(model, Price::Input), Some(input), "{model}: cents per million");
            assert_eq!(cost(model, Price::Output), Some(output), "{model}: cents per million");
        }
        assert_eq!(cost("gpt-4o", Price::Input), Some(250));
    }
}
