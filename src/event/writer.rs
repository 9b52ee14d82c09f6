//! A schema as a producer registered it: without highwater's annotations, and perhaps not one of ours.

use apache_avro::Schema;
use apache_avro::schema::RecordSchema;

use super::EventType;
use super::canonical::fingerprint;

/// The schema that messages were written with.
#[derive(Debug, Clone)]
pub struct WriterSchema {
    /// The record's name, without its namespace: what Avro matches writers and readers by.
    pub name: String,
    /// Its name with the namespace.
    pub full_name: String,
    record: RecordSchema,
}

impl WriterSchema {
    /// Reads a schema's text.
    ///
    /// # Errors
    /// It is no Avro schema, or none of a record.
    pub fn parse(json: &str) -> Result<WriterSchema, String> {
        match Schema::parse_str(json) {
            Ok(Schema::Record(record)) => Ok(WriterSchema {
                name: record.name.name().to_owned(),
                full_name: record.name.fullname(None).to_string(),
                record,
            }),
            Ok(other) => Err(format!("it is an Avro {}, and an event is a record", describe(&other))),
            Err(error) => Err(format!("it is not a valid Avro schema: {error}")),
        }
    }

    /// Whether its messages are, byte for byte and in meaning, those of the event type: the same parsing canonical form
    /// and, field by field, the same logical types, which that form leaves out.
    pub fn is_that_of(&self, event: &EventType) -> bool {
        let Ok(Schema::Record(ours)) = Schema::parse_str(&event.json) else { return false };
        fingerprint(&self.record) == Some(event.fingerprint)
            && self.record.fields.iter().zip(&ours.fields).all(|(theirs, ours)| theirs.schema == ours.schema)
    }
}

/// What an Avro type is called.
fn describe(schema: &Schema) -> String {
    format!("{:?}", apache_avro::schema::SchemaKind::from(schema)).to_lowercase()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const OURS: &str = r#"{"type": "record", "name": "tick", "fields": [
        {"name": "event_id", "type": "string", "highwater": {"role": "id"}},
        {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "highwater": {"role": "time"}},
        {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
        {"name": "environment", "type": ["null", {"type": "enum", "name": "env", "symbols": ["a", "b"]}],
         "highwater": {"role": "dimension"}},
        {"name": "cost", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}}]}"#;

    fn is_ours(json: &str) -> bool {
        WriterSchema::parse(json).unwrap().is_that_of(&EventType::parse("tick.avsc", OURS).unwrap())
    }

    #[test]
    fn what_does_not_change_the_bytes_is_left_out_of_account() {
        assert!(is_ours(OURS));
        let bare = OURS.replace(r#", "highwater": {"role": "id"}"#, r#", "doc": "an id""#);
        assert!(bare != OURS && is_ours(&bare));
    }

    #[test]
    fn another_meaning_of_the_same_bytes_is_another_schema() {
        for (from, to) in [
            ("timestamp-millis", "timestamp-micros"),
            (r#""scale": 2"#, r#""scale": 3"#),
            (r#"["a", "b"]"#, r#"["b", "a"]"#),
            (r#""app", "type": "string""#, r#""app", "type": "bytes""#),
            (r#""app""#, r#""application""#),
            (r#""name": "tick""#, r#""name": "tick", "namespace": "elsewhere""#),
        ] {
            let other = OURS.replace(from, to);
            assert!(other != OURS && !is_ours(&other), "{from} → {to}");
        }
    }

    #[test]
    fn names_come_with_and_without_their_namespace() {
        let schema = WriterSchema::parse(r#"{"type": "record", "name": "a.b.tick", "fields": []}"#).unwrap();
        assert_eq!((schema.name.as_str(), schema.full_name.as_str()), ("tick", "a.b.tick"));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for (json, what) in [
            (r#""string""#, "string"),
            (r#"{"type": "array", "items": "int"}"#, "array"),
            ("{}", "not a valid"),
            ("", "not a valid"),
        ] {
            let error = WriterSchema::parse(json).unwrap_err();
            assert!(error.contains(what), "{json}: {error}");
        }
    }
}
