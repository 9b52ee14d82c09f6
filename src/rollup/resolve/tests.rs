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
        Ok(rollups) => unreachable!("resolved to {rollups:?}"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

fn resolved(packs: &[Pack]) -> Vec<Rollup> {
    match resolve(packs, &types()) {
        Ok(rollups) => rollups,
        Err(errors) => unreachable!("{errors:?}"),
    }
}

fn column_names(rollup: &Rollup) -> Vec<String> {
    rollup.part_columns().into_iter().map(|column| column.def.name).collect()
}

#[test]
fn shipped_pack_resolves() {
    let Ok(shipped) = Pack::parse("packs/llm.toml", include_str!("../../../packs/llm.toml")) else {
        unreachable!("packs/llm.toml is a pack")
    };
    let schema = EventType::parse("schemas/llm_call.avsc", include_str!("../../../schemas/llm_call.avsc"));
    let Ok(event) = schema else { unreachable!("{schema:?}") };
    let Ok(rollups) = resolve(&[shipped], std::slice::from_ref(&event)) else { unreachable!("it fits its schema") };
    let rollup = &rollups[0];
    assert_eq!((rollup.name.as_str(), rollup.event), ("llm_call_1m", 0));
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
    assert_eq!(by, ["app", "environment", "region"], "app first, without what is never stored");
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
    let second = "packs/test.toml: rollup second: ";
    assert_eq!(
        found,
        [
            "packs/test.toml: rollup llm_cal_1m: event: there is no event type \"llm_cal\"; use one of llm_call, probe"
                .to_owned(),
            format!("packs/test.toml: rollup probe_1m: by: it is empty; {dimensions}"),
            format!("{second}by: probe has no field \"apps\"; {dimensions}"),
            format!("{second}by: probe has no field \"user_id\"; {dimensions}"),
            format!("{second}by: the field large of probe is no dimension; {dimensions}"),
            format!("{second}by: app stands there twice; take one away"),
            format!("{second}by: the field secret of probe is never stored (pii: drop); {dimensions}"),
            format!("{second}sum: probe has no field \"nothing\"; {numbers}"),
            format!("{second}sum: the field flag of probe is no number; {numbers}"),
            format!("{second}sum: the field region of probe is no number; {numbers}"),
            format!(
                "{second}sum: the field huge of probe has 38 digits; declare a precision of at most 28, so that sums fit in 38 digits"
            ),
            format!("{second}sum: the field hidden of probe is never stored (pii: drop); {numbers}"),
            format!("{second}sum: probe has no field \"cost_usd\"; {numbers}"),
            format!("{second}sum: large stands there twice; take one away"),
            format!("{second}distribution: the field event_id of probe is no number; {numbers}"),
            format!("{second}distribution: the field flag of probe is no number; {numbers}"),
            format!("{second}distribution: real stands there twice; take one away"),
        ]
    );
}

#[test]
fn names_are_taken_once() {
    for (name, what) in [
        ("llm_call", "llm_call is the table of an event type already"),
        ("ledger", "ledger is a table of highwater's own already"),
        ("first", "first is a rollup's (of packs/test.toml) already"),
        ("first_parts", "first_parts is a rollup's (of packs/test.toml) already"),
        ("", "\"\" can't be a view's name"),
        ("1m", "\"1m\" can't be a view's name"),
        ("_x", "\"_x\" can't be a view's name"),
        ("a-b", "\"a-b\" can't be a view's name"),
        ("a b", "\"a b\" can't be a view's name"),
        ("é", "\"é\" can't be a view's name"),
        ("x; DROP TABLE y", "\"x; DROP TABLE y\" can't be a view's name"),
    ] {
        let rollup = |name: &str| format!("[[rollup]]\nevent = \"probe\"\nname = \"{name}\"\nby = [\"app\"]\n");
        let found = errors(&(rollup("first") + &rollup(name)));
        let start = format!("packs/test.toml: rollup {name}: name: {what}");
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
    assert_eq!(rollup("x_min").err(), Some(vec![format!("packs/test.toml: rollup odd_1m: {message}")]));
    assert!(rollup("x").is_ok());
    assert!(resolve(&[], &odd).is_ok(), "the default keeps no distribution of x_min");
    let count = [event("odd", &field("count"))];
    assert!(resolve(&[], &count).is_ok(), "count_sum and count are two columns");
    let minute = r#"{"name": "minute", "type": "string", "highwater": {"role": "dimension"}}"#;
    let found = resolve(&[], &[event("odd", minute)]).map_err(|errors| errors[0].to_string());
    assert!(found.is_err_and(|error| error.starts_with("event type odd: its default rollup can't be made: columns: ")));
}

#[test]
fn a_file_that_is_no_pack_is_refused_with_line_and_key() {
    for (text, parts) in [
        ("[[metric]]\nname = \"x\"", ["unknown field `metric`", "line 1"]),
        ("[[rollup]]\nevent = \"probe\"\nby = [\"app\"]\nsums = []", ["unknown field `sums`", "line 4"]),
        ("[[rollup]]\nby = [\"app\"]", ["missing field `event`", "line 1"]),
        ("[[rollup]]\nevent = \"probe\"", ["missing field `by`", "line 1"]),
        ("[[rollup]]\nevent = \"probe\"\nby = \"app\"", ["expected a sequence", "line 3"]),
        ("[rollup]\nevent = \"probe\"\nby = [\"app\"]", ["expected a sequence", "line 1"]),
        ("[[rollup", ["line 1", ""]),
    ] {
        let found = Pack::parse("packs/test.toml", text).map_err(|error| error.to_string());
        let Err(found) = found else { unreachable!("{text} is a pack") };
        assert!(found.starts_with("packs/test.toml: not a pack: "), "{found}");
        assert!(parts.iter().all(|part| found.contains(part)), "{parts:?} not in {found}");
    }
    assert!(Pack::parse("packs/empty.toml", "").is_ok_and(|pack| pack.rollups.is_empty()));
}
