//! A rollup and the columns of its table: what is kept of each series, and how two rows of one series become one.

use crate::columns::ColumnDef;

/// One rollup, resolved against its event type: per minute and series, what its events add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollup {
    /// The view's name, `llm_call_1m`.
    pub name: String,
    /// Which table of that name it is, from 1: a changed `by` needs another table.
    pub version: u32,
    /// Position of its event type in the plan.
    pub event: usize,
    /// What it groups by, `app` first if it is among them.
    pub by: Vec<Dimension>,
    /// What it adds up.
    pub measures: Vec<Measure>,
}

/// A column to group by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimension {
    /// Position in [`crate::columns::Columns::columns`].
    pub column: usize,
    /// Its name.
    pub name: String,
    /// Its comment.
    pub comment: String,
}

/// A column of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    /// Position in [`crate::columns::Columns::columns`].
    pub column: usize,
    /// Its name.
    pub name: String,
    /// Its comment.
    pub comment: String,
    /// What its values are.
    pub number: Number,
    /// Whether its sum is kept.
    pub sum: bool,
    /// Whether its distribution is kept.
    pub distribution: bool,
}

/// What the values of a measure are, and so what holds their sum, least and greatest.
///
/// Types are wide enough that a schema's promotions (`int` to `long`, `float` to `double`) change no column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// `int` and `long`. Summed in 128 bits, which 2⁶⁴ events can't overflow: ClickHouse's sums wrap in silence.
    Integer,
    /// `float` and `double`.
    Float,
    /// `decimal` and costs: exact, of at most 28 digits each, so 10¹⁰ of them add up within 38.
    Decimal {
        /// Digits behind the point.
        scale: u8,
    },
}

/// How ClickHouse makes one row of several with an equal key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Part of the key that views group by: the minute or a dimension.
    Key,
    /// `_source`: part of the key in the table, so that each source keeps its marker row; not in views, where it is
    /// '' in every row.
    Source,
    /// `_through`: the mark, by `max`; not in views.
    Through,
    /// By `sum`.
    Sum,
    /// By `min`, nulls apart.
    Min,
    /// By `max`, nulls apart.
    Max,
    /// By `sumMap`: counts of equal representative values are added.
    SumMap,
}

/// A column of a rollup's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartColumn {
    /// Name, type (`SimpleAggregateFunction` and all), comment.
    pub def: ColumnDef,
    /// How it is merged.
    pub merge: Merge,
}

/// Type of dimensions and `_source`.
pub(super) const LOW_CARDINALITY: &str = "LowCardinality(String)";

impl Number {
    /// Type of its sum.
    fn sum_type(self) -> String {
        match self {
            Number::Integer => "Int128".to_owned(),
            Number::Float => "Float64".to_owned(),
            Number::Decimal { scale } => format!("Decimal(38, {scale})"),
        }
    }

    /// Type of its least and greatest.
    fn value_type(self) -> String {
        match self {
            Number::Integer => "Int64".to_owned(),
            Number::Float | Number::Decimal { .. } => self.sum_type(),
        }
    }
}

impl Rollup {
    /// The name of its table: `{name}_parts`, from the second version on `{name}_v2_parts`.
    pub fn table(&self) -> String {
        parts_name(&self.name, self.version)
    }

    /// The versions before it: the view that each is still read by, and its table.
    pub fn formers(&self) -> Vec<(String, String)> {
        let former = |version| (format!("{}_v{version}", self.name), parts_name(&self.name, version));
        (1..self.version).map(former).collect()
    }

    /// The columns of its table, in the order of a block's: `minute`, dimensions, `_source`, `_through`, `count`, then
    /// per measure those of `x_sum`, `x_min`, `x_max`, `x_missing`, `x_invalid` and `x` (its distribution) that it has.
    pub fn part_columns(&self) -> Vec<PartColumn> {
        let mut columns = vec![column("minute", "DateTime('UTC')", "The minute the events happened in.", Merge::Key)];
        let dimension = |by: &Dimension| column(&by.name, LOW_CARDINALITY, &by.comment, Merge::Key);
        columns.extend(self.by.iter().map(dimension));
        columns.extend([
            column("_source", LOW_CARDINALITY, "The source whose mark this row is; '' for data.", Merge::Source),
            column("_through", &simple("max", "UInt64"), "The source's mark.", Merge::Through),
            column("count", &simple("sum", "UInt64"), "Events.", Merge::Sum),
        ]);
        columns.extend(self.measures.iter().flat_map(Measure::part_columns));
        columns
    }
}

fn parts_name(view: &str, version: u32) -> String {
    if version == 1 { format!("{view}_parts") } else { format!("{view}_v{version}_parts") }
}

impl Measure {
    fn part_columns(&self) -> Vec<PartColumn> {
        let Measure { name, comment, number, .. } = self;
        let named = |suffix: &str, function: &str, of: &str, what: &str, merge: Merge| {
            let comment = format!("{what}{}{comment}", if comment.is_empty() { "" } else { ": " });
            column(&format!("{name}{suffix}"), &simple(function, of), &comment, merge)
        };
        let nullable = format!("Nullable({})", number.value_type());
        let mut columns = Vec::with_capacity(6);
        if self.sum {
            columns.push(named("_sum", "sum", &number.sum_type(), "Sum", Merge::Sum));
        }
        columns.extend([
            named("_min", "min", &nullable, "Least", Merge::Min),
            named("_max", "max", &nullable, "Greatest", Merge::Max),
            named("_missing", "sum", "UInt64", "Events in which it is null", Merge::Sum),
        ]);
        if *number == Number::Float {
            columns.push(named("_invalid", "sum", "UInt64", "Events in which it is NaN or infinite", Merge::Sum));
        }
        if self.distribution {
            let what = "Distribution, as representative values and their counts";
            columns.push(named("", "sumMap", "Tuple(Array(Float64), Array(UInt64))", what, Merge::SumMap));
        }
        columns
    }
}

fn simple(function: &str, of: &str) -> String {
    format!("SimpleAggregateFunction({function}, {of})")
}

fn column(name: &str, clickhouse_type: &str, comment: &str, merge: Merge) -> PartColumn {
    let (name, clickhouse_type, comment) = (name.to_owned(), clickhouse_type.to_owned(), comment.to_owned());
    PartColumn { def: ColumnDef { name, clickhouse_type, comment }, merge }
}
