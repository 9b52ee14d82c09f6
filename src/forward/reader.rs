//! What records of the topic of alerts say, as any subscriber finds it out: by the schema that each names.
//!
//! A schema is named by its fingerprint or by an id of a schema registry, which is looked up there; nothing is registered.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::rabin::Rabin;

use crate::alert::{FORMER, Framing, Record, SCHEMAS};
use crate::event::wire::{Writer, frame, split};
use crate::ports::Registered;
use crate::registry::{Client, Endpoint};

/// Fingerprints of all schemas that can be read, present and former.
static KNOWN: LazyLock<Vec<u64>> =
    LazyLock::new(|| SCHEMAS.iter().chain(&FORMER).filter_map(|(_, schema)| fingerprint(schema)).collect());

/// Reads records.
pub struct Reader {
    registry: Option<Client>,
    /// Fingerprints of the schemas that ids stand for.
    ids: BTreeMap<u32, u64>,
}

/// Why a record can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is none of ours, or damaged: it never will be read.
    #[error("{0}")]
    Damaged(String),
    /// It names a schema that is not known here.
    #[error(
        "it was written with {0}, which is not known here: that of a newer highwater, or of another program. Update this \
         highwater"
    )]
    Unknown(String),
    /// The schema registry does not say what schema it names; asking again later is right.
    #[error("{0}")]
    Away(String),
}

impl Reader {
    /// Asks a schema registry, where there is one, what ids stand for.
    pub fn new(registry: Option<&Endpoint>) -> Reader {
        Reader { registry: registry.cloned().map(Client::new), ids: BTreeMap::new() }
    }

    /// What a record says.
    ///
    /// # Errors
    /// It can't be read now, or never.
    pub async fn read(&mut self, payload: &[u8]) -> Result<Record, ReadError> {
        let (writer, body) = split(Some(payload)).map_err(|error| ReadError::Damaged(error.to_string()))?;
        let fingerprint = match writer {
            Writer::Fingerprint(fingerprint) => fingerprint,
            Writer::Id(id) => self.look_up(id).await?,
        };
        if !KNOWN.contains(&fingerprint) {
            return Err(ReadError::Unknown(match writer {
                Writer::Fingerprint(_) => format!("the schema of the fingerprint {fingerprint:016x}"),
                Writer::Id(id) => format!("the schema of the id {id}"),
            }));
        }
        let mut plain = Vec::with_capacity(body.len() + 10);
        frame(fingerprint, body, &mut plain);
        Framing::default().decode(&plain).map_err(|error| ReadError::Damaged(error.to_string()))
    }

    /// The fingerprint of the schema that an id stands for.
    async fn look_up(&mut self, id: u32) -> Result<u64, ReadError> {
        if let Some(found) = self.ids.get(&id) {
            return Ok(*found);
        }
        let Some(registry) = &self.registry else {
            let advice = "set alerts.framing and registry.url as where it was written";
            return Err(ReadError::Unknown(format!("the schema of the id {id} of a schema registry ({advice})")));
        };
        match registry.schema(id).await {
            Ok(Registered::Avro(schema)) => {
                // None of ours is so odd that it can't be parsed.
                let found = fingerprint(&schema).unwrap_or_default();
                self.ids.insert(id, found);
                Ok(found)
            }
            Ok(Registered::Unusable(why)) => Err(ReadError::Unknown(format!("the schema of the id {id} ({why})"))),
            Ok(Registered::Missing) => {
                Err(ReadError::Unknown(format!("the schema of the id {id}, which the schema registry does not have")))
            }
            Err(error) => Err(ReadError::Away(format!("what schema the id {id} stands for is not known: {error}"))),
        }
    }
}

fn fingerprint(schema: &str) -> Option<u64> {
    let schema = Schema::parse_str(schema).ok()?;
    Some(u64::from_le_bytes(schema.fingerprint::<Rabin>().bytes.try_into().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::super::firing::tests::message;
    use super::super::fixture::Server;
    use super::*;
    use crate::alert::{ALERT_SCHEMA, Heartbeat};

    fn alert() -> Record {
        Record::Alert(Box::new(message("firing", 1)))
    }

    #[tokio::test]
    async fn what_is_damaged_is_told_from_what_is_not_known() {
        let mut reader = Reader::new(None);
        let plain = Framing::default().encode(&alert()).unwrap();
        assert_eq!(reader.read(&plain).await.unwrap(), alert());
        for damaged in [&b""[..], b"{}", b"no Avro", &plain[..9], &plain[..10], &plain[..40]] {
            let error = reader.read(damaged).await.unwrap_err();
            assert!(matches!(error, ReadError::Damaged(_)), "{damaged:?}: {error}");
        }
        let mut newer = plain.clone();
        newer[2] ^= 1;
        let framed = Framing { ids: Some([7, 8, 9, 10]), ..Framing::default() }.encode(&alert()).unwrap();
        for (unknown, names) in [(&newer, "the fingerprint"), (&framed, "the id 7 of a schema registry")] {
            let error = reader.read(unknown).await.unwrap_err();
            assert!(matches!(&error, ReadError::Unknown(_)), "{error}");
            let said = error.to_string();
            assert!(said.contains(names) && said.ends_with("Update this highwater"), "{said}");
        }
    }

    #[tokio::test]
    async fn ids_are_looked_up_once_and_nothing_is_registered() {
        let answers = |request: &str| {
            let schema = |text: &str| (200, serde_json::json!({ "schema": text }).to_string());
            match request {
                "GET /schemas/ids/7" => schema(ALERT_SCHEMA),
                "GET /schemas/ids/8" => schema(r#"{"type": "record", "name": "other", "fields": []}"#),
                "GET /schemas/ids/9" => (404, r#"{"error_code": 40403, "message": "no schema"}"#.to_owned()),
                "GET /schemas/ids/11" => schema(FORMER[0].1),
                _ => (503, String::new()),
            }
        };
        let server = Server::start(move |request, _| answers(request)).await;
        let endpoint = Endpoint::new(&server.url(""), "", "", Duration::from_secs(5)).unwrap();
        let mut reader = Reader::new(Some(&endpoint));
        let framed = |id: u32| Framing { ids: Some([id; 4]), ..Framing::default() }.encode(&alert()).unwrap();
        for _ in 0..3 {
            assert_eq!(reader.read(&framed(7)).await.unwrap(), alert());
        }
        // Round 7, group g, times, 3 rules; zigzag and varints.
        let former = [&[0, 0, 0, 0, 11][..], &[14, 2, b'g', 18, 2, 4, 6]].concat();
        assert!(matches!(reader.read(&former).await.unwrap(), Record::Heartbeat(Heartbeat { round: 7, .. })));
        for id in [8, 9] {
            assert!(matches!(reader.read(&framed(id)).await.unwrap_err(), ReadError::Unknown(_)), "{id}");
        }
        assert!(matches!(reader.read(&framed(10)).await.unwrap_err(), ReadError::Away(_)));
        let asked = server.requests();
        assert!(asked.iter().all(|(request, _)| request.starts_with("GET /schemas/ids/")), "{asked:?}");
        assert_eq!(asked.iter().filter(|(request, _)| request.ends_with("/7")).count(), 1);
    }
}
