//! How the C library's allocator keeps memory and gives it back.
//!
//! Batches are many columns that grow side by side and are freed by other threads than took them, and librdkafka takes a
//! block for each answer of a broker. What is given back to the system at once has to be cleared by it when it is taken
//! again: with columns of 1.5 kB events that was a third of all processor time. What is never given back stays, with the
//! holes between what is in use: after an outage the process held more than `memory.limit` for good. So freed memory
//! is kept, and given back when a worker has held much less than it did for a while ([`Tide`]). `tests/delivery/outage.rs` bounds
//! what the process takes at most.
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

/// Gives back what is free, whole pages of it, wherever it lies but at the end of a thread's heap: there [`KEPT_AT_END`] stays.
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
    /// The most of a window since memory was last given back, bytes.
    most: usize,
    /// The most in the window that is not over.
    in_window: usize,
    /// When that is over.
    until: Option<Duration>,
}

impl Tide {
    /// Takes note of what is held at `now`, bytes; gives memory back when all through a window no more than half was held of what
    /// once was.
    pub fn is(&mut self, held: usize, now: Duration) {
        if self.has_ebbed(held, now) {
            give_back();
        }
    }

    fn has_ebbed(&mut self, held: usize, now: Duration) -> bool {
        self.in_window = self.in_window.max(held);
        if now < *self.until.get_or_insert(now + LONG) {
            return false;
        }
        let ebbed = self.most >= MUCH && self.in_window <= self.most / 2;
        let most = if ebbed { self.in_window } else { self.most.max(self.in_window) };
        *self = Tide { most, in_window: held, until: Some(now + LONG) };
        ebbed
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
        let each_second = |from: u64, to: u64, held: usize| (from..to).map(move |second| (second, held));
        assert_eq!(
            given_back(each_second(0, 9 * long, MUCH - 1).chain([(9 * long, 0), (11 * long, 0)])),
            [0; 0],
            "never much"
        );
        assert_eq!(
            given_back([(0, MUCH)].into_iter().chain(each_second(1, 9 * long, MUCH / 2 + 1))),
            [0; 0],
            "never little"
        );
        let ebb = [(0, MUCH)].into_iter().chain(each_second(1, 9 * long, 0));
        assert_eq!(given_back(ebb), [2 * long], "once, when a window was without it");
        // The next batches come all the time.
        let backlog = (0..9 * long).map(|second| (second, if second % 20 == 0 { MUCH } else { 0 }));
        assert_eq!(given_back(backlog), [0; 0]);
        // What comes after an outage has its own rising and falling.
        let after =
            (0..9 * long).map(|second| (second, if second == 0 { 8 * MUCH } else { (second as usize % 3) * MUCH }));
        assert_eq!(given_back(after), [2 * long]);
    }
}
