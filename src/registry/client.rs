//! Confluent's registry API over HTTP: what an id means, and how a schema gets one.
//!
//! A process asks for each id once, so every question dials its own connection: none is kept that could have gone stale.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;

use super::Endpoint;
use super::references::{self, Reference};
use crate::clickhouse::sql::percent;
use crate::ports::{Registered, RegistryError};

/// The media type of Confluent's API.
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// The error code of an id that is not there. A 404 without it comes from something else than a registry.
const SCHEMA_NOT_FOUND: u32 = 40_403;
/// The error code of a subject that is not there.
const SUBJECT_NOT_FOUND: u32 = 40_401;
/// The error code of a subject's version that is not there.
const VERSION_NOT_FOUND: u32 = 40_402;
/// Longest answer that is taken, bytes; a schema and all that it refers to, names included, are no longer either.
const LONGEST: usize = 16 << 20;
/// Longest name of a type or a subject that is referred to, bytes. One beyond what an address may have could never be asked
/// for.
const LONGEST_NAME: usize = 4 << 10;
/// How much of an unexpected answer is told, bytes.
const TOLD: usize = 300;

/// Asks a schema registry and waits for the answer.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
}

/// The answer to a question for an id.
#[derive(Deserialize)]
struct SchemaAnswer {
    schema: String,
    /// Absent: Avro.
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error_code: u32,
}

#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

impl Client {
    /// A client of a registry. Nothing is dialed yet.
    pub fn new(endpoint: Endpoint) -> Client {
        Client { endpoint }
    }

    /// What an id means.
    ///
    /// # Errors
    /// The registry can't be reached, refuses access, or answers something that says nothing about the id.
    pub async fn schema(&self, id: u32) -> Result<Registered, RegistryError> {
        self.whole(&format!("/schemas/ids/{id}"), &[SCHEMA_NOT_FOUND]).await
    }

    /// The latest version under a subject.
    ///
    /// # Errors
    /// As [`Client::schema`].
    pub async fn latest(&self, subject: &str) -> Result<Registered, RegistryError> {
        let path = format!("/subjects/{}/versions/latest", percent(subject));
        self.whole(&path, &[SUBJECT_NOT_FOUND]).await
    }

    /// A schema with all that it refers to, each asked for once: so neither circles nor depth make it endless.
    async fn whole(&self, path: &str, not_found: &[u32]) -> Result<Registered, RegistryError> {
        let root = match self.ask(path, not_found).await? {
            None => return Ok(Registered::Missing),
            Some(answer) => match usable(answer) {
                Ok(root) => root,
                Err(why) => return Ok(Registered::Unusable(why)),
            },
        };
        if root.references.is_empty() {
            return Ok(Registered::Avro(root.schema));
        }
        let mut others: BTreeMap<Reference, String> = BTreeMap::new();
        let mut wanted = Wanted::default();
        let mut few = wanted.take(&root.schema, root.references);
        while few && let Some(reference) = wanted.todo.pop() {
            match self.referenced(&reference).await? {
                Err(why) => return Ok(Registered::Unusable(why)),
                Ok(answer) => {
                    few = wanted.take(&answer.schema, answer.references);
                    others.insert(reference, answer.schema);
                }
            }
        }
        if !few {
            return Ok(Registered::Unusable(format!(
                "it refers to more than {} others, or is longer with them than {LONGEST} bytes; register it in fewer and \
                 smaller pieces",
                references::MOST
            )));
        }
        let others = others.iter().map(|(reference, text)| (reference, text.as_str()));
        Ok(references::assemble(&root.schema, others).map_or_else(Registered::Unusable, Registered::Avro))
    }

    /// What a reference leads to, or why no event can be read with a schema that has it.
    async fn referenced(&self, reference: &Reference) -> Result<Result<SchemaAnswer, String>, RegistryError> {
        let Reference { subject, version, name } = reference;
        let length = name.len().max(subject.len());
        if length > LONGEST_NAME {
            return Ok(Err(format!(
                "it refers to a name of {length} bytes, which is longer than {LONGEST_NAME}; register it under a shorter one"
            )));
        }
        // What «the latest» is today says nothing of the day on which a message was written.
        if reference.version < 1 {
            return Ok(Err(format!(
                "it refers to {reference}, which is none in particular; register it with the version that is meant"
            )));
        }
        // What was deleted since is still what messages were written with.
        let path = format!("/subjects/{}/versions/{version}?deleted=true", percent(subject));
        let answer = self.ask(&path, &[SUBJECT_NOT_FOUND, VERSION_NOT_FOUND, SCHEMA_NOT_FOUND]).await?;
        Ok(match answer {
            None => Err(format!("it refers to {reference}, which the registry does not have; register that")),
            Some(answer) => usable(answer).map_err(|why| format!("it refers to {reference}, and of that: {why}")),
        })
    }

    /// The answer to a question for a schema; `None`: there is none, by one of these error codes.
    async fn ask(&self, path: &str, not_found: &[u32]) -> Result<Option<SchemaAnswer>, RegistryError> {
        let (status, body) = self.exchange(Method::GET, path, Bytes::new()).await?;
        let missing =
            || serde_json::from_slice(&body).is_ok_and(|error: ErrorAnswer| not_found.contains(&error.error_code));
        match status {
            StatusCode::OK => match serde_json::from_slice(&body) {
                Ok(answer) => Ok(Some(answer)),
                Err(error) => Err(self.unexpected(path, status, &body, &error.to_string())),
            },
            StatusCode::NOT_FOUND if missing() => Ok(None),
            StatusCode::NOT_FOUND => Err(self.unexpected(path, status, &body, "is registry.url that of a registry?")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let advice = "it refuses access; see registry.user and its password";
                Err(self.unexpected(path, status, &body, advice))
            }
            _ => Err(self.unexpected(path, status, &body, "no answer to the question")),
        }
    }

    /// Registers an Avro schema under a subject, if it is not there yet, and answers its id.
    ///
    /// # Errors
    /// The registry can't be reached or does not take the schema.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let path = format!("/subjects/{}/versions", percent(subject));
        let body = serde_json::json!({ "schema": schema }).to_string();
        let (status, body) = self.exchange(Method::POST, &path, body.into()).await?;
        match serde_json::from_slice(&body) {
            Ok(IdAnswer { id }) if status == StatusCode::OK => Ok(id),
            _ => Err(self.unexpected(&path, status, &body, "the schema was not registered")),
        }
    }

    /// The id of an Avro schema that is registered under a subject; `None`: it is not.
    ///
    /// # Errors
    /// The registry can't be reached, or does not understand the question.
    pub async fn find(&self, subject: &str, schema: &str) -> Result<Option<u32>, RegistryError> {
        let path = format!("/subjects/{}", percent(subject));
        let body = serde_json::json!({ "schema": schema }).to_string();
        let (status, body) = self.exchange(Method::POST, &path, body.into()).await?;
        match serde_json::from_slice(&body) {
            Ok(IdAnswer { id }) if status == StatusCode::OK => Ok(Some(id)),
            _ if status == StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.unexpected(&path, status, &body, "it is not known whether the schema is registered")),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), RegistryError> {
        let timeout = self.endpoint.timeout;
        let late = || Err(format!("no answer within {} s", timeout.as_secs_f64()));
        let outcome = tokio::time::timeout(timeout, self.send(method, path, body)).await.unwrap_or_else(|_| late());
        outcome.map_err(|what| RegistryError(format!("{:?}{path}: {what}", self.endpoint)))
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        let Endpoint { path: base, authorization, dialer, timeout, .. } = &self.endpoint;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header(HOST, self.endpoint.authority())
            .header(ACCEPT, MEDIA_TYPE)
            .header(CONTENT_TYPE, MEDIA_TYPE);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let read = async |response: Response<Incoming>| {
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST).collect().await;
            let body = body.map_err(|error| dialer.explain(error.as_ref()))?;
            Ok((status, body.to_bytes()))
        };
        dialer.exchange(&self.endpoint.url(), request, *timeout, read).await
    }

    fn unexpected(&self, path: &str, status: StatusCode, body: &[u8], what: &str) -> RegistryError {
        let body = String::from_utf8_lossy(&body[..body.len().min(TOLD)]);
        RegistryError(format!("{:?}{path} answered {status}: {what} ({})", self.endpoint, body.trim()))
    }
}

/// What a schema refers to and is still to be asked for, each subject's version once.
#[derive(Default)]
struct Wanted {
    todo: Vec<Reference>,
    /// Those that are to be asked for, and those that were.
    known: BTreeSet<(String, i64)>,
    /// Bytes of all that was told: schemas, and the names of what they refer to, repeated ones too.
    length: usize,
}

impl Wanted {
    /// Takes in a schema and what it refers to; `false`: it is too much, and nothing more is kept of it.
    fn take(&mut self, schema: &str, references: Vec<Reference>) -> bool {
        let named = references.iter().map(|reference| reference.name.len() + reference.subject.len());
        self.length += schema.len() + named.sum::<usize>();
        if references.len() > references::MOST || self.length > LONGEST {
            return false;
        }
        for reference in references {
            let key = (reference.subject.clone(), reference.version);
            if self.known.contains(&key) {
                continue;
            }
            if self.known.len() == references::MOST {
                return false;
            }
            self.known.insert(key);
            self.todo.push(reference);
        }
        true
    }
}

/// The same answer if it is of a kind that events are written with, or why not.
fn usable(answer: SchemaAnswer) -> Result<SchemaAnswer, String> {
    match answer.kind.as_deref().unwrap_or("AVRO") {
        "AVRO" => Ok(answer),
        kind => Err(format!("it is a {kind} schema, and events are Avro")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
