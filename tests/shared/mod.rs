//! What tests with real servers share: the truth computed from the topic by other means, and the tables held against it.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod compare;
pub mod kind;
pub mod truth;
