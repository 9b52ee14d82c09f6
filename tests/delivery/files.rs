//! A new event type is two files and no Rust: its table, decoding, aggregates, views and demo data come of them.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::MINUTE;
use crate::support::{TOPIC, World};

const SCHEMA: &str = r#"{
  "type": "record", "name": "brew", "doc": "One cup.",
  "fields": [
    {"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}, "highwater": {"role": "id"}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "highwater": {"role": "time"}},
    {"name": "app", "type": "string", "highwater": {"role": "dimension", "examples": ["kitchen", "lobby"]}},
    {"name": "environment", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "beans", "type": ["null", "string"], "default": null, "highwater": {"role": "dimension", "examples": ["arabica", "robusta"]}},
    {"name": "result", "type": {"type": "enum", "name": "Result", "symbols": ["good", "weak", "spilt"]}, "highwater": {"role": "dimension"}},
    {"name": "volume_ml", "type": "int", "highwater": {"role": "measure", "unit": "ml", "range": [20, 400]}},
    {"name": "heat_ms", "type": ["null", "double"], "default": null, "highwater": {"role": "measure", "unit": "ms", "range": [100, 9000]}}
  ]
}"#;

const PACK: &str = r#"
[[rollup]]
event = "brew"
by = ["app", "result"]
sum = ["volume_ml"]
distribution = ["heat_ms"]

[[metric]]
name = "brew_waste"
question = "Which share of cups was spilt?"
unit = "share"
event = "brew"
by = ["app"]
ratio = "result = 'spilt'"

[[metric]]
name = "brew_volume"
question = "How much coffee was there to drink?"
unit = "ml"
event = "brew"
where = "not result = 'spilt'"
sum = "volume_ml"

[[metric]]
name = "brew_heat"
question = "How long did heating take?"
unit = "ms"
event = "brew"
quantiles = "heat_ms"
"#;

#[test]
fn a_schema_and_a_pack_are_enough() {
    let mut world = World::new();
    let folder = world.folder.path().to_owned();
    for (name, text) in [("schemas/brew.avsc", SCHEMA), ("packs/brew.toml", PACK)] {
        let file = folder.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    world.set("EVENTS__SCHEMAS", folder.join("schemas").to_str().unwrap());
    world.set("EVENTS__PACKS", folder.join("packs").to_str().unwrap());
    world.set("EVENTS__PRICES", "");
    let file = folder.join("truth.jsonl");
    let traffic = ["--events", "8000", "--minutes", "4", "--duplicates", "0.02", "--bad", "0.003", "--disorder", "5s"];
    let arguments = ["generate", "--type", "brew", "--topic", TOPIC, "--partitions", "3", "--truth"];
    world.done(&[&arguments[..], &[file.to_str().unwrap()], &traffic[..]].concat());
    world.done(&["migrate"]);
    let mut process = world.run("run");
    let truth: Vec<Value> =
        std::fs::read_to_string(&file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    world.wait_for(truth.len() as u64, &mut process, MINUTE);
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");

    let sent: Vec<&Value> = truth.iter().filter(|line| line["kind"] == "ok").map(|line| &line["fields"]).collect();
    let bad = truth.iter().filter(|line| line["kind"] == "bad").count();
    assert_eq!(world.number("SELECT count() FROM highwater.brew"), sent.len() as u64);
    assert_eq!(world.number("SELECT count() FROM highwater.dead_letters"), bad as u64);
    let (mut waste, mut volume) = (BTreeMap::<&str, (u64, u64)>::new(), 0);
    for fields in &sent {
        let of_app = waste.entry(fields["app"].as_str().unwrap()).or_default();
        let spilt = fields["result"] == "spilt";
        (of_app.0, of_app.1) = (of_app.0 + u64::from(spilt), of_app.1 + 1);
        volume += if spilt { 0 } else { fields["volume_ml"].as_i64().unwrap() };
    }
    for (app, (spilt, all)) in waste {
        let sums =
            format!("SELECT sum(numerator), sum(denominator) FROM highwater.brew_waste WHERE app = '{app}' FORMAT TSV");
        assert_eq!(world.query(&sums).trim(), format!("{spilt}\t{all}"));
    }
    assert_eq!(world.query("SELECT sum(value) FROM highwater.brew_volume").trim(), volume.to_string());
    let heated = sent.iter().filter(|fields| !fields["heat_ms"].is_null()).count() as u64;
    assert_eq!(world.number("SELECT sum(count) FROM highwater.brew_heat"), heated);
    let median = "SELECT quantilesExactWeightedArray(0.5)(distribution.1, distribution.2)[1] FROM highwater.brew_heat";
    let median: f64 = world.query(median).trim().parse().unwrap();
    let mut all: Vec<f64> = sent.iter().filter_map(|fields| fields["heat_ms"].as_f64()).collect();
    all.sort_by(f64::total_cmp);
    let exact = all[all.len() / 2];
    assert!((median - exact).abs() <= 0.01 * exact, "{median} instead of {exact}");
    let audit = world.done(&["audit"]);
    assert!(audit.contains("clean"), "{audit}");
}

/// From one version of the shipped files to the next: who writes with the former schema is read as before, all along.
#[test]
fn a_field_more_is_a_column_more_and_who_has_the_former_schema_goes_on() {
    let mut world = World::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let before = world.folder.path().join("files");
    let text = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let is_older =
        |part: &&str| !part.contains("\"llm_call_spend_1m\"") && !part.contains("\"llm_team_monthly_spend\"");
    let pack: Vec<String> = text("packs/llm.toml").split("\n\n").filter(is_older).map(str::to_owned).collect();
    for (name, text) in
        [("schemas/llm_call.avsc", text("schemas/former/llm_call.1.avsc")), ("packs/llm.toml", pack.join("\n\n"))]
    {
        std::fs::create_dir_all(before.join(name).parent().unwrap()).unwrap();
        std::fs::write(before.join(name), text).unwrap();
    }
    let place = |world: &mut World, folder: &std::path::Path| {
        world.set("EVENTS__SCHEMAS", folder.join("schemas").to_str().unwrap());
        world.set("EVENTS__PACKS", folder.join("packs").to_str().unwrap());
    };
    let of_former = |world: &World, seed: &str| world.generate(&["--events", "1000", "--seed", seed]);

    place(&mut world, &before);
    world.done(&["migrate"]);
    assert_eq!(world.number("SELECT count() FROM system.columns WHERE database = 'highwater' AND name = 'team'"), 0);
    of_former(&world, "1");
    let mut process = world.run("before");
    world.wait_for(1_000, &mut process, MINUTE);
    assert!(process.terminate().0.success());

    of_former(&world, "2");
    place(&mut world, root);
    world.done(&["migrate"]);
    world.generate(&["--events", "1000", "--seed", "3"]);
    let mut process = world.run("after");
    world.wait_for(3_000, &mut process, MINUTE);
    place(&mut world, &before);
    of_former(&world, "4");
    place(&mut world, root);
    world.wait_for(4_000, &mut process, MINUTE);
    assert!(process.terminate().0.success());

    assert_eq!(world.number("SELECT count() FROM highwater.dead_letters"), 0);
    let rows = world.query(
        "SELECT count(), countIf(team = '') >= 3000, countIf(team != '') > 100 FROM highwater.llm_call FORMAT TSV",
    );
    assert_eq!(rows.trim(), "4000\t1\t1");
    // The rollup that came with it has what came since, by team; its metric as well.
    let teams = |from: &str| world.query(&format!("SELECT team, {from} GROUP BY team ORDER BY team FORMAT TSV"));
    let raw = teams("sum(cost_usd), countIf(cost_usd IS NULL) FROM highwater.llm_call WHERE team != ''");
    assert_eq!(teams("sum(value), sum(unpriced) FROM highwater.llm_spend WHERE team != ''"), raw);
    assert_eq!(world.number("SELECT sum(count) FROM highwater.llm_call_spend_1m"), 3_000);
    // What was written before the rollup was there is not in it, and the audit says so minute by minute; all else is right.
    let audit = world.command(&["audit", "--json"]).output().unwrap();
    let said: Value = serde_json::from_slice(&audit.stdout).unwrap();
    assert_eq!((audit.status.code(), said["verdict"].as_str()), (Some(1), Some("findings")), "{said:#}");
    let found = said["findings"].as_array().unwrap();
    assert!(found.iter().all(|finding| finding["table"] == "llm_call_spend_1m"), "{said:#}");
    let minutes: Vec<&str> = found.iter().map(|finding| finding["minutes"]["first"].as_str().unwrap()).collect();
    assert!(minutes.len() > 1 && minutes.is_sorted(), "{minutes:?}");
}

#[test]
fn what_is_wrong_with_the_files_is_said_with_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for sub in ["schemas", "packs"] {
        std::fs::create_dir(folder.join(sub)).unwrap();
    }
    let refused = |schema: &str, pack: &str| {
        std::fs::write(folder.join("schemas/brew.avsc"), schema).unwrap();
        std::fs::write(folder.join("packs/brew.toml"), pack).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        command.args(["migrate", "--dry-run"]).current_dir(folder).env("HIGHWATER_EVENTS__PRICES", "");
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (from, to, expected) in [
        (
            "\"role\": \"id\"",
            "\"rol\": \"id\"",
            "schemas/brew.avsc:4, field `event_id`: the annotation `rol` is unknown; did you mean `role`?",
        ),
        (
            "\"type\": \"int\"",
            "\"type\": {\"type\": \"array\", \"items\": \"int\"}",
            "schemas/brew.avsc:10, field `volume_ml`: `role: measure` stands on a field of type array",
        ),
        (
            "\"role\": \"measure\", \"unit\": \"ml\"",
            "\"role\": \"dimension\"",
            "schemas/brew.avsc:10, field `volume_ml`: `role: dimension` stands on a field of type int; it needs string or enum",
        ),
        ("\"doc\": \"One cup.\",", "\"doc\": \"One cup.\"", "schemas/brew.avsc: it is not JSON"),
    ] {
        assert!(SCHEMA.contains(from), "{from}");
        let said = refused(&SCHEMA.replacen(from, to, 1), PACK);
        assert!(said.contains(expected), "{expected} not in {said}");
    }
    for (from, to, expected) in [
        (
            "by = [\"app\", \"result\"]",
            "by = [\"app\", \"results\"]",
            "packs/brew.toml:4: rollup brew_1m: by: brew has no field \"results\"; did you mean result?",
        ),
        (
            "distribution =",
            "distributions =",
            "packs/brew.toml:6: not a pack: unknown key `distributions`; did you mean `distribution`?",
        ),
        (
            "'spilt'",
            "'split'",
            "packs/brew.toml:14: metric brew_waste: ratio: at character 1 of \"result = 'split'\": result is never 'split'; did you mean spilt?",
        ),
        (
            "sum = \"volume_ml\"",
            "sum = \"volume\"",
            "metric brew_volume: sum: the rollup brew_1m has no sum of \"volume\"",
        ),
        ("name = \"brew_heat\"", "name = \"brew_waste\"", "metric brew_waste: name: brew_waste is a metric's ("),
    ] {
        assert!(PACK.contains(from), "{from}");
        // The last of those that look alike: the first one may be the rollup's.
        let at = PACK.rfind(from).unwrap();
        let at = if from == "'spilt'" { PACK.find(from).unwrap() } else { at };
        let pack = format!("{}{to}{}", &PACK[..at], &PACK[at + from.len()..]);
        let said = refused(SCHEMA, &pack);
        assert!(said.contains(expected), "{expected} not in {said}");
    }
}
