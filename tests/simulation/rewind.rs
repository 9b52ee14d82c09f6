//! An operator takes back what was written, so that it is read again: `highwater rewind`, which may end between any two of its
//! steps.
//!
//! The command speaks SQL, so its steps are modelled, in its order: the epoch is closed, so that no worker starts, the ledger
//! ends earlier, the months of each rollup are computed anew, rows are deleted table by table, the next epoch gets its first
//! rows, and is claimed. Left between two of them, it is run again until it ends. What the model takes as given, as the
//! command makes sure of it: all workers have ended, and nothing of theirs is on its way any more; no block of a rollup is
//! beyond the ledger's end without the rows that it counts; no row has expired.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater::batch::{LedgerKind, LedgerRow, Source};

use crate::check::series;
use crate::clickhouse::{LedgerLine, Place, SourceId};
use crate::kafka::TOPIC;
use crate::mutation::Mutation;
use crate::plans::{self, DEAD_LETTERS, LEDGER, TABLES, plans};
use crate::shared::{INSERT_TIMEOUT, Shared};
use crate::world::World;

/// Where each partition begins again, of those that were ever written.
type Cuts = BTreeMap<i32, u64>;

type Step = Box<dyn Fn(&mut Shared, &Cuts)>;

impl World {
    /// Rewinds some partitions, all workers ended.
    pub fn rewind(&mut self, _: usize) {
        if self.shared.borrow().faults.rewinds {
            self.take_back(true);
        }
    }

    /// Runs a rewind again that was interrupted, to its end.
    pub fn end_rewind(&mut self) {
        if self.shared.borrow().kafka.closed {
            self.take_back(false);
        }
    }

    fn take_back(&mut self, may_end: bool) {
        (0..self.slots.len()).for_each(|index| self.crash(index));
        self.pass(INSERT_TIMEOUT + Duration::from_secs(2));
        let shared = &mut *self.shared.borrow_mut();
        while !shared.clickhouse.network.requests.is_empty() {
            shared.deliver();
        }
        while !shared.clickhouse.pending.is_empty() {
            shared.settle_parts(true);
        }
        if shared.has_strays() {
            return;
        }
        let cuts = shared.draw_cuts();
        shared.count("rewind");
        shared.say("operator", || format!("rewinds to {cuts:?}"));
        for step in shared.steps() {
            if may_end && shared.chance(24) {
                shared.count("rewind interrupted");
                shared.say("operator", || "ends before the next step".to_owned());
                return;
            }
            step(shared, &cuts);
        }
        for (&partition, &at) in &cuts {
            shared.kafka.partitions[partition as usize].committed = Some(at);
        }
    }
}

impl Shared {
    /// The lives of a partition under all epochs.
    fn lives(&self, partition: i32) -> Vec<SourceId> {
        let claimed = (1..=self.kafka.epoch).filter(|epoch| !self.kafka.unclaimed.contains(epoch));
        claimed.map(|epoch| SourceId { epoch, redrive: None, partition }).collect()
    }

    fn lines(&self, partition: i32) -> impl Iterator<Item = &LedgerLine> {
        self.lives(partition).into_iter().filter_map(|life| self.clickhouse.data.ledger.get(&life)).flatten()
    }

    /// Whether a block of a rollup is beyond the ledger's end without its rows.
    fn has_strays(&self) -> bool {
        let cells = &self.clickhouse.data.cells;
        cells.iter().filter(|(place, _)| plans::is_rollup(place.table)).any(|(place, cell)| {
            let end = self.lines(place.source.partition).map(|line| line.row.to).max().unwrap_or(0);
            let raw = cells.get(&Place { table: plans::raw_of(place.table), ..*place });
            let is_there = |offset: &u64| raw.is_some_and(|raw| raw.offsets.contains(offset));
            cell.offsets.iter().any(|offset| *offset >= end && !is_there(offset))
        })
    }

    /// Where rows of the ledger begin, under whichever epoch, or it ends.
    fn draw_cuts(&mut self) -> Cuts {
        let mut cuts = Cuts::new();
        for partition in 0..self.kafka.partitions.len() as i32 {
            let Some(end) = self.lines(partition).map(|line| line.row.to).max() else { continue };
            let mut places: Vec<u64> = self.lines(partition).map(|line| line.row.from).collect();
            places.push(end);
            let at = if self.rng.bool() { end } else { places[self.rng.usize(0..places.len())] };
            cuts.insert(partition, at);
        }
        cuts
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = vec![Box::new(|shared: &mut Shared, _: &Cuts| shared.kafka.closed = true)];
        let cut_ledger: Step = Box::new(Shared::cut_ledger);
        let late = self.mutation == Mutation::RewindLedgerLast;
        let tables = |rollups: bool| (0..TABLES.len() as u8).filter(move |&table| plans::is_rollup(table) == rollups);
        for table in tables(true).chain(tables(false)) {
            steps.push(Box::new(move |shared: &mut Shared, cuts: &Cuts| shared.cut_table(table, cuts)));
        }
        steps.insert(if late { steps.len() } else { 1 }, cut_ledger);
        let epoch = self.kafka.begun.max(self.kafka.epoch) + 1;
        steps.push(Box::new(move |shared: &mut Shared, cuts: &Cuts| shared.begin(epoch, cuts)));
        steps.push(Box::new(move |shared: &mut Shared, _: &Cuts| shared.claim_epoch(epoch)));
        steps
    }

    /// What begins a source right there stays. From here on a dead letter that has expired may be written again.
    fn cut_ledger(&mut self, cuts: &Cuts) {
        for (place, cell) in &mut self.clickhouse.data.cells {
            let at = cuts.get(&place.source.partition).copied().unwrap_or(u64::MAX);
            cell.taken.retain(|&offset| offset < at);
        }
        for (&partition, &at) in cuts {
            for life in self.lives(partition) {
                if let Some(lines) = self.clickhouse.data.ledger.get_mut(&life) {
                    lines.retain(|line| line.row.to <= at);
                }
            }
        }
    }

    /// Deletes a table's rows; of a rollup, whose minutes are computed anew, the marks stay that the ledger saw.
    fn cut_table(&mut self, table: u8, cuts: &Cuts) {
        debug_assert!(table <= DEAD_LETTERS);
        let data = &mut self.clickhouse.data;
        let mut taken = 0;
        for (place, cell) in data.cells.iter_mut().filter(|(place, _)| place.table == table) {
            let Some(&at) = cuts.get(&place.source.partition) else { continue };
            if !cell.offsets.iter().any(|&offset| offset >= at) {
                continue;
            }
            taken += cell.offsets.len();
            cell.offsets.retain(|&offset| offset < at);
            taken -= cell.offsets.len();
            if plans::is_rollup(table) {
                cell.series = series(&self.kafka.truths[&place.source], &cell.offsets);
                let lines = data.ledger.get(&place.source).into_iter().flatten();
                cell.through =
                    lines.filter_map(|line| line.marks.get(&(table, place.month))).max().copied().unwrap_or(0);
            }
        }
        if taken > 0 {
            self.count("rows taken back from a table");
        }
    }

    /// First rows of the next epoch.
    fn begin(&mut self, epoch: u32, cuts: &Cuts) {
        self.kafka.begun = epoch;
        self.kafka.unclaimed.insert(epoch);
        for (&partition, &at) in cuts {
            let source = Source { epoch, redrive: None, topic: TOPIC.into(), partition };
            self.claim_token(LEDGER, &format!("{source}/ledger/new"));
            let row = LedgerRow::empty(source.clone(), LedgerKind::Start, at, at, plans()[0].plan.hash.clone());
            let line = LedgerLine { row, plan: 0, marks: BTreeMap::new() };
            self.clickhouse.data.ledger.entry(SourceId::of(&source)).or_default().push(line);
        }
    }

    /// The topic goes on under another epoch: the same log under another name.
    fn claim_epoch(&mut self, epoch: u32) {
        let sources = (0..self.kafka.partitions.len()).map(|partition| self.kafka.source(partition));
        for source in sources.collect::<Vec<_>>() {
            let next = SourceId { epoch, ..source };
            self.kafka.truths.insert(next, self.kafka.truths[&source].clone());
            let grown = self.kafka.grown.get(&source).cloned().unwrap_or_default();
            self.kafka.grown.insert(next, grown);
        }
        self.kafka.epoch = epoch;
        self.kafka.unclaimed.remove(&epoch);
        self.kafka.closed = false;
    }

    /// Under all epochs together no offset is anywhere twice, and the ledger's ranges of a log touch.
    pub fn check_epochs(&self) -> Result<(), String> {
        if !self.faults.rewinds {
            return Ok(());
        }
        for partition in 0..self.kafka.partitions.len() as i32 {
            let mut ranges: Vec<(u64, u64)> = self.lines(partition).map(|line| (line.row.from, line.row.to)).collect();
            ranges.retain(|(from, to)| from < to);
            ranges.sort_unstable();
            if let Some(pair) = ranges.windows(2).find(|pair| pair[0].1 != pair[1].0) {
                return Err(format!("partition {partition}: {:?} and {:?} do not touch", pair[0], pair[1]));
            }
            let mut offsets: Vec<(u8, u64)> = Vec::new();
            for (place, cell) in self.clickhouse.data.cells.iter().filter(|(of, _)| of.source.partition == partition) {
                offsets.extend(cell.offsets.iter().map(|&offset| (place.table, offset)));
            }
            offsets.sort_unstable();
            if let Some(pair) = offsets.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(format!(
                    "partition {partition}: {}: {} is there twice",
                    TABLES[usize::from(pair[0].0)],
                    pair[0].1
                ));
            }
        }
        Ok(())
    }
}
