//! Event types as the truth knows them: which columns to hold against it, and bytes → values by apache-avro.

use std::collections::BTreeMap;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;

const PRICES: &str = include_str!("../../prices.toml");
/// The four token classes, in the order of the price list's.
const TOKENS: [&str; 4] = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"];

/// An event type and what its rollup holds.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its name, which is its table's; the rollup is `{name}_1m`.
    pub name: &'static str,
    pub schema: &'static str,
    /// Dimensions of the rollup.
    pub by: &'static [&'static str],
    /// Integer measures that it sums.
    pub sums: &'static [&'static str],
    /// Measures that it has distributions of.
    pub distributions: &'static [&'static str],
    /// Whether its tokens cost money.
    pub priced: bool,
}

pub const LLM_CALL: Kind = Kind {
    name: "llm_call",
    schema: include_str!("../../schemas/llm_call.avsc"),
    by: &["app", "environment", "provider", "model", "operation", "status"],
    sums: &["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "retries"],
    distributions: &["latency_ms", "time_to_first_token_ms", "input_tokens", "output_tokens"],
    priced: true,
};

impl Kind {
    /// By which messages name it.
    pub fn fingerprint(&self) -> [u8; 8] {
        // Held against the specification's own by the unit tests of schemas.
        let event = highwater::event::EventType::parse(&format!("{}.avsc", self.name), self.schema).unwrap();
        event.fingerprint.to_le_bytes()
    }
}

/// What a message says, as far as the tables are held against it.
pub struct Event {
    pub id: String,
    pub micros: i64,
    pub by: Vec<String>,
    pub sums: Vec<i128>,
    pub distributions: Vec<Option<f64>>,
    /// In 1e-12 USD; `None`: unpriced.
    pub cost: Option<i128>,
}

/// Reads messages of one kind.
pub struct Reader<'s> {
    pub kind: Kind,
    pub fingerprint: [u8; 8],
    inner: GenericDatumReader<'s>,
    prices: BTreeMap<String, [Option<i128>; 4]>,
}

impl<'s> Reader<'s> {
    pub fn new(kind: Kind, schema: &'s apache_avro::Schema) -> Reader<'s> {
        let inner = GenericDatumReader::builder(schema).build().unwrap();
        Reader { kind, fingerprint: kind.fingerprint(), inner, prices: prices() }
    }

    /// The event, if the bytes behind the fingerprint are exactly one.
    pub fn read(&self, body: &[u8]) -> Option<Event> {
        // The library takes the end of a message that was cut for nulls; it must not have read into this.
        const BEYOND: [u8; 64] = [0; 64];
        let padded = [body, &BEYOND].concat();
        let mut rest = padded.as_slice();
        let Value::Record(fields) = self.inner.read_value(&mut rest).ok()? else { return None };
        if rest.len() != BEYOND.len() {
            return None;
        }
        let field = |name: &str| &fields.iter().find(|(found, _)| found == name).unwrap().1;
        let texts = |names: &[&str]| names.iter().map(|name| text(field(name))).collect::<Vec<_>>();
        let cost = self.kind.priced.then(|| {
            let price = self.prices.get(&text(field("model")))?;
            // Tokens of a class that has no price are not free.
            let cost = |(price, class): (&Option<i128>, &str)| match integer(field(class)) {
                0 => Some(0),
                tokens => price.map(|price| price * tokens),
            };
            price.iter().zip(TOKENS).map(cost).sum::<Option<i128>>()
        });
        Some(Event {
            id: text(field("event_id")),
            micros: integer(field("occurred_at")) as i64,
            by: texts(self.kind.by),
            sums: self.kind.sums.iter().map(|name| integer(field(name))).collect(),
            distributions: self.kind.distributions.iter().map(|name| number(field(name))).collect(),
            cost: cost.flatten(),
        })
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) | Value::Enum(_, text) => text.clone(),
        Value::Uuid(id) => id.to_string(),
        // A null dimension is the empty string.
        Value::Union(_, inner) if **inner == Value::Null => String::new(),
        Value::Union(_, inner) => text(inner),
        other => panic!("no text: {other:?}"),
    }
}

fn integer(value: &Value) -> i128 {
    match value {
        Value::Long(number) | Value::TimestampMicros(number) => i128::from(*number),
        Value::Int(number) => i128::from(*number),
        other => panic!("no integer: {other:?}"),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Null => None,
        Value::Double(number) => Some(*number),
        Value::Union(_, inner) => number(inner),
        other => Some(integer(other) as f64),
    }
}

/// Micro-dollars per million tokens (so 1e-12 USD per token) of each model now: input, output, cache read, cache write.
fn prices() -> BTreeMap<String, [Option<i128>; 4]> {
    let list: toml::Value = toml::from_str(PRICES).unwrap();
    let mut found = BTreeMap::new();
    for entry in list["price"].as_array().unwrap() {
        let micro = |class: &str| {
            let text = entry.get(class)?.as_str()?;
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            Some(format!("{whole}{fraction:0<6}").parse::<i128>().unwrap())
        };
        let price = ["input", "output", "cache_read", "cache_write"].map(micro);
        let aliases = entry.get("aliases").and_then(toml::Value::as_array).into_iter().flatten();
        for model in std::iter::once(&entry["model"]).chain(aliases) {
            // Later entries of a model are later prices; all of the file's are in force today.
            found.insert(model.as_str().unwrap().to_owned(), price);
        }
    }
    found
}
