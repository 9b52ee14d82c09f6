//! What a random search hardly reaches, step by step: real workers and the servers' models, of which a test says what arrives
//! when.

use std::time::Duration;

use highwater::ports::Insert;

use crate::directed::event;
use crate::mutation::Mutation;
use crate::network::{Body, Request};
use crate::shared::Faults;
use crate::world::World;

/// Workers, by their places.
const ASLEEP: usize = 0;
const HEIR: usize = 1;
const OTHER: usize = 2;

/// A world that does as it is told.
struct Race {
    world: World,
}

impl Race {
    /// The member in a place.
    fn client(&self, index: usize) -> u32 {
        self.world.slots[index].client
    }

    fn give(&self, partition: usize, index: usize) {
        self.world.shared.borrow_mut().kafka.partitions[partition].owner = Some(self.client(index));
    }

    fn produce(&self, partition: usize, end: u64) {
        let shared = &mut *self.world.shared.borrow_mut();
        shared.kafka.append(partition, end, false, shared.now);
    }

    fn done(&self, partition: usize) -> u64 {
        let shared = self.world.shared.borrow();
        shared.clickhouse.data.end(shared.kafka.source(partition)).unwrap_or(0)
    }

    /// Has what one worker sent arrive, up to a request that is held back; whether there was one.
    fn deliver(&self, index: usize, held: fn(&Insert) -> bool) -> bool {
        let client = self.client(index);
        let shared = &mut *self.world.shared.borrow_mut();
        let of_it = |request: &Request| request.client == client;
        while let Some(first) = shared.clickhouse.network.requests.iter().position(of_it) {
            if matches!(&shared.clickhouse.network.requests[first].body, Body::Insert(insert) if held(insert)) {
                return true;
            }
            shared.arrive(first);
        }
        false
    }

    /// Lets one worker work until a partition is done up to an offset, or something that it sent is held back.
    fn work(&mut self, index: usize, (partition, end): (usize, u64), held: fn(&Insert) -> bool) {
        for _ in 0..1_000 {
            self.world.step(index);
            if self.deliver(index, held) || self.done(partition) >= end {
                return;
            }
            self.world.pass(Duration::from_millis(300));
        }
        panic!("partition {partition} stands at {} instead of {end}", self.done(partition));
    }
}

/// An insert of a partition's rows under a suffix: an earlier one was acknowledged and yet is not there.
fn is_suffixed(insert: &Insert) -> bool {
    insert.token.starts_with("1/ticks/0/tick/") && insert.token.split('/').count() > 6
}

/// A worker falls asleep while its insert is on its way; by the time that it arrives, another one has its partition. What
/// was wrong in the end.
pub fn insert_of_a_sleeper(mutation: Mutation) -> Option<String> {
    let faults = Faults { window: 6, seal_events: 1, memory: 100_000, ..Faults::default() };
    let mut events = (0..).map(event);
    let logs = [2, 6].map(|length| events.by_ref().take(length).collect()).into();
    let mut race = Race { world: World::still(mutation, faults, logs, 3) };
    race.give(0, ASLEEP);
    race.give(1, OTHER);
    race.produce(0, 1);
    race.work(ASLEEP, (0, 1), |_| false);
    for end in 1..6 {
        race.produce(1, end);
        race.work(OTHER, (1, end), |_| false);
    }
    // Of the table's last six parts the first is of offset 0. If the token of offset 1 is the same, it is dropped, and
    // when the insert time-out has passed, the rows go out under its suffix.
    race.produce(0, 2);
    race.work(ASLEEP, (0, 2), is_suffixed);
    // That token leaves the window. Whoever comes now uses it without a suffix.
    race.produce(1, 6);
    race.work(OTHER, (1, 6), |_| false);
    race.give(0, HEIR);
    race.work(HEIR, (0, 2), |_| false);
    race.deliver(ASLEEP, |_| false);
    race.world.finish();
    race.world.shared.borrow().violation.clone()
}

#[test]
fn of_two_writers_on_one_mark_the_token_lets_one_through() {
    assert_eq!(insert_of_a_sleeper(Mutation::None), None);
    let wrong = insert_of_a_sleeper(Mutation::TokenWithoutMark).expect("two inserts of one row");
    assert!(wrong.contains("offset 1 is there already"), "{wrong}");
}
