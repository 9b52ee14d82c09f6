//! The duplicates window: which ids stood among the last N offsets of a partition.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

/// The ids of the previous `horizon` offsets of one partition.
///
/// Whether an event is a duplicate is a function of the log alone: it is one when an event of its type with its id stood
/// at one of the `horizon` offsets before it, whether that one was written or was itself a duplicate.
#[derive(Debug, Clone)]
pub struct Window {
    horizon: u64,
    order: VecDeque<(u64, Name)>,
    latest: FxHashMap<Name, u64>,
}

/// Position of the event type in the plan, and the id.
type Name = (usize, u128);

impl Window {
    /// An empty window over `horizon` offsets.
    pub fn new(horizon: u64) -> Window {
        Window { horizon, order: VecDeque::new(), latest: FxHashMap::default() }
    }

    /// Takes note of an id at an offset (ascending) and answers whether it repeats one inside the window.
    pub fn observe(&mut self, kind: usize, id: u128, offset: u64) -> bool {
        while let Some(&(oldest, name)) = self.order.front() {
            if oldest + self.horizon >= offset {
                break;
            }
            self.order.pop_front();
            if self.latest.get(&name) == Some(&oldest) {
                self.latest.remove(&name);
            }
        }
        self.order.push_back((offset, (kind, id)));
        self.latest.insert((kind, id), offset).is_some()
    }
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
