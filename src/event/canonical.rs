//! Parsing Canonical Form and fingerprint of an event's schema, as the Avro specification defines both.
//!
//! Done here because `apache-avro` 0.22 leaves `{"type": "string"}` and a decimal's precision standing where a logical
//! type was taken off: for a schema with logical types its fingerprint is another than that of Avro for Java (1.12) and
//! of fastavro, which both agree with this one. Producers must not take the fingerprint from `apache-avro`.

use std::collections::BTreeSet;

use super::avro::{Definition, Schema, Shape, Type};

/// CRC-64-AVRO (Rabin) of the canonical form, as the number whose little-endian bytes stand on the wire.
pub(super) fn fingerprint(schema: &Schema) -> u64 {
    let mut form = String::new();
    canonical(schema, &schema.root, &mut BTreeSet::new(), &mut form);
    rabin(form.as_bytes())
}

/// Appends the canonical form of a type; a name that was written before stands for itself. Names and symbols are ASCII
/// letters, digits, `_` and `.`, so nothing needs escaping.
fn canonical<'a>(schema: &'a Schema, avro: &'a Type, written: &mut BTreeSet<&'a str>, out: &mut String) {
    match avro {
        Type::Primitive(primitive, _) => *out += &format!(r#""{}""#, primitive.name()),
        Type::Array(items) => {
            *out += r#"{"type":"array","items":"#;
            canonical(schema, items, written, out);
            out.push('}');
        }
        Type::Map(values) => {
            *out += r#"{"type":"map","values":"#;
            canonical(schema, values, written, out);
            out.push('}');
        }
        Type::Union(branches) => {
            out.push('[');
            for (at, branch) in branches.iter().enumerate() {
                *out += if at > 0 { "," } else { "" };
                canonical(schema, branch, written, out);
            }
            out.push(']');
        }
        Type::Named(name) => match schema.definition(name) {
            Some(Definition { name, of, .. }) if written.insert(name) => {
                *out += &format!(r#"{{"name":"{name}","type":"#);
                match of {
                    Shape::Enum { symbols, .. } => {
                        *out += &format!(r#""enum","symbols":["{}"]"#, symbols.join(r#"",""#))
                    }
                    Shape::Fixed { size, .. } => *out += &format!(r#""fixed","size":{size}"#),
                    Shape::Record(fields) => {
                        *out += r#""record","fields":["#;
                        for (at, field) in fields.iter().enumerate() {
                            *out += if at > 0 { "," } else { "" };
                            *out += &format!(r#"{{"name":"{}","type":"#, field.name);
                            canonical(schema, &field.avro, written, out);
                            out.push('}');
                        }
                        out.push(']');
                    }
                }
                out.push('}');
            }
            Some(Definition { name, .. }) => *out += &format!(r#""{name}""#),
            None => {}
        },
    }
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use apache_avro::rabin::Rabin;

    /// Their fingerprint, right for schemas without logical types.
    fn theirs(json: &str) -> u64 {
        let bytes = apache_avro::Schema::parse_str(json).unwrap().fingerprint::<Rabin>().bytes;
        u64::from_le_bytes(bytes.try_into().unwrap())
    }

    fn ours(json: &str) -> u64 {
        fingerprint(&Schema::parse(json).unwrap())
    }

    const PLAIN: &str = r#"{"type": "record", "name": "e", "namespace": "a.b", "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": "long"},
        {"name": "on", "type": ["int", "null"]},
        {"name": "s", "type": ["null", {"type": "enum", "name": "S", "symbols": ["x", "y"]}]},
        {"name": "t", "type": "S"},
        {"name": "u", "type": {"type": "enum", "name": "c.U", "symbols": ["z"]}},
        {"name": "n", "type": "bytes"}, {"name": "f", "type": "float"}, {"name": "g", "type": "double"},
        {"name": "b", "type": "boolean"},
        {"name": "x", "type": {"type": "fixed", "name": "X", "size": 16}},
        {"name": "l", "type": {"type": "array", "items": ["null", "S"]}},
        {"name": "m", "type": {"type": "map", "values": "X"}},
        {"name": "r", "type": ["null", {"type": "record", "name": "d.R", "fields": [
            {"name": "v", "type": {"type": "fixed", "name": "V", "size": 3}},
            {"name": "next", "type": ["null", "R"]}]}]},
        {"name": "q", "type": "d.V"}]}"#;

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
        {"name": "b", "type": "boolean", "aliases": ["c"]},
        {"name": "x", "type": {"logicalType": "uuid", "size": 16, "name": "X", "type": "fixed", "aliases": ["Z"]}},
        {"name": "l", "default": [], "type": {"items": ["null", "a.b.S"], "type": "array"}},
        {"name": "m", "type": {"values": {"type": "a.b.X"}, "type": "map"}},
        {"name": "r", "type": ["null", {"doc": "d", "fields": [
            {"type": {"type": "fixed", "name": "V", "size": 3}, "name": "v", "order": "ignore"},
            {"type": ["null", "R"], "default": null, "name": "next"}],
            "type": "record", "name": "R", "namespace": "d"}]},
        {"name": "q", "type": "d.V"}], "name": "a.b.e", "type": "record", "doc": "ä"}"#;

    #[test]
    fn it_is_that_of_the_avro_library_without_logical_types() {
        assert_eq!(ours(PLAIN), theirs(PLAIN));
    }

    #[test]
    fn what_the_canonical_form_strips_does_not_count() {
        assert_eq!(ours(DECORATED), theirs(PLAIN));
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
