//! Connections as production has them, with real servers and the real binary: TLS, users and passwords, client
//! certificates, rights; and what is said when they are wrong or missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod certificates;
mod proxy;
#[path = "../shared/mod.rs"]
mod shared;
#[allow(dead_code, reason = "shared with the tests of delivery")]
#[path = "../delivery/support.rs"]
mod support;

mod exact;
mod rights;
mod secrets;
mod stack;
mod wrong;
