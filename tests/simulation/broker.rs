//! What happens to Kafka in a schedule: its group's decisions, its commits, retention, and what producers do.

use highwater::batch::{LedgerKind, LedgerRow, Source};

use crate::clickhouse::LedgerLine;
use crate::kafka::TOPIC;
use crate::log::{self, Repeats};
use crate::plans::{LEDGER, plans};
use crate::shared::Shared;

impl Shared {
    fn some_partition(&mut self) -> usize {
        self.rng.usize(0..self.kafka.partitions.len())
    }

    /// The group gives a partition to a member, whether or not the one before has let it go.
    pub fn rebalance(&mut self, client: u32) {
        let partition = self.some_partition();
        let owner = &mut self.kafka.partitions[partition].owner;
        if owner.replace(client).is_some_and(|owner| owner != client) {
            self.count("partition given to another");
        }
        self.say("kafka", || format!("gives {partition} to {client}"));
    }

    /// Gives partitions of members that are gone to those who are there.
    pub fn share_out(&mut self, clients: &[u32]) {
        for (index, log) in self.kafka.partitions.iter_mut().enumerate() {
            if !log.owner.is_some_and(|owner| clients.contains(&owner)) {
                log.owner = Some(clients[index % clients.len()]);
            }
        }
    }

    /// Producers write.
    pub fn produce(&mut self) {
        let partition = self.some_partition();
        let more = self.rng.u64(1..7);
        let open = self.chance(40);
        let log = &self.kafka.partitions[partition];
        let end = (log.end + more).min(log.records.len() as u64);
        if open && end > log.end {
            self.count("transaction left open");
        }
        self.kafka.append(partition, end, open, self.now);
    }

    pub fn produce_all(&mut self) {
        for partition in 0..self.kafka.partitions.len() {
            let end = self.kafka.partitions[partition].records.len() as u64;
            self.kafka.append(partition, end, false, self.now);
        }
    }

    pub fn late_commit(&mut self) {
        if self.kafka.delayed.is_empty() {
            return;
        }
        let index = self.rng.usize(0..self.kafka.delayed.len());
        let (partition, offset) = self.kafka.delayed.remove(index);
        if let Some(log) = self.kafka.partitions.get_mut(partition) {
            log.committed = Some(offset);
            self.count("commit applied late");
            self.say("kafka", || format!("applies a late commit of {partition}: {offset}"));
        }
    }

    /// Somebody sets the group's offset back or forward, or it expires.
    pub fn reset_commit(&mut self) {
        let partition = self.some_partition();
        // Before the first start that is where to begin, and so it is not to be lost.
        if self.clickhouse.data.end(self.kafka.source(partition)).is_none() {
            return;
        }
        let (committed, end) = (self.kafka.partitions[partition].committed, self.kafka.partitions[partition].end);
        let (what, to) = match self.rng.u8(0..3) {
            0 => ("commit expired", None),
            1 => ("commit set back", Some(self.rng.u64(0..=committed.unwrap_or(0)))),
            _ => ("commit set forward", Some(committed.unwrap_or(0).max(end) + self.rng.u64(0..5))),
        };
        self.kafka.partitions[partition].committed = to;
        self.count(what);
        self.say("kafka", || format!("the commit of {partition} is reset to {to:?}"));
    }

    /// Retention takes the beginning of a log: with `loss` also what nobody has read yet.
    pub fn expire_log(&mut self) {
        let partition = self.some_partition();
        let done = self.clickhouse.data.end(self.kafka.source(partition)).unwrap_or(0);
        let log = &mut self.kafka.partitions[partition];
        let most = match (self.faults.retention, self.faults.loss) {
            (true, _) => done,
            (_, true) => log.stable,
            _ => return,
        };
        if most <= log.start {
            return;
        }
        log.start = self.rng.u64(log.start..=most);
        let (start, overtaken) = (log.start, log.start > done);
        log.overtaken |= overtaken;
        if overtaken {
            self.count("retention took what was not read");
        }
        self.say("kafka", || format!("retention moves the start of {partition} to {start}"));
    }

    /// The operator records as lost what the log no longer has: a ledger row by the same compare-and-set.
    pub fn record_loss(&mut self, partition: usize) {
        let id = self.kafka.source(partition);
        let Some(start) = self.kafka.partitions.get(partition).map(|log| log.start) else { return };
        let Some(end) = self.clickhouse.data.end(id).filter(|&end| end < start) else { return };
        let source = Source { epoch: id.epoch, redrive: None, topic: TOPIC.into(), partition: id.partition };
        if !self.claim_token(LEDGER, &format!("{source}/ledger/{end}")) {
            return;
        }
        let row = LedgerRow::empty(source, LedgerKind::Lost, end, start, plans()[0].plan.hash.clone());
        let line = LedgerLine { row, plan: 0, marks: Default::default() };
        self.clickhouse.data.ledger.entry(id).or_default().push(line);
        self.count("loss recorded");
        self.say("operator", || format!("records {end}..{start} of {partition} as lost"));
    }

    /// The topic is deleted and made anew.
    pub fn make_anew(&mut self, repeats: Repeats) {
        if !self.faults.anew || self.kafka.life > 1 {
            return;
        }
        let logs = (0..self.kafka.partitions.len()).map(|_| log::log(&mut self.rng, repeats)).collect();
        self.kafka.make_anew(logs);
        // Producers go on, and may have written more by now than was read of the old one.
        if self.rng.bool() {
            self.produce_all();
        }
        self.count("topic made anew");
        self.say("kafka", || "the topic is deleted and made anew".to_owned());
        if self.rng.bool() {
            self.late_commit();
        }
    }

    pub fn grow(&mut self, repeats: Repeats) {
        if self.faults.grow && self.kafka.partitions.len() < 4 {
            let records = log::log(&mut self.rng, repeats);
            self.kafka.add(records, None);
            self.count("partition added");
            self.say("kafka", || "a partition is added".to_owned());
        }
    }

    /// Brokers stop answering questions, or do again.
    pub fn fall_silent(&mut self) {
        self.kafka.silent = !self.kafka.silent;
        let silent = self.kafka.silent;
        self.say("kafka", || if silent { "falls silent" } else { "answers again" }.to_owned());
    }

    /// Whether a question to Kafka has no answer now.
    pub fn is_unanswered(&mut self) -> bool {
        !self.calm && (self.kafka.silent || self.rng.u8(..) < 10)
    }

    /// No more faults; producers finish.
    pub fn calm_down(&mut self) {
        self.calm = true;
        self.heal();
        self.say("--", || "faults end".to_owned());
    }
}
