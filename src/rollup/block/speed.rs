//! What adding up and pricing cost: a measurement.

use super::super::fixture::{Cell as Input, empty, llm_call, push};
use super::super::{Pack, PriceList, Pricer, resolve};
use super::*;

const MARKER: Marker<'_> = Marker { source: "3/events/7", month_start_seconds: 1_727_740_800, through: 41 };

/// 2024-10-01 00:00 UTC, in microseconds since 1970.
const START: i64 = 1_727_740_800_000_000;

/// Prints the cost of adding up and of pricing a row: `cargo test --release -- --ignored --nocapture nanoseconds`.
#[test]
#[ignore = "a measurement, not a test"]
fn nanoseconds_per_row() {
    let event = llm_call();
    let text = r#"
        [[rollup]]
        event = "llm_call"
        by = ["app", "environment", "provider", "model", "operation", "status"]
        sum = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost_usd", "retries"]
        distribution = ["latency_ms", "time_to_first_token_ms", "input_tokens", "output_tokens"]"#;
    let rollups = Pack::parse("p", text).map(|pack| resolve(&[pack], std::slice::from_ref(&event)));
    let list = PriceList::parse("prices.toml", include_str!("../../../prices.toml"));
    let (Ok(Ok(rollups)), Ok(list)) = (rollups, list) else { unreachable!("both are right") };
    let Some(pricer) = Pricer::new(&list, &event) else { unreachable!("a priced type") };
    let models = ["sonnet", "haiku", "opus", "gpt-4o", "gpt-4o-mini", "gpt-4.1", "o3-mini", "unknown"];
    for (apps, what) in [(5_u32, "few series"), (50, "more series")] {
        let mut columns = empty(&event);
        let mut rng = fastrand::Rng::with_seed(1);
        let rows = 100_000;
        for row in 0..rows {
            let at = START + row * 1_200;
            let latency = (rng.f64() * 5.0 + 4.0).exp();
            let text = |text: &str| Input::Text(text.to_owned());
            let cells = [
                ("app", Input::Text(format!("app-{}", rng.u32(0..apps)))),
                ("environment", text(["production", "staging"][rng.usize(0..2)])),
                ("provider", text(["anthropic", "openai"][rng.usize(0..2)])),
                ("model", text(models[rng.usize(0..8)])),
                ("operation", text(["chat", "complete", "embed"][rng.usize(0..3)])),
                ("status", text(["ok", "ok", "ok", "error"][rng.usize(0..4)])),
                ("input_tokens", Input::Integer(rng.i128(10..20_000))),
                ("output_tokens", Input::Integer(rng.i128(1..2_000))),
                ("cache_read_tokens", if rng.bool() { Input::Null } else { Input::Integer(rng.i128(1..9_000)) }),
                ("latency_ms", Input::Real(latency)),
                ("time_to_first_token_ms", Input::Real(latency / 8.0)),
                ("retries", Input::Integer(0)),
            ];
            push(&mut columns, at, &cells);
        }
        let mut pricing = f64::INFINITY;
        for _ in 0..20 {
            // The cost goes to the row after the last that has one, so all rows can be priced in one go.
            let start = std::time::Instant::now();
            if let Some(cost) = columns.columns.last_mut() {
                cost.truncate(0);
            }
            for row in 0..rows {
                pricer.push_cost(&mut columns, START + row * 1_200);
            }
            pricing = pricing.min(start.elapsed().as_nanos() as f64 / rows as f64);
        }
        let mut best = f64::INFINITY;
        let mut series = 0;
        for _ in 0..20 {
            let start = std::time::Instant::now();
            let block = rollups.rollups[0].build(&columns, 0..columns.len(), &MARKER, 1_000_000);
            best = best.min(start.elapsed().as_nanos() as f64 / rows as f64);
            series = block[0].len() - 1;
        }
        let grouping = std::time::Instant::now();
        let found = Series::of(&columns, 0..columns.len(), &rollups.rollups[0].by, 1_000_000).len();
        let grouping = grouping.elapsed().as_nanos() as f64 / rows as f64;
        assert_eq!(found, series);
        println!(
            "{what}: {series} series, ns a row: build {best:.1}, of it grouping {grouping:.1}; price {pricing:.1}"
        );
    }
}
