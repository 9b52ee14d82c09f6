//! All series of a signal.

use std::collections::BTreeMap;
use std::ops::Range;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::distinct::Distinct;
use super::period::Minute;
use super::query::{Picks, Question, Row};
use super::rule::aligned;
use super::series::{Cell, Series};
use super::signal::{Fit, Signal};

/// So many series of a rollup are remembered at any rate; beyond, those that had rows of late.
const LINKS: usize = 10_000;

/// All series of a signal, numbered in the order they came.
#[derive(Debug)]
pub(super) struct Book {
    /// Where in the question's rows it finds what it adds up.
    picks: Picks,
    /// Positions of its dimensions in the question's.
    by: Vec<usize>,
    slots: HashMap<Vec<String>, u32, FxBuildHasher>,
    /// Values of the signal's dimensions, of each series.
    pub(super) names: Vec<Vec<String>>,
    /// What is known of each series.
    pub(super) series: Vec<Series>,
    /// The first minute of what is news in each series since it was judged.
    pub(super) news: Vec<Option<Minute>>,
    /// None of its rows were judged yet, since the start or since they were dropped: so what is read is no news.
    pub(super) is_blank: bool,
    /// Numbers of series that were forgotten.
    free: Vec<u32>,
    /// What each series of the rollup is to it; `None`: nothing.
    links: HashMap<Vec<String>, Option<(u32, Fit)>, FxBuildHasher>,
    /// Series that were left out of the last rows.
    pub(super) left_out: Distinct,
    /// Those were told of, so that the next rows begin anew.
    pub(super) is_told: bool,
}

impl Book {
    pub(super) fn new(signal: &Signal, question: &Question) -> Book {
        let position = |name: &String| question.dimensions.iter().position(|known| known == name);
        let mut book = Book {
            picks: question.picks(signal),
            by: signal.by.iter().filter_map(position).collect(),
            slots: HashMap::default(),
            names: Vec::new(),
            series: Vec::new(),
            news: Vec::new(),
            is_blank: true,
            free: Vec::new(),
            links: HashMap::default(),
            left_out: Distinct::default(),
            is_told: false,
        };
        if signal.by.is_empty() {
            // The only series there is is there without rows too: so that their lack is seen.
            book.slot(&[], signal);
        }
        book
    }

    /// The number of a series, made where it is new; `None`: there are too many.
    pub(super) fn slot(&mut self, name: &[String], signal: &Signal) -> Option<u32> {
        if let Some(slot) = self.slots.get(name) {
            return Some(*slot);
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.series.len() >= signal.max_series => return None,
            None => {
                self.names.push(Vec::new());
                self.series.push(Series::default());
                self.news.push(None);
                self.series.len() as u32 - 1
            }
        };
        self.names[slot as usize] = name.to_vec();
        self.series[slot as usize] = Series::new(signal.columns());
        self.slots.insert(name.to_vec(), slot);
        Some(slot)
    }

    /// Whether a number stands for a series.
    pub(super) fn is_used(&self, slot: u32) -> bool {
        self.slots.get(&self.names[slot as usize]) == Some(&slot)
    }

    /// Takes over that all of the rollup from a minute to before another is as these rows say.
    pub(super) fn replace(&mut self, span: Range<Minute>, signal: &Signal, question: &Question, rows: &[Row]) {
        let mut cells: HashMap<(u32, Minute), Cell, FxBuildHasher> = HashMap::default();
        if std::mem::take(&mut self.is_told) {
            self.left_out = Distinct::default();
        }
        if self.links.len() > 2 * rows.len() + LINKS {
            self.links.clear();
        }
        for row in rows {
            let Some((slot, fit)) = self.link(row, signal, question) else { continue };
            let share = signal.share(fit, row, &self.picks);
            let at = aligned(row.at, signal.step);
            let cell = cells.entry((slot, at)).or_insert_with(|| Cell {
                at,
                counters: vec![0; signal.columns()],
                histogram: Vec::new(),
            });
            for (sum, counter) in cell.counters.iter_mut().zip(&share.counters) {
                *sum = sum.saturating_add(*counter);
            }
            // Merged below, all at once: one by one, each would be sorted as often as there are more.
            cell.histogram.extend(share.histogram);
        }
        for cell in cells.values_mut().filter(|cell| !cell.histogram.is_sorted_by(|one, next| one.0 < next.0)) {
            cell.histogram = super::stat::merged(std::iter::once(&cell.histogram));
        }
        let mut cells: Vec<((u32, Minute), Cell)> = cells.into_iter().collect();
        cells.sort_unstable_by_key(|(key, _)| *key);
        let mut next = cells.into_iter().peekable();
        for slot in 0..self.series.len() {
            let mut own: Vec<Cell> = Vec::new();
            while let Some((_, cell)) = next.next_if(|((of, _), _)| *of as usize == slot) {
                own.push(cell);
            }
            if let Some(news) = self.series[slot].replace(span.start, span.end, &own).filter(|_| !self.is_blank) {
                self.news[slot] = Some(self.news[slot].map_or(news, |known| known.min(news)));
            }
        }
    }

    /// What a row's series is to the signal.
    fn link(&mut self, row: &Row, signal: &Signal, question: &Question) -> Option<(u32, Fit)> {
        if let Some(link) = self.links.get(&row.dimensions) {
            return *link;
        }
        let value = |name: &str| {
            let position = question.dimensions.iter().position(|known| known == name);
            position.map_or("", |position| row.dimensions[position].as_str())
        };
        let link = match signal.fit(&value) {
            None => None,
            Some(fit) => {
                let name: Vec<String> = self.by.iter().map(|position| row.dimensions[*position].clone()).collect();
                let Some(slot) = self.slot(&name, signal) else {
                    // Not kept: there may be room for it next time.
                    self.left_out.add(name);
                    return None;
                };
                Some((slot, fit))
            }
        };
        self.links.insert(row.dimensions.clone(), link);
        link
    }

    /// Forgets all rows, as if none had been read.
    pub(super) fn clear(&mut self, signal: &Signal) {
        self.series.iter_mut().for_each(|series| *series = Series::new(signal.columns()));
        self.news.fill(None);
        self.is_blank = true;
    }

    /// Bytes that its rows take.
    pub(super) fn bytes(&self) -> usize {
        self.series.iter().map(|series| size_of::<Series>() + series.bytes()).sum()
    }

    /// Forgets rows before a minute, and series without rows that nobody is told of.
    pub(super) fn forget(&mut self, before: Minute, signal: &Signal, is_told: impl Fn(u32) -> bool) {
        let mut changed = false;
        for slot in 0..self.series.len() {
            self.series[slot].forget(before);
            let number = slot as u32;
            // Rows are forgotten in bulk, so a series may have some that nobody looks at.
            let is_past = self.series[slot].first_from(before).is_none();
            if is_past && !signal.by.is_empty() && self.is_used(number) && !is_told(number) {
                self.slots.remove(&self.names[slot]);
                self.series[slot] = Series::new(signal.columns());
                self.news[slot] = None;
                self.free.push(number);
                changed = true;
            }
        }
        if changed {
            self.links.clear();
        }
    }

    /// The dimensions of a series.
    pub(super) fn dimensions(&self, slot: u32, signal: &Signal) -> BTreeMap<String, String> {
        signal.by.iter().cloned().zip(self.names[slot as usize].iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests;
