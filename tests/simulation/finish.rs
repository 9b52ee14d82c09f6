//! How a schedule ends: faults do, everything that slept wakes, all is delivered.

use std::time::Duration;

use highwater::partition::Partition;

use crate::clickhouse::SourceId;
use crate::world::World;

impl World {
    /// Faults end, everything that slept wakes, all is delivered; then the tables are held against the truth.
    pub fn finish(&mut self) {
        if self.settle(true) {
            self.advance();
        }
        let shared = &mut *self.shared.borrow_mut();
        if let Err(wrong) = shared.check() {
            shared.wrong(wrong);
        }
        *shared.counts.entry("lost ranges in which raw rows and a rollup differ").or_default() += shared.lost_apart();
    }

    /// Faults end until all is written but what is to be redriven.
    pub fn rest(&mut self) {
        self.settle(false);
        self.shared.borrow_mut().calm = false;
    }

    /// Faults end until all is written; whether it came to that.
    fn settle(&mut self, redrive: bool) -> bool {
        self.end_rewind();
        self.shared.borrow_mut().calm_down();
        for index in 0..self.slots.len() {
            self.slots[index].asleep = 0;
            if self.slots[index].worker.is_none() || self.slots[index].ending.is_some() {
                self.crash(index);
                self.start(index);
            }
        }
        for lap in 0..2_000 {
            for index in 0..self.slots.len() {
                self.operate(index);
                self.step(index);
            }
            if redrive {
                self.redrive_on();
            }
            let clients: Vec<u32> = self.slots.iter().map(|slot| slot.client).collect();
            {
                let shared = &mut *self.shared.borrow_mut();
                shared.share_out(&clients);
                shared.produce_all();
                while !shared.clickhouse.network.requests.is_empty() {
                    shared.deliver();
                }
            }
            self.pass(Duration::from_millis(if lap % 10 == 9 { 11_000 } else { 300 }));
            if self.shared.borrow().violation.is_some() {
                return false;
            }
            if self.is_settled() && (!redrive || self.is_redriven()) {
                return true;
            }
        }
        false
    }

    /// All is written and nothing more comes: every watermark follows the clock.
    fn advance(&mut self) {
        let least = self.shared.borrow().quiet_now();
        for _ in 0..8 {
            self.pass(Duration::from_secs(4));
            for index in 0..self.slots.len() {
                self.operate(index);
                self.step(index);
            }
            let shared = &mut *self.shared.borrow_mut();
            while !shared.clickhouse.network.requests.is_empty() {
                shared.deliver();
            }
            if shared.behind(least).is_none() {
                return;
            }
        }
        let shared = &mut *self.shared.borrow_mut();
        if let Some(source) = shared.behind(least) {
            shared.wrong(format!("{source}: all is written, and its watermark does not advance"));
        }
    }

    fn is_settled(&self) -> bool {
        let idle = self.slots.iter().flat_map(|slot| &slot.worker).all(|worker| {
            let at_rest = |partition: &Partition| partition.is_idle() && partition.done().is_some();
            !worker.is_waiting() && worker.partitions().all(at_rest)
        });
        let shared = self.shared.borrow();
        let ends = (0..shared.kafka.partitions.len()).map(|partition| shared.kafka.source(partition));
        idle && ends.into_iter().all(|source: SourceId| {
            shared.clickhouse.data.end(source).is_some_and(|end| end >= shared.kafka.truths[&source].end)
        })
    }
}
