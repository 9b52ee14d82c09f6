//! The plans that workers run under, and the tables of both under one name.
//!
//! The second plan has one rollup more, so its tables have other numbers. A worker knows tables by its plan's numbers,
//! the server by their names.

use std::sync::{Arc, OnceLock};

use highwater::plan::{Limits, Plan, Sources, TableId};

/// Offsets within which an equal id is a duplicate.
pub const HORIZON: u64 = 5;
pub const LATENESS_MS: i64 = 30_000;
pub const MAX_SKEW_MS: i64 = 600_000;
pub const MAX_AGE_MS: i64 = 90 * 86_400_000;

/// Every table of either plan; a place in it is the table's number on the server.
pub const TABLES: [&str; 6] =
    ["tick", "tock", "tick_1m_parts", "tock_1m_parts", "tick_by_environment_1m_parts", "dead_letters"];
/// The ledger's number, behind those.
pub const LEDGER: usize = TABLES.len();
/// The table that only the second plan has.
pub const ADDED: u8 = 4;
pub const DEAD_LETTERS: u8 = 5;

/// The plan that can read the letters too.
pub const MENDED: usize = 2;

/// Whether a table holds events of a type, or (`None`) dead letters.
pub fn holds(table: u8, kind: Option<usize>) -> bool {
    match kind {
        Some(0) => matches!(table, 0 | 2 | ADDED),
        Some(_) => matches!(table, 1 | 3),
        None => table == DEAD_LETTERS,
    }
}

pub fn is_rollup(table: u8) -> bool {
    matches!(table, 2..=ADDED)
}

/// The table whose rows a rollup counts.
pub fn raw_of(rollup: u8) -> u8 {
    if rollup == ADDED { 0 } else { rollup - 2 }
}

/// A plan and the server's numbers of its tables.
#[derive(Debug)]
pub struct Planned {
    pub plan: Arc<Plan>,
    numbers: Vec<u8>,
    ids: [Option<TableId>; TABLES.len()],
}

impl Planned {
    fn new(packs: &str, schema: &str) -> Planned {
        let schemas = ["tick", "tock"].map(|name| (format!("{name}.avsc"), schema.replace("NAME", name)));
        let sources = Sources {
            schemas: schemas.to_vec(),
            packs: vec![("ticks.toml".to_owned(), packs.to_owned())],
            ..Sources::default()
        };
        let limits = Limits {
            horizon: HORIZON,
            max_skew_ms: MAX_SKEW_MS,
            max_age_ms: MAX_AGE_MS,
            lateness_ms: LATENESS_MS,
            max_series: 1_000,
        };
        let plan = Plan::compile(&sources, limits).unwrap_or_else(|errors| panic!("{errors:?}"));
        let number = |name: &str| TABLES.iter().position(|table| *table == name).expect("a table of the list") as u8;
        let numbers = plan.tables.iter().map(|table| number(&table.name)).collect();
        let ids = TABLES.map(|name| plan.table_named(name));
        Planned { plan: Arc::new(plan), numbers, ids }
    }

    /// The server's number of a table.
    pub fn number(&self, id: TableId) -> u8 {
        self.numbers[usize::from(id.0)]
    }

    /// The plan's number of a table, if it has it.
    pub fn id(&self, number: u8) -> Option<TableId> {
        self.ids[usize::from(number)]
    }
}

/// The old plan and the new one of workers, and the one that letters are redriven with.
pub fn plans() -> &'static [Planned; 3] {
    static PLANS: OnceLock<[Planned; 3]> = OnceLock::new();
    PLANS.get_or_init(|| {
        let (end, mended) = ("\n  ]}", format!("{NOTE}\n  ]}}"));
        let added = format!("{PACK}{ADDED_ROLLUP}");
        [Planned::new(PACK, SCHEMA), Planned::new(&added, SCHEMA), Planned::new(PACK, &SCHEMA.replace(end, &mended))]
    })
}

const SCHEMA: &str = r#"{
  "type": "record", "name": "NAME", "doc": "a test event", "fields": [
    {"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}, "doc": "id", "highwater": {"role": "id"}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "doc": "time",
     "highwater": {"role": "time"}},
    {"name": "app", "type": "string", "doc": "app", "highwater": {"role": "dimension"}},
    {"name": "environment", "type": "string", "doc": "environment", "highwater": {"role": "dimension"}},
    {"name": "amount", "type": "long", "doc": "amount", "highwater": {"role": "measure", "unit": "tokens"}}
  ]}"#;

/// The field that the schema of letters has more.
const NOTE: &str = r#",
    {"name": "note", "type": "string", "doc": "note", "default": ""}"#;

const PACK: &str = r#"
[[rollup]]
event = "tick"
by = ["app"]
sum = ["amount"]
"#;

const ADDED_ROLLUP: &str = r#"
[[rollup]]
event = "tick"
name = "tick_by_environment_1m"
by = ["app", "environment"]
sum = ["amount"]
"#;
