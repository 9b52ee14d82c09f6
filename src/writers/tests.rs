//! What is said of messages while a registry knows, does not know, and does not answer.

use super::*;
use crate::plan::{Limits, Sources};

const TICK: &str = r#"{"type": "record", "name": "tick", "fields": [
    {"name": "event_id", "type": "string", "highwater": {"role": "id"}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "highwater": {"role": "time"}},
    {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "environment", "type": "string", "highwater": {"role": "dimension"}}]}"#;

const SECOND: Duration = Duration::from_secs(1);
/// The time at which records are written in these tests.
const NOW: Duration = Duration::from_secs(1_000_000);

fn plan(registry: bool) -> Plan {
    let schemas = vec![
        ("tick.avsc".to_owned(), TICK.to_owned()),
        ("tock.avsc".to_owned(), TICK.replace(r#""tick""#, r#""tock""#)),
    ];
    let limits = Limits { horizon: 10, max_skew_ms: 1, max_age_ms: 1, lateness_ms: 0, max_series: 9 };
    Plan::compile(&Sources { schemas, registry, ..Sources::default() }, limits).unwrap()
}

fn record(payload: &[u8]) -> Record<'_> {
    let timestamp_ms = NOW.as_millis() as i64;
    Record { topic: "t", partition: 0, offset: 0, timestamp_ms, key: None, payload: Some(payload) }
}

fn message(id: u32) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::Id(id).frame(&mut out);
    out.extend_from_slice(b"body");
    out
}

/// The type that reads a message of this id, its body, or the reason's name and text, or "unknown".
fn said(writers: &Writers, plan: &Plan, id: u32) -> String {
    describe(writers.open(plan, &record(&message(id)), NOW))
}

fn describe(opened: Opened<'_>) -> String {
    match opened {
        Opened::Known(Ok(content)) => format!("type {}: {}", content.event, String::from_utf8_lossy(content.body)),
        Opened::Known(Err(reason)) => format!("{}: {reason}", reason.name()),
        Opened::Unknown(id) => format!("unknown {id}"),
    }
}

fn avro(text: &str) -> Result<Registered, RegistryError> {
    Ok(Registered::Avro(text.to_owned()))
}

fn away() -> Result<Registered, RegistryError> {
    Err(RegistryError("connection refused".to_owned()))
}

fn ids(ids: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
    ids.into_iter().collect()
}

#[test]
fn a_fingerprint_is_the_plans_or_nobodys() {
    let (plan, writers) = (plan(true), Writers::default());
    let open = |fingerprint: u64| {
        let mut payload = Vec::new();
        wire::frame(fingerprint, b"body", &mut payload);
        describe(writers.open(&plan, &record(&payload), NOW))
    };
    assert_eq!(open(plan.types[1].event.fingerprint), "type 1: body");
    assert!(open(7).starts_with("unknown_schema: ") && open(7).contains("0000000000000007"));
}

#[test]
fn what_a_former_schema_wrote_is_read_by_what_it_left() {
    let grown = TICK.replace(
        r#"]}"#,
        r#", {"name": "team", "type": ["null", "string"], "default": null, "highwater": {"role": "dimension"}}]}"#,
    );
    let (schemas, former) =
        (vec![("tick.avsc".to_owned(), grown)], vec![("former/tick.1.avsc".to_owned(), TICK.to_owned())]);
    let limits = Limits { horizon: 10, max_skew_ms: 1, max_age_ms: 1, lateness_ms: 0, max_series: 9 };
    let plan = Plan::compile(&Sources { schemas, former, ..Sources::default() }, limits).unwrap();
    let (writers, mut payload) = (Writers::default(), Vec::new());
    // The id `a`, at 5 ms, app `x`, environment `y`; and there it ends.
    wire::frame(crate::event::EventType::parse("t", TICK).unwrap().fingerprint, b"\x02a\x0a\x02x\x02y", &mut payload);
    let record = record(&payload);
    let Opened::Known(Ok(content)) = writers.open(&plan, &record, NOW) else { panic!("it is not known") };
    let mut columns = plan.types[content.event].decoder.new_columns();
    assert_eq!(content.decoder.decode(content.body, &mut columns).unwrap().time, 5_000);
    let team = columns.columns.iter().find(|column| column.name == "team").unwrap();
    assert_eq!(team.len(), 1);
    // By the present schema the same bytes end too early.
    assert!(plan.types[content.event].decoder.decode(content.body, &mut columns).is_err());
}

#[test]
fn without_a_registry_an_id_says_nothing_and_the_reason_says_so() {
    let said = said(&Writers::default(), &plan(false), 5);
    assert!(said.starts_with("not_framed: ") && said.contains("id 5") && said.contains("registry.url"), "{said}");
}

#[test]
fn a_schema_is_asked_for_once_and_kept() {
    let (plan, mut writers) = (plan(true), Writers::default());
    assert_eq!(said(&writers, &plan, 5), "unknown 5");
    assert!(!writers.is_waiting());
    assert_eq!(writers.due(&ids([5, 6]), NOW), [5, 6]);
    assert!(writers.is_waiting());
    assert!(writers.due(&ids([5, 6]), NOW + 100 * SECOND).is_empty(), "each is out already");
    writers.answered(&plan, 6, avro(&TICK.replace("tick", "tock")), NOW);
    assert_eq!((said(&writers, &plan, 5), said(&writers, &plan, 6)), ("unknown 5".into(), "type 1: body".into()));
    writers.answered(&plan, 5, avro(TICK), NOW);
    assert_eq!(said(&writers, &plan, 5), "type 0: body");
    assert!(!writers.is_waiting() && writers.due(&BTreeSet::new(), NOW).is_empty());
}

#[test]
fn a_registry_that_is_away_is_asked_again_ever_more_rarely_and_condemns_nothing() {
    let (plan, mut writers) = (plan(true), Writers::default());
    let (mut now, mut waits) = (NOW, Vec::new());
    for _ in 0..10 {
        let begun = now;
        while writers.due(&ids([5]), now).is_empty() {
            now += Duration::from_millis(10);
        }
        waits.push((now - begun).as_millis());
        writers.answered(&plan, 5, away(), now);
        assert_eq!(said(&writers, &plan, 5), "unknown 5");
    }
    assert_eq!(waits, [0, 50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    writers.answered(&plan, 5, avro(TICK), now);
    assert_eq!(said(&writers, &plan, 5), "type 0: body");
}

#[test]
fn an_id_that_fails_does_not_keep_others_from_being_asked() {
    let (plan, mut writers) = (plan(true), Writers::default());
    assert_eq!(writers.due(&ids([5]), NOW), [5]);
    writers.answered(&plan, 5, away(), NOW);
    assert_eq!(writers.due(&ids([5, 6]), NOW), [6]);
    // So many are out at a time; the next go when one comes back.
    let many = ids(100..200);
    assert_eq!(writers.due(&many, NOW).len(), MOST_OUT - 1);
    assert!(writers.due(&many, NOW).is_empty());
    writers.answered(&plan, 6, away(), NOW);
    assert_eq!(writers.due(&many, NOW).len(), 1);
}

#[test]
fn an_id_that_nobody_waits_for_any_more_is_forgotten() {
    let (plan, mut writers) = (plan(true), Writers::default());
    writers.due(&ids([5]), NOW);
    writers.answered(&plan, 5, away(), NOW);
    writers.due(&BTreeSet::new(), NOW);
    assert!(writers.asked.is_empty());
    assert_eq!(writers.due(&ids([5]), NOW), [5], "from the beginning again");
}

#[test]
fn a_missing_id_is_believed_once_the_message_is_old_enough() {
    let (plan, mut writers) = (plan(true), Writers::default());
    let ask = |writers: &mut Writers, now: Duration, answer| {
        assert_eq!(writers.due(&ids([5]), now), [5]);
        writers.answered(&plan, 5, answer, now);
    };
    ask(&mut writers, NOW, Ok(Registered::Missing));
    assert_eq!(said(&writers, &plan, 5), "unknown 5", "a replica may lag behind");
    assert!(writers.due(&ids([5]), NOW + SECOND / 2).is_empty());
    ask(&mut writers, NOW + 9 * SECOND, Ok(Registered::Missing));
    assert_eq!(said(&writers, &plan, 5), "unknown 5");
    ask(&mut writers, NOW + 10 * SECOND, Ok(Registered::Missing));
    let found = said(&writers, &plan, 5);
    assert!(found.starts_with("unknown_schema: ") && found.contains("the id 5"), "{found}");
    // A younger message may name what was registered meanwhile, and the answer holds for older ones too.
    let (later, message) = (NOW + SECOND, message(5));
    let young = Record { timestamp_ms: later.as_millis() as i64, ..record(&message) };
    assert_eq!(describe(writers.open(&plan, &young, later)), "unknown 5");
    ask(&mut writers, NOW + 12 * SECOND, avro(TICK));
    assert_eq!(describe(writers.open(&plan, &young, later)), "type 0: body");
}

#[test]
fn a_record_without_a_timestamp_or_from_the_future_does_not_wait_for_ever() {
    let (plan, mut writers) = (plan(true), Writers::default());
    let message = message(5);
    let dated = |timestamp_ms: i64| Record { timestamp_ms, ..record(&message) };
    writers.due(&ids([5]), NOW);
    writers.answered(&plan, 5, Ok(Registered::Missing), NOW);
    for timestamp in [0, -1, i64::MIN] {
        assert!(matches!(writers.open(&plan, &dated(timestamp), NOW), Opened::Known(Err(Reason::UnknownId(5)))));
    }
    assert!(matches!(writers.open(&plan, &dated(i64::MAX), NOW), Opened::Unknown(5)));
    writers.due(&ids([5]), NOW + 10 * SECOND);
    writers.answered(&plan, 5, Ok(Registered::Missing), NOW + 10 * SECOND);
    assert!(matches!(writers.open(&plan, &dated(i64::MAX), NOW), Opened::Known(Err(Reason::UnknownId(5)))));
}

#[test]
fn what_will_never_be_readable_is_said_with_its_reason() {
    let (plan, mut writers) = (plan(true), Writers::default());
    let elsewhere = TICK.replace(r#""tick""#, r#""com.example.tack""#);
    let other = TICK.replace(r#""app", "type": "string""#, r#""app", "type": "boolean""#);
    let cases = [
        (avro(&elsewhere), "unknown_schema", "`com.example.tack`"),
        (avro(&other), "unresolvable_schema", "app"),
        (avro("nonsense"), "unresolvable_schema", "not a valid Avro schema"),
        (avro(r#"{"type": "map", "values": "int"}"#), "unresolvable_schema", "map"),
        (Ok(Registered::Unusable("it is a JSON schema".into())), "unresolvable_schema", "it is a JSON schema"),
    ];
    for (id, (answer, name, detail)) in (1..).zip(cases) {
        writers.answered(&plan, id, answer, NOW);
        let found = said(&writers, &plan, id);
        assert!(found.starts_with(&format!("{name}: ")) && found.contains(detail), "{found}");
        assert!(found.contains(&format!("the id {id} ")), "{found}");
    }
    assert!(!writers.is_waiting());
}

/// The name decides which type it is, whatever its namespace, and Avro's resolution how it is read.
#[test]
fn a_schema_of_another_version_is_read_as_ours() {
    let (plan, mut writers) = (plan(true), Writers::default());
    let more = r#"{"name": "more", "type": "long"}, {"name": "app""#;
    let version = TICK.replace(r#""tick""#, r#""com.example.tick""#);
    let version = version.replace(r#"{"name": "app""#, more);
    writers.answered(&plan, 5, avro(&version), NOW);
    let mut message = Vec::new();
    Writer::Id(5).frame(&mut message);
    // An id of one letter, a time, the field that we don't have, and two more of one letter.
    message.extend_from_slice(&[2, b'A', 0xA0, 0x9C, 0x01, 0x54, 2, b'a', 2, b't']);
    let record = record(&message);
    let Opened::Known(Ok(content)) = writers.open(&plan, &record, NOW) else { panic!("not readable") };
    let mut columns = plan.types[0].decoder.new_columns();
    let row = content.decoder.decode(content.body, &mut columns).unwrap();
    assert_eq!((content.event, row.time), (0, 10_000_000));
}

#[test]
fn an_id_beyond_31_bits_is_nobodys_and_not_asked_for() {
    let found = said(&Writers::default(), &plan(true), 1 << 31);
    assert!(found.starts_with("unknown_schema: ") && found.contains("2147483648"), "{found}");
    assert_eq!(said(&Writers::default(), &plan(true), (1 << 31) - 1), "unknown 2147483647");
}

#[test]
fn noise_does_not_fill_the_memory() {
    let (plan, mut writers) = (plan(true), Writers::default());
    writers.answered(&plan, 0, avro(TICK), NOW);
    for id in 1..=3 * MISSING_KEPT as u32 {
        writers.due(&ids([id]), NOW);
        writers.answered(&plan, id, Ok(Registered::Missing), NOW);
    }
    assert!(writers.known.len() <= MISSING_KEPT && writers.asked.len() <= 2, "{}", writers.known.len());
    assert_eq!(said(&writers, &plan, 0), "type 0: body");
}

#[test]
fn what_others_say_is_cut_short_for_each_dead_letter_has_it() {
    let (plan, mut writers) = (plan(true), Writers::default());
    let long = "ä".repeat(1 << 20);
    let stranger = format!(r#"{{"type": "record", "name": "{}", "fields": []}}"#, "a".repeat(1 << 20));
    for (id, answer) in [(1, Ok(Registered::Unusable(long))), (2, avro(&stranger))] {
        writers.answered(&plan, id, answer, NOW);
        let said = said(&writers, &plan, id);
        assert!(said.len() < 2 * TOLD && said.contains('…'), "{} bytes", said.len());
    }
}
