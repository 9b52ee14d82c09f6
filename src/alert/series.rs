//! What is known of one series: running sums, step by step.

use super::packed::Packed;
use super::period::Minute;
use super::stat::{Histogram, merged};

/// The rows of a series of a signal, ascending, as running sums: a window is the difference of two.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// First minute of each row.
    at: Vec<Minute>,
    /// Running sums, those of a row side by side. They wrap around, which no difference of two minds: so a row of absurd
    /// numbers is wrong for as long as it is looked at and no longer.
    sums: Vec<i128>,
    /// The sums before the first row.
    base: Vec<i128>,
    /// Of quantiles: the distribution of each row; none, or as many as there are rows.
    histograms: Vec<Packed>,
    /// Bytes that they take.
    packed: usize,
}

/// A row: its first minute, what adds up, and of quantiles its distribution.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Cell {
    pub(super) at: Minute,
    pub(super) counters: Vec<i128>,
    pub(super) histogram: Histogram,
}

/// The most that a row counts for: 10³⁴ units, more than any budget, and so little that thousands of such rows do not
/// overflow.
const MOST: i128 = 10_i128.pow(34);

fn held(value: i128) -> i128 {
    value.clamp(-MOST, MOST)
}

impl Series {
    /// No rows, of so many columns.
    pub(super) fn new(columns: usize) -> Series {
        Series { base: vec![0; columns], ..Series::default() }
    }

    /// How many of its rows begin before a minute.
    fn before(&self, minute: Minute) -> usize {
        match self.at.last() {
            None => 0,
            // Mostly the latest is asked for.
            Some(last) if *last < minute => self.at.len(),
            Some(_) => self.at.partition_point(|at| *at < minute),
        }
    }

    fn sums_of(&self, rows: usize) -> &[i128] {
        let columns = self.base.len();
        if rows == 0 { &self.base } else { &self.sums[(rows - 1) * columns..rows * columns] }
    }

    /// The rows from a minute to before another.
    pub(super) fn window(&self, from: Minute, to: Minute) -> Window<'_> {
        let (first, end) = (self.before(from), self.before(to));
        Window { series: self, first, end: end.max(first) }
    }

    /// Whether it has rows from a minute to before another.
    pub(super) fn has_rows(&self, from: Minute, to: Minute) -> bool {
        self.before(from) < self.before(to)
    }

    /// Its first row's minute, among those from a minute on.
    pub(super) fn first_from(&self, from: Minute) -> Option<Minute> {
        self.at.get(self.before(from)).copied()
    }

    /// The first minute from `from` to before `to` at whose end a column's sum since `from` has come to `amount`, and
    /// how many minutes a row has: the end of that row.
    pub(super) fn reaches(&self, from: Minute, to: Minute, column: usize, amount: i128) -> Option<Minute> {
        let (first, end) = (self.before(from), self.before(to));
        let before = self.sums_of(first)[column];
        (first..end).find(|row| self.sums_of(row + 1)[column].wrapping_sub(before) >= amount).map(|row| self.at[row])
    }

    /// Takes over that all from a minute to before another is as these rows say. Answers the first minute at which that is
    /// news.
    pub(super) fn replace(&mut self, from: Minute, to: Minute, cells: &[Cell]) -> Option<Minute> {
        let (first, end) = (self.before(from), self.before(to));
        let is_same = |(row, cell): (usize, &Cell)| {
            let (before, after) = (self.sums_of(row), self.sums_of(row + 1));
            let equal = |(column, value): (usize, &i128)| after[column].wrapping_sub(before[column]) == held(*value);
            let counts_alike = self.at[row] == cell.at && cell.counters.iter().enumerate().all(equal);
            counts_alike && self.histograms.get(row).is_none_or(|histogram| *histogram == Packed::new(&cell.histogram))
        };
        let known = (first..end).zip(cells);
        let same = known.take_while(|(row, cell)| is_same((*row, cell))).count();
        let gone = (first + same < end).then(|| self.at[first + same]);
        let news = gone.into_iter().chain(cells.get(same).map(|cell| cell.at)).min()?;
        let later = self.split_off(end);
        drop(self.split_off(first + same));
        cells[same..].iter().for_each(|cell| self.push(cell));
        self.append(later);
        Some(news)
    }

    /// Takes away the rows from one on, with the sums before them.
    fn split_off(&mut self, row: usize) -> Series {
        let base = self.sums_of(row).to_vec();
        let histograms = self.histograms.split_off(row.min(self.histograms.len()));
        let packed = histograms.iter().map(Packed::bytes).sum();
        self.packed -= packed;
        let (at, sums) = (self.at.split_off(row), self.sums.split_off(row * base.len()));
        Series { at, sums, base, histograms, packed }
    }

    /// Puts rows behind those that there are.
    fn append(&mut self, mut later: Series) {
        if later.at.is_empty() {
            return;
        }
        let end = self.sums_of(self.at.len()).to_vec();
        let shift: Vec<i128> = end.iter().zip(&later.base).map(|(end, base)| end.wrapping_sub(*base)).collect();
        for (position, sum) in later.sums.iter_mut().enumerate() {
            *sum = sum.wrapping_add(shift[position % shift.len()]);
        }
        let (before, after) = (self.at.len(), self.at.len() + later.at.len());
        if !self.histograms.is_empty() || !later.histograms.is_empty() {
            self.histograms.resize(before, Packed::default());
            self.histograms.append(&mut later.histograms);
            self.histograms.resize(after, Packed::default());
        }
        self.packed += later.packed;
        self.at.append(&mut later.at);
        self.sums.append(&mut later.sums);
    }

    fn push(&mut self, cell: &Cell) {
        let rows = self.at.len();
        let sums = self.sums_of(rows).iter().zip(&cell.counters);
        let sums: Vec<i128> = sums.map(|(sum, counter)| sum.wrapping_add(held(*counter))).collect();
        self.sums.extend(sums);
        self.at.push(cell.at);
        if !cell.histogram.is_empty() || !self.histograms.is_empty() {
            // Rows without a value have no distribution, but their place.
            self.histograms.resize(rows, Packed::default());
            let histogram = Packed::new(&cell.histogram);
            self.packed += histogram.bytes();
            self.histograms.push(histogram);
        }
    }

    /// Bytes that its rows take.
    pub(super) fn bytes(&self) -> usize {
        let places = self.histograms.capacity() * size_of::<Packed>();
        self.at.capacity() * size_of::<Minute>() + self.sums.capacity() * size_of::<i128>() + places + self.packed
    }

    /// Forgets rows that begin before a minute, once there are enough of them to be worth the move.
    pub(super) fn forget(&mut self, before: Minute) {
        let rows = self.before(before);
        if rows * 4 < self.at.len() || rows == 0 {
            return;
        }
        self.base = self.sums_of(rows).to_vec();
        self.at.drain(..rows);
        self.sums.drain(..rows * self.base.len());
        let gone = self.histograms.drain(..rows.min(self.histograms.len()));
        self.packed -= gone.map(|histogram| histogram.bytes()).sum::<usize>();
    }
}

/// Some rows of a series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    series: &'a Series,
    first: usize,
    end: usize,
}

impl Window<'_> {
    /// Whether it has no rows.
    pub(super) fn is_empty(&self) -> bool {
        self.first == self.end
    }

    /// The sum of a column.
    pub(super) fn sum(&self, column: usize) -> i128 {
        self.series.sums_of(self.end)[column].wrapping_sub(self.series.sums_of(self.first)[column])
    }

    /// The distribution of all its values.
    pub(super) fn histogram(&self) -> Histogram {
        let rows = self.first..self.end.min(self.series.histograms.len());
        let histograms: Vec<Histogram> =
            self.series.histograms.get(rows).unwrap_or_default().iter().map(Packed::histogram).collect();
        merged(histograms.iter())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn cell(at: Minute, counters: &[i128]) -> Cell {
        Cell { at, counters: counters.to_vec(), histogram: Histogram::new() }
    }

    #[test]
    fn windows_are_what_adding_up_says() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut series = Series::new(2);
        let mut truth: Vec<Cell> = Vec::new();
        for round in 0..200 {
            let from = rng.i64(0..60);
            let to = if rng.bool() { i64::MAX } else { from + rng.i64(0..30) };
            truth.retain(|cell| !(from..to).contains(&cell.at));
            let mut new = Vec::new();
            for at in from..to.min(from + rng.i64(0..40)) {
                if rng.bool() {
                    let histogram = if rng.bool() { vec![(rng.i64(1..9) as f64, rng.u64(1..5))] } else { Vec::new() };
                    new.push(Cell { histogram, ..cell(at, &[rng.i128(0..9), rng.i128(-5..9)]) });
                }
            }
            truth.extend(new.iter().cloned());
            truth.sort_by_key(|cell| cell.at);
            series.replace(from, to, &new);
            if round % 7 == 0 {
                let limit = rng.i64(0..30);
                series.forget(limit);
                truth.retain(|cell| series.first_from(i64::MIN).is_some_and(|first| cell.at >= first));
            }
            for _ in 0..20 {
                let (one, other) = (rng.i64(0..110), rng.i64(0..110));
                let (from, to) = (one.min(other), one.max(other));
                let rows: Vec<&Cell> = truth.iter().filter(|cell| (from..to).contains(&cell.at)).collect();
                let window = series.window(from, to);
                for column in 0..2 {
                    assert_eq!(window.sum(column), rows.iter().map(|cell| cell.counters[column]).sum::<i128>());
                }
                assert_eq!(window.is_empty(), rows.is_empty());
                assert_eq!(series.has_rows(from, to), !rows.is_empty());
                let histograms: Vec<Histogram> = rows.iter().map(|row| row.histogram.clone()).collect();
                assert_eq!(window.histogram(), merged(histograms.iter()));
            }
            let packed: usize = series.histograms.iter().map(Packed::bytes).sum();
            assert_eq!(series.packed, packed);
        }
    }

    #[test]
    fn says_from_where_on_rows_are_news() {
        let mut series = Series::new(1);
        let rows = [cell(10, &[1]), cell(11, &[2]), cell(13, &[3])];
        assert_eq!(series.replace(0, i64::MAX, &rows), Some(10));
        assert_eq!(series.replace(0, i64::MAX, &rows), None);
        assert_eq!(series.replace(11, i64::MAX, &rows[1..]), None);
        let late = [cell(10, &[1]), cell(11, &[2]), cell(12, &[7]), cell(13, &[3])];
        assert_eq!(series.replace(10, i64::MAX, &late), Some(12), "a row between others");
        assert_eq!(
            series.replace(10, i64::MAX, &[cell(10, &[1]), cell(11, &[3])]),
            Some(11),
            "more in a row, and others gone"
        );
        assert_eq!(series.replace(11, i64::MAX, &[]), Some(11), "gone");
        assert_eq!(series.replace(11, i64::MAX, &[cell(20, &[1])]), Some(20));
        assert_eq!(series.window(0, 100).sum(0), 2);
        assert_eq!(series.reaches(0, 100, 0, 2), Some(20));
        assert_eq!(series.reaches(0, 20, 0, 2), None);
    }

    #[test]
    fn rows_in_the_middle_are_replaced_and_those_behind_stay() {
        let mut series = Series::new(1);
        series.replace(0, 9, &[cell(1, &[1]), cell(2, &[2]), cell(5, &[5]), cell(8, &[8])]);
        assert_eq!(series.replace(2, 6, &[cell(2, &[2]), cell(5, &[5])]), None, "the same, whatever is behind");
        assert_eq!(series.replace(2, 6, &[cell(3, &[30])]), Some(2));
        assert_eq!((series.window(0, 9).sum(0), series.window(8, 9).sum(0), series.window(2, 6).sum(0)), (39, 8, 30));
        assert_eq!(series.replace(6, 8, &[cell(7, &[70])]), Some(7), "between others");
        assert_eq!((series.window(7, 8).sum(0), series.window(8, 9).sum(0)), (70, 8));
        assert_eq!(series.replace(2, 8, &[]), Some(3));
        assert_eq!(series.window(0, 9).sum(0), 9);
    }

    #[test]
    fn distributions_add_up() {
        let mut series = Series::new(1);
        let of = |at, histogram: &[(f64, u64)]| Cell { at, counters: vec![1], histogram: histogram.to_vec() };
        series.replace(0, i64::MAX, &[of(1, &[]), of(2, &[(5.0, 1)]), of(3, &[(1.0, 2), (5.0, 3)])]);
        assert_eq!(series.window(0, 9).histogram(), [(1.0, 2), (5.0, 4)]);
        assert_eq!(series.window(0, 3).histogram(), [(5.0, 1)]);
        assert_eq!(series.window(0, 2).histogram(), []);
        assert_eq!(
            series.replace(3, i64::MAX, &[of(3, &[(1.0, 3), (5.0, 2)])]),
            Some(3),
            "same counters, other values"
        );
    }

    #[test]
    fn what_no_number_can_hold_is_gone_with_its_row() {
        let mut series = Series::new(1);
        let cells = [cell(1, &[7]), cell(2, &[i128::MAX]), cell(3, &[i128::MAX]), cell(4, &[5]), cell(5, &[i128::MIN])];
        assert_eq!(series.replace(0, i64::MAX, &cells), Some(1));
        assert_eq!(series.replace(0, i64::MAX, &cells), None, "no news");
        assert!(series.window(0, 4).sum(0) >= 10_i128.pow(34));
        assert!(series.window(5, 6).sum(0) <= -(10_i128.pow(34)));
        assert_eq!((series.window(0, 2).sum(0), series.window(4, 5).sum(0)), (7, 5));
    }
}
