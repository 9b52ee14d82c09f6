//! What is told of schemas and packs that are wrong together.

use super::*;

const REQUIRED: &str = r#"{"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}, "highwater": {"role": "id"}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "highwater": {"role": "time"}},
    {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "environment", "type": "string", "highwater": {"role": "dimension"}}"#;

fn schema(name: &str, more: &str) -> String {
    format!(r#"{{"type": "record", "name": "{name}", "namespace": "com.example", "fields": [{REQUIRED}{more}]}}"#)
}

fn wrong(schemas: &[(&str, String)], packs: &[(&str, &str)]) -> Vec<String> {
    let schemas = schemas.iter().map(|(file, text)| ((*file).to_owned(), text.clone())).collect();
    let packs = packs.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
    let sources = Sources { schemas, packs, prices: None, registry: false };
    let limits = Limits { horizon: 0, max_skew_ms: 0, max_age_ms: 0, lateness_ms: 0, max_series: 1 };
    Plan::compile(&sources, limits).unwrap_err().iter().map(ToString::to_string).collect()
}

fn is_told(errors: &[String], parts: &[&str]) {
    assert_eq!(errors.len(), parts.len(), "{errors:#?}");
    for (error, part) in errors.iter().zip(parts) {
        assert!(error.contains(part), "{part:?} is missing in {errors:#?}");
    }
}

const PACK: &str = r#"
[[rollup]]
event = "visit"
name = "visits"
by = ["app", "colour"]
[[rollup]]
event = "sale"
name = "sales"
by = ["app", "colour"]
[[metric]]
name = "sales_each_minute"
question = "How many?"
unit = "sales"
rollup = "sales"
count = true
"#;

#[test]
fn a_schema_that_can_t_be_read_hides_no_wrong_pack_and_makes_none() {
    let broken = schema("sale", r#", {"name": "price", "type": "lnog"}"#);
    let found = wrong(&[("a.avsc", schema("visit", "")), ("b.avsc", broken)], &[("p.toml", PACK)]);
    is_told(&found, &["b.avsc", "p.toml:5: rollup visits"]);
    // Not even JSON: its name is looked for all the same.
    let cut = schema("sale", "").replace("]}", "");
    let found = wrong(&[("a.avsc", schema("visit", "")), ("b.avsc", cut)], &[("p.toml", PACK)]);
    is_told(&found, &["b.avsc", "p.toml:5: rollup visits"]);
}

#[test]
fn a_pack_that_can_t_be_read_hides_no_other_and_its_rollups_are_not_missed() {
    let metric = "[[metric]]\nname = \"m\"\nquestion = \"?\"\nunit = \"x\"\nrollup = \"lost\"\ncount = true\n";
    let packs =
        [("p.toml", "[[rollup]\n"), ("q.toml", metric), ("r.toml", "[[rollup]]\nevent = \"vist\"\nby = [\"app\"]\n")];
    let found = wrong(&[("a.avsc", schema("visit", ""))], &packs);
    is_told(&found, &["p.toml:1: not a pack", "r.toml:2: rollup vist_1m"]);
}

#[test]
fn the_files_of_one_event_type_are_both_named_whatever_stands_before_them() {
    let schemas = [("a.avsc", "{".to_owned()), ("b.avsc", schema("visit", "")), ("c.avsc", schema("visit", ""))];
    is_told(&wrong(&schemas, &[]), &["a.avsc", "c.avsc: declares the event type visit, as b.avsc does"]);
}
