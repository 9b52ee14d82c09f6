//! Commands about alerts with real servers and the real binary: handing them on, explaining them, trying rules on what was,
//! and a service that stops by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alertmanager;
#[path = "../../examples/budget_gate.rs"]
mod budget_gate;
#[allow(dead_code, reason = "shared with the tests of connections")]
#[path = "../connections/certificates.rs"]
mod certificates;
mod forward;
mod gate;
mod look_back;
mod receiver;
#[allow(dead_code, reason = "shared with the tests of alerts")]
#[path = "../alerts/script.rs"]
mod script;
#[path = "../shared/mod.rs"]
mod shared;
#[allow(dead_code, reason = "shared with the tests of delivery")]
#[path = "../delivery/support.rs"]
mod support;
mod topic;

use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool, said: &dyn Fn() -> String) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < MINUTE, "{what}: it never came to that: {}", said());
        std::thread::sleep(Duration::from_millis(50));
    }
}
