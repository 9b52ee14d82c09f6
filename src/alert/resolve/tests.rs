#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::super::fixture::parse;
use super::super::rule::{Kind, Test};
use crate::event::EventType;
use crate::rollup::Pack;

/// What is wrong with an alert of these lines, after `alerts.toml:2: alert a: `.
fn alert(lines: &str) -> String {
    let text = format!("\n[[alert]]\nname = \"a\"\n{lines}");
    let error = parse(&text).unwrap_err();
    error.split_once("alert a: ").map_or(error.clone(), |(_, what)| what.to_owned())
}

fn budget(lines: &str) -> String {
    let error = parse(&format!("[[budget]]\nname = \"b\"\nmetric = \"cost\"\n{lines}")).unwrap_err();
    error.split_once("budget b: ").map_or(error.clone(), |(_, what)| what.to_owned())
}

#[test]
fn errors_of_alerts_name_the_key_and_the_remedy() {
    let rate = "metric = \"error_rate\"\n";
    for (lines, error) in [
        ("metric = \"eror_rate\"", "metric: there is no metric \"eror_rate\"; did you mean error_rate? use one of calls, error_rate, latency, cost, tokens_per_token, mean_retries".to_owned()),
        (rate, "name: it has no condition; give one of above, below, burn_rate, no_data and anomaly".into()),
        (&format!("{rate}window = \"5m\"\nabove = 0.1\nbelow = 0.1"), "name: it has more than one condition; give one of above, below, burn_rate, no_data and anomaly".into()),
        (&format!("{rate}above = 0.1"), "window: it is missing; give the time to look at, as \"5m\"".into()),
        (&format!("{rate}window = \"5min\"\nabove = 0.1"), "window: \"5min\" is not a span; write whole minutes, hours, days or weeks: 5m, 1h, 3d, 2w".into()),
        (&format!("{rate}window = \"0m\"\nabove = 0.1"), "window: \"0m\" is no time at all; give at least 1m".into()),
        (&format!("{rate}window = \"20w\"\nabove = 0.1"), "window: \"20w\" is too long; give at most 100d".into()),
        (&format!("{rate}window = \"5m\"\nabove = 5"), "above: it never is; give a number from 0 to below 1, as 0.05 for 5 %".into()),
        (&format!("{rate}window = \"5m\"\nabove = 0.1\nresolve = 0.2"), "resolve: it can't be 0.2: it would be over and wrong at once; give at most 0.1".into()),
        (&format!("{rate}window = \"5m\"\nbelow = 0.1\nresolve = 0.05"), "resolve: it can't be 0.05: it would be over and wrong at once; give at least 0.1".into()),
        (&format!("{rate}window = \"5m\"\nabove = inf"), "above: it can't be inf; give a number".into()),
        (&format!("{rate}window = \"5m\"\nabove = 0.1\nconfidence = 1"), "confidence: it can't be 1; give a number between 0 and 0.9999999".into()),
        (&format!("{rate}window = \"5m\"\nabove = 0.1\nconfidence = 0.99999999999999999"), "confidence: it can't be 1; give a number between 0 and 0.9999999".into()),
        (&format!("{rate}window = \"5m\"\nabove = 0.1\nquantile = 0.9"), "quantile: the metric error_rate is no distribution; leave it out".into()),
        (&format!("{rate}window = \"5m\"\nabove = 0.1\nseverity = \"pager\""), "severity: there is no severity \"pager\"; use one of page, ticket, info".into()),
        (&format!("{rate}window = \"5m\"\nabove = 0.1\nremember = \"1h\""), "remember: it has an effect only on no_data, and on counts and sums below a level; leave it out".into()),
        (&format!("{rate}window = \"5m\"\nabove = 0.1\nby = [\"modle\"]"), "by: the rollup llm_call_1m has no dimension \"modle\"; did you mean model? use one of app, environment, model, status, or add it to the rollup".into()),
        (&format!("{rate}window = \"5m\"\nabove = 0.1\nby = [\"app\", \"app\"]"), "by: app stands there twice; take one away".into()),
        (&format!("{rate}window = \"5m\"\nabove = 0.1\nwhere = \"status = 'eror'\""), "where: at character 1 of \"status = 'eror'\": status is never 'eror'; did you mean error? use one of ok, error, timeout, cancelled".into()),
        (&format!("{rate}window = \"5m\"\nabove = 0.1\nsummary = \"{{model}}\""), "summary: there is no {model} to fill in; use one of rule, state, value, threshold, samples, window, severity".into()),
        (&format!("{rate}window = \"5m\"\nabove = 0.1\nmax_series = 0"), "max_series: it can't be 0; give a number from 1 to 1000000".into()),
        (&format!("{rate}no_data = \"5m\"\nwindow = \"5m\""), "window: it has no effect on no_data; leave it out".into()),
        (&format!("{rate}burn_rate = {{ objective = 1 }}"), "burn_rate: it can't be 1; give a number between 0 and 1".into()),
        (&format!("{rate}burn_rate = {{ objective = 0.99, slower_than = 5 }}"), "burn_rate: the metric error_rate is no distribution; leave slower_than out".into()),
        (&format!("{rate}burn_rate = {{ objective = 0.99, windows = [{{ rate = 2, long = \"5m\", short = \"1h\", severity = \"page\" }}] }}"), "burn_rate: long has to be longer than short".into()),
        ("metric = \"latency\"\nburn_rate = { objective = 0.99 }", "burn_rate: the metric latency is a distribution; say what is too slow: slower_than = 2000".into()),
        ("metric = \"calls\"\nburn_rate = { objective = 0.99 }", "burn_rate: the metric calls is no share of bad events; use one with ratio = \"condition\", or a distribution".into()),
        ("metric = \"latency\"\nwindow = \"5m\"\nabove = 500", "quantile: the metric latency is a distribution; say which quantile, as 0.95".into()),
        ("metric = \"calls\"\nwindow = \"5m\"\nabove = 5\nconfidence = 0.9", "confidence: only shares and quantiles have one; leave it out".into()),
        ("metric = \"latency\"\nquantile = 0.9\nwindow = \"5m\"\nabove = 1\nchange = \"1h\"\nconfidence = 0.9", "confidence: a change of a quantile has none; leave it out".into()),
        ("metric = \"calls\"\nwindow = \"5m\"\nbelow = -1.5\nchange = \"1h\"", "below: nothing falls by more than all of it; -1.5 is never reached, give -0.5 for half".into()),
        ("metric = \"calls\"\nwindow = \"7m\"\nanomaly = {}", "window: 7m: it looks back 29 days, and looked at minute by minute that is too much; make all spans multiples of 15m".into()),
        ("metric = \"calls\"\nwindow = \"1h\"\nanomaly = { weeks = 1 }", "anomaly: weeks can't be 1; give a number from 2 to 12".into()),
        ("metric = \"calls\"\nwindow = \"1h\"\nanomaly = { direction = \"up\" }", "anomaly: direction can't be \"up\"; use above, below or both".into()),
        ("metric = \"calls\"\nwindow = \"1h\"\nanomaly = { time_zone = \"CEST\" }", "anomaly: there is no time zone \"CEST\"; write an IANA name, as Europe/Berlin or UTC".into()),
    ] {
        assert_eq!(alert(lines).lines().next(), Some(error.as_str()), "{lines}");
    }
}

#[test]
fn a_rule_that_can_never_fire_or_never_end_is_refused() {
    let of = |metric: &str, lines: &str| alert(&format!("metric = \"{metric}\"\nwindow = \"5m\"\n{lines}"));
    for (metric, lines, error) in [
        ("error_rate", "above = -0.1", "above: it always is; give a number from 0 to below 1, as 0.05 for 5 %"),
        ("error_rate", "above = 1", "above: it never is; give a number from 0 to below 1, as 0.05 for 5 %"),
        ("error_rate", "above = nan", "above: it can't be NaN; give a number"),
        ("error_rate", "below = 0", "below: it never is; give a number above 0 to 1, as 0.95 for 95 %"),
        ("error_rate", "below = 1.5", "below: it always is; give a number above 0 to 1, as 0.95 for 95 %"),
        (
            "error_rate",
            "above = 0.1\nresolve = -0.1",
            "resolve: it never gets there and would fire for ever; give at least 0",
        ),
        (
            "error_rate",
            "below = 0.9\nresolve = 1.1",
            "resolve: it never gets there and would fire for ever; give at most 1",
        ),
        ("calls", "above = -5", "above: it always is; give a number from 0"),
        ("calls", "below = 0", "below: it never is; give a number above 0"),
        ("calls", "below = -3", "below: it never is; give a number above 0"),
        ("cost", "below = -3", "below: it never is; give a number above 0"),
        ("calls", "above = 5\nresolve = -1", "resolve: it never gets there and would fire for ever; give at least 0"),
        (
            "calls",
            "above = -0.5\nchange = \"1h\"",
            "above: it holds where nothing changes; give a number from 0, as 0.5 for half as much again",
        ),
        (
            "calls",
            "below = 0.5\nchange = \"1h\"",
            "below: it holds where nothing changes; give a number from -1 to 0, as -0.5 for half as much",
        ),
        (
            "calls",
            "below = -1\nchange = \"1h\"",
            "below: nothing falls by more than all of it; -1 is never reached, give -0.5 for half",
        ),
        (
            "calls",
            "above = 1\nresolve = -2\nchange = \"1h\"",
            "resolve: it never gets there and would fire for ever; give at least -1",
        ),
        (
            "calls",
            "below = 5\nmin_samples = 5",
            "min_samples: it has no effect but to hide that there are few; leave it out",
        ),
    ] {
        assert_eq!(of(metric, lines).lines().next(), Some(error), "{metric} {lines}");
    }
    let burn = |lines: &str| alert(&format!("metric = \"error_rate\"\n{lines}"));
    assert_eq!(
        burn("burn_rate = { objective = 0.9 }"),
        "burn_rate: 14.4 times the budget of 10 % is more than all there is, so that 1h never fires; give windows with \
         rates below 10"
    );
    assert_eq!(
        burn("burn_rate = { objective = 0.99 }\nseverity = \"info\""),
        "severity: it has no effect on burn_rate, whose windows have their own; leave it out"
    );
    assert_eq!(
        parse("[[alert]]\nname = \"a\"\nmetric = \"error_rate\"\nburn_rate = { objective = 0.931 }").err(),
        None
    );
}

#[test]
fn a_rule_that_would_look_at_too_many_minutes_is_refused() {
    let rest = "and looked at minute by minute that is too much; make all spans multiples of";
    for (metric, lines, error) in [
        ("calls", "window = \"3d\"\nfor = \"1m\"\nabove = 5", format!("for: 1m: it looks back 3 days, {rest} 5m")),
        ("calls", "window = \"1h\"\nfor = \"2m\"\nanomaly = {}", format!("for: 2m: it looks back 29 days, {rest} 15m")),
        ("calls", "window = \"5m\"\nanomaly = { weeks = 12 }", "window: 5m: it looks back 85 days, and looked at every 5m that is too much; make all spans multiples of 1h".into()),
        ("calls", "window = \"7m\"\nabove = 0.5\nchange = \"1w\"", format!("window: 7m: it looks back 8 days, {rest} 5m")),
        ("calls", "no_data = \"2m\"", format!("no_data: 2m: it looks back 8 days, {rest} 5m, or give a shorter remember")),
    ] {
        assert_eq!(alert(&format!("metric = \"{metric}\"\n{lines}")).lines().next(), Some(error.as_str()), "{lines}");
    }
    assert_eq!(
        budget("period = \"month\"\namount = \"50\"\nforecast_window = \"61m\""),
        format!("forecast_window: 61m: it looks back 32 days, {rest} 15m")
    );
    for good in [
        "no_data = \"2m\"\nremember = \"1d\"",
        "window = \"3d\"\nabove = 5\nfor = \"5m\"",
        "window = \"1h\"\nanomaly = { weeks = 12 }",
    ] {
        assert_eq!(parse(&format!("[[alert]]\nname = \"a\"\nmetric = \"calls\"\n{good}")).err(), None);
    }
}

#[test]
fn the_text_and_hash_of_a_rule_are_its_own() {
    let text = "[[ alert ]]\r\n# not [[alert]] b\r\nmetric = \"calls\"\r\nname = \"a\"\r\nwindow = \"5m\"\r\nabove = 5\r\n\r\n  [[ alert ]]\r\nwindow = \"5m\"\r\nmetric = \"calls\"\r\nabove = 6\r\nname = \"b\"\r\n  [alert.labels]\r\nteam = \"x\"\r\n";
    let (rules, _) = parse(text).unwrap();
    let texts: Vec<&str> = rules.rules.iter().map(|rule| rule.notice.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "[[ alert ]]\nmetric = \"calls\"\nname = \"a\"\nwindow = \"5m\"\nabove = 5",
            "  [[ alert ]]\nwindow = \"5m\"\nmetric = \"calls\"\nabove = 6\nname = \"b\"\n  [alert.labels]\nteam = \"x\"",
        ]
    );
    let inline =
        |above: i64| format!("alert = [{{ above = {above}, name = \"a\", metric = \"calls\", window = \"5m\" }}]");
    let hash = |text: &str| parse(text).unwrap().0.rules[0].notice.hash.clone();
    assert_ne!(hash(&inline(5)), hash(&inline(6)));
    assert_eq!(hash(&inline(5)), hash(&inline(5)));
    // A rule with another limit watches other series.
    let limited = |name: &str, most: u32| {
        format!(
            "[[alert]]\nname = \"{name}\"\nmetric = \"calls\"\nby = [\"app\"]\nwindow = \"5m\"\nabove = 5\nmax_series = {most}\n"
        )
    };
    assert_eq!(parse(&[limited("a", 5), limited("b", 6), limited("c", 5)].concat()).unwrap().0.signals.len(), 2);
}

#[test]
fn errors_of_budgets_name_the_key_and_the_remedy() {
    let day = "period = \"day\"\namount = \"50.00\"\n";
    for (lines, error) in [
        ("period = \"hour\"\namount = \"50\"", "period: there is no period \"hour\"; use one of day, week, month"),
        (
            "period = \"day\"\namount = \"50,00\"",
            "amount: \"50,00\" is no amount of at most 12 decimals; write it between quotes, as \"50.00\"",
        ),
        ("period = \"day\"\namount = 0", "amount: it can't be \"0\"; give an amount above 0"),
        ("period = \"day\"\namount = \"0\"", "amount: it can't be \"0\"; give an amount above 0"),
        ("period = \"day\"\namount = \"-5\"", "amount: it can't be \"-5\"; give an amount above 0"),
        (
            &format!("{day}time_zone = \"Berlin\""),
            "time_zone: there is no time zone \"Berlin\"; write an IANA name, as Europe/Berlin or UTC",
        ),
        (
            &format!("{day}levels = {{}}"),
            "levels: it is empty; leave it out for warning = 50, alert = 80, critical = 90, stop = 100",
        ),
        (&format!("{day}levels = {{ none = 0 }}"), "levels: none can't be 0 %; give a number from 1 to 10000"),
        (&format!("{day}levels = {{ a = 5, b = 5 }}"), "levels: a and b are one level; take one away"),
        (
            &format!("{day}summary = \"{{value}}\""),
            "summary: there is no {value} to fill in; use one of rule, state, level, percent, threshold, spent, amount, overshoot",
        ),
        (
            &format!("{day}levels = {{ ok = 5 }}"),
            "levels: ok and closed say that there is no level; choose another name",
        ),
        (
            &format!("{day}forecast_window = \"1\""),
            "forecast_window: \"1\" is not a span; write whole minutes, hours, days or weeks: 5m, 1h, 3d, 2w",
        ),
    ] {
        assert_eq!(budget(lines).lines().next(), Some(error), "{lines}");
    }
    let share =
        parse("[[budget]]\nname = \"b\"\nmetric = \"error_rate\"\nperiod = \"day\"\namount = \"5\"").unwrap_err();
    assert_eq!(
        share,
        "alerts.toml:3: budget b: metric: error_rate does not add up; a budget is for a cost, a sum or a count"
    );
}

#[test]
fn errors_have_lines_and_come_all_at_once() {
    let good = "[[alert]]\nname = \"a\"\nmetric = \"calls\"\nwindow = \"5m\"\nabove = 5\n";
    let bad = format!(
        "{good}[[alert]]\nname = \"a\"\nmetric = \"calls\"\nwindow = \"5m\"\nabove = 5\nby = [\n  \"ap\",\n]\n[[alert]]\nname = \"é\"\nmetric = \"x\""
    );
    let errors = parse(&bad).unwrap_err();
    let starts: Vec<&str> = errors.lines().map(|line| line.split(';').next().unwrap()).collect();
    assert_eq!(
        starts,
        [
            "alerts.toml:7: alert a: name: a is taken already (alerts.toml:2)",
            "alerts.toml:12: alert a: by: the rollup llm_call_1m has no dimension \"ap\"",
            "alerts.toml:15: alert é: name: \"é\" can't be a name",
            "alerts.toml:16: alert é: metric: there is no metric \"x\"",
        ]
    );
    let odd = "[[alert]]\nname = \"a\"\nmetric = \"calls\"\nwindow = \"1h\"\nanomaly = { weeks = 1 }";
    assert!(parse(odd).unwrap_err().starts_with("alerts.toml:5: alert a: anomaly: "), "at the line of its key");
    for (text, error) in [
        (
            "[[alert]]\nname = \"a\"\nmetric = \"calls\"\nwindwo = \"5m\"",
            "alerts.toml:4: not a pack: unknown key `windwo`; did you mean `window`?",
        ),
        ("[[alert]]\nname = \"a\"", "alerts.toml:1: not a pack: missing key `metric`"),
        (
            "[[alert]]\nname = \"a\"\nmetric = \"calls\"\nabove = \"5\"",
            "alerts.toml:4: not a pack: above: write a number",
        ),
        (
            "[[budget]]\nname = \"b\"\nmetric = \"cost\"\nperiod = \"day\"\namount = 50.5",
            "alerts.toml:5: not a pack: amount: write an amount between quotes, as \"50.00\"",
        ),
        (
            "[[alert]]\nname = \"a\"\nmetric = \"calls\"\nwindow = 300",
            "alerts.toml:4: not a pack: window: it can't be integer `300`; write a text between quotes",
        ),
        (
            "[[alert]]\nname = \"a\"\nmetric = \"calls\"\nmin_samples = -1",
            "alerts.toml:4: not a pack: min_samples: it can't be integer `-1`; write a whole number from 0",
        ),
        (
            "[[alert]]\nname = \"a\"\nmetric = \"calls\"\nburn_rate = 0.999",
            "alerts.toml:4: not a pack: burn_rate: it can't be floating point `0.999`; write a table, as { objective = 0.999 }",
        ),
        (
            "[[alert]]\nname = \"a\"\nmetric = \"calls\"\nburn_rate = { objective = \"99%\" }",
            "alerts.toml:4: not a pack: objective: write a number",
        ),
        (
            "[[budget]]\nname = \"b\"\nmetric = \"cost\"\nlevels = { warning = -5 }",
            "alerts.toml:4: not a pack: warning: it can't be integer `-5`; write a whole number from 0",
        ),
        (
            "[[alert]]\nname = \"a\"\nmetric = \"calls\"\nby = \"app\"",
            "alerts.toml:4: not a pack: by: it can't be string \"app\"; write a list between brackets",
        ),
    ] {
        let found = parse(text).unwrap_err();
        assert!(found.starts_with(error), "{found}");
    }
}

#[test]
fn rules_that_look_at_the_same_share_it() {
    let alert = |name: &str, more: &str| {
        format!("[[alert]]\nname = \"{name}\"\nmetric = \"latency\"\nby = [\"app\"]\nquantile = 0.95\n{more}\n")
    };
    let text = [
        alert("a", "window = \"5m\"\nabove = 500\nresolve = 400"),
        alert("b", "window = \"1h\"\nabove = 500"),
        alert("c", "window = \"5m\"\nabove = 900"),
        alert("d", "window = \"5m\"\nabove = 900\nwhere = \"model = 'opus'\""),
    ]
    .concat();
    let (rules, resolved) = parse(&text).unwrap();
    assert_eq!(rules.signals.len(), 2);
    assert_eq!(rules.signals[0].levels.iter().map(|(_, level)| *level).collect::<Vec<_>>(), [500.0, 400.0, 900.0]);
    let questions = super::super::Question::all(&rules, &resolved.rollups);
    assert_eq!(questions.len(), 1, "one query for all of a rollup");
    assert_eq!(questions[0].dimensions, ["app", "model"]);
    let hashes: std::collections::HashSet<&str> = rules.rules.iter().map(|rule| rule.notice.hash.as_str()).collect();
    assert_eq!(hashes.len(), 4);
    // A rule is the same whatever stands beside it.
    let alone = parse(&alert("c", "window = \"5m\"\nabove = 900")).unwrap().0;
    assert_eq!(alone.rules[0].notice.hash, rules.rules[2].notice.hash);
}

#[test]
fn shipped_packs_have_the_rules_that_users_ask_for() {
    let read = |folder: &str, ending: &str| -> Vec<(String, String)> {
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|found| found == ending));
        files.sort();
        files.into_iter().map(|file| (file.display().to_string(), std::fs::read_to_string(file).unwrap())).collect()
    };
    let types: Vec<EventType> =
        read("schemas", "avsc").iter().map(|(file, json)| EventType::parse(file, json).unwrap()).collect();
    let packs: Vec<Pack> = read("packs", "toml").iter().map(|(file, text)| Pack::parse(file, text).unwrap()).collect();
    let resolved = crate::rollup::resolve(&packs, &types).unwrap();
    let rules = super::resolve(&packs, &types, &resolved.rollups, &resolved.metrics);
    let rules = rules.unwrap_or_else(|errors| panic!("{errors:#?}"));
    let has = |kind: Kind| rules.rules.iter().any(|rule| rule.test.kind() == kind);
    for kind in
        [Kind::Threshold, Kind::Change, Kind::BurnRate, Kind::NoData, Kind::Anomaly, Kind::Forecast, Kind::Unpriced]
    {
        assert!(has(kind), "{kind:?}");
    }
    let levels: Vec<f64> = rules
        .rules
        .iter()
        .filter_map(|rule| match &rule.test {
            Test::Threshold { level, quantile: Some(_), .. } => Some(*level),
            _ => None,
        })
        .collect();
    for wanted in [500.0, 2_000.0, 7_000.0, 15_000.0] {
        assert!(levels.contains(&wanted), "{wanted} ms");
    }
    let percents: Vec<u32> = rules.budgets[0].levels.iter().map(|level| level.percent).collect();
    assert_eq!(percents, [50, 80, 90, 100]);
}
