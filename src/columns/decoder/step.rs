//! The steps that read one message, and their execution.

use std::sync::Arc;

use super::super::avro::Input;
use super::super::{Column, DecodeError, Fault, Nested, Values};
use super::Row;
use super::read::Read;
use super::skip::{Skip, Skips};

/// What is done for one field, the writer's where it has one.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// How errors call the field.
    pub(super) path: Arc<str>,
    pub(super) op: Op,
}

pub(super) type Steps = Box<[Step]>;

/// Each column that an event has gets exactly one value, whichever branches of unions are taken.
#[derive(Debug, Clone)]
pub(super) enum Op {
    /// Reads a value into a column; `null` is the null branch of a union of null and one type.
    Read { column: usize, null: Option<u8>, read: Read },
    /// Reads nothing; the column has null.
    Null { column: usize },
    /// Reads the branch of a union, then what that branch asks for.
    Union(Box<[Steps]>),
    /// Reads the items of an array into the column within.
    Array { column: usize, items: Steps },
    /// Reads the entries of a map into the two columns within.
    Map { column: usize, entries: Steps },
    /// Reads what the reader's schema has for a field that the writer lacks.
    Default { body: Arc<[u8]>, steps: Steps },
    /// Reads what the reader has no field for.
    Skip(Skip, Arc<Skips>),
    /// Refuses the message: a branch that the reader has nothing for.
    Refuse(Fault),
}

/// Reads what the steps say into the columns.
pub(super) fn run(
    steps: &[Step],
    input: &mut Input<'_>,
    columns: &mut [Column],
    row: &mut Row,
) -> Result<(), DecodeError> {
    for step in steps {
        // Nearly all steps are of this kind, and the loop is no larger than they need.
        if let Op::Read { column, null, read } = &step.op {
            read_value(*column, *null, read, input, columns, row)
                .map_err(|fault| DecodeError { field: Some(step.path.clone()), fault })?;
        } else {
            run_other(step, input, columns, row)?;
        }
    }
    Ok(())
}

#[inline(never)]
fn run_other(step: &Step, input: &mut Input<'_>, columns: &mut [Column], row: &mut Row) -> Result<(), DecodeError> {
    let at = |fault| DecodeError { field: Some(step.path.clone()), fault };
    match &step.op {
        Op::Read { .. } => run(std::slice::from_ref(step), input, columns, row),
        Op::Null { column } => push_null(columns.get_mut(*column)).map_err(at),
        Op::Union(branches) => {
            let branch = branch(input, branches.len()).map_err(at)?;
            run(&branches[branch], input, columns, row)
        }
        Op::Array { column, items } => {
            let nested = nested(columns.get_mut(*column)).map_err(at)?;
            read_items(items, input, nested, row, &at)?;
            nested.end_row();
            Ok(())
        }
        Op::Map { column, entries } => {
            let nested = nested(columns.get_mut(*column)).map_err(at)?;
            read_items(entries, input, nested, row, &at)?;
            at_most_once(last_keys(nested).map_err(at)?).map_err(at)?;
            nested.end_row();
            Ok(())
        }
        Op::Default { body, steps } => run(steps, &mut Input(body), columns, row),
        Op::Skip(skip, skips) => skips.skip(skip, input).map_err(at),
        Op::Refuse(fault) => Err(at(*fault)),
    }
}

/// Reads which of so many branches comes.
pub(super) fn branch(input: &mut Input<'_>, branches: usize) -> Result<usize, Fault> {
    let branch = input.long()?;
    match usize::try_from(branch) {
        Ok(at) if at < branches => Ok(at),
        _ => Err(Fault::UnknownBranch { branch, branches }),
    }
}

#[inline(always)]
fn read_value(
    column: usize,
    null: Option<u8>,
    read: &Read,
    input: &mut Input<'_>,
    columns: &mut [Column],
    row: &mut Row,
) -> Result<(), Fault> {
    let Some(column) = columns.get_mut(column) else { return Err(Fault::WrongColumns) };
    let is_null = match null {
        Some(null) => is_null(null, input)?,
        None => false,
    };
    if let Some(nulls) = &mut column.nulls {
        nulls.push(u8::from(is_null));
    }
    if is_null {
        column.values.push_zero();
        return Ok(());
    }
    read.value(input, &mut column.values, row)
}

/// Reads the branch of a union of null, which is the branch `null`, and one type.
#[inline(always)]
pub(super) fn is_null(null: u8, input: &mut Input<'_>) -> Result<bool, Fault> {
    let branch = input.long()?;
    if branch != 0 && branch != 1 {
        return Err(Fault::UnknownBranch { branch, branches: 2 });
    }
    Ok(branch == i64::from(null))
}

fn push_null(column: Option<&mut Column>) -> Result<(), Fault> {
    let column = column.ok_or(Fault::WrongColumns)?;
    if let Some(nulls) = &mut column.nulls {
        nulls.push(1);
    }
    column.values.push_zero();
    Ok(())
}

fn nested(column: Option<&mut Column>) -> Result<&mut Nested, Fault> {
    match column.map(|column| &mut column.values) {
        Some(Values::Nested(nested)) => Ok(nested),
        _ => Err(Fault::WrongColumns),
    }
}

/// Reads blocks of items. Every item takes at least a byte, so there are never more than the message has bytes.
fn read_items(
    items: &[Step],
    input: &mut Input<'_>,
    nested: &mut Nested,
    row: &mut Row,
    at: &impl Fn(Fault) -> DecodeError,
) -> Result<(), DecodeError> {
    loop {
        match input.block().map_err(at)? {
            0 => return Ok(()),
            count => (0..count).try_for_each(|_| run(items, input, &mut nested.columns, row))?,
        }
    }
}

/// The keys of the row that is not ended yet.
fn last_keys(nested: &Nested) -> Result<Vec<&[u8]>, Fault> {
    let Some(Values::String(keys)) = nested.columns.first().map(|column| &column.values) else {
        return Err(Fault::WrongColumns);
    };
    let row = nested.ends.last().copied().unwrap_or(0)..nested.items();
    Ok(row.map(|at| keys.get(at)).collect())
}

/// Refuses a map in which a key stands twice. No library writes one; ClickHouse would keep both and answer with the
/// first, while Avro's readers keep the last.
pub(super) fn at_most_once(mut keys: Vec<&[u8]>) -> Result<(), Fault> {
    keys.sort_unstable();
    match keys.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(Fault::DuplicateKey),
        false => Ok(()),
    }
}
