//! The model of ClickHouse: tables, tokens in a window of parts, and parts and tokens as two steps between which the
//! server may be killed or take its time.
//!
//! What the model takes as given, because beyond it the protocol does not hold:
//! - An insert is not delayed for longer than half a token window lasts: its connection is cut before (`outlived`).
//! - A token that was logged has its part within the insert time-out and within the other half of the window, unless the
//!   server is killed; a part that is there has its token, unless it is killed. A longer pause makes the suffix double.
//! - A part that a TTL has emptied leaves its token in the window, and a token that was burnt stays there until the mark
//!   has moved: who never heard of it would insert under it, while another does so under its suffix.
//! - No proxy hides a reconnect; no power loss; one replica.
//! - A backup is of one moment and of a time when every source had its first row (before that, the group's commit would be
//!   believed once more); it comes back by a restart, and workers that have nothing to write are started again, for they
//!   do not ask and so do not see that the ledger went back.
//! - The ledger's ends are read before the marks that it recorded, and both before the tables' marks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use highwater::batch::{Block, LedgerRow, Source};
use highwater::clickhouse::redrives::Listed;
use highwater::ports::{Connection, Insert, Rows, StoreError};

use crate::mutation::Mutation;
use crate::network::{Network, Request};
use crate::plans::{self, LEDGER, TABLES, plans};
use crate::shared::{Faults, INSERT_TIMEOUT, Shared};

/// A source without its topic's name, of which there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceId {
    pub epoch: u32,
    /// The run of a redrive whose letters it has.
    pub redrive: Option<u32>,
    pub partition: i32,
}

impl SourceId {
    pub fn of(source: &Source) -> SourceId {
        SourceId { epoch: source.epoch, redrive: source.redrive, partition: source.partition }
    }
}

impl std::fmt::Display for SourceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let run = self.redrive.map(|run| format!("r{run}")).unwrap_or_default();
        write!(f, "{}{run}/{}", self.epoch, self.partition)
    }
}

/// One source's rows in one month of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub source: SourceId,
    pub table: u8,
    pub month: u32,
}

impl Place {
    /// Where a block of a worker with this plan goes to.
    pub fn of(block: &Block, plan: usize) -> Place {
        let source = SourceId::of(block.batch().source());
        Place { source, table: plans()[plan].number(block.key().table), month: block.key().month.0 }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.source, TABLES[usize::from(self.table)], self.month)
    }
}

/// Count and sum of each minute (in seconds since 1970) and app.
pub type Series = BTreeMap<(u32, String), (u64, i64)>;

/// What is in a [`Place`].
#[derive(Debug, Default, Clone)]
pub struct Cell {
    /// Offsets of the events in it, or summed up in it.
    pub offsets: Vec<u64>,
    /// Offsets that a TTL took when the ledger had them already.
    pub taken: Vec<u64>,
    pub series: Series,
    /// Greatest marker of a rollup.
    pub through: u64,
    /// Late events that it counts: not at all, but for a mutation.
    pub late: Option<u64>,
}

/// A ledger row as the server has it, its marks by tables' numbers.
#[derive(Debug, Clone)]
pub struct LedgerLine {
    pub row: LedgerRow,
    /// Which of the two plans wrote it.
    pub plan: usize,
    pub marks: BTreeMap<(u8, u32), u64>,
}

/// The tokens of a table's last parts.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    seen: VecDeque<u64>,
    /// Tokens whose parts a kill took.
    burnt: Vec<u64>,
    /// Parts that there ever were.
    pub added: u64,
}

impl Tokens {
    /// As when the partitions of a table are replaced: the tokens of their parts go with them.
    pub fn forget(&mut self) {
        self.seen.clear();
        self.burnt.clear();
    }

    fn has(&self, token: u64) -> bool {
        self.seen.contains(&token) || self.burnt.contains(&token)
    }
}

/// What a number of runs was taken for.
#[derive(Debug, Clone)]
pub enum Taken {
    /// The letters of one epoch that a run comprises, and no rewind took off.
    Run { epoch: u32, letters: Vec<Listed> },
    /// By a rewind, as it begins or has ended.
    Rewind { begun: bool },
}

/// What a backup holds.
#[derive(Debug, Clone, Default)]
pub struct Data {
    pub cells: BTreeMap<Place, Cell>,
    pub ledger: BTreeMap<SourceId, Vec<LedgerLine>>,
    /// Milliseconds since 1970; of each source the greatest that was reported.
    pub watermarks: BTreeMap<SourceId, i64>,
    /// What stands under each number that redrives and rewinds took.
    pub runs: BTreeMap<u32, Taken>,
    /// Per table, the ledger's last.
    pub tokens: [Tokens; TABLES.len() + 1],
}

impl Data {
    pub fn end(&self, source: SourceId) -> Option<u64> {
        self.ledger.get(&source)?.last().map(|line| line.row.to)
    }

    pub fn mark(&self, place: Place) -> Option<u64> {
        let cell = self.cells.get(&place)?;
        let greatest = cell.offsets.iter().max().map(|last| last + 1);
        if plans::is_rollup(place.table) { Some(cell.through).filter(|&through| through > 0) } else { greatest }
    }
}

/// What has its token and yet has to come.
pub enum Pending {
    Part {
        insert: Box<Insert>,
        plan: usize,
        token: u64,
        client: u32,
    },
    /// A rollup's marker, for a mutation.
    Marker(Place, u64),
}

/// What a client was told of a ledger.
pub struct Told {
    pub end: u64,
    /// Where the batch begins that it asked for.
    pub from: u64,
    /// How often the server had been restored.
    pub restores: u32,
}

/// The server.
#[derive(Default)]
pub struct ClickHouse {
    /// Counts starts; a connection belongs to one.
    pub boot: u64,
    pub data: Data,
    pub network: Network,
    pub backup: Option<Data>,
    /// How often it was restored from a backup.
    pub restores: u32,
    pub pending: Vec<(Duration, Pending)>,
    /// A table, or one month of it, that takes nothing for now.
    sick: Option<(usize, Option<u32>)>,
    /// Offsets of raw rows whose insert was acknowledged without a part: it is to come, or the token was another's.
    pub promised: BTreeSet<(Place, u64)>,
    /// The parts that each table had when a connection was last asked for a source's marks.
    pub asked: BTreeMap<(Connection, SourceId), [u64; TABLES.len() + 1]>,
    /// What a client was last told of a source's ledger.
    pub told: BTreeMap<(u32, SourceId), Told>,
    /// Where a client began to read a source.
    pub begun: BTreeMap<(u32, SourceId), u64>,
    /// It is about to be restored.
    pub restored_soon: bool,
}

/// Which table an insert goes to, and which month of it.
fn target(insert: &Insert, plan: usize) -> (SourceId, usize, Option<u32>) {
    match &insert.rows {
        Rows::Ledger(row) => (SourceId::of(&row.source), LEDGER, None),
        Rows::Block(block) => {
            let Place { source, table, month } = Place::of(block, plan);
            (source, usize::from(table), Some(month))
        }
    }
}

impl Shared {
    /// An insert has arrived on a connection that lives.
    pub fn insert(&mut self, request: &Request, insert: &Insert) {
        let (source, table, month) = target(insert, request.plan);
        let what = insert.token.clone();
        let client = request.client;
        if self.outlived(request.connection, source, table) {
            self.count("cut before its token's window ended");
            self.say(client, || format!("{what}: its connection is cut, it was built too many parts ago"));
            return self.cut(request, "the connection timed out");
        }
        let sick = self.clickhouse.sick.is_some_and(|(of, only)| of == table && (only.is_none() || only == month));
        if !self.calm && (sick || self.chance(3)) {
            self.count(match self.clickhouse.sick.filter(|_| sick) {
                Some((_, Some(_))) => "a passing error of one month",
                Some((_, None)) => "a passing error of one table",
                None => "a passing error",
            });
            self.say(client, || format!("{what}: a passing error, nothing done"));
            return self.refuse(request, StoreError::Passing("too many parts".to_owned()));
        }
        if self.faults.refusals && self.chance(4) {
            self.count("refused for good");
            self.refused.insert(client);
            self.say(client, || format!("{what}: refused for good"));
            return self.refuse(request, StoreError::Refused("no such column".to_owned()));
        }
        let times = if self.chance(4) { 2 } else { 1 };
        if times > 1 {
            self.count("insert arrived twice");
        }
        for _ in 0..times {
            if !self.take(client, request.plan, table, insert) {
                return self.cut(request, "the server was killed");
            }
        }
        if self.chance(3) {
            self.count("done and yet a passing error");
            self.say(client, || format!("{what}: answers with a passing error"));
            return self.refuse(request, StoreError::Passing("memory limit".to_owned()));
        }
        self.acknowledge(request);
    }

    /// Whether half a window of parts has come since the marks of an insert were asked.
    fn outlived(&self, connection: Connection, source: SourceId, table: usize) -> bool {
        let asked = self.clickhouse.asked.get(&(connection, source));
        let added = self.clickhouse.data.tokens[table].added;
        asked.is_some_and(|asked| added.saturating_sub(asked[table]) >= self.faults.window as u64 / 2)
    }

    /// Logs the token and adds the part; false: the server was killed.
    fn take(&mut self, client: u32, plan: usize, table: usize, insert: &Insert) -> bool {
        let token = self.token(client, insert);
        let what = || describe(insert, plan);
        if self.clickhouse.data.tokens[table].has(token) {
            self.promise(insert, plan);
            self.count(if table == LEDGER { "ledger row dropped by its token" } else { "dropped by its token" });
            self.say(client, || format!("{}: dropped by its token", what()));
            return true;
        }
        if table != LEDGER && insert.token.split('/').count() > 6 {
            self.count("landed under a suffix");
        }
        let Faults { deaths, pauses, .. } = self.faults;
        match if self.calm { 255 } else { self.rng.u8(..) } {
            draw if draw < deaths => {
                self.count("killed between token and part");
                self.say(client, || format!("{}: token logged, killed before the part", what()));
                self.log_token(table, token);
                self.clickhouse.data.tokens[table].burnt.push(token);
                self.kill_server();
                false
            }
            draw if draw < 2 * deaths => {
                self.count("killed between part and token");
                self.say(client, || format!("{}: part added, killed before the token", what()));
                self.land(insert, plan, client);
                self.kill_server();
                false
            }
            draw if draw < 2 * deaths + pauses => {
                self.count("part long after its token");
                let due = self.now + INSERT_TIMEOUT.mul_f64(self.rng.f64());
                self.say(client, || format!("{}: token logged, the part is to come", what()));
                self.log_token(table, token);
                self.promise(insert, plan);
                self.clickhouse
                    .pending
                    .push((due, Pending::Part { insert: Box::new(insert.clone()), plan, token, client }));
                true
            }
            _ => {
                self.count("inserts");
                self.say(client, || format!("{}: lands", what()));
                self.log_token(table, token);
                self.land(insert, plan, client);
                true
            }
        }
    }

    fn token(&self, client: u32, insert: &Insert) -> u64 {
        let token = insert.token.as_str();
        let mut hasher = rustc_hash::FxHasher::default();
        match self.mutation {
            // None is ever found again.
            Mutation::NoTokens => {
                (self.now, self.clickhouse.data.tokens.iter().map(|of| of.added).sum::<u64>()).hash(&mut hasher)
            }
            Mutation::LedgerWithoutToken if matches!(insert.rows, Rows::Ledger(_)) => {
                (self.now, self.clickhouse.data.tokens[LEDGER].added).hash(&mut hasher);
            }
            Mutation::TokenWithoutMark => {
                let mark = if token.contains("/ledger/") { 4 } else { 5 };
                token.split('/').enumerate().filter(|(at, _)| *at != mark).for_each(|(_, word)| word.hash(&mut hasher));
            }
            Mutation::TokenPerWriter => (client, token).hash(&mut hasher),
            _ => token.hash(&mut hasher),
        }
        hasher.finish()
    }

    fn log_token(&mut self, table: usize, token: u64) {
        let tokens = &mut self.clickhouse.data.tokens[table];
        tokens.added += 1;
        tokens.seen.push_back(token);
        // Half a window lasts longer than the store may take over an insert, the other half than the network may.
        let half = tokens.seen.iter().rev().nth(self.faults.window / 2).copied();
        if tokens.seen.len() > self.faults.window {
            tokens.seen.pop_front();
            self.count("token left the window");
        }
        let of_it = |(_, one): &(Duration, Pending)| matches!(one, Pending::Part { token, .. } if Some(*token) == half);
        if let Some(index) = self.clickhouse.pending.iter().position(of_it) {
            self.settle_part(index);
        }
    }

    /// Takes a token for somebody who is no worker; where it is burnt, the next. False: it is on its way with its part.
    pub fn claim_token(&mut self, table: usize, name: &str) -> bool {
        if !self.clickhouse.pending.is_empty() {
            return false;
        }
        let token = |suffix: u32| {
            let mut hasher = rustc_hash::FxHasher::default();
            if suffix == 0 { name.to_owned() } else { format!("{name}/{suffix}") }.as_str().hash(&mut hasher);
            hasher.finish()
        };
        let free = (0..).map(token).find(|&token| !self.clickhouse.data.tokens[table].has(token));
        free.into_iter().for_each(|token| self.log_token(table, token));
        true
    }

    /// The server dies and is there again at once; what was under way is gone.
    pub fn kill_server(&mut self) {
        self.count("server killed");
        self.say("clickhouse", || "is killed".to_owned());
        self.clickhouse.boot += 1;
        for (_, pending) in self.clickhouse.pending.drain(..) {
            if let Pending::Part { insert, plan, token, .. } = pending {
                let (_, table, _) = target(&insert, plan);
                self.clickhouse.data.tokens[table].burnt.push(token);
            }
        }
        self.clickhouse.asked.clear();
    }

    /// Takes a backup, once every source has begun: one from before would have the group's commit believed again.
    pub fn back_up(&mut self) {
        let all = (0..self.kafka.partitions.len()).all(|at| self.clickhouse.data.end(self.kafka.source(at)).is_some());
        if self.faults.restore && all && self.clickhouse.pending.is_empty() {
            self.say("clickhouse", || "is backed up".to_owned());
            self.clickhouse.backup = Some(self.clickhouse.data.clone());
        }
    }

    /// The operator restores the backup: rows and ledger of then, with the tokens of then, of now or none.
    pub fn restore(&mut self) {
        let Some(backup) = self.clickhouse.backup.clone() else { return };
        self.count("restored");
        self.say("clickhouse", || "is restored from its backup".to_owned());
        let tokens = std::mem::take(&mut self.clickhouse.data.tokens);
        self.clickhouse.data = backup;
        match self.rng.u8(0..3) {
            0 => {}
            1 => self.clickhouse.data.tokens = tokens,
            _ => self.clickhouse.data.tokens = Default::default(),
        }
        self.clickhouse.restores += 1;
        self.kill_server();
    }

    /// One table, or one month of it, stops taking inserts, or does again.
    pub fn sicken(&mut self) {
        let table = self.rng.usize(0..=LEDGER);
        let month = self.rng.bool().then_some(202_601);
        self.clickhouse.sick = if self.clickhouse.sick.is_some() { None } else { Some((table, month)) };
        let sick = self.clickhouse.sick;
        self.say("clickhouse", || format!("takes nothing into {sick:?}"));
    }

    pub fn heal(&mut self) {
        self.clickhouse.sick = None;
    }

    /// Parts whose time has come land, and sometimes one before it has.
    pub fn settle_parts(&mut self, any: bool) {
        let now = self.now;
        let pending = &mut self.clickhouse.pending;
        let index = match pending.iter().position(|(due, _)| *due <= now) {
            Some(index) => Some(index),
            None if any && !pending.is_empty() => Some(self.rng.usize(0..pending.len())),
            None => None,
        };
        if let Some(index) = index {
            self.settle_part(index);
            self.settle_parts(false);
        }
    }

    fn settle_part(&mut self, index: usize) {
        match self.clickhouse.pending.swap_remove(index).1 {
            Pending::Part { insert, plan, client, .. } => {
                self.say("clickhouse", || format!("{}: the part comes", describe(&insert, plan)));
                self.land(&insert, plan, client);
            }
            Pending::Marker(place, through) => {
                let cell = self.clickhouse.data.cells.entry(place).or_default();
                cell.through = cell.through.max(through);
            }
        }
    }
}

/// An insert as the trace shows it: its token and what it carries.
fn describe(insert: &Insert, plan: usize) -> String {
    match &insert.rows {
        Rows::Ledger(row) => format!("{} [{}, {}) of {} messages", insert.token, row.from, row.to, row.events),
        Rows::Block(block) => {
            let (events, rows) = block.events(&plans()[plan].plan);
            format!("{} offsets {:?}", insert.token, &events.offsets[rows])
        }
    }
}
