//! An operator takes back what was written, so that it is read again: `highwater rewind`, which may end between any two of its
//! steps.
//!
//! The command speaks SQL, so its steps are modelled, in its order: lists of letters are shut out, all runs have to be
//! finished, the epoch is closed, so that no worker starts; of the runs whose letters are read again, and then of the log, the
//! ledger ends earlier, the months of each rollup are computed anew, rows are deleted table by table; the next epoch gets its first
//! rows, and is claimed. Left between two of them, it is run again until it ends. Redrives go on between all of them. What the
//! model takes as given, as the command makes sure of it: all workers have ended, and nothing of theirs is on its way any
//! more; nothing that a redrive had ready to be sent when the epoch was closed is sent later; no block of a rollup is beyond the ledger's end without the rows that it counts; no row has expired. A run that an
//! interrupted rewind has begun to take back, and one to another place does not, is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use highwater::batch::{LedgerKind, LedgerRow, Source};
use highwater::clickhouse::redrives::Listed;

use crate::check::series;
use crate::clickhouse::{LedgerLine, Place, SourceId, Taken};
use crate::kafka::TOPIC;
use crate::mutation::Mutation;
use crate::plans::{self, DEAD_LETTERS, LEDGER, TABLES, plans};
use crate::shared::{INSERT_TIMEOUT, Shared};
use crate::world::World;

/// What is taken back.
struct Cuts {
    /// Where each partition begins again, of those that were ever written.
    log: BTreeMap<i32, u64>,
    /// Under which epochs the log was written.
    epochs: BTreeSet<u32>,
    /// Runs that have letters which are read again, in such partitions.
    runs: BTreeSet<SourceId>,
}

impl Cuts {
    /// From where on a source is taken back; of the log, or of runs.
    fn at(&self, source: SourceId, of_runs: bool) -> Option<u64> {
        match (of_runs, source.redrive) {
            (false, None) => self.log.get(&source.partition).copied().filter(|_| self.epochs.contains(&source.epoch)),
            (true, Some(_)) => self.runs.contains(&source).then_some(0),
            _ => None,
        }
    }
}

/// One of the command's statements.
#[derive(Debug, Clone, Copy)]
enum Step {
    Close,
    CutLedger {
        of_runs: bool,
    },
    CutTable {
        table: u8,
        of_runs: bool,
    },
    Forget,
    Begin,
    Claim,
    /// Lists are shut out no longer.
    End,
}

impl World {
    /// Rewinds some partitions, all workers ended.
    pub fn rewind(&mut self, _: usize) {
        if self.shared.borrow().faults.rewinds {
            self.take_back(true);
        }
    }

    /// Runs a rewind again that was interrupted, to its end.
    pub fn end_rewind(&mut self) {
        if self.shared.borrow().kafka.shut.is_some() {
            self.take_back(false);
        }
        // One that was interrupted before it closed the epoch, or when all was done.
        self.shared.borrow_mut().take_number(false);
    }

    fn take_back(&mut self, may_end: bool) {
        (0..self.slots.len()).for_each(|index| self.crash(index));
        self.let_arrive();
        {
            let shared = &mut *self.shared.borrow_mut();
            if shared.has_strays() {
                return;
            }
            shared.take_number(true);
        }
        self.meanwhile();
        let (cuts, steps) = {
            let shared = &mut *self.shared.borrow_mut();
            let cuts = shared.draw_cuts();
            if !shared.ensure_finished(&cuts) {
                shared.count("rewind refused as a run was not finished");
                shared.say("operator", || "does not rewind: a run is not finished".to_owned());
                return shared.take_number(false);
            }
            shared.count("rewind");
            shared.say("operator", || format!("rewinds to {:?}, and takes back {:?}", cuts.log, cuts.runs));
            (cuts, shared.steps())
        };
        for step in steps {
            if may_end && self.shared.borrow_mut().chance(6) {
                let shared = &mut *self.shared.borrow_mut();
                shared.count("rewind interrupted");
                return shared.say("operator", || format!("ends before {step:?}"));
            }
            self.shared.borrow_mut().take_step(step, &cuts);
            if matches!(step, Step::Close) {
                self.redrivers_hang_up();
                self.let_arrive();
            }
            self.meanwhile();
        }
        let shared = &mut *self.shared.borrow_mut();
        for (&partition, &at) in &cuts.log {
            shared.kafka.partitions[partition as usize].committed = Some(at);
        }
    }

    /// What is on its way arrives.
    fn let_arrive(&mut self) {
        self.pass(INSERT_TIMEOUT + Duration::from_secs(2));
        let shared = &mut *self.shared.borrow_mut();
        while !shared.clickhouse.network.requests.is_empty() {
            shared.deliver();
        }
        while !shared.clickhouse.pending.is_empty() {
            shared.settle_parts(true);
        }
    }

    /// Redrives go on.
    fn meanwhile(&mut self) {
        for _ in 0..self.draw(0..12) {
            match self.draw(0..8) {
                0 => self.redrive(0),
                1 | 2 => self.shared.borrow_mut().deliver(),
                3 => self.pass(Duration::from_millis(300)),
                _ => self.work_redrive(0),
            }
        }
    }
}

impl Shared {
    /// Shuts out lists of letters, or does so no longer.
    fn take_number(&mut self, begun: bool) {
        let (last, rewinding) = self.last_number();
        if rewinding != begun {
            self.clickhouse.data.runs.insert(last + 1, Taken::Rewind { begun });
            self.say("operator", || format!("takes the number {}: {begun}", last + 1));
        }
    }

    /// Whether all runs are finished, but for those that an interrupted rewind has begun to take back and this one does too.
    fn ensure_finished(&mut self, cuts: &Cuts) -> bool {
        for run in self.unfinished() {
            if self.kafka.shut.is_none() {
                return false;
            }
            let goes = |&partition: &i32| cuts.runs.contains(&self.source_of(run, partition));
            if self.unwritten(run).keys().all(goes) {
                self.count("run taken back by the second rewind");
            } else {
                self.give_up_run(run);
            }
        }
        true
    }

    /// What the ledger has not of a run comes off its list, and its rows go.
    fn give_up_run(&mut self, run: u32) {
        self.count("run given up during a rewind");
        for partition in self.unwritten(run).into_keys() {
            let source = self.source_of(run, partition);
            let end = self.clickhouse.data.end(source).unwrap_or(0);
            for table in 0..TABLES.len() as u8 {
                self.cut_table(table, &|of| (of == source).then_some(end));
            }
            self.forget(run, partition, end);
        }
    }

    /// Takes letters off a run's list from an offset on.
    fn forget(&mut self, run: u32, partition: i32, from: u64) {
        if let Some(Taken::Run { letters, .. }) = self.clickhouse.data.runs.get_mut(&run) {
            letters.retain(|listed| listed.partition != partition || listed.offset < from);
        }
    }

    /// The lives of a partition under all epochs.
    fn lives(&self, partition: i32) -> Vec<SourceId> {
        self.epochs().map(|epoch| SourceId { epoch, redrive: None, partition }).collect()
    }

    /// Those that were claimed.
    pub fn epochs(&self) -> impl Iterator<Item = u32> {
        (1..=self.kafka.epoch).filter(|epoch| !self.kafka.unclaimed.contains(epoch))
    }

    fn lines(&self, partition: i32) -> impl Iterator<Item = &LedgerLine> {
        self.lives(partition).into_iter().filter_map(|life| self.clickhouse.data.ledger.get(&life)).flatten()
    }

    /// Whether a block of a rollup is beyond the ledger's end without its rows.
    fn has_strays(&self) -> bool {
        let cells = &self.clickhouse.data.cells;
        cells.iter().filter(|(place, _)| plans::is_rollup(place.table) && place.source.redrive.is_none()).any(
            |(place, cell)| {
                let end = self.lines(place.source.partition).map(|line| line.row.to).max().unwrap_or(0);
                let raw = cells.get(&Place { table: plans::raw_of(place.table), ..*place });
                let is_there = |offset: &u64| raw.is_some_and(|raw| raw.offsets.contains(offset));
                cell.offsets.iter().any(|offset| *offset >= end && !is_there(offset))
            },
        )
    }

    /// Where rows of the ledger begin, under whichever epoch, or it ends; and which runs have letters from there on.
    fn draw_cuts(&mut self) -> Cuts {
        let mut log = BTreeMap::new();
        for partition in 0..self.kafka.partitions.len() as i32 {
            let Some(end) = self.lines(partition).map(|line| line.row.to).max() else { continue };
            let mut places: Vec<u64> = self.lines(partition).map(|line| line.row.from).collect();
            places.push(end);
            let at = if self.rng.bool() { end } else { places[self.rng.usize(0..places.len())] };
            log.insert(partition, at);
        }
        let goes = |listed: &&Listed| log.get(&listed.partition).is_some_and(|&at| listed.offset >= at);
        let of = |(run, epoch, letters): (u32, u32, &[Listed])| -> Vec<SourceId> {
            let source = |listed: &Listed| SourceId { epoch, redrive: Some(run), partition: listed.partition };
            letters.iter().filter(goes).map(source).collect()
        };
        let runs = self.lists().flat_map(of).collect();
        Cuts { log, epochs: self.epochs().collect(), runs }
    }

    fn steps(&self) -> Vec<Step> {
        let rollups = || (0..TABLES.len() as u8).filter(|&table| plans::is_rollup(table));
        let tables = || rollups().chain((0..TABLES.len() as u8).filter(|&table| !plans::is_rollup(table)));
        let cut = |of_runs| tables().map(move |table| Step::CutTable { table, of_runs });
        let (ledger, late) = (Step::CutLedger { of_runs: false }, self.mutation == Mutation::RewindLedgerLast);
        let mut steps = vec![Step::Close, Step::CutLedger { of_runs: true }];
        steps.extend(cut(true));
        steps.push(Step::Forget);
        steps.extend((!late).then_some(ledger));
        steps.extend(cut(false));
        steps.extend(late.then_some(ledger));
        steps.extend([Step::Begin, Step::Claim, Step::End]);
        steps
    }

    fn take_step(&mut self, step: Step, cuts: &Cuts) {
        match step {
            Step::Close if self.kafka.shut.is_none() => {
                let epoch = self.kafka.begun.max(self.kafka.epoch) + 1;
                self.kafka.begun = epoch;
                self.kafka.unclaimed.insert(epoch);
                self.kafka.shut = Some(epoch);
            }
            Step::Close => {}
            Step::CutLedger { of_runs } => self.cut_ledger(cuts, of_runs),
            Step::CutTable { table, of_runs } => self.cut_table(table, &|source| cuts.at(source, of_runs)),
            Step::Forget => {
                for source in &cuts.runs {
                    self.count("run taken back");
                    source.redrive.into_iter().for_each(|run| self.forget(run, source.partition, 0));
                }
            }
            Step::Begin => self.begin(self.kafka.begun + 1, &cuts.log),
            Step::Claim => self.claim_epoch(self.kafka.begun),
            Step::End => self.take_number(false),
        }
    }

    /// What begins a source right there stays. From here on a dead letter that has expired may be written again.
    fn cut_ledger(&mut self, cuts: &Cuts, of_runs: bool) {
        for (place, cell) in &mut self.clickhouse.data.cells {
            let at = cuts.at(place.source, of_runs).unwrap_or(u64::MAX);
            cell.taken.retain(|&offset| offset < at);
        }
        for (&source, lines) in &mut self.clickhouse.data.ledger {
            let at = cuts.at(source, of_runs).unwrap_or(u64::MAX);
            lines.retain(|line| line.row.to <= at);
        }
    }

    /// Deletes a table's rows from where `at` says of their source; of a rollup, whose minutes are computed anew, the marks
    /// stay that the ledger saw.
    fn cut_table(&mut self, table: u8, at: &dyn Fn(SourceId) -> Option<u64>) {
        debug_assert!(table <= DEAD_LETTERS);
        let data = &mut self.clickhouse.data;
        let mut taken = 0;
        for (place, cell) in data.cells.iter_mut().filter(|(place, _)| place.table == table) {
            let Some(at) = at(place.source) else { continue };
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
        if taken > 0 && plans::is_rollup(table) {
            data.tokens[usize::from(table)].forget();
        }
        if taken > 0 {
            self.count("rows taken back from a table");
        }
    }

    /// First rows of the next epoch.
    fn begin(&mut self, epoch: u32, cuts: &BTreeMap<i32, u64>) {
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
        self.kafka.shut = None;
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
