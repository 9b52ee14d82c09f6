//! How the C library's allocator keeps memory and gives it back.
//!
//! Batches are many columns that grow side by side and are freed by other threads than took them, and librdkafka takes a
//! block for each answer of a broker. What is given back to the system at once has to be cleared by it when it is taken
//! again: with columns of 1.5 kB events that was a third of all processor time. What is never given back stays, with the
//! holes between what is in use: after an outage the process held more than `memory.limit` for good. So freed memory
//! is kept, and given back when a worker holds much less than it did ([`Tide`]). `tests/delivery/outage.rs` holds the process to it.
#![allow(unsafe_code)]

/// Blocks from this size on are mappings of their own, which grow without being copied and go back at once. Left to
/// itself glibc begins at 128 KiB and learns; this is as far as it goes.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 32 << 20;
/// Free memory at a heap's end beyond this goes back to the system.
#[cfg(target_env = "gnu")]
const KEPT_AT_END: libc::c_int = 32 << 20;
/// A worker that held less at most has nothing to give back that is worth the search.
const MUCH: usize = 32 << 20;

/// To be called first of all, before there are threads.
pub fn keep_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers, keeps no pointer and is thread-safe; what it does not accept it ignores and says so.
    let accepted = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_AT_END) == 1
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
}

impl Tide {
    /// Takes note of what is held now, bytes; gives memory back when that is a quarter of what it was.
    pub fn is(&mut self, held: usize) {
        if self.ebbs(held) {
            give_back();
        }
    }

    fn ebbs(&mut self, held: usize) -> bool {
        self.most = self.most.max(held);
        let ebbs = self.most >= MUCH && held <= self.most / 4;
        if ebbs {
            self.most = held;
        }
        ebbs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_each_time_much_less_is_held() {
        let mut tide = Tide::default();
        let seen: Vec<bool> = [1, MUCH - 1, 0, MUCH, MUCH / 2, MUCH / 4, 0, 4 * MUCH, MUCH + 1, MUCH, MUCH / 4, 0]
            .map(|held| tide.ebbs(held))
            .into();
        let found: Vec<usize> = seen.iter().enumerate().filter(|(_, ebbs)| **ebbs).map(|(at, _)| at).collect();
        assert_eq!(found, [5, 9, 10]);
    }
}
