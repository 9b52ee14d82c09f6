//! What is told of schemas and packs that are wrong together, and what becomes of former schemas.

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
    let sources = Sources { schemas, packs, ..Sources::default() };
    Plan::compile(&sources, limits()).unwrap_err().iter().map(ToString::to_string).collect()
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

fn limits() -> Limits {
    Limits { horizon: 0, max_skew_ms: 0, max_age_ms: 0, lateness_ms: 0, max_series: 1 }
}

fn with_former(schemas: &[(&str, String)], former: &[(&str, String)]) -> Result<Plan, Vec<String>> {
    let texts =
        |texts: &[(&str, String)]| texts.iter().map(|(file, text)| ((*file).to_owned(), text.clone())).collect();
    let sources = Sources { schemas: texts(schemas), former: texts(former), ..Sources::default() };
    Plan::compile(&sources, limits()).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[test]
fn a_former_schema_is_read_as_the_type_that_took_its_place() {
    let grown = r#", {"name": "shop", "type": ["null", "string"], "default": null}"#;
    let renamed = schema("purchase", grown).replacen(r#""namespace""#, r#""aliases": ["sale"], "namespace""#, 1);
    let schemas = [("a.avsc", schema("visit", grown)), ("b.avsc", renamed)];
    let former = [("former/1.avsc", schema("visit", "")), ("former/2.avsc", schema("sale", ""))];
    let plan = with_former(&schemas, &former).unwrap();
    let fingerprint = |text: &str| EventType::parse("x.avsc", text).unwrap().fingerprint;
    let read = |text: &str| plan.reader_of(fingerprint(text)).map(|(event, _)| plan.types[event].event.name.clone());
    for (text, name) in
        [(&schemas[0].1, "visit"), (&schemas[1].1, "purchase"), (&former[0].1, "visit"), (&former[1].1, "purchase")]
    {
        assert_eq!(read(text).as_deref(), Some(name), "{text}");
    }
    assert_eq!(read(&schema("sale", grown)), None, "nobody said that it was ever written");
    assert_eq!(plan.tables.len(), 5, "two types, two rollups, dead letters: none for a former schema");
    // What a message means depends on them, and so does the plan's name.
    assert_ne!(plan.hash, with_former(&schemas, &former[..1]).unwrap().hash);
    // One that is the present one as far as bytes go changes nothing: the present one reads them.
    let same = schemas[0].1.replacen(r#""namespace""#, r#""doc": "Else.", "namespace""#, 1);
    assert!(with_former(&schemas, &[("former/1.avsc", same)]).is_ok());
}

#[test]
fn former_schemas_that_nothing_can_be_read_with_are_told_with_their_files() {
    let visit = ("a.avsc", schema("visit", ""));
    let told = |schemas: &[(&str, String)], former: (&str, String)| with_former(schemas, &[former]).unwrap_err();
    let stranger = told(std::slice::from_ref(&visit), ("former/s.avsc", schema("sale", "")));
    is_told(&stranger, &["former/s.avsc: it is a former schema of `com.example.sale`, which none describes now; give"]);
    let needed = ("a.avsc", schema("visit", r#", {"name": "pages", "type": "int"}"#));
    is_told(
        &told(&[needed], ("former/v.avsc", schema("visit", ""))),
        &["former/v.avsc: what the writer's schema says"],
    );
    is_told(&told(std::slice::from_ref(&visit), ("former/v.avsc", "{".to_owned())), &["former/v.avsc: it is not JSON"]);
    // That of a type that can't be read itself is not blamed for it.
    let broken = ("b.avsc", schema("sale", r#", {"name": "price", "type": "lnog"}"#));
    is_told(&told(&[visit, broken], ("former/s.avsc", schema("sale", ""))), &["b.avsc"]);
}
