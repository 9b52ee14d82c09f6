//! How the C library's allocator keeps memory and gives it back.
//!
//! Batches are many columns that grow side by side and are freed by other threads than took them, and librdkafka takes a
//! block for each answer of a broker. What is given back to the system at once has to be cleared by it when it is taken
//! again: with columns of 1.5 kB events that was a third of all processor time. What is never given back stays, with the
//! holes between what is in use: after an outage the process held more than `memory.limit` for good. So freed memory
//! is kept, and given back when a worker has held much less than it did for a while ([`Tide`]). `tests/delivery/outage.rs` holds the process to it.
#![allow(unsafe_code)]

use std::time::Duration;

/// Blocks from this size on are mappings of their own, which grow without being copied and go back at once. Left to
/// itself glibc begins at 128 KiB and learns; this is as far as it goes.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 32 << 20;
/// Free memory at a heap's end beyond this goes back to the system, and so much of it is kept. Without the latter each of
/// the heaps that a thread other than the first has, of 64 MiB, goes back as soon as nothing in it is in use.
#[cfg(target_env = "gnu")]
const KEPT_AT_END: libc::c_int = 32 << 20;
/// A worker that held less at most has nothing to give back that is worth the search.
const MUCH: usize = 32 << 20;
/// While there is a backlog the batches of all partitions go out together and are filled anew at once: what is given back
/// between would be cleared each time.
const LONG: Duration = Duration::from_secs(30);

/// To be called first of all, before there are threads.
pub fn keep_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers, keeps no pointer and is thread-safe; what it does not accept it ignores and says so.
    let accepted = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_AT_END) == 1
            && libc::mallopt(libc::M_TOP_PAD, KEPT_AT_END) == 1
    };
    #[cfg(target_env = "gnu")]
    debug_assert!(accepted, "glibc knows these options");
}

/// Gives back all that is free, whole pages of it, wherever it lies.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes an integer, keeps no pointer and is thread-safe.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What a worker holds, rising and falling.
#[derive(Debug, Default)]
pub struct Tide {
    /// The most since memory was last given back, bytes.
    most: usize,
    /// Since when a quarter of that has been held at most.
    low_since: Option<Duration>,
}

impl Tide {
    /// Takes note of what is held at `now`, bytes; gives memory back when that has been a quarter of what it was for long.
    pub fn is(&mut self, held: usize, now: Duration) {
        if self.has_ebbed(held, now) {
            give_back();
        }
    }

    fn has_ebbed(&mut self, held: usize, now: Duration) -> bool {
        self.most = self.most.max(held);
        if self.most < MUCH || held > self.most / 4 {
            self.low_since = None;
            return false;
        }
        let long = now.saturating_sub(*self.low_since.get_or_insert(now)) >= LONG;
        if long {
            *self = Tide { most: held, low_since: None };
        }
        long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is held at each second, and the seconds at which memory is given back.
    fn given_back(held: impl IntoIterator<Item = (u64, usize)>) -> Vec<u64> {
        let mut tide = Tide::default();
        held.into_iter()
            .filter(|&(second, held)| tide.has_ebbed(held, Duration::from_secs(second)))
            .map(|(second, _)| second)
            .collect()
    }

    #[test]
    fn memory_is_given_back_once_little_has_been_held_for_long() {
        let long = LONG.as_secs();
        assert_eq!(given_back([(0, MUCH - 1), (1, 0), (1 + 9 * long, 0)]), [0; 0], "never much");
        assert_eq!(given_back([(0, MUCH), (1, MUCH / 4 + 1), (1 + 9 * long, MUCH / 4 + 1)]), [0; 0], "never little");
        let ebb = [(0, MUCH), (1, MUCH / 4), (long, 0), (long + 1, 0), (long + 2, 0), (9 * long, 0)];
        assert_eq!(given_back(ebb), [long + 1], "once");
        let again = [(0, MUCH), (1, 0), (2, MUCH), (3, 0), (long + 2, 0), (long + 3, 0)];
        assert_eq!(given_back(again), [long + 3], "the next batch came meanwhile");
        let twice = (0..2).flat_map(|tide| {
            [(0, 4 * MUCH), (1, MUCH), (1 + long, MUCH)].map(|(at, held)| (at + 3 * tide * long, held))
        });
        assert_eq!(given_back(twice), [1 + long, 1 + 4 * long]);
    }
}
