//! A plan over the shipped events, for this room's tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::plan::{Limits, Plan, Sources};

/// With a pack of this text.
pub(super) fn plan(pack: &str) -> Plan {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let sources = Sources {
        schemas: vec![file("llm_call.avsc", include_str!("../../schemas/llm_call.avsc"))],
        packs: vec![file("pack.toml", pack)],
        ..Sources::default()
    };
    let limits = Limits { horizon: 0, max_skew_ms: 0, max_age_ms: 0, lateness_ms: 0, max_series: 1 };
    Plan::compile(&sources, limits).unwrap()
}
