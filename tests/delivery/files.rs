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
