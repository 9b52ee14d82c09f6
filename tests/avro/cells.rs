//! What our columns hold, in a form to compare.

use std::collections::BTreeMap;

use highwater::columns::{Column, Columns, Values};

/// A value of a column, whatever its type; floats by their bits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    Null,
    Int(i128),
    Bytes(Vec<u8>),
    Uuid(u128),
    List(Vec<Cell>),
    Map(BTreeMap<Vec<u8>, Cell>),
}

fn cell(column: &Column, row: usize) -> Cell {
    if column.is_null(row) {
        return Cell::Null;
    }
    match &column.values {
        Values::UInt8(values) => Cell::Int(values[row].into()),
        Values::Int32(values) => Cell::Int(values[row].into()),
        Values::Int64(values) => Cell::Int(values[row].into()),
        Values::Float32(values) => Cell::Int(values[row].to_bits().into()),
        Values::Float64(values) => Cell::Int(values[row].to_bits().into()),
        Values::Int128(values) => Cell::Int(values[row]),
        Values::Uuid(values) => Cell::Uuid(values[row]),
        Values::String(values) => Cell::Bytes(values.get(row).to_vec()),
        Values::LowCardinality(values) => Cell::Bytes(values.get(row).into()),
        Values::Nested(nested) => match nested.columns.as_slice() {
            [items] => Cell::List(nested.row(row).map(|at| cell(items, at)).collect()),
            [keys, values] => {
                let key = |at| if let Cell::Bytes(key) = cell(keys, at) { key } else { panic!("no key") };
                Cell::Map(nested.row(row).map(|at| (key(at), cell(values, at))).collect())
            }
            other => panic!("{other:?} is neither an array nor a map"),
        },
        other => panic!("{other:?} is not decoded into"),
    }
}

/// The cells of a row.
pub fn cells(columns: &Columns, row: usize) -> Vec<Cell> {
    columns.columns.iter().map(|column| cell(column, row)).collect()
}

/// The lengths of all buffers: what a refused message must leave as it was.
pub fn lengths(columns: &Columns) -> Vec<usize> {
    fn of(column: &Column, out: &mut Vec<usize>) {
        out.extend([column.len(), column.nulls.as_ref().map_or(0, Vec::len)]);
        match &column.values {
            Values::String(values) => out.push(values.size()),
            Values::Nested(nested) => nested.columns.iter().for_each(|column| of(column, out)),
            _ => {}
        }
    }
    let mut out = vec![columns.times.len(), columns.offsets.len()];
    columns.columns.iter().for_each(|column| of(column, &mut out));
    out
}

/// Bytes that the buffers have room for, dictionaries by what is in them.
pub fn room(columns: &Columns) -> usize {
    fn of(column: &Column) -> usize {
        let values = match &column.values {
            Values::UInt8(values) => values.capacity(),
            Values::Int32(values) => values.capacity() * 4,
            Values::Int64(values) => values.capacity() * 8,
            Values::Float32(values) => values.capacity() * 4,
            Values::Float64(values) => values.capacity() * 8,
            Values::Int128(values) => values.capacity() * 16,
            Values::Uuid(values) => values.capacity() * 16,
            Values::String(values) => values.capacity(),
            Values::LowCardinality(values) => values.bytes() + values.index.capacity() * 4,
            Values::Nested(nested) => nested.ends.capacity() * 8 + nested.columns.iter().map(of).sum::<usize>(),
            other => panic!("{other:?} is not decoded into"),
        };
        values + column.nulls.as_ref().map_or(0, Vec::capacity)
    }
    columns.columns.iter().map(of).sum()
}
