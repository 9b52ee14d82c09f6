//! Values in Avro's binary encoding, in all the forms that it allows.

use std::collections::BTreeMap;

use crate::entropy::Entropy;
use crate::model::{Field, Ty};

pub fn long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub fn bytes(value: &[u8], out: &mut Vec<u8>) {
    long(value.len() as i64, out);
    out.extend_from_slice(value);
}

/// Draws values.
#[derive(Debug)]
pub struct Values<'e, 'b> {
    pub entropy: &'e mut Entropy<'b>,
    /// Records around, by their names.
    within: BTreeMap<String, Vec<Field>>,
    depth: usize,
}

impl<'e, 'b> Values<'e, 'b> {
    pub fn new(entropy: &'e mut Entropy<'b>) -> Values<'e, 'b> {
        Values { entropy, within: BTreeMap::new(), depth: 0 }
    }

    /// Appends a value of a type.
    pub fn write(&mut self, avro: &Ty, role: Option<&str>, out: &mut Vec<u8>) {
        match avro {
            Ty::Plain("null") => {}
            Ty::Plain("boolean") => out.push(self.entropy.below(2) as u8),
            Ty::Plain("int") if role == Some("time") => long(1 + i64::from(self.entropy.byte()), out),
            Ty::Plain("int") => long(self.entropy.integer(i32::MIN.into(), i32::MAX.into()), out),
            Ty::Plain("long") => self.time("", role, out),
            Ty::Plain("float") => out.extend_from_slice(&(self.entropy.number() as u32).to_le_bytes()),
            Ty::Plain("double") => out.extend_from_slice(&self.entropy.number().to_le_bytes()),
            Ty::Plain(kind) => {
                let least = usize::from(role == Some("id"));
                let text: String = (0..least + self.entropy.below(12))
                    .map(|_| self.entropy.pick(&['a', 'b', 'ä', '€', '🦀', '\0', '\'', 'z']))
                    .collect();
                match *kind == "bytes" && self.entropy.often(100) {
                    true => bytes(&(0..self.entropy.below(9)).map(|_| self.entropy.byte()).collect::<Vec<_>>(), out),
                    false => bytes(text.as_bytes(), out),
                }
            }
            Ty::Logical { logical: "uuid", .. } => {
                let high = u128::from(self.entropy.number() | 1) << 64;
                let text = uuid::Uuid::from_u128(high | u128::from(self.entropy.byte())).to_string();
                let text = if self.entropy.often(40) { text.to_uppercase() } else { text };
                bytes(text.as_bytes(), out);
            }
            Ty::Logical { logical: "date", .. } => long(self.entropy.integer(-25_567, 120_529), out),
            Ty::Logical { base: "int", .. } => long(self.entropy.integer(0, 86_399_999), out),
            Ty::Logical { logical, .. } => self.time(logical, role, out),
            Ty::Decimal { name, size, precision, .. } => {
                let limit = 10i128.pow(*precision as u32);
                let number = i128::from(self.entropy.number() as i64).wrapping_mul(0x1_0000_0001_0000_0001) % limit;
                let wide = [[if number < 0 { 0xff } else { 0 }; 16], number.to_be_bytes()].concat();
                // The library takes none that has fewer bytes than its precision might need.
                match name {
                    None => bytes(&wide[32 - 17 - self.entropy.below(4)..], out),
                    Some(_) => out.extend_from_slice(&wide[32 - size..]),
                }
            }
            Ty::Fixed { size, .. } => out.extend((0..*size).map(|at| self.entropy.byte() | u8::from(at == 0))),
            Ty::Enum { symbols, .. } => long(self.entropy.below(symbols.len()) as i64, out),
            Ty::Array(items) => self.blocks(out, |values, _, out| values.write(items, None, out)),
            Ty::Map(entries) => self.blocks(out, |values, at, out| {
                bytes(format!("k{at}{}", values.entropy.pick(&["", "é"])).as_bytes(), out);
                values.write(entries, None, out);
            }),
            Ty::Union(branches) => {
                let null = branches.iter().position(|branch| *branch == Ty::Plain("null"));
                let at = match null {
                    // What contains itself has to end.
                    Some(null) if self.depth > 6 => null,
                    _ => self.entropy.below(branches.len()),
                };
                long(at as i64, out);
                self.write(&branches[at], role, out);
            }
            Ty::Record { name, fields } => {
                self.within.insert(name.own.clone(), fields.clone());
                self.record(fields, out);
            }
            Ty::Within(name) => {
                let fields = self.within[name].clone();
                self.record(&fields, out);
            }
        }
    }

    fn record(&mut self, fields: &[Field], out: &mut Vec<u8>) {
        self.depth += 1;
        fields.iter().for_each(|field| self.write(&field.avro, field.role, out));
        self.depth -= 1;
    }

    /// A number of 64 bits, within what a column of its logical type holds; an event's time is after 1970.
    fn time(&mut self, logical: &str, role: Option<&str>, out: &mut Vec<u8>) {
        let unit = match logical.rsplit('-').next() {
            Some("millis") => 1_000,
            Some("micros") => 1_000_000,
            _ => 1_000_000_000,
        };
        let least = (-2_208_988_800_i64).saturating_mul(unit);
        let number = match role {
            Some("time") => 1 + self.entropy.integer(0, 4_291_747_199 * unit - 1),
            _ if logical.is_empty() => self.entropy.integer(i64::MIN, i64::MAX),
            _ => self.entropy.integer(least, 10_413_791_999_i64.saturating_mul(unit)),
        };
        long(number, out);
    }

    /// Items in blocks, with their size or without.
    fn blocks(&mut self, out: &mut Vec<u8>, mut item: impl FnMut(&mut Self, usize, &mut Vec<u8>)) {
        self.depth += 1;
        let mut at = 0;
        while self.depth < 8 && self.entropy.often(140) {
            let (count, mut block) = (1 + self.entropy.below(3), Vec::new());
            for _ in 0..count {
                item(self, at, &mut block);
                at += 1;
            }
            if self.entropy.often(100) {
                long(-(count as i64), out);
                long(block.len() as i64, out);
            } else {
                long(count as i64, out);
            }
            out.extend(block);
        }
        self.depth -= 1;
        long(0, out);
    }
}
