//! How the C library's allocator gives memory back.
//!
//! Batches are many columns that grow side by side and are freed by other threads than took them. Left to itself, glibc
//! raises the size from which it asks the system for a block of its own to 32 MiB, keeps smaller ones in the heap, and with
//! them the holes between: after an outage the process held more than `memory.limit` for good. With a fixed size a column
//! is a mapping of its own, which grows without being copied and goes back to the system at once. `tests/delivery/outage.rs` holds
//! the process to it.
#![allow(unsafe_code)]

/// Blocks from this size on are mappings of their own.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 256 << 10;
/// Free memory at the heap's end beyond this goes back to the system.
#[cfg(target_env = "gnu")]
const KEPT_AT_END: libc::c_int = 4 << 20;

/// To be called first of all, before there are threads.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers, keeps no pointer and is thread-safe; what it does not accept it ignores and says so.
    let accepted = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_AT_END) == 1
    };
    #[cfg(target_env = "gnu")]
    debug_assert!(accepted, "glibc knows these options");
}
