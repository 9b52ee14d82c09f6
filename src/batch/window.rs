//! The duplicates window: which ids stood among the last N offsets of a partition.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rustc_hash::FxBuildHasher;

/// The ids of the previous `horizon` offsets of one partition.
///
/// Whether an event is a duplicate is a function of the log alone: it is one when an event of its type with its id stood
/// at one of the `horizon` offsets before it, whether that one was written or was itself a duplicate.
///
/// Each id is kept once, in the order of the log, and the table has only their places: a process has a window per
/// partition, and tables that hold the ids themselves do not stay in a core's cache.
#[derive(Debug, Clone)]
pub struct Window {
    horizon: u64,
    order: VecDeque<Seen>,
    /// How many were taken from the front of `order`: the place of the one that is there now.
    first: u64,
    /// The place of the latest of each name.
    latest: HashTable<u64>,
}

/// An id at an offset. Two halves, since a whole `u128` would take half as much memory again for its alignment.
#[derive(Debug, Clone, Copy)]
struct Seen {
    offset: u64,
    name: Name,
}

/// The id, greatest half first, and the position of the event type in the plan.
type Name = (u64, u64, u32);

impl Window {
    /// An empty window over `horizon` offsets.
    pub fn new(horizon: u64) -> Window {
        Window { horizon, order: VecDeque::new(), first: 0, latest: HashTable::new() }
    }

    /// Takes note of an id at an offset (ascending) and answers whether it repeats one inside the window.
    pub fn observe(&mut self, kind: usize, id: u128, offset: u64) -> bool {
        let Window { horizon, order, first, latest } = self;
        while let Some(&Seen { offset: oldest, name }) = order.front() {
            if oldest + *horizon >= offset {
                break;
            }
            order.pop_front();
            // Not there: the same id has come again since.
            if let Ok(entry) = latest.find_entry(hash(&name), |place| place == first) {
                entry.remove();
            }
            *first += 1;
        }
        let (name, next) = (((id >> 64) as u64, id as u64, kind as u32), *first + order.len() as u64);
        order.push_back(Seen { offset, name });
        let name_at = |place: &u64| &order[(place - *first) as usize].name;
        match latest.entry(hash(&name), |place| *name_at(place) == name, |place| hash(name_at(place))) {
            Entry::Occupied(mut place) => {
                *place.get_mut() = next;
                true
            }
            Entry::Vacant(place) => {
                place.insert(next);
                false
            }
        }
    }
}

fn hash(name: &Name) -> u64 {
    FxBuildHasher.hash_one(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_looking_back(ids in prop::collection::vec((0usize..2, 0u128..6, 1u64..4), 1..200), horizon in 0u64..20) {
            let mut window = Window::new(horizon);
            let mut seen: Vec<(u64, usize, u128)> = Vec::new();
            let mut offset = 0;
            for (kind, id, gap) in ids {
                offset += gap;
                let expected = seen.iter().any(|&(at, k, i)| k == kind && i == id && offset - at <= horizon);
                prop_assert_eq!(window.observe(kind, id, offset), expected, "offset {}", offset);
                seen.push((offset, kind, id));
            }
            prop_assert!(window.latest.len() as u64 <= horizon + 1);
        }
    }
}
