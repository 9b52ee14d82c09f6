//! Parts: how they come into the tables, and how a TTL takes their rows.

use highwater::batch::{Block, LedgerKind, LedgerRow};
use highwater::columns::{Column, Values};
use highwater::plan::Plan;
use highwater::ports::{Insert, Rows};

use crate::clickhouse::{Cell, LedgerLine, Pending, Place, SourceId};
use crate::mutation::Mutation;
use crate::plans::{self, DEAD_LETTERS, plans};
use crate::shared::{INSERT_TIMEOUT, Shared};

impl Shared {
    /// A TTL takes what is due in one place.
    pub fn expire(&mut self) {
        let is_kept = |table: u8| match table {
            DEAD_LETTERS => !self.faults.dead_letters_expire,
            table => plans::is_rollup(table) || self.faults.keep_events.is_none(),
        };
        let places = self.clickhouse.data.cells.keys().copied();
        let places: Vec<Place> = places.filter(|place| !is_kept(place.table)).collect();
        if places.is_empty() {
            return;
        }
        let place = places[self.rng.usize(0..places.len())];
        let before = self.faults.keep_events.map_or(i64::MIN, |keep| self.now.saturating_sub(keep).as_micros() as i64);
        let done = self.clickhouse.data.end(place.source).unwrap_or(0);
        let truth = &self.kafka.truths[&place.source];
        let Some(cell) = self.clickhouse.data.cells.get_mut(&place) else { return };
        let is_due = |offset: &u64| match place.table {
            // They are kept for days, so the ledger has them.
            DEAD_LETTERS => self.faults.dead_letters_expire && *offset < done,
            table => !plans::is_rollup(table) && truth.offsets[*offset as usize].micros < before,
        };
        let (taken, left): (Vec<u64>, Vec<u64>) = cell.offsets.iter().partition(|offset| is_due(offset));
        if taken.is_empty() {
            return;
        }
        cell.offsets = left;
        cell.taken.extend(taken.iter().filter(|&&offset| offset < done));
        self.count("rows taken by a TTL");
        self.say("clickhouse", || format!("TTL takes {taken:?} from {place}"));
    }

    pub fn land(&mut self, insert: &Insert, plan: usize, client: u32) {
        match &insert.rows {
            Rows::Ledger(row) => self.land_row(row, plan),
            Rows::Block(block) => {
                self.land_block(block, plan);
                if self.mutation == Mutation::LateInRollup {
                    self.count_late(block, plan, client);
                }
            }
        }
    }

    fn land_row(&mut self, row: &LedgerRow, plan: usize) {
        let source = SourceId::of(&row.source);
        let number =
            |(key, &mark): (&highwater::batch::Key, &u64)| ((plans()[plan].number(key.table), key.month.0), mark);
        let line = LedgerLine { row: row.clone(), plan, marks: row.marks.iter().map(number).collect() };
        let end = self.clickhouse.data.end(source);
        let fits = if row.kind == LedgerKind::Start { end.is_none() } else { end == Some(row.from) };
        let log_start = self.kafka.partitions.get(source.partition as usize).map_or(0, |log| log.start);
        let begins = self.kafka.beginnings.get(&source).is_some_and(|places| places.contains(&row.from));
        let wrong = if row.kind == LedgerKind::Start && source.redrive.is_none() && !begins {
            Some(format!("begins at {}, which is neither the group's commit nor the log's start", row.from))
        } else if row.kind == LedgerKind::Lost && row.to > log_start {
            Some(format!("calls {}..{} lost, and the log begins at {log_start}", row.from, row.to))
        } else if fits {
            self.check_row(source, &line).err()
        } else {
            Some(format!("ledger row {}..{} on an end of {end:?}", row.from, row.to))
        };
        self.clickhouse.data.ledger.entry(source).or_default().push(line);
        if self.faults.restore && self.chance(128) {
            self.back_up();
        }
        let judged = [
            ("batch with dead letters", row.dead_letters),
            ("batch with duplicates", row.duplicates),
            ("batch with late events", row.late),
        ];
        judged.iter().filter(|(_, count)| *count > 0).for_each(|(what, _)| self.count(what));
        if let Some(wrong) = wrong {
            self.wrong(format!("{}: {wrong}", row.source));
        }
    }

    fn land_block(&mut self, block: &Block, plan: usize) {
        let planned = &plans()[plan];
        let place = Place::of(block, plan);
        let (events, rows) = block.events(&planned.plan);
        // A rule of its own: that others are broken, the tables have to show.
        if plans::is_rollup(place.table) && matches!(self.mutation, Mutation::None | Mutation::RollupFirst) {
            self.check_order(place, &events.offsets[rows.clone()]);
        }
        let at_once = self.faults.expires_at_once;
        let before = self.faults.keep_events.filter(|_| at_once && !plans::is_rollup(place.table));
        let before = before.map_or(i64::MIN, |keep| self.now.saturating_sub(keep).as_micros() as i64);
        let done = self.clickhouse.data.end(place.source).unwrap_or(0);
        let cell = self.clickhouse.data.cells.entry(place).or_default();
        let (mut wrong, mut expired) = (None, 0);
        for row in rows {
            let offset = events.offsets[row];
            if cell.offsets.contains(&offset) {
                wrong = Some(format!("{place}: offset {offset} is there already"));
            } else if cell.taken.contains(&offset) {
                wrong = Some(format!("{place}: offset {offset} is written again after a TTL took it"));
            }
            if place.table != DEAD_LETTERS && events.times[row] < before {
                expired += 1;
                if offset < done {
                    cell.taken.push(offset);
                }
            } else {
                cell.offsets.push(offset);
            }
        }
        if plans::is_rollup(place.table) {
            let before = cell.through;
            read_rollup(block, &planned.plan, cell);
            let through = std::mem::replace(&mut cell.through, before);
            match self.mutation {
                Mutation::NoMarker => {}
                Mutation::MarkerApart => {
                    let due = self.now + INSERT_TIMEOUT.mul_f64(self.rng.f64());
                    self.clickhouse.pending.push((due, Pending::Marker(place, through)));
                }
                _ => cell.through = through,
            }
        }
        if expired > 0 {
            self.count("rows expired as they landed");
        }
        if let Some(wrong) = wrong {
            self.wrong(wrong);
        }
    }

    /// A rollup's block counts what was late to its writer, who knows only what is after the place where it began.
    fn count_late(&mut self, block: &Block, plan: usize, client: u32) {
        let place = Place::of(block, plan);
        let Some(cell) = self.clickhouse.data.cells.get_mut(&place).filter(|_| plans::is_rollup(place.table)) else {
            return;
        };
        let (events, rows) = block.events(&plans()[plan].plan);
        let begun = self.clickhouse.begun.get(&(client, place.source)).copied().unwrap_or(0);
        let late = self.kafka.truths[&place.source].late(begun, &events.offsets[rows]);
        *cell.late.get_or_insert(0) += late;
    }

    /// An insert is acknowledged and has no part.
    pub fn promise(&mut self, insert: &Insert, plan: usize) {
        let Rows::Block(block) = &insert.rows else { return };
        let place = Place::of(block, plan);
        if !plans::is_rollup(place.table) {
            let (events, rows) = block.events(&plans()[plan].plan);
            self.clickhouse.promised.extend(events.offsets[rows].iter().map(|&offset| (place, offset)));
        }
    }

    /// Rows come before what is computed from them, but for those that were promised.
    fn check_order(&mut self, place: Place, offsets: &[u64]) {
        let raw = Place { table: plans::raw_of(place.table), ..place };
        let (cell, before) = (self.clickhouse.data.cells.get(&raw), self.expired_before());
        let is_there =
            |offset: &u64| cell.is_some_and(|cell| cell.offsets.contains(offset) || cell.taken.contains(offset));
        let truth = &self.kafka.truths[&place.source];
        let is_expired = |offset: &u64| truth.offsets[*offset as usize].micros < before;
        let missing: Vec<u64> =
            offsets.iter().filter(|offset| !is_there(offset) && !is_expired(offset)).copied().collect();
        if let Some(offset) = missing.iter().find(|&&offset| !self.clickhouse.promised.contains(&(raw, offset))) {
            self.wrong(format!("{place}: counts offset {offset}, whose row was not acknowledged"));
        }
        if !missing.is_empty() {
            self.count("counted before its row was there");
        }
    }
}

/// Adds a rollup block as the merging engine would.
fn read_rollup(block: &Block, plan: &Plan, cell: &mut Cell) {
    let (columns, rows) = block.columns(plan);
    let column = |name: &str| -> &Column { columns.iter().find(|column| column.name == name).expect(name) };
    let text = |name: &str, row: usize| match &column(name).values {
        Values::LowCardinality(values) => values.get(row).to_owned(),
        other => panic!("{name}: {other:?}"),
    };
    let (Values::UInt32(minutes), Values::UInt64(counts), Values::UInt64(throughs), Values::Int128(sums)) =
        (&column("minute").values, &column("count").values, &column("_through").values, &column("amount_sum").values)
    else {
        panic!("unexpected column types");
    };
    for row in rows {
        if text("_source", row).is_empty() {
            let (count, sum) = cell.series.entry((minutes[row], text("app", row))).or_default();
            *count += counts[row];
            *sum += i64::try_from(sums[row]).expect("small sums");
        } else {
            cell.through = cell.through.max(throughs[row]);
        }
    }
}
