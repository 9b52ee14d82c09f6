//! Arrays and maps.

use super::Column;
use super::values::start;

/// Rows of many values each: an array has one column of items, a map two, of keys and of values.
#[derive(Debug, Clone, Default)]
pub struct Nested {
    /// End of each row's items in `columns`.
    pub ends: Vec<usize>,
    /// The items of all rows, one after the other; of equal length between two calls.
    pub columns: Vec<Column>,
}

impl Nested {
    /// Items there are, those of an unfinished row included.
    pub fn items(&self) -> usize {
        self.columns.first().map_or(0, Column::len)
    }

    /// Makes a row of the items that were appended since the last one.
    pub fn end_row(&mut self) {
        self.ends.push(self.items());
    }

    /// The items of a row, as a range of the columns; empty where there is no such row.
    pub fn row(&self, row: usize) -> std::ops::Range<usize> {
        let end = self.ends.get(row).copied().unwrap_or(0);
        start(&self.ends, row).min(end)..end
    }

    /// Rows it holds.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it holds no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Keeps the first `rows` rows and drops the items of an unfinished one.
    pub fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        let items = self.ends.last().copied().unwrap_or(0);
        self.columns.iter_mut().for_each(|column| column.truncate(items));
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(self.ends.as_slice()) + self.columns.iter().map(Column::bytes).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::Values;

    #[test]
    fn an_unfinished_row_is_taken_back() {
        let column = Column {
            name: "item".to_owned(),
            clickhouse_type: "Nullable(Int32)".to_owned(),
            values: Values::Int32(vec![1, 2]),
            nulls: Some(vec![0, 0]),
        };
        let mut nested = Nested { ends: Vec::new(), columns: vec![column] };
        nested.end_row();
        nested.end_row();
        assert_eq!((nested.row(0), nested.row(1), nested.row(2)), (0..2, 2..2, 0..0));
        assert_eq!(nested.bytes(), 2 * 8 + 2 * 5);
        // Half an item: its null is known and its value is not.
        if let Some(nulls) = &mut nested.columns[0].nulls {
            nulls.push(0);
        }
        nested.truncate(2);
        assert_eq!((nested.items(), nested.columns[0].nulls.as_ref().map(Vec::len)), (2, Some(2)));
        nested.truncate(1);
        assert_eq!((nested.len(), nested.items()), (1, 2));
        nested.truncate(0);
        assert_eq!((nested.is_empty(), nested.items(), nested.bytes()), (true, 0, 0));
    }
}
