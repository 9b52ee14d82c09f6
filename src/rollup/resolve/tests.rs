#![allow(clippy::unwrap_used, clippy::panic)]

use super::super::fixture::{event, llm_call, probe};
use super::super::table::{Merge, PartColumn};
use super::*;

fn types() -> Vec<EventType> {
    vec![llm_call(), probe()]
}

fn pack(text: &str) -> Pack {
    match Pack::parse("packs/test.toml", text) {
        Ok(pack) => pack,
        Err(error) => unreachable!("{error}"),
    }
}

fn errors(text: &str) -> Vec<String> {
    match resolve(&[pack(text)], &types()) {
        Ok(resolved) => unreachable!("resolved to {resolved:?}"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

fn resolved(packs: &[Pack]) -> Vec<Rollup> {
    match resolve(packs, &types()) {
        Ok(resolved) => resolved.rollups,
        Err(errors) => unreachable!("{errors:?}"),
    }
}

fn column_names(rollup: &Rollup) -> Vec<String> {
    rollup.part_columns().into_iter().map(|column| column.def.name).collect()
}

#[test]
fn shipped_packs_resolve() {
    let read = |folder: &str, ending: &str| -> Vec<(String, String)> {
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|found| found == ending));
        files.sort();
        files.into_iter().map(|file| (file.display().to_string(), std::fs::read_to_string(file).unwrap())).collect()
    };
    let types: Vec<EventType> =
        read("schemas", "avsc").iter().map(|(file, json)| EventType::parse(file, json).unwrap()).collect();
    let packs: Vec<Pack> = read("packs", "toml").iter().map(|(file, text)| Pack::parse(file, text).unwrap()).collect();
    let resolved = resolve(&packs, &types).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let named = |name: &str| resolved.rollups.iter().find(|rollup| rollup.name == name).unwrap();
    let rollup = named("llm_call_1m");
    let event = &types[rollup.event];
    assert_eq!((event.name.as_str(), rollup.table().as_str()), ("llm_call", "llm_call_1m_parts"));
    let by: Vec<&str> = rollup.by.iter().map(|by| by.name.as_str()).collect();
    assert_eq!(by, ["app", "environment", "provider", "model", "operation", "status"]);
    let [cost] = rollup.measures.iter().filter(|measure| measure.name == "cost_usd").collect::<Vec<_>>()[..] else {
        unreachable!("one cost")
    };
    assert_eq!((cost.number, cost.column), (Number::Decimal { scale: 12 }, event.fields.len()));
    let names = column_names(rollup);
    assert_eq!(&names[7..10], ["_source", "_through", "count"]);
    for name in ["input_tokens", "input_tokens_sum", "latency_ms", "latency_ms_invalid", "cost_usd_missing"] {
        assert_eq!(names.iter().filter(|known| *known == name).count(), 1, "{name}");
    }
    assert!(!names.contains(&"latency_ms_sum".to_owned()), "it is not asked for");
    for event in ["llm_call", "cache_access", "suggestion"] {
        let about = |metric: &&Metric| types[resolved.rollups[metric.rollup].event].name == event;
        assert!(resolved.metrics.iter().filter(about).count() >= 3, "{event}");
    }
    assert!(resolved.metrics.iter().all(|metric| metric.question.ends_with('?') && metric.by[0] == "app"));
}

#[test]
fn types_and_merges_of_every_kind_of_measure() {
    let rollup = &resolved(&[pack(
        r#"
        [[rollup]]
        event = "probe"
        name = "p"
        by = ["region", "app"]
        sum = ["small", "large", "money"]
        distribution = ["money", "single"]"#,
    )])[0];
    let columns = rollup.part_columns();
    let described: Vec<(&str, &str, Merge)> = columns
        .iter()
        .map(|PartColumn { def, merge }| (def.name.as_str(), def.clickhouse_type.as_str(), *merge))
        .collect();
    let counter = "SimpleAggregateFunction(sum, UInt64)";
    assert_eq!(
        described,
        [
            ("minute", "DateTime('UTC')", Merge::Key),
            ("app", "LowCardinality(String)", Merge::Key),
            ("region", "LowCardinality(String)", Merge::Key),
            ("_source", "LowCardinality(String)", Merge::Source),
            ("_through", "SimpleAggregateFunction(max, UInt64)", Merge::Through),
            ("count", counter, Merge::Sum),
            ("small_sum", "SimpleAggregateFunction(sum, Int128)", Merge::Sum),
            ("small_min", "SimpleAggregateFunction(min, Nullable(Int64))", Merge::Min),
            ("small_max", "SimpleAggregateFunction(max, Nullable(Int64))", Merge::Max),
            ("small_missing", counter, Merge::Sum),
            ("large_sum", "SimpleAggregateFunction(sum, Int128)", Merge::Sum),
            ("large_min", "SimpleAggregateFunction(min, Nullable(Int64))", Merge::Min),
            ("large_max", "SimpleAggregateFunction(max, Nullable(Int64))", Merge::Max),
            ("large_missing", counter, Merge::Sum),
            ("money_sum", "SimpleAggregateFunction(sum, Decimal(38, 4))", Merge::Sum),
            ("money_min", "SimpleAggregateFunction(min, Nullable(Decimal(38, 4)))", Merge::Min),
            ("money_max", "SimpleAggregateFunction(max, Nullable(Decimal(38, 4)))", Merge::Max),
            ("money_missing", counter, Merge::Sum),
            ("money", "SimpleAggregateFunction(sumMap, Tuple(Array(Float64), Array(UInt64)))", Merge::SumMap),
            ("single_min", "SimpleAggregateFunction(min, Nullable(Float64))", Merge::Min),
            ("single_max", "SimpleAggregateFunction(max, Nullable(Float64))", Merge::Max),
            ("single_missing", counter, Merge::Sum),
            ("single_invalid", counter, Merge::Sum),
            ("single", "SimpleAggregateFunction(sumMap, Tuple(Array(Float64), Array(UInt64)))", Merge::SumMap),
        ]
    );
}

#[test]
fn a_type_without_a_rollup_gets_a_default() {
    let rollups = resolved(&[]);
    assert_eq!(rollups.iter().map(|rollup| rollup.name.as_str()).collect::<Vec<_>>(), ["llm_call_1m", "probe_1m"]);
    let by: Vec<&str> = rollups[1].by.iter().map(|by| by.name.as_str()).collect();
    assert_eq!(by, ["app", "environment", "region"], "app first, without what says drop");
    let kept = |rollup: &Rollup| -> Vec<(String, bool, bool)> {
        rollup.measures.iter().map(|measure| (measure.name.clone(), measure.sum, measure.distribution)).collect()
    };
    let sums = |names: &[&str]| -> Vec<(String, bool, bool)> {
        names.iter().map(|name| ((*name).to_owned(), true, name.ends_with("_ms") || *name == "real")).collect()
    };
    assert_eq!(kept(&rollups[1]), sums(&["small", "large", "single", "real", "money"]));
    let llm = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "latency_ms"];
    let llm = [&llm[..], &["time_to_first_token_ms", "retries", "cost_usd"]].concat();
    assert_eq!(kept(&rollups[0]), sums(&llm));

    let own = pack("[[rollup]]\nevent = \"probe\"\nname = \"mine\"\nby = [\"app\"]");
    let names: Vec<String> = resolved(&[own]).into_iter().map(|rollup| rollup.name).collect();
    assert_eq!(names, ["mine", "llm_call_1m"], "a type that has a rollup gets no other");
}

#[test]
fn all_errors_come_at_once_with_file_rollup_key_and_remedy() {
    let found = errors(
        r#"
        [[rollup]]
        event = "llm_cal"
        by = ["app"]
        [[rollup]]
        event = "probe"
        by = []
        [[rollup]]
        event = "probe"
        name = "second"
        by = ["apps", "user_id", "large", "app", "app", "secret"]
        sum = ["nothing", "flag", "region", "huge", "hidden", "cost_usd", "large", "large"]
        distribution = ["event_id", "flag", "real", "real"]"#,
    );
    let numbers = "use one of small, large, single, real, money, huge";
    let dimensions = "use one of environment, app, region";
    let second = |line: usize| format!("packs/test.toml:{line}: rollup second: ");
    assert_eq!(
        found,
        [
            "packs/test.toml:3: rollup llm_cal_1m: event: there is no event type \"llm_cal\"; did you mean llm_call? use one of llm_call, probe"
                .to_owned(),
            format!("packs/test.toml:6: rollup probe_1m: by: it is empty; {dimensions}"),
            format!("{}by: probe has no field \"apps\"; did you mean app? {dimensions}", second(11)),
            format!("{}by: probe has no field \"user_id\"; {dimensions}", second(11)),
            format!("{}by: the field large of probe is no dimension; {dimensions}", second(11)),
            format!("{}by: app stands there twice; take one away", second(11)),
            format!("{}by: the field secret of probe is not for rollups (pii: drop); {dimensions}", second(11)),
            format!("{}sum: probe has no field \"nothing\"; {numbers}", second(12)),
            format!("{}sum: the field flag of probe is no number; {numbers}", second(12)),
            format!("{}sum: the field region of probe is no number; {numbers}", second(12)),
            format!(
                "{}sum: the field huge of probe has 38 digits; declare a precision of at most 28, so that sums fit in 38 digits",
                second(12)
            ),
            format!("{}sum: the field hidden of probe is not for rollups (pii: drop); {numbers}", second(12)),
            format!("{}sum: probe has no field \"cost_usd\"; {numbers}", second(12)),
            format!("{}sum: large stands there twice; take one away", second(12)),
            format!("{}distribution: the field event_id of probe is no number; {numbers}", second(13)),
            format!("{}distribution: the field flag of probe is no number; {numbers}", second(13)),
            format!("{}distribution: real stands there twice; take one away", second(13)),
        ]
    );
}

/// Whoever wants numbers of each user is told how to have them: a subject is none to group by.
#[test]
fn a_subject_to_group_by_is_refused_with_the_way() {
    let found = errors("[[rollup]]\nevent = \"llm_call\"\nby = [\"app\", \"user\"]");
    assert_eq!(
        found,
        [
            "packs/test.toml:3: rollup llm_call_1m: by: the field user of llm_call is no dimension, as each of its values would be a \
          series; to group by it all the same, give a field the role dimension and let producers send a pseudonym in it, never a \
          name; use one of environment, app, provider, model, operation, status"
        ]
    );
}

#[test]
fn names_are_taken_once() {
    for (name, what) in [
        ("llm_call", "llm_call is the table of an event type already"),
        ("ledger", "ledger is a table of highwater's own already"),
        ("first", "first is a rollup's (packs/test.toml:3) already"),
        ("first_parts", "first_parts is a rollup's (packs/test.toml:3) already"),
        ("first_v1", "first_v1 is a rollup's (packs/test.toml:3) already"),
        ("", "\"\" can't be a view's name"),
        ("1m", "\"1m\" can't be a view's name"),
        ("_x", "\"_x\" can't be a view's name"),
        ("a-b", "\"a-b\" can't be a view's name"),
        ("a b", "\"a b\" can't be a view's name"),
        ("é", "\"é\" can't be a view's name"),
        ("x; DROP TABLE y", "\"x; DROP TABLE y\" can't be a view's name"),
    ] {
        let rollup = |name: &str, version: u32| {
            format!("[[rollup]]\nevent = \"probe\"\nname = \"{name}\"\nversion = {version}\nby = [\"app\"]\n")
        };
        let found = errors(&(rollup("first", 2) + &rollup(name, 1)));
        let start = format!("packs/test.toml:8: rollup {name}: name: {what}");
        assert!(found.iter().any(|error| error.starts_with(&start)), "{start} not in {found:?}");
    }
    let long = "x".repeat(101);
    let found = errors(&format!("[[rollup]]\nevent = \"probe\"\nname = \"{long}\"\nby = [\"app\"]"));
    assert!(found[0].contains("at most 100 letters"), "{found:?}");
    // A default's name may be taken by another type's rollup.
    let found = errors("[[rollup]]\nevent = \"probe\"\nname = \"llm_call_1m\"\nby = [\"app\"]");
    assert!(
        found[0].starts_with("event type llm_call: its default rollup can't be made: name: llm_call_1m is"),
        "{found:?}"
    );
}

#[test]
fn columns_of_one_name_are_refused() {
    let field = |name: &str| format!(r#"{{"name": "{name}", "type": "long", "highwater": {{"role": "measure"}}}}"#);
    let odd = [event("odd", &format!("{}, {}", field("x"), field("x_min")))];
    let rollup = |sum: &str| {
        let text = format!("[[rollup]]\nevent = \"odd\"\nby = [\"app\"]\nsum = [\"x\"]\ndistribution = [\"{sum}\"]");
        resolve(&[pack(&text)], &odd).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let message = "columns: two columns of its table would be called x_min; rename the field or leave it out";
    assert_eq!(rollup("x_min").err(), Some(vec![format!("packs/test.toml:2: rollup odd_1m: {message}")]));
    assert!(rollup("x").is_ok());
    assert!(resolve(&[], &odd).is_ok(), "the default keeps no distribution of x_min");
    let count = [event("odd", &field("count"))];
    assert!(resolve(&[], &count).is_ok(), "count_sum and count are two columns");
    let minute = r#"{"name": "minute", "type": "string", "highwater": {"role": "dimension"}}"#;
    let found = resolve(&[], &[event("odd", minute)]).map_err(|errors| errors[0].to_string());
    assert!(found.is_err_and(|error| error.starts_with("event type odd: its default rollup can't be made: columns: ")));
}

#[test]
fn versions_count_from_one() {
    let with = |version: &str| format!("[[rollup]]\nevent = \"probe\"\nby = [\"app\"]\nversion = {version}");
    let tables = |version| {
        let rollup = &resolved(&[pack(&with(version))])[0];
        (rollup.table(), rollup.formers())
    };
    assert_eq!(tables("1"), ("probe_1m_parts".to_owned(), vec![]));
    let former = |view: &str, table: &str| (view.to_owned(), table.to_owned());
    let first = || former("probe_1m_v1", "probe_1m_parts");
    assert_eq!(tables("2"), ("probe_1m_v2_parts".to_owned(), vec![first()]));
    assert_eq!(
        tables("3"),
        ("probe_1m_v3_parts".to_owned(), vec![first(), former("probe_1m_v2", "probe_1m_v2_parts")])
    );
    for wrong in ["0", "1001"] {
        let found = errors(&with(wrong));
        let start = format!("packs/test.toml:4: rollup probe_1m: version: it can't be {wrong}; it is 1 at first");
        assert!(found[0].starts_with(&start), "{found:?}");
    }
}

#[test]
fn a_file_that_is_no_pack_is_refused_with_line_and_key() {
    let rollup = "[[rollup]]\nevent = \"probe\"\n";
    for (text, line, what) in [
        ("[[metrics]]\nname = \"x\"", 1, "unknown key `metrics`; did you mean `metric`? known are rollup, metric"),
        (
            &format!("{rollup}by = [\"app\"]\nsums = []"),
            4,
            "unknown key `sums`; did you mean `sum`? known are event, name",
        ),
        (&format!("{rollup}by = [\"app\"]\ncolour = []"), 4, "unknown key `colour`; known are event, name"),
        ("[[rollup]]\nby = [\"app\"]", 1, "missing key `event`"),
        (rollup, 1, "missing key `by`"),
        (&format!("{rollup}by = \"app\""), 3, "write a list between brackets"),
        (&format!("{rollup}by = [1]"), 3, "expected a string"),
        (&format!("{rollup}by = [\"app\"]\nversion = \"2\""), 4, "write a whole number from 0"),
        (
            "[rollup]\nevent = \"probe\"\nby = [\"app\"]",
            1,
            "write the name between two brackets on each side, as [[alert]]",
        ),
        ("[[rollup", 1, ""),
        ("\n\n[[metric]]\nname = \"x\"\nquestion = \"y\"", 3, "missing key `unit`"),
        ("[[metric]]\nqueston = \"y\"", 2, "unknown key `queston`; did you mean `question`?"),
        ("[[metric]]\ncount = \"yes\"", 2, "write true or false"),
        ("[[metric]]\nsum = 1", 2, "write the name of a number or a list of such names"),
    ] {
        let found = Pack::parse("packs/test.toml", text).map_err(|error| error.to_string());
        let Err(found) = found else { unreachable!("{text} is a pack") };
        assert!(found.starts_with(&format!("packs/test.toml:{line}: not a pack: ")), "{found} for {text}");
        assert!(found.contains(what), "{what} not in {found}");
    }
    assert!(Pack::parse("packs/empty.toml", "").is_ok_and(|pack| pack.rollups.is_empty() && pack.metrics.is_empty()));
}
