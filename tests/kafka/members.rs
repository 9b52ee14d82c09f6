//! Members of a group come and go; every record is delivered to one of them, once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use highwater::kafka::{GroupProtocol, KafkaLog};
use highwater::ports::{Log, LogEvent, TopicPartition};

use crate::support::*;

/// A member that starts what it gets at the offset that a shared ledger holds, and keeps the ledger.
struct Member {
    topic: &'static str,
    log: KafkaLog,
    owned: BTreeSet<i32>,
    pending: Vec<TopicPartition>,
}

impl Member {
    fn turn(&mut self, ledger: &Arc<Mutex<BTreeMap<i32, u64>>>) {
        let Self { log, owned, pending, .. } = self;
        log.poll(Duration::from_millis(10), &mut |event| match event {
            LogEvent::Assigned(names) => pending.extend(names),
            LogEvent::Revoked(names) => {
                for name in names {
                    owned.remove(&name.partition);
                    pending.retain(|waiting| *waiting != name);
                }
            }
            LogEvent::Record(record) => {
                assert!(owned.contains(&record.partition), "a record after the revocation or before the start");
                let mut ledger = ledger.lock().unwrap();
                let next = ledger.entry(record.partition).or_default();
                assert_eq!(record.offset, *next, "partition {}", record.partition);
                *next += 1;
            }
            LogEvent::End(..) => {}
            LogEvent::OutOfRange(name) => panic!("{name} out of range"),
        });
        self.pending.retain(|name| {
            let next = ledger.lock().unwrap().get(&name.partition).copied().unwrap_or(0);
            let started = self.log.start(name, next).is_ok();
            if started {
                self.owned.insert(name.partition);
            }
            !started
        });
        let done: Vec<(TopicPartition, u64)> = self
            .owned
            .iter()
            .filter_map(|partition| {
                let next = *ledger.lock().unwrap().get(partition)?;
                Some((name(self.topic, *partition), next))
            })
            .collect();
        self.log.commit(&done);
        assert_eq!(self.log.fatal(), None);
    }
}

#[test]
fn members_come_and_go_and_every_record_is_delivered_once() {
    let brokers = broker();
    for (protocol, topic_name) in
        [(GroupProtocol::Classic, "share-classic"), (GroupProtocol::Consumer, "share-consumer")]
    {
        topic(&brokers, topic_name, 12);
        let ledger = Arc::new(Mutex::new(BTreeMap::new()));
        let member = || Member {
            topic: topic_name,
            log: consumer(&brokers, topic_name, topic_name, protocol),
            owned: BTreeSet::new(),
            pending: Vec::new(),
        };
        let mut members = vec![member()];
        let mut filled = 0;
        for round in 0..6 {
            fill(&brokers, topic_name, 12, 200);
            filled += 200;
            match round {
                1 | 2 => members.push(member()),
                3 | 4 => members.remove(0).log.close(),
                _ => {}
            }
            let begun = Instant::now();
            let wanted = 12 / members.len();
            while ledger.lock().unwrap().values().filter(|next| **next == filled).count() < 12
                || members.iter().any(|member| member.owned.len() != wanted)
            {
                assert!(begun.elapsed() < PATIENCE, "round {round}: {:?}", ledger.lock().unwrap());
                for member in &mut members {
                    member.turn(&ledger);
                }
            }
        }
    }
}
