//! The question before and after every batch: how far has each source come, in the ledger and in each table and month, and
//! is the topic still in the epoch that was claimed?
//!
//! One query answers for all sources and tables. It reads little however long the tables are: the ledger and the raw
//! tables by a projection that keeps one row per part, source and month, the rollups by their primary key, which the
//! marker rows stand at the beginning of.

use std::collections::{BTreeMap, BTreeSet};

use super::insert::mark_name;
use super::sql::{ident, literal, literals, table};
use super::tables::{LEDGER, LEDGER_ENDS, SOURCES, time_column};
use super::{ddl, error::QueryError};
use crate::batch::{Key, Month, Source};
use crate::event::{EventType, Kind};
use crate::plan::{Plan, TableId, TableKind};
use crate::ports::{Connection, LedgerEnd, Marks, Question};

/// Settings beside those of every question. It reads next to nothing of each part, so that what it costs is how: handing
/// each read to another thread, and each column in turn, was a third of its processor time.
pub(super) const SETTINGS: [(&str, &str); 2] =
    [("local_filesystem_read_method", "pread"), ("optimize_move_to_prewhere", "0")];

/// Answers in columns: what it is (`epoch`, `end`, `mark`, `recorded`), source (or topic), table, month or name, value.
pub(super) fn question(questions: &[Question], plan: &Plan, database: &str) -> String {
    let sources: BTreeSet<String> = questions.iter().map(|question| question.source.to_string()).collect();
    let sources = literals(&sources);
    let topics: BTreeSet<&str> = questions.iter().map(|question| &*question.source.topic).collect();
    let epochs = format!(
        "SELECT 'epoch' AS what, topic AS source, '' AS place, toUInt64(max(epoch)) AS value FROM {} WHERE topic IN ({}) \
         GROUP BY topic",
        table(database, SOURCES),
        literals(&topics)
    );
    let mut parts = vec![
        epochs,
        format!(
            "SELECT 'end' AS what, `source` AS source, '' AS place, max(`to`) AS value FROM {} WHERE `source` IN ({sources}) \
         GROUP BY `source`",
            table(database, LEDGER)
        ),
    ];
    let recorded = questions.iter().filter(|question| question.recorded).map(|question| question.source.to_string());
    let recorded: BTreeSet<String> = recorded.collect();
    if !recorded.is_empty() {
        parts.push(format!(
            "SELECT 'recorded' AS what, s AS source, pair.1 AS place, pair.2 AS value FROM (SELECT `source` AS s, \
             {LEDGER_ENDS} AS marks FROM {} WHERE `source` IN ({}) GROUP BY `source`) ARRAY JOIN \
             CAST(marks, 'Array(Tuple(String, UInt64))') AS pair",
            table(database, LEDGER),
            literals(&recorded)
        ));
    }
    let mut months: BTreeMap<TableId, BTreeSet<Month>> = BTreeMap::new();
    for key in questions.iter().flat_map(|question| &question.keys) {
        months.entry(key.table).or_default().insert(key.month);
    }
    parts.extend(months.iter().map(|(&id, months)| in_table(plan, id, months, &sources, database)));
    format!("{}\nFORMAT TSV", parts.join("\nUNION ALL\n"))
}

/// The marks of one table: one past the greatest offset of each source and month.
fn in_table(plan: &Plan, id: TableId, months: &BTreeSet<Month>, sources: &str, database: &str) -> String {
    let planned = plan.table(id);
    let (time, mark, narrow) = match planned.kind {
        TableKind::Raw(index) => (time_column(&plan.types[index].event), "max(`_offset`) + 1", String::new()),
        TableKind::DeadLetters => ("timestamp", "max(`_offset`) + 1", String::new()),
        TableKind::Rollup(index) => ("minute", "max(`_through`)", markers(&plan.rollups[index], months)),
    };
    let month = ddl::month(time);
    let wanted = months.iter().map(Month::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "SELECT 'mark' AS what, `_source` AS source, concat('{}/', toString({month})) AS place, {mark} AS value FROM {} \
         WHERE `_source` IN ({sources}) AND {month} IN ({wanted}){narrow} GROUP BY `_source`, {month}",
        id.0,
        table(database, &planned.name)
    )
}

/// Narrows to where the marker rows are, by the primary key: all dimensions '', the first minute of the month. As a hint for
/// the index alone, since only marker rows have a source: the columns of the dimensions are not read for it.
fn markers(rollup: &crate::rollup::Rollup, months: &BTreeSet<Month>) -> String {
    let minutes: Vec<String> =
        months.iter().map(|month| format!("toDateTime({}, 'UTC')", month.start_seconds())).collect();
    let mut place = format!("minute IN ({})", minutes.join(", "));
    for by in &rollup.by {
        place.push_str(&format!(" AND {} = ''", ident(&by.name)));
    }
    format!(" AND indexHint({place})")
}

/// Reads the answer to [`question`]: one [`Marks`] per question, in order.
pub(super) fn answer(
    text: &[u8],
    questions: &[Question],
    plan: &Plan,
    connection: Connection,
) -> Result<Vec<Marks>, QueryError> {
    let text = String::from_utf8_lossy(text);
    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    let mut epochs: BTreeMap<&str, u32> = BTreeMap::new();
    let mut found: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    for line in text.lines() {
        let unexpected = || QueryError::Unexpected { expected: "a mark", answer: line.to_owned() };
        let fields: Vec<&str> = line.split('\t').collect();
        let [what, source, place, value] = fields[..] else { return Err(unexpected()) };
        let value: u64 = value.parse().map_err(|_| unexpected())?;
        match what {
            "end" => drop(ends.insert(source, value)),
            "epoch" => drop(epochs.insert(source, u32::try_from(value).map_err(|_| unexpected())?)),
            _ => drop(found.insert((what, source, place), value)),
        }
    }
    let marks = |question: &Question| {
        let source = question.source.to_string();
        let look = |what, place: String| found.get(&(what, source.as_str(), place.as_str())).copied();
        let mark = |&key: &Key| look("mark", format!("{}/{}", key.table.0, key.month)).map(|mark| (key, mark));
        let (end, epoch) = (ends.get(source.as_str()), epochs.get(&*question.source.topic));
        let mut ledger = LedgerEnd { end: end.copied(), epoch: epoch.copied(), ..LedgerEnd::default() };
        if question.recorded {
            let of_source = found.iter().filter(|((what, of, _), _)| *what == "recorded" && *of == source);
            ledger.recorded = of_source.filter_map(|((_, _, place), &mark)| Some((key(place, plan)?, mark))).collect();
        }
        Marks { connection, ledger, marks: question.keys.iter().filter_map(mark).collect() }
    };
    Ok(questions.iter().map(marks).collect())
}

/// The key that a mark's name in the ledger stands for; `None`: its table is no longer in the plan.
fn key(name: &str, plan: &Plan) -> Option<Key> {
    let (table, month) = name.rsplit_once('/')?;
    let key = Key { table: plan.table_named(table)?, month: Month(month.parse().ok()?) };
    debug_assert_eq!(mark_name(table, key.month), name);
    Some(key)
}

/// An event's id in hexadecimal, as an expression over its raw row.
pub(super) fn id_hex(event: &EventType) -> String {
    let field = &event.fields[event.id];
    let id = ident(&field.name);
    match field.kind {
        // A UUID's text without its dashes is its 128 bits.
        Kind::Uuid => format!("replaceAll(toString({id}), '-', '')"),
        _ => format!("hex({id})"),
    }
}

/// Asks for the ids of a source's raw rows with offsets in `[from, to)`, those of redriven letters included: offset, event
/// type, id in hexadecimal.
pub(super) fn ids_question(source: &Source, from: u64, to: u64, plan: &Plan, database: &str) -> String {
    let Source { epoch, topic, partition, .. } = source;
    let own = format!("`_source` = {}", literal(&source.to_string()));
    let (life, place) = (literal(&format!("{epoch}r")), literal(&format!("/{topic}/{partition}")));
    let redriven = format!("startsWith(`_source`, {life}) AND endsWith(`_source`, {place})");
    let of_type = |(index, planned): (usize, &crate::plan::PlannedType)| {
        format!(
            "SELECT `_offset` AS o, {index} AS kind, {hex} AS id FROM {} WHERE ({own} OR {redriven}) AND `_offset` >= {from} \
             AND `_offset` < {to}",
            table(database, &planned.event.name),
            hex = id_hex(&planned.event)
        )
    };
    let parts: Vec<String> = plan.types.iter().enumerate().map(of_type).collect();
    format!("SELECT o, kind, id FROM ({}) ORDER BY o FORMAT TSV", parts.join(" UNION ALL "))
}

/// Reads the answer to [`ids_question`]: offset, event type, and the id as the decoder makes it.
pub(super) fn ids_answer(text: &[u8], plan: &Plan) -> Result<Vec<(u64, usize, u128)>, QueryError> {
    let text = String::from_utf8_lossy(text);
    let row = |line: &str| {
        let mut fields = line.split('\t');
        let offset = fields.next()?.parse().ok()?;
        let index: usize = fields.next()?.parse().ok()?;
        let (hex, event) = (fields.next()?, &plan.types.get(index)?.event);
        let id = match event.fields[event.id].kind {
            Kind::Uuid => u128::from_str_radix(hex, 16).ok()?,
            // As `columns::Row::id` defines it.
            _ => cityhash_rs::cityhash_110_128(&bytes_of_hex(hex)?),
        };
        Some((offset, index, id))
    };
    let unexpected = |line: &str| QueryError::Unexpected { expected: "an event's id", answer: line.to_owned() };
    text.lines().map(|line| row(line).ok_or_else(|| unexpected(line))).collect()
}

fn bytes_of_hex(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
