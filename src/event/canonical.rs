//! Parsing Canonical Form and fingerprint of an event's schema, as the Avro specification defines both.
//!
//! Done here because `apache-avro` 0.22 leaves `{"type": "string"}` and a decimal's precision standing where a logical
//! type was taken off: for a schema with logical types its fingerprint is another than that of Avro for Java (1.12) and
//! of fastavro, which both agree with this one. Producers must not take the fingerprint from `apache-avro`.

use apache_avro::schema::{RecordSchema, Schema};

/// CRC-64-AVRO (Rabin) of the canonical form, as the number whose little-endian bytes stand on the wire.
///
/// `None` where the schema has a type that events do not have.
pub(super) fn fingerprint(record: &RecordSchema) -> Option<u64> {
    let fields: Option<Vec<String>> = record
        .fields
        .iter()
        .map(|field| Some(format!(r#"{{"name":"{}","type":{}}}"#, field.name, canonical(&field.schema)?)))
        .collect();
    let name = record.name.fullname(None);
    let form = format!(r#"{{"name":"{name}","type":"record","fields":[{}]}}"#, fields?.join(","));
    Some(rabin(form.as_bytes()))
}

/// Names and symbols are ASCII letters, digits, `_` and `.`, so nothing needs escaping.
fn canonical(schema: &Schema) -> Option<String> {
    let primitive = match schema {
        Schema::Null => "null",
        Schema::Boolean => "boolean",
        Schema::Int | Schema::Date => "int",
        Schema::Long | Schema::TimestampMillis | Schema::TimestampMicros => "long",
        Schema::Float => "float",
        Schema::Double => "double",
        Schema::String | Schema::Uuid(_) => "string",
        Schema::Bytes | Schema::Decimal(_) => "bytes",
        Schema::Ref { name } => return Some(format!(r#""{}""#, name.fullname(None))),
        Schema::Enum(definition) => {
            let (name, symbols) = (definition.name.fullname(None), definition.symbols.join(r#"",""#));
            return Some(format!(r#"{{"name":"{name}","type":"enum","symbols":["{symbols}"]}}"#));
        }
        Schema::Union(union) => {
            let branches: Option<Vec<String>> = union.variants().iter().map(canonical).collect();
            return Some(format!("[{}]", branches?.join(",")));
        }
        _ => return None,
    };
    Some(format!(r#""{primitive}""#))
}

/// CRC-64-AVRO: the specification's `fingerprint64`, bit by bit, since schemas are short and read once.
fn rabin(bytes: &[u8]) -> u64 {
    const EMPTY: u64 = 0xc15d_213a_a4d7_a795;
    bytes.iter().fold(EMPTY, |sum, &byte| {
        let low = (sum ^ u64::from(byte)) & 0xff;
        (sum >> 8) ^ (0..8).fold(low, |low, _| (low >> 1) ^ if low & 1 == 1 { EMPTY } else { 0 })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use apache_avro::rabin::Rabin;

    /// Their fingerprint, right for schemas without logical types.
    fn theirs(json: &str) -> u64 {
        let bytes = Schema::parse_str(json).unwrap().fingerprint::<Rabin>().bytes;
        u64::from_le_bytes(bytes.try_into().unwrap())
    }

    fn ours(json: &str) -> Option<u64> {
        let Schema::Record(record) = Schema::parse_str(json).unwrap() else { panic!("a record") };
        fingerprint(&record)
    }

    const PLAIN: &str = r#"{"type": "record", "name": "e", "namespace": "a.b", "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": "long"},
        {"name": "on", "type": ["int", "null"]},
        {"name": "s", "type": ["null", {"type": "enum", "name": "S", "symbols": ["x", "y"]}]},
        {"name": "t", "type": "S"},
        {"name": "u", "type": {"type": "enum", "name": "c.U", "symbols": ["z"]}},
        {"name": "n", "type": "bytes"}, {"name": "f", "type": "float"}, {"name": "g", "type": "double"},
        {"name": "b", "type": "boolean"}]}"#;

    /// The same with all that the canonical form strips.
    const DECORATED: &str = r#"{"fields": [
        {"doc": "d", "type": {"logicalType": "uuid", "type": "string"}, "name": "id", "highwater": {"role": "id"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "on", "type": [{"type": "int", "logicalType": "date"}, "null"], "default": 0},
        {"name": "s", "type": ["null", {"type": "enum", "doc": "d", "name": "S", "symbols": ["x", "y"]}]},
        {"name": "t", "type": "a.b.S"},
        {"name": "u", "type": {"type": "enum", "name": "U", "namespace": "c", "symbols": ["z"], "default": "z"}},
        {"name": "n", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}},
        {"name": "f", "type": {"type": "float"}}, {"name": "g", "type": {"type": "double"}},
        {"name": "b", "type": "boolean", "aliases": ["c"]}], "name": "a.b.e", "type": "record", "doc": "ä"}"#;

    #[test]
    fn it_is_that_of_the_avro_library_without_logical_types() {
        assert_eq!(ours(PLAIN), Some(theirs(PLAIN)));
    }

    #[test]
    fn what_the_canonical_form_strips_does_not_count() {
        assert_eq!(ours(DECORATED), Some(theirs(PLAIN)));
        // Once this fails, the library strips it too and this module can go.
        assert_ne!(theirs(DECORATED), theirs(PLAIN));
    }

    #[test]
    fn what_is_read_differently_has_another_fingerprint() {
        for (from, to) in
            [(r#""y""#, r#""w""#), (r#"["int", "null"]"#, r#"["null", "int"]"#), (r#""float""#, r#""double""#)]
        {
            assert_ne!(ours(&PLAIN.replacen(from, to, 1)), ours(PLAIN));
        }
    }

    #[test]
    fn the_crc_is_the_specifications() {
        // From the fingerprints that Avro publishes for its implementations.
        assert_eq!(rabin(br#""int""#), 0x7275_d51a_3f39_5c8f);
        assert_eq!(rabin(br#""null""#), 7_195_948_357_588_979_594);
    }
}
