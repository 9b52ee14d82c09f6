//! The plan: schemas, packs and prices, compiled into what every message is put through.
//!
//! Two workers with equal plans write equal rows for equal bytes; the ledger names the plan of each batch by its hash.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::alert::{self, Rules};
use crate::batch::Reason;
use crate::columns::Decoder;
use crate::event::{EventType, RESERVED_TABLES, SchemaError};
use crate::rollup::{self, Metric, Pack, PackError, PriceError, PriceList, Pricer, Resolved, Rollup};

/// Position of a table in [`Plan::tables`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u16);

/// A table that batches write to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name in ClickHouse.
    pub name: String,
    /// What is in it.
    pub kind: TableKind,
}

/// What a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// Events of the type at this position of [`Plan::types`].
    Raw(usize),
    /// Partial aggregates of the rollup at this position of [`Plan::rollups`].
    Rollup(usize),
    /// Messages that could not be read.
    DeadLetters,
}

/// An event type with its compiled decoder.
#[derive(Debug, Clone)]
pub struct PlannedType {
    /// As its schema declares it.
    pub event: EventType,
    /// Its schema, compiled.
    pub decoder: Decoder,
    /// Its prices, compiled; `None`: it costs nothing.
    pub pricer: Option<Pricer>,
    /// Its table.
    pub table: TableId,
    /// Positions in [`Plan::rollups`] of the rollups over it.
    pub rollups: Vec<usize>,
}

/// What decides which events are kept. Times in milliseconds; all judged against the record's own timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Offsets within which an equal id is a duplicate.
    pub horizon: u64,
    /// How far an event's time may lie ahead of its record's timestamp.
    pub max_skew_ms: i64,
    /// How far it may lie behind.
    pub max_age_ms: i64,
    /// How far behind the greatest event time an event still counts as in time.
    pub lateness_ms: i64,
    /// Series a rollup block may have before the rest goes to `__other__`.
    pub max_series: usize,
}

impl Limits {
    /// Whether an event of `time` microseconds may stand in a record of `timestamp_ms`. Judged against the record and
    /// not the clock, so that a replay judges alike.
    pub fn judge(&self, time: i64, timestamp_ms: i64) -> Result<(), Reason> {
        let time_ms = time.div_euclid(1_000);
        if timestamp_ms <= 0 {
            return Ok(()); // a record without a timestamp says nothing about its event
        }
        if time_ms > timestamp_ms.saturating_add(self.max_skew_ms) {
            return Err(Reason::Future { time_ms, timestamp_ms, limit_ms: self.max_skew_ms });
        }
        if time_ms < timestamp_ms.saturating_sub(self.max_age_ms) {
            return Err(Reason::TooOld { time_ms, timestamp_ms, limit_ms: self.max_age_ms });
        }
        Ok(())
    }
}

/// A file's name and text.
pub type Text = (String, String);

/// What a plan is made of.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Sources {
    /// `schemas/*.avsc`.
    pub schemas: Vec<Text>,
    /// `schemas/former/*.avsc`: what messages were written with before, and some producers still write.
    pub former: Vec<Text>,
    /// `packs/*.toml`.
    pub packs: Vec<Text>,
    /// `prices.toml`, if there is one.
    pub prices: Option<Text>,
    /// Whether messages may name their schema by an id of a schema registry.
    pub registry: bool,
}

/// Everything that decides what is written for an event.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Event types.
    pub types: Vec<PlannedType>,
    /// Rollups.
    pub rollups: Vec<Rollup>,
    /// Metrics over them: views, which decide nothing of what is written.
    pub metrics: Vec<Metric>,
    /// Alerts and budgets over them, which decide nothing of it either.
    pub alerts: Rules,
    /// All tables that batches write to.
    pub tables: Vec<Table>,
    /// The table of each of `rollups`.
    pub rollup_tables: Vec<TableId>,
    /// The table of dead letters.
    pub dead_letters: TableId,
    /// Limits.
    pub limits: Limits,
    /// SHA-256 over schemas, former ones too, packs, prices, limits and whether there is a registry, hexadecimal, first 16 digits.
    pub hash: String,
    /// What it was compiled from.
    pub sources: Sources,
    by_fingerprint: BTreeMap<u64, usize>,
    formers: Formers,
}

/// By their fingerprints: former schemas, each with the position of the event type and what reads its messages as that.
type Formers = BTreeMap<u64, (usize, Decoder)>;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A schema can't be used.
    #[error("{0}")]
    Schema(#[from] SchemaError),
    /// A pack can't be used.
    #[error("{0}")]
    Pack(#[from] PackError),
    /// The prices can't be used.
    #[error("{0}")]
    Price(#[from] PriceError),
    /// Two schemas declare one event type.
    #[error("{second}: declares the event type {name}, as {first} does already; remove or rename one of them")]
    SameType {
        /// Record name.
        name: String,
        /// First file.
        first: String,
        /// Second file.
        second: String,
    },
    /// A former schema can't be read.
    #[error("{file}: {problem}")]
    Former {
        /// Its file.
        file: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// No schema at all.
    #[error("there is no event type: put at least one .avsc into the schemas' folder")]
    NoTypes,
    /// A name is taken.
    #[error("the table name {0} is used twice, or is one of highwater's own; rename the event type or the rollup")]
    TableName(String),
}

impl PlanError {
    fn is_of_schema(&self, file: &str) -> bool {
        matches!(self, PlanError::Schema(error) if error.file == file)
    }
}

impl Plan {
    /// Compiles schemas, packs and prices, or says everything that is wrong with them.
    pub fn compile(sources: &Sources, limits: Limits) -> Result<Plan, Vec<PlanError>> {
        let mut errors = Vec::new();
        let parsed = collect(&sources.schemas, &mut errors, |file, text| -> Result<_, SchemaError> {
            Ok((file.to_owned(), EventType::parse(file, text)?))
        });
        let packs = collect(&sources.packs, &mut errors, Pack::parse);
        let prices = collect(&sources.prices.clone().into_iter().collect::<Vec<_>>(), &mut errors, |file, text| {
            PriceList::parse(file, text)
        });
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        let mut events: Vec<EventType> = Vec::new();
        for (second, event) in parsed {
            match files.get(&event.name) {
                Some(first) => errors.push(PlanError::SameType { name: event.name, first: first.clone(), second }),
                None => {
                    files.insert(event.name.clone(), second);
                    events.push(event);
                }
            }
        }
        if sources.schemas.is_empty() {
            errors.push(PlanError::NoTypes);
        }
        let formers = formers(sources, &events, &mut errors);
        if !errors.is_empty() {
            let more = beside(&errors, sources, &packs, &events);
            errors.extend(more);
            return Err(errors);
        }
        let told = |errors: Vec<PackError>| errors.into_iter().map(PlanError::Pack).collect::<Vec<_>>();
        let resolved = rollup::resolve(&packs, &events).map_err(told)?;
        let alerts = alert::resolve(&packs, &events, &resolved.rollups, &resolved.metrics).map_err(told)?;
        let prices = prices.into_iter().next().unwrap_or_default();
        Plan::assemble((events, formers), (resolved, alerts), &prices, limits, sources)
    }

    fn assemble(
        (events, formers): (Vec<EventType>, Formers),
        (Resolved { rollups, metrics }, alerts): (Resolved, Rules),
        prices: &PriceList,
        limits: Limits,
        sources: &Sources,
    ) -> Result<Plan, Vec<PlanError>> {
        let mut tables: Vec<Table> = Vec::new();
        let mut add = |name: String, kind| {
            tables.push(Table { name, kind });
            TableId((tables.len() - 1) as u16)
        };
        let mut types = Vec::new();
        for (index, event) in events.into_iter().enumerate() {
            let over = |(position, rollup): (usize, &Rollup)| (rollup.event == index).then_some(position);
            types.push(PlannedType {
                decoder: Decoder::compile(&event),
                pricer: Pricer::new(prices, &event),
                table: add(event.name.clone(), TableKind::Raw(index)),
                rollups: rollups.iter().enumerate().filter_map(over).collect(),
                event,
            });
        }
        let rollup_tables =
            (rollups.iter().enumerate()).map(|(index, rollup)| add(rollup.table(), TableKind::Rollup(index))).collect();
        let dead_letters = add("dead_letters".to_owned(), TableKind::DeadLetters);
        let mut errors = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let taken = tables[..index].iter().any(|other| other.name == table.name)
                || rollups.iter().any(|rollup| rollup.name == table.name)
                || (table.kind != TableKind::DeadLetters && RESERVED_TABLES.contains(&table.name.as_str()));
            if taken {
                errors.push(PlanError::TableName(table.name.clone()));
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let by_fingerprint =
            types.iter().enumerate().map(|(index, planned)| (planned.event.fingerprint, index)).collect();
        let (hash, sources) = (hash(sources, &limits), sources.clone());
        Ok(Plan {
            types,
            rollups,
            metrics,
            alerts,
            tables,
            rollup_tables,
            dead_letters,
            limits,
            hash,
            sources,
            by_fingerprint,
            formers,
        })
    }

    /// The event type of a schema fingerprint, present or former, and what reads its messages.
    pub fn reader_of(&self, fingerprint: u64) -> Option<(usize, &Decoder)> {
        match self.by_fingerprint.get(&fingerprint) {
            Some(&event) => Some((event, &self.types[event].decoder)),
            None => self.formers.get(&fingerprint).map(|(event, decoder)| (*event, decoder)),
        }
    }

    /// The event type that a writer's record of that full name is of: by the name without its namespace, or by an alias.
    pub fn type_written_as(&self, full_name: &str) -> Option<usize> {
        self.types.iter().position(|planned| answers_to(&planned.event, full_name))
    }

    /// A table by its id.
    pub fn table(&self, id: TableId) -> &Table {
        &self.tables[usize::from(id.0)]
    }

    /// A table by its name in ClickHouse.
    pub fn table_named(&self, name: &str) -> Option<TableId> {
        self.tables.iter().position(|table| table.name == name).map(|index| TableId(index as u16))
    }
}

fn answers_to(event: &EventType, full_name: &str) -> bool {
    event.schema.record().is_some_and(|(record, _)| record.answers_to(full_name))
}

/// The former schemas, each by the type that it is of now: by the record's name or an alias.
fn formers(sources: &Sources, events: &[EventType], errors: &mut Vec<PlanError>) -> Formers {
    let parse =
        |file: &str, text: &str| -> Result<_, SchemaError> { Ok((file.to_owned(), EventType::parse(file, text)?)) };
    let mut found = Formers::new();
    for (file, former) in collect(&sources.former, errors, parse) {
        let full_name = former.schema.record().map_or("", |(record, _)| record.name.as_str());
        let Some(event) = events.iter().position(|event| answers_to(event, full_name)) else {
            // It may be of one that can't be read itself.
            if events.len() == sources.schemas.len() {
                let problem = format!(
                    "it is a former schema of `{full_name}`, which none describes now; give the one that took its place that \
                     name or an alias, or take the file away"
                );
                errors.push(PlanError::Former { file, problem });
            }
            continue;
        };
        match Decoder::resolve(&former.json, &events[event]) {
            Ok(decoder) => drop(found.insert(former.fingerprint, (event, decoder))),
            Err(error) => errors.push(PlanError::Former { file, problem: error.to_string() }),
        }
    }
    found
}

/// What is wrong with packs beside `errors`, so that it is told in the same breath, without what merely follows from them.
fn beside(errors: &[PlanError], sources: &Sources, packs: &[Pack], events: &[EventType]) -> Vec<PlanError> {
    if events.is_empty() {
        return Vec::new();
    }
    let is_unread = |file: &str| errors.iter().any(|error| error.is_of_schema(file));
    let unread = sources.schemas.iter().filter(|(file, _)| is_unread(file));
    let unread: Vec<String> = unread.flat_map(|(file, text)| names_in(file, text)).collect();
    let whole = packs.len() == sources.packs.len();
    rollup::judge(packs, events, &unread, whole).into_iter().map(PlanError::Pack).collect()
}

/// What the event type of a schema that can't be read may be called: its file's name, and every name in it.
fn names_in(file: &str, json: &str) -> Vec<String> {
    let stem = Path::new(file).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let parts: Vec<&str> = json.split('"').collect();
    let named = parts.windows(3).filter(|window| window[0] == "name" && window[1].trim() == ":");
    let unqualified = named.map(|window| window[2].rsplit('.').next().unwrap_or_default().to_owned());
    unqualified.chain(stem).collect()
}

fn collect<T, E: Into<PlanError>>(
    texts: &[Text],
    errors: &mut Vec<PlanError>,
    parse: impl Fn(&str, &str) -> Result<T, E>,
) -> Vec<T> {
    let mut parsed = Vec::new();
    for (file, text) in texts {
        match parse(file, text) {
            Ok(value) => parsed.push(value),
            Err(error) => errors.push(error.into()),
        }
    }
    parsed
}

/// Names a plan by its texts, whatever their files are called.
fn hash(sources: &Sources, limits: &Limits) -> String {
    let mut hasher = Sha256::new();
    for (kind, texts) in [("schema", &sources.schemas), ("former", &sources.former), ("pack", &sources.packs)] {
        for (_, text) in texts {
            hasher.update(format!("{kind} {}\n{text}\n", text.len()));
        }
    }
    if let Some((_, text)) = &sources.prices {
        hasher.update(format!("prices {}\n{text}\n", text.len()));
    }
    hasher.update(format!("{limits:?}"));
    if sources.registry {
        hasher.update("registry");
    }
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
