//! A long search for bytes that break a decoder: `make fuzz MINUTES=60`.
//!
//! Seeded, so that a failure comes back; the seed is told. Schemas are drawn anew every thousand messages, messages are
//! mutated, and those that get furthest into their schema are mutated again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use apache_avro::Schema;
use highwater::columns::{Columns, Decoder};
use highwater::event::EventType;

use crate::cells::{cells, lengths, room};
use crate::datum::Values;
use crate::entropy::Entropy;
use crate::hostile::{LEAST_ROOM, ROOM};
use crate::library;
use crate::model::{Form, Generator, Ty};
use crate::pair;

/// Messages for each pair of schemas.
const MESSAGES: usize = 1_000;

/// What was tried.
#[derive(Debug, Default)]
struct Tried {
    schemas: u64,
    messages: u64,
    read: u64,
}

struct Subject {
    model: Ty,
    schema: Schema,
    event: EventType,
    own: Decoder,
    resolved: Option<Decoder>,
}

impl Subject {
    fn draw(rng: &mut fastrand::Rng) -> (Subject, Vec<Vec<u8>>) {
        let bytes: Vec<u8> = (0..1_000).map(|_| rng.u8(..)).collect();
        let mut entropy = Entropy::new(&bytes);
        let mut generator = Generator::new(&mut entropy);
        let model = generator.event();
        let mut reader = model.clone();
        generator.named.clear();
        let writer = pair::writer(&mut reader, &mut generator, &mut BTreeMap::new());
        let text = model.text(Form::Ours);
        let event = EventType::parse("e.avsc", &text).unwrap();
        // A reader that lost a logical type may have a default that is of that type only.
        let other = EventType::parse("e.avsc", &reader.text(Form::Ours)).ok();
        let resolved = other.and_then(|other| Decoder::resolve(&writer.text(Form::Ours), &other).ok());
        let messages = |avro: &Ty, rng: &mut fastrand::Rng| {
            let bytes: Vec<u8> = (0..600).map(|_| rng.u8(..)).collect();
            let mut body = Vec::new();
            Values::new(&mut Entropy::new(&bytes)).write(avro, None, &mut body);
            body
        };
        let corpus = (0..8).map(|at| messages(if at % 2 == 0 { &model } else { &writer }, rng)).collect();
        let (schema, own) = (Schema::parse_str(&text).unwrap(), Decoder::compile(&event));
        (Subject { model, schema, event, own, resolved }, corpus)
    }

    /// Tries a message; answers whether any decoder read it.
    fn check(&self, body: &[u8]) -> bool {
        let check = |decoder: &Decoder| -> Option<Columns> {
            let mut columns = decoder.new_columns();
            let before = lengths(&columns);
            let start = Instant::now();
            let row = decoder.decode(body, &mut columns);
            let took = start.elapsed();
            let read = row.is_ok();
            assert_eq!(decoder.id(body), row.map(|row| row.id));
            assert!(took < Duration::from_secs(5), "{took:?}");
            assert!(room(&columns) <= LEAST_ROOM + ROOM * body.len(), "{} for {}", room(&columns), body.len());
            if !read {
                assert_eq!(lengths(&columns), before);
                return None;
            }
            assert!(columns.columns.iter().all(|column| column.len() == 1));
            Some(columns)
        };
        let resolved = self.resolved.as_ref().and_then(check).is_some();
        let Some(columns) = check(&self.own) else { return resolved };
        match library::decode(&self.schema, body, None) {
            Ok((theirs, 0)) => {
                assert_eq!(cells(&columns, 0), library::cells(&theirs, &self.model, &self.event));
            }
            // The library allocates no more than the tests allow it.
            Err(error) if error.contains("allocate") => {}
            other => panic!("we read what the library does not: {other:?}"),
        }
        true
    }
}

fn mutate(body: &mut Vec<u8>, other: &[u8], rng: &mut fastrand::Rng) {
    const ODD: [&[u8]; 7] = [
        &[0xff; 10],
        &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        &[0xfe, 0xff, 0xff, 0xff, 0x0f],
        &[0x80, 0x80, 0x01],
        &[0, 0, 0, 0, 0, 0, 0xf8, 0x7f],
        &[0xc3, 0x28],
    ];
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(0..=body.len());
        let end = (at + rng.usize(0..12)).min(body.len());
        match rng.u8(0..8) {
            0 if at < body.len() => body[at] ^= 1 << rng.u8(0..8),
            1 if at < body.len() => body[at] = rng.u8(..),
            2 => body.truncate(at),
            3 => drop(body.drain(at..end)),
            4 => drop(body.splice(at..end, rng.choice(ODD).unwrap_or(ODD[0]).iter().copied())),
            5 => {
                let from = rng.usize(0..=other.len());
                drop(body.splice(at.., other[from..].iter().copied()));
            }
            6 => {
                let again = body[at..end].to_vec();
                drop(body.splice(at..at, again));
            }
            _ => body.insert(at, rng.u8(..)),
        }
    }
    body.truncate(4_096);
}

fn fuzz(seed: u64, until: impl Fn(&Tried) -> bool) -> Tried {
    let (mut tried, mut rng) = (Tried::default(), fastrand::Rng::with_seed(seed));
    while !until(&tried) {
        let (subject, mut corpus) = Subject::draw(&mut rng);
        tried.schemas += 1;
        for body in &corpus {
            subject.check(body);
        }
        for _ in 0..MESSAGES {
            let at = rng.usize(0..corpus.len());
            let other = corpus[rng.usize(0..corpus.len())].clone();
            let mut body = corpus[at].clone();
            mutate(&mut body, &other, &mut rng);
            tried.messages += 1;
            if subject.check(&body) {
                tried.read += 1;
                corpus[at] = body;
            }
        }
    }
    tried
}

#[test]
fn mutated_messages_are_errors_or_what_the_library_reads() {
    let minutes: Option<f64> = std::env::var("FUZZ_MINUTES").ok().map(|minutes| minutes.parse().unwrap());
    let seed = std::env::var("FUZZ_SEED").ok().map_or(1, |seed| seed.parse().unwrap());
    let start = Instant::now();
    let tried = match minutes {
        None => fuzz(seed, |tried| tried.messages >= 50_000),
        Some(minutes) => fuzz(seed, |_| start.elapsed().as_secs_f64() >= 60.0 * minutes),
    };
    println!("seed {seed}: {tried:?} in {:?}", start.elapsed());
    assert!(tried.read > 0);
}
