//! Holds ledger and tables against the truth: each ledger row as it lands, everything at the end.

use std::collections::BTreeMap;
use std::ops::Range;

use highwater::batch::LedgerKind;

use crate::clickhouse::{Cell, LedgerLine, Place, Series, SourceId};
use crate::kafka::POLL;
use crate::log::APPS;
use crate::plans::{self, TABLES, plans};
use crate::shared::Shared;
use crate::truth::{Fate, Truth};

impl Shared {
    /// What a batch's row says is true, and all that it answers for is there.
    pub fn check_row(&self, source: SourceId, line: &LedgerLine) -> Result<(), String> {
        let row = &line.row;
        if !matches!(row.kind, LedgerKind::Batch | LedgerKind::Redrive) {
            return Ok(());
        }
        let truth = &self.kafka.truths[&source];
        let name = format!("the ledger's {}..{}", row.from, row.to);
        if row.events >= self.faults.seal_events + POLL {
            let (events, seal) = (row.events, self.faults.seal_events);
            return Err(format!("{name} has {events} messages, though {seal} seal a batch: it was not held back"));
        }
        self.check_sums(truth, line).map_err(|wrong| format!("{name} {wrong}"))?;
        self.check_marks(truth, line).map_err(|wrong| format!("{name} {wrong}"))?;
        self.check_rows(source, truth, row.from..row.to, line.plan).map_err(|wrong| format!("{name}: {wrong}"))
    }

    fn check_sums(&self, truth: &Truth, line: &LedgerLine) -> Result<(), String> {
        let row = &line.row;
        let expected = truth.sums(row.from, row.to);
        let mut rows = [0; 2];
        for (&table, &count) in &row.rows {
            rows[usize::from(plans()[line.plan].number(table))] += count;
        }
        let found = crate::truth::Sums {
            events: row.events,
            rows,
            dead_letters: row.dead_letters,
            duplicates: row.duplicates,
            min_time: row.min_time,
            max_time: row.max_time,
        };
        if found != expected {
            return Err(format!("claims {found:?} instead of {expected:?}"));
        }
        if row.plan != plans()[line.plan].plan.hash {
            return Err(format!("names the plan {}", row.plan));
        }
        // What a reader calls late depends on where it began.
        let range: Vec<u64> = (row.from..row.to).collect();
        let (least, most) = (truth.late(row.from, &range), truth.late(0, &range));
        if !(least..=most).contains(&row.late) {
            return Err(format!("counts {} late events: between {least} and {most} are", row.late));
        }
        Ok(())
    }

    /// Every table and month that the range has rows for has a mark, past the last of them.
    fn check_marks(&self, truth: &Truth, line: &LedgerLine) -> Result<(), String> {
        let row = &line.row;
        let mut expected = BTreeMap::new();
        for offset in row.from..row.to {
            for table in 0..TABLES.len() as u8 {
                let month = truth.offsets[offset as usize].month;
                if plans()[line.plan].id(table).is_some() && truth.belongs(offset, table, month) {
                    expected.insert((table, month), offset + 1);
                }
            }
        }
        if expected.keys().ne(line.marks.keys()) {
            return Err(format!("records marks of {:?}, not of {:?}", line.marks.keys(), expected.keys()));
        }
        for (&(table, month), &mark) in &line.marks {
            let least = expected[&(table, month)];
            let is_row = plans::is_rollup(table) || truth.belongs(mark - 1, table, month);
            if mark < least || mark > truth.end || !is_row {
                return Err(format!(
                    "records the mark {mark} of {}/{month}: at least {least}",
                    TABLES[usize::from(table)]
                ));
            }
        }
        Ok(())
    }

    /// The rows of a range are in their tables, but for what a TTL took.
    fn check_rows(&self, source: SourceId, truth: &Truth, range: Range<u64>, plan: usize) -> Result<(), String> {
        let before = self.expired_before();
        for offset in range {
            let judged = truth.offsets[offset as usize];
            for table in 0..TABLES.len() as u8 {
                let place = Place { source, table, month: judged.month };
                if plans()[plan].id(table).is_none() || !truth.belongs(offset, table, judged.month) {
                    continue;
                }
                let cell = self.clickhouse.data.cells.get(&place);
                let there = cell.is_some_and(|cell| cell.offsets.contains(&offset) || cell.taken.contains(&offset));
                let expired = table < 2 && judged.micros < before;
                if !there && !expired {
                    return Err(format!("{place}: offset {offset} is missing"));
                }
            }
        }
        Ok(())
    }

    /// Everything, when all is done.
    pub fn check(&self) -> Result<(), String> {
        for (&source, truth) in &self.kafka.truths {
            let lines = self.clickhouse.data.ledger.get(&source).map_or(&[][..], Vec::as_slice);
            let end = lines.last().map_or(0, |line| line.row.to);
            if source.epoch == self.kafka.epoch && end != truth.end {
                return Err(format!("{source}: stuck, the ledger ends at {end} instead of {}", truth.end));
            }
            for pair in lines.windows(2) {
                if pair[0].row.to != pair[1].row.from {
                    return Err(format!("{source}: a gap in the ledger at {}", pair[0].row.to));
                }
            }
            for line in lines {
                let range = line.row.from..line.row.to;
                match line.row.kind {
                    LedgerKind::Batch if source.redrive.is_none() => {
                        self.check_rows(source, truth, range, line.plan)?
                    }
                    LedgerKind::Redrive if source.redrive.is_some() => {
                        self.check_rows(source, truth, range, line.plan)?;
                    }
                    LedgerKind::Lost => self.check_lost(source, truth, range)?,
                    LedgerKind::Start => {}
                    kind @ (LedgerKind::Batch | LedgerKind::Redrive) => {
                        return Err(format!("{source}: a row of kind {kind:?}"));
                    }
                }
            }
        }
        self.check_redriven()?;
        self.check_epochs()?;
        self.clickhouse.data.cells.iter().try_for_each(|(place, cell)| self.check_cell(*place, cell))
    }

    /// What a range holds that was lost: whoever read some of it before it was deleted may have written that, in some
    /// tables and not in others, whole blocks of them. A block begins at its table's mark and has all from there on, so
    /// each table and month has the first few of its rows and no later one without them. Hence a rollup and its raw
    /// table have the same rows, or one has some more at the end: `lost_apart` counts that these do differ.
    fn check_lost(&self, source: SourceId, truth: &Truth, lost: Range<u64>) -> Result<(), String> {
        for (place, cell) in self.clickhouse.data.cells.iter().filter(|(place, _)| place.source == source) {
            let belong = lost.clone().filter(|&offset| truth.belongs(offset, place.table, place.month));
            let there = |offset: &u64| cell.offsets.contains(offset) || cell.taken.contains(offset);
            if let Some(stray) = belong.skip_while(there).find(there) {
                return Err(format!("{place}: offset {stray} of the lost {lost:?} is there, and one before it is not"));
            }
        }
        Ok(())
    }

    /// In how many lost ranges a raw table and its rollup have different rows.
    pub fn lost_apart(&self) -> u64 {
        let lost = |line: &&LedgerLine| line.row.kind == LedgerKind::Lost;
        let cells = &self.clickhouse.data.cells;
        let differ = |source: SourceId, line: &LedgerLine| {
            // The tables of both types come first, then their rollups.
            cells.keys().filter(|place| place.source == source && place.table < 4).any(|place| {
                let of = |table: u8| {
                    let cell = cells.get(&Place { table, ..*place });
                    let offsets = cell.iter().flat_map(|cell| &cell.offsets);
                    offsets.filter(|offset| (line.row.from..line.row.to).contains(offset)).count()
                };
                of(place.table % 2) != of(place.table % 2 + 2)
            })
        };
        let ledger = self.clickhouse.data.ledger.iter();
        let lines = ledger.flat_map(|(&source, lines)| lines.iter().filter(lost).map(move |line| (source, line)));
        lines.filter(|&(source, line)| differ(source, line)).count() as u64
    }

    /// A place has nothing twice and nothing that does not belong there, and its sums are those of what it has.
    fn check_cell(&self, place: Place, cell: &Cell) -> Result<(), String> {
        let truth = &self.kafka.truths[&place.source];
        let first = self.clickhouse.data.ledger.get(&place.source).and_then(|lines| lines.first());
        let first = first.map_or(0, |line| line.row.from);
        let mut offsets = cell.offsets.clone();
        offsets.sort_unstable();
        if offsets.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(format!("{place}: {offsets:?} has an offset twice"));
        }
        let stray = |offset: &&u64| **offset < first || !truth.belongs(**offset, place.table, place.month);
        if let Some(offset) = offsets.iter().find(stray) {
            return Err(format!("{place}: offset {offset} does not belong there"));
        }
        let expected = if plans::is_rollup(place.table) { series(truth, &offsets) } else { Series::new() };
        if cell.series != expected {
            return Err(format!("{place}: {:?} instead of {expected:?}", cell.series));
        }
        let late = truth.late(first, &offsets);
        if let Some(counted) = cell.late.filter(|counted| *counted != late) {
            return Err(format!("{place}: counts {counted} late events instead of {late}"));
        }
        Ok(())
    }
}

pub fn series(truth: &Truth, offsets: &[u64]) -> Series {
    let mut series = Series::new();
    for &offset in offsets {
        let judged = truth.offsets[offset as usize];
        if let Fate::Row { app, amount, .. } = judged.fate {
            let minute = (judged.micros / 60_000_000 * 60) as u32;
            let (count, sum) = series.entry((minute, APPS[app].to_owned())).or_default();
            *count += 1;
            *sum += amount;
        }
    }
    series
}
