#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::super::fixture::{START, Stage, brief, calls, spending, taking};
use super::*;

const RATE: &str = r#"
[[alert]]
name = "failures"
metric = "error_rate"
by = ["app"]
window = "10m"
above = 0.1
resolve = 0.05
"#;

#[test]
fn a_share_has_to_be_proved() {
    for (errors, calls_in_all, min_samples, fires) in [
        (1, 2, 0, false),           // lower bound 0.0945
        (2, 2, 0, true),            // 0.342
        (2, 2, 10, false),          // too few
        (3, 12, 10, false),         // 0.0889
        (4, 12, 10, true),          // 0.138
        (11, 100, 10, false),       // 0.0625
        (18, 100, 10, true),        // 0.1170
        (1_050, 10_000, 10, false), // 0.0991
        (1_070, 10_000, 10, true),  // 0.1011
    ] {
        let mut stage = Stage::new(&format!("{RATE}min_samples = {min_samples}"), START);
        stage.samples = vec![
            calls(START, "zest", "error", errors),
            calls(START, "zest", "ok", calls_in_all - errors),
            calls(START, "quiet", "ok", 1_000),
        ];
        let told = stage.run(START + 1);
        assert_eq!(!told.is_empty(), fires, "{errors} of {calls_in_all}");
        if let [message] = &told[..] {
            assert_eq!(message.value, Some(errors as f64 / calls_in_all as f64));
            let reading = &message.readings[0];
            assert_eq!((reading.numerator, reading.samples), (errors as f64, calls_in_all as i64));
            assert!(reading.bound.unwrap() > 0.1 && reading.bound < message.value);
            assert_eq!((reading.from, reading.to), ((START - 9) * 60_000, (START + 1) * 60_000));
        }
    }
}

#[test]
fn hysteresis_and_the_end_of_traffic() {
    let mut stage = Stage::new(RATE, START);
    // Half fail for five minutes, then 7 % of 2,000, then 1 %, then nothing at all.
    stage.samples.extend((0..5).flat_map(|at| {
        [
            calls(START + at, "zest", "error", 50),
            calls(START + at, "zest", "timeout", 0),
            calls(START + at, "zest", "ok", 50),
        ]
    }));
    stage.samples.extend(
        (5..30).flat_map(|at| [calls(START + at, "zest", "error", 140), calls(START + at, "zest", "ok", 1_860)]),
    );
    stage.samples.extend(
        (30..40).flat_map(|at| [calls(START + at, "zest", "error", 20), calls(START + at, "zest", "ok", 1_980)]),
    );
    let told = stage.run(START + 60);
    // From minute 30 on a minute of 7 % leaves the window for one of 1 %: (140 (10 − n) + 20 n) / 20,000 ≤ 0.05, n ≥ 3.33.
    assert_eq!(brief(&told), [(1, "failures zest firing".into()), (34, "failures zest resolved".into())]);

    let mut stage = Stage::new(RATE, START);
    stage.samples.extend((0..3).map(|at| calls(START + at, "zest", "error", 50)));
    let told = stage.run(START + 30);
    assert_eq!(brief(&told), [(1, "failures zest firing".into()), (13, "failures zest resolved".into())]);
    assert_eq!((told[1].value, told[1].readings[0].samples), (None, 0), "it ends for want of calls, and says so");
}

#[test]
fn a_quantile_is_above_a_level_if_enough_values_are() {
    let text = |extra: &str| {
        format!(
            "[[alert]]\nname = \"slow\"\nmetric = \"latency\"\nby = [\"app\"]\nquantile = 0.95\nwindow = \"5m\"\n{extra}"
        )
    };
    for (slow, fast, above, fires) in
        [(5, 95, true, false), (12, 88, true, true), (60, 940, true, false), (70, 930, true, true)]
    {
        let mut stage = Stage::new(&text("above = 500"), START);
        stage.samples = vec![taking(START, "zest", 800.0, slow), taking(START, "zest", 500.0, fast)];
        let told = stage.run(START + 1);
        assert_eq!(!told.is_empty(), fires, "{slow} of {} above {above}", slow + fast);
        if let [message] = &told[..] {
            assert_eq!((message.value, message.threshold), (Some(800.0), 500.0), "p95 itself");
            assert_eq!(
                (message.readings[0].numerator, message.readings[0].denominator),
                (slow as f64, (slow + fast) as f64)
            );
        }
    }
    // Without a bound the definition itself: p95 is the least value that 95 % do not exceed.
    for (slow, fires) in [(5, false), (6, true)] {
        let mut stage = Stage::new(&text("above = 500\nconfidence = 0"), START);
        stage.samples = vec![taking(START, "zest", 800.0, slow), taking(START, "zest", 500.0, 100 - slow)];
        assert_eq!(!stage.run(START + 1).is_empty(), fires, "{slow} of 100");
    }
    for (fast, fires) in [(94, false), (95, true)] {
        let mut stage = Stage::new(&text("below = 500\nconfidence = 0"), START);
        stage.samples = vec![taking(START, "zest", 499.0, fast), taking(START, "zest", 500.0, 100 - fast)];
        assert_eq!(!stage.run(START + 1).is_empty(), fires, "{fast} of 100 below");
    }
}

#[test]
fn counts_sums_means_and_ratios_of_sums() {
    let rule = |metric: &str, condition: &str| {
        format!("[[alert]]\nname = \"a\"\nmetric = \"{metric}\"\nby = [\"app\"]\nwindow = \"5m\"\n{condition}")
    };
    let sums = |at: Minute, input: i128, output: i128, retries: i128| {
        let sums = [("input_tokens", input), ("output_tokens", output), ("retries", retries)];
        let sums = sums.map(|(name, sum)| (name.to_owned(), sum)).into();
        super::super::trial::Sample { sums, ..calls(at, "zest", "ok", 20) }
    };
    for (metric, condition, value) in [
        ("calls", "above = 39", Some(40.0)),
        ("calls", "above = 40", None),
        ("mean_retries", "above = 1.4", Some(1.5)),
        ("mean_retries", "above = 1.5", None),
        ("tokens_per_token", "below = 0.26", Some(0.25)),
        ("tokens_per_token", "below = 0.25", None),
        ("tokens_per_token", "below = 0.26\nmin_samples = 41", None),
    ] {
        let mut stage = Stage::new(&rule(metric, condition), START);
        stage.samples = vec![sums(START, 100, 30, 20), sums(START + 1, 300, 70, 40)];
        let told = stage.advance(START + 2, START + 2);
        let found = told.iter().find(|message| message.at == (START + 2) * 60_000).and_then(|message| message.value);
        assert_eq!(found, value, "{metric} {condition}");
    }
    // 0.5 + 0.25 USD, exactly.
    let mut stage = Stage::new(&rule("cost", "above = 0.74"), START);
    stage.samples = vec![spending(START, "zest", decimal::ONE / 2), spending(START + 1, "zest", decimal::ONE / 4)];
    assert_eq!(stage.run(START + 2)[0].value, Some(0.75));
}

#[test]
fn a_count_that_falls_to_nothing_is_below_a_level() {
    let text =
        "[[alert]]\nname = \"few\"\nmetric = \"calls\"\nby = [\"app\"]\nwindow = \"5m\"\nbelow = 10\nremember = \"1h\"";
    let mut stage = Stage::new(text, START + 5);
    stage.samples.extend((0..20).map(|at| calls(START + at, "zest", "ok", 5)));
    let told = stage.run(START + 120);
    // The window holds 10 calls while it has two minutes of traffic; the last row is at 19, known until 19 + 60.
    assert_eq!(brief(&told), [(24, "few zest firing".into()), (80, "few zest resolved".into())]);
    assert_eq!(told[0].value, Some(5.0));
}

#[test]
fn silence_fires_only_for_what_was_there() {
    let text = "[[alert]]\nname = \"silent\"\nmetric = \"calls\"\nby = [\"app\"]\nno_data = \"10m\"\nremember = \"2h\"";
    let mut stage = Stage::new(text, START);
    stage.samples.extend((0..15).map(|at| calls(START + at, "zest", "ok", 1)));
    stage.samples.push(calls(START + 50, "zest", "ok", 1));
    let told = stage.run(START + 300);
    assert_eq!(
        brief(&told),
        [
            (25, "silent zest firing".into()),
            (51, "silent zest resolved".into()),
            (61, "silent zest firing".into()),
            (181, "silent zest resolved".into()),
        ],
        "ten minutes after 14; back at 50; forgotten two hours later"
    );
    // All of it: a single series that is always expected. What is remembered for a week is judged every five minutes.
    let text = "[[alert]]\nname = \"silent\"\nmetric = \"calls\"\nno_data = \"10m\"";
    let mut stage = Stage::new(text, START);
    assert_eq!(brief(&stage.run(START + 7)), [(5, "silent firing".into())]);
    // While nothing is complete nothing is judged, so a highwater that lags is no silence.
    let mut stage = Stage::new(text, START);
    stage.samples = (-20..0).map(|at| calls(START + at, "zest", "ok", 1)).collect();
    for now in 0..60 {
        assert!(stage.advance(START, START + now).is_empty());
    }
}

#[test]
fn change_is_relative_to_an_earlier_window() {
    let text = |more: &str| {
        format!(
            "[[alert]]\nname = \"spike\"\nmetric = \"calls\"\nby = [\"app\"]\nwindow = \"5m\"\nchange = \"1h\"\n{more}"
        )
    };
    for (now, before, condition, fires) in [
        (151, 100, "above = 0.5", true),
        (150, 100, "above = 0.5", false),
        (1_000, 0, "above = 0.5", true), // from nothing: as from one
        (1_000, 0, "below = -0.5", false),
        (9, 3, "above = 0.5", false), // fewer than ten
        (49, 100, "below = -0.5", true),
        (0, 100, "below = -0.5", true),
    ] {
        let mut stage = Stage::new(&text(condition), START);
        stage.samples = vec![calls(START - 60, "zest", "ok", before), calls(START, "zest", "ok", now)];
        stage.samples.retain(|sample| sample.count > 0);
        let told = stage.run(START + 1);
        assert_eq!(!told.is_empty(), fires, "{before} to {now}, {condition}");
        if let [message] = &told[..] {
            let before = before.max(1) as f64;
            assert_eq!(message.value, Some((now as f64 - before) / before));
            let names: Vec<&str> = message.readings.iter().map(|reading| reading.name.as_str()).collect();
            assert_eq!((names, message.readings[1].to), (vec!["window", "before"], (START + 1 - 60) * 60_000));
        }
    }
}

const WEEK: i64 = 7 * 24 * 60;

#[test]
fn anomalies_by_median_and_mad() {
    let text = "[[alert]]\nname = \"odd\"\nmetric = \"calls\"\nby = [\"app\"]\nwindow = \"1h\"\nanomaly = { weeks = 6, \
                deviations = 3, tolerance = 0.01 }";
    // 100 104 98 101 9000 99: median (100 + 101)/2 = 100.5; distances .5 3.5 2.5 .5 8899.5 1.5: MAD (1.5 + 2.5)/2 = 2.
    let history = [100, 104, 98, 101, 9_000, 99];
    let deviation = 1.4826 * 2.0;
    for (now, fires) in [(100, false), (109, false), (110, true), (92, false), (91, true), (0, true)] {
        let mut stage = Stage::new(text, START + 60);
        let week = |(back, count): (i64, &u64)| calls(START - back * WEEK + 7, "zest", "ok", *count);
        stage.samples = (1..).zip(&history).map(week).collect();
        stage.samples.extend((now > 0).then(|| calls(START + 30, "zest", "ok", now)));
        // The hour before is judged with the first; only this hour counts here.
        let mut other = Stage::new(text, START);
        other.samples = std::mem::take(&mut stage.samples);
        let told = other.run(START + 60);
        assert_eq!(!told.is_empty(), fires, "{now}: {:?}", brief(&told));
        if let [message] = &told[..] {
            let baseline = message.baseline.as_ref().unwrap();
            assert_eq!((baseline.median, baseline.deviation), (100.5, deviation));
            assert_eq!(baseline.values, history.map(|count| count as f64));
            assert!((message.value.unwrap() - (now as f64 - 100.5) / deviation).abs() < 1e-9);
        }
    }
    // Two weeks are too few.
    let mut stage = Stage::new(text, START);
    stage.samples = (1..=2).map(|back| calls(START - back * WEEK, "zest", "ok", 100)).collect();
    stage.samples.push(calls(START, "zest", "ok", 9_999));
    assert!(stage.run(START + 60).is_empty());
    // Weeks that were all alike: a share of the median counts as one deviation.
    for (now, fires) in [(103, false), (104, true)] {
        let mut stage = Stage::new(text, START);
        stage.samples = (1..=6).map(|back| calls(START - back * WEEK, "zest", "ok", 100)).collect();
        stage.samples.push(calls(START, "zest", "ok", now));
        assert_eq!(!stage.run(START + 60).is_empty(), fires, "{now}");
    }
}

#[test]
fn events_without_a_price_are_told() {
    let text = "[[budget]]\nname = \"spend\"\nmetric = \"cost\"\nby = [\"app\"]\nperiod = \"day\"\namount = \"50\"";
    let mut stage = Stage::new(text, START);
    let mut unpriced = calls(START + 3, "zest", "ok", 5);
    unpriced.missing.insert("cost_usd".into(), 2);
    stage.samples = vec![spending(START, "zest", 1), unpriced, spending(START + 90, "zest", 1)];
    let told = stage.run(START + 90);
    assert_eq!(brief(&told), [(4, "spend:unpriced zest firing".into()), (64, "spend:unpriced zest resolved".into())]);
    assert_eq!((told[0].value, told[0].readings[0].samples), (Some(2.0), 6));
    assert_eq!(stage.last.budgets[0].unpriced, 2);
}

/// The table of the SRE workbook for an objective of 99.9 %: how long until it fires and how long until it is over, for a
/// steady share of bad events. Computed here from the definitions alone: the long window is bad enough once
/// `rate × (1 − objective) / share` of it is bad, and the short one no longer once less than that of it is.
#[test]
fn burn_rates_of_the_sre_workbook() {
    let text = "[[alert]]\nname = \"slo\"\nmetric = \"error_rate\"\nburn_rate = { objective = 0.999 }\nconfidence = 0";
    let tiers = [("1h", 14.4, 60.0, 5.0), ("6h", 6.0, 360.0, 30.0), ("3d", 1.0, 4_320.0, 360.0)];
    for share in [1.0, 0.5, 0.1, 0.05, 0.02, 0.005] {
        let mut stage = Stage::new(text, START);
        let per_minute = 100_000;
        let bad = (share * f64::from(per_minute)) as u64;
        let good = u64::from(per_minute as u32) - bad;
        // Quiet days, then the outage until all have fired, then quiet again.
        stage.samples = (-4_400..0).map(|at| calls(START + at, "zest", "ok", u64::from(per_minute as u32))).collect();
        let outage = 1_000;
        stage.samples.extend(
            (0..outage).flat_map(|at| [calls(START + at, "zest", "error", bad), calls(START + at, "zest", "ok", good)]),
        );
        stage
            .samples
            .extend((outage..outage + 400).map(|at| calls(START + at, "zest", "ok", u64::from(per_minute as u32))));
        let told = brief(&stage.advance(START + outage + 400, START + outage + 400));
        for (name, rate, long, short) in tiers {
            let needed = rate * 0.001 / share;
            let rule = format!("slo:{name} ");
            let of = |state: &str| told.iter().find(|(_, text)| *text == format!("{rule}{state}")).map(|(at, _)| *at);
            if needed >= 1.0 {
                assert_eq!(of("firing"), None, "{rule} at {share}");
                continue;
            }
            // In minutes that are complete; the last is judged in steps of five minutes, since it looks at days.
            let step = if name == "3d" { 5.0 } else { 1.0 };
            let detection = (long * needed).max(short * needed);
            let fired = of("firing").unwrap() as f64;
            assert!(fired >= detection && fired <= detection + step, "{rule} at {share}: {fired}, not {detection}");
            let reset = outage as f64 + short * (1.0 - needed);
            let ended = of("resolved").unwrap() as f64;
            assert!(ended >= reset && ended <= reset + step, "{rule} at {share}: over at {ended}, not {reset}");
        }
    }
    // A total outage: 14.4 × 0.1 % of an hour are 51.84 s, so the first complete minute pages.
    let seconds = 14.4 * 0.001 * 3_600.0;
    assert!((51.8..51.9).contains(&seconds));
}

#[test]
fn a_burn_rate_needs_more_than_a_single_failure() {
    let text = |more: &str| {
        format!("[[alert]]\nname = \"slo\"\nmetric = \"error_rate\"\nburn_rate = {{ objective = 0.999 }}\n{more}")
    };
    let few = |errors, ok| vec![calls(START, "zest", "error", errors), calls(START, "zest", "ok", ok)];
    for (samples, more, fires) in [
        (few(1, 1), "", false),
        (few(1, 99), "", false),
        (few(1, 9), "min_samples = 1", true),
        (few(1, 99), "min_samples = 1\nconfidence = 0.999", false),
        (few(10, 90), "", true),
    ] {
        let mut stage = Stage::new(&text(more), START);
        stage.samples = samples;
        let told = brief(&stage.run(START + 1));
        assert_eq!(told.iter().any(|(_, text)| text == "slo:1h firing"), fires, "{more}: {told:?}");
    }
}

#[test]
fn burn_rates_of_latency_objectives() {
    let text = "[[alert]]\nname = \"slo\"\nmetric = \"latency\"\nburn_rate = { objective = 0.99, slower_than = 2000 }";
    for (slow, fires) in [(100, false), (200, true)] {
        let mut stage = Stage::new(text, START);
        stage.samples = vec![taking(START, "zest", 2_500.0, slow), taking(START, "zest", 2_000.0, 1_000 - slow)];
        let told = brief(&stage.run(START + 1));
        assert_eq!(told.iter().any(|(_, text)| text == "slo:1h firing"), fires, "{slow} of 1,000: {told:?}");
    }
}

#[test]
fn forecasts_by_hand() {
    let day = Period { start: 0, end: 1_440 };
    // 30 of 50 after 600 minutes, 6 in the last 180: 20 left at 1 per 30 minutes are 600 minutes.
    assert_eq!(exhaustion(600, day, 50, 30, 6, 180), Some(1_200));
    assert_eq!(exhaustion(600, day, 50, 30, 4, 180), None, "900 minutes: not within the day");
    assert_eq!(exhaustion(600, day, 50, 30, 0, 180), None);
    assert_eq!(exhaustion(600, day, 50, 50, 6, 180), None, "spent already");
    assert_eq!(exhaustion(600, day, 50, 49, 7, 180), Some(626), "25.7 minutes, rounded up");
}
