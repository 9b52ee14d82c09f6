//! What an annotated Avro schema says: an [`EventType`] and its fields.

use super::avro::Schema;
use super::kind::Kind;
use crate::columns::ColumnDef;

/// The column that holds what an event cost, of priced types.
pub const COST_COLUMN: &str = "cost_usd";

/// The ClickHouse type of [`COST_COLUMN`]: US dollars, null where the model has no price.
pub const COST_TYPE: &str = "Nullable(Decimal(38, 12))";

/// One event type, as its annotated schema declares it.
#[derive(Debug, Clone)]
pub struct EventType {
    /// The record's name; also the name of its ClickHouse table.
    pub name: String,
    /// The record's documentation.
    pub doc: String,
    /// CRC-64-AVRO (Rabin) of the parsing canonical form: what a single-object header carries.
    pub fingerprint: u64,
    /// The fields that have a column, in the schema's order; those of a nested record stand in its place.
    pub fields: Vec<Field>,
    /// Index of the one field with role `id`.
    pub id: usize,
    /// Index of the one field with role `time`.
    pub time: usize,
    /// The schema's JSON text, as read.
    pub json: String,
    /// The schema as a tree.
    pub(crate) schema: Schema,
}

/// One field of an event.
#[derive(Debug, Clone)]
pub struct Field {
    /// The column's name: the Avro name, for a field of a nested record behind the record's and `_`.
    pub name: String,
    /// The Avro names from the outermost record inwards, with points between them.
    pub path: String,
    /// Documentation, also the column's comment.
    pub doc: String,
    /// What its values are.
    pub kind: Kind,
    /// Whether it may be null, by its own type or as a field of a record that may be null.
    pub nullable: bool,
    /// What the field is for.
    pub role: Option<Role>,
    /// Unit of a measure: `ms`, `tokens`, `USD`, `bytes` …
    pub unit: Option<String>,
    /// That its values are personal data, and what is asked to become of them.
    pub pii: Option<Pii>,
    /// What the field is to the price list.
    pub price: Option<Price>,
    /// Values that a dimension takes, for the demo generator; one that is repeated is as much more frequent.
    pub examples: Vec<String>,
    /// Plausible 1st and 99th percentile of a measure, for the demo generator.
    pub range: Option<[f64; 2]>,
    /// The OpenTelemetry attribute that says the same, for documentation.
    pub otel: Option<String>,
}

/// What a field is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Names the event; equal ids within the duplicates window are one event.
    Id,
    /// When the event happened.
    Time,
    /// Whom it concerns: a user or an installation.
    Subject,
    /// The session it belongs to.
    Session,
    /// A low-cardinality string or enum to group by. Null is stored as ''.
    Dimension,
    /// A number to sum or to take percentiles of.
    Measure,
}

/// That a field holds personal data. Its values are stored as they come, whatever is asked for: who must not have them stored
/// does not send them. They are withheld where dead letters are shown decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pii {
    /// Asks for a pseudonym in their place. Nothing puts one there.
    Pseudonymize,
    /// Asks that they are not kept. They are, but no rollup may group by them or add them up.
    Drop,
}

/// What a field is to the price list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Price {
    /// The name that prices are listed under.
    Model,
    /// Uncached input tokens.
    Input,
    /// Output tokens.
    Output,
    /// Input tokens read from a cache.
    CacheRead,
    /// Input tokens written to a cache.
    CacheWrite,
}

impl EventType {
    /// The columns of its table: its fields in order, then [`COST_COLUMN`] for a priced type. `_source` and `_offset`,
    /// which every table has, are not among them.
    pub fn columns(&self) -> Vec<ColumnDef> {
        let mut columns: Vec<ColumnDef> = self.fields.iter().map(Field::column).collect();
        if self.is_priced() {
            columns.push(ColumnDef {
                name: COST_COLUMN.to_owned(),
                clickhouse_type: COST_TYPE.to_owned(),
                comment: "What the tokens cost by the price list; null where the model has no price. [USD]".to_owned(),
            });
        }
        columns
    }

    /// Whether its events cost money: it names a model and counts tokens of at least one class.
    pub fn is_priced(&self) -> bool {
        let has = |wanted: fn(Price) -> bool| self.fields.iter().filter_map(|field| field.price).any(wanted);
        has(|price| price == Price::Model) && has(|price| price != Price::Model)
    }

    /// The position of a field by its name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }
}

impl Field {
    /// Whether its column is a `LowCardinality(String)`, where null is ''.
    pub fn is_low_cardinality(&self) -> bool {
        self.role == Some(Role::Dimension) || self.kind.is_enum()
    }

    /// Whether its column is `Nullable`. A null dimension or enum is '', a null array or map is empty.
    pub fn is_nullable_column(&self) -> bool {
        self.nullable && !self.is_low_cardinality() && self.kind.has_null()
    }

    fn column(&self) -> ColumnDef {
        let inner =
            if self.is_low_cardinality() { "LowCardinality(String)".to_owned() } else { self.kind.clickhouse() };
        let clickhouse_type = if self.is_nullable_column() { format!("Nullable({inner})") } else { inner };
        let comment = match self.unit.as_deref().or(self.kind.implied_unit()) {
            Some(unit) => format!("{} [{unit}]", self.doc).trim_start().to_owned(),
            None => self.doc.clone(),
        };
        ColumnDef { name: self.name.clone(), clickhouse_type, comment }
    }
}
