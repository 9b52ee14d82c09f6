//! Event types and empty columns for this room's tests.
#![allow(clippy::unwrap_used)]

use crate::columns::{Column, Columns, LowCardinality, Strings, Values};
use crate::event::EventType;

/// A priced event type with the fields of a model call.
pub(super) fn llm_call() -> EventType {
    event(
        "llm_call",
        r#"
        {"name": "provider", "type": ["null", "string"], "default": null, "highwater": {"role": "dimension"}},
        {"name": "model", "type": "string", "highwater": {"role": "dimension", "price": "model"}},
        {"name": "operation", "type": "string", "highwater": {"role": "dimension"}},
        {"name": "status", "type": {"type": "enum", "name": "status", "symbols": ["ok", "error"]},
         "highwater": {"role": "dimension"}},
        {"name": "user", "type": "string", "highwater": {"role": "subject"}},
        {"name": "input_tokens", "type": "long", "highwater": {"role": "measure", "unit": "tokens", "price": "input"}},
        {"name": "output_tokens", "type": ["null", "long"], "highwater": {"role": "measure", "price": "output"}},
        {"name": "cache_read_tokens", "type": ["null", "int"], "highwater": {"role": "measure", "price": "cache_read"}},
        {"name": "cache_write_tokens", "type": ["null", "int"], "highwater": {"role": "measure", "price": "cache_write"}},
        {"name": "latency_ms", "type": "double", "doc": "Whole call.", "highwater": {"role": "measure", "unit": "ms"}},
        {"name": "time_to_first_token_ms", "type": ["null", "double"], "highwater": {"role": "measure", "unit": "ms"}},
        {"name": "retries", "type": "int", "highwater": {"role": "measure"}}"#,
    )
}

/// An event type with a measure of every kind.
pub(super) fn probe() -> EventType {
    event(
        "probe",
        r#"
        {"name": "region", "type": ["null", "string"], "highwater": {"role": "dimension"}},
        {"name": "secret", "type": "string", "highwater": {"role": "dimension", "pii": "drop"}},
        {"name": "flag", "type": "boolean"},
        {"name": "small", "type": ["null", "int"], "highwater": {"role": "measure"}},
        {"name": "large", "type": "long", "highwater": {"role": "measure"}},
        {"name": "single", "type": ["null", "float"], "highwater": {"role": "measure"}},
        {"name": "real", "type": "double", "highwater": {"role": "measure", "unit": "ms"}},
        {"name": "money", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 28, "scale": 4}],
         "highwater": {"role": "measure"}},
        {"name": "huge", "type": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 4}},
        {"name": "hidden", "type": "long", "highwater": {"role": "measure", "pii": "drop"}}"#,
    )
}

/// An event type with these fields beside those that every event has.
pub(super) fn event(name: &str, fields: &str) -> EventType {
    let json = format!(
        r#"{{"type": "record", "name": "{name}", "fields": [
        {{"name": "event_id", "type": {{"type": "string", "logicalType": "uuid"}}, "highwater": {{"role": "id"}}}},
        {{"name": "occurred_at", "type": {{"type": "long", "logicalType": "timestamp-micros"}},
          "highwater": {{"role": "time"}}}},
        {{"name": "environment", "type": "string", "highwater": {{"role": "dimension"}}}},
        {{"name": "app", "type": "string", "highwater": {{"role": "dimension"}}}},
        {fields}]}}"#
    );
    EventType::parse("test.avsc", &json).unwrap()
}

/// No rows of a type.
pub(super) fn empty(event: &EventType) -> Columns {
    let column = |def: crate::columns::ColumnDef| {
        let inner = def.clickhouse_type.strip_prefix("Nullable(").and_then(|inner| inner.strip_suffix(')'));
        let values = match inner.unwrap_or(&def.clickhouse_type) {
            "Bool" => Values::UInt8(Vec::new()),
            "Int32" => Values::Int32(Vec::new()),
            "Int64" | "DateTime64(6, 'UTC')" => Values::Int64(Vec::new()),
            "Float32" => Values::Float32(Vec::new()),
            "Float64" => Values::Float64(Vec::new()),
            "UUID" => Values::Uuid(Vec::new()),
            "String" => Values::String(Strings::default()),
            "LowCardinality(String)" => Values::LowCardinality(LowCardinality::default()),
            decimal => {
                assert!(decimal.starts_with("Decimal("), "{decimal}");
                Values::Int128(Vec::new())
            }
        };
        let nulls = inner.map(|_| Vec::new());
        Column { name: def.name, clickhouse_type: def.clickhouse_type, values, nulls }
    };
    Columns { columns: event.columns().into_iter().map(column).collect(), ..Columns::default() }
}

/// A cell to append.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Null,
    Text(String),
    Integer(i128),
    Real(f64),
}

/// Appends a row at a time: the named cells, zero (or null) in all others. `cost_usd` is left alone unless named.
pub(super) fn push(columns: &mut Columns, at_micros: i64, cells: &[(&str, Cell)]) {
    for column in &mut columns.columns {
        let cell = cells.iter().find(|(name, _)| *name == column.name).map(|(_, cell)| cell);
        if cell.is_none() && column.name == crate::event::COST_COLUMN {
            continue;
        }
        let null = column.nulls.is_some() && matches!(cell, None | Some(Cell::Null));
        if let Some(nulls) = &mut column.nulls {
            nulls.push(u8::from(null));
        }
        match (&mut column.values, cell) {
            (Values::LowCardinality(values), Some(Cell::Text(text))) => values.push(text),
            (Values::Int32(values), Some(Cell::Integer(value))) => values.push(i32::try_from(*value).unwrap()),
            (Values::Int64(values), Some(Cell::Integer(value))) => values.push(i64::try_from(*value).unwrap()),
            (Values::Int128(values), Some(Cell::Integer(value))) => values.push(*value),
            (Values::Float32(values), Some(Cell::Real(value))) => values.push(*value as f32),
            (Values::Float64(values), Some(Cell::Real(value))) => values.push(*value),
            (values, None | Some(Cell::Null)) => values.push_zero(),
            (values, Some(cell)) => unreachable!("{cell:?} does not go into {values:?}"),
        }
    }
    columns.times.push(at_micros);
    columns.offsets.push(columns.offsets.len() as u64);
}
