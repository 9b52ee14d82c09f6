//! What a letter is by the present schemas, prices, limits and schema registry.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;

use crate::batch::Reason;
use crate::columns::{Columns, Values};
use crate::config::Settings;
use crate::event::EventType;
use crate::plan::Plan;
use crate::ports::Record;
use crate::registry;
use crate::telemetry::Outage;
use crate::writers::{Opened, Writers};

/// Between two questions for one id.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of dictionaries that columns may keep between two letters.
const SCRATCH: usize = 16 << 20;

/// Reads letters one by one. Knows every schema that it has come upon.
pub(super) struct Reader {
    plan: Arc<Plan>,
    writers: Writers,
    registry: Option<(registry::Client, Outage)>,
    /// Columns of each event type, without rows between two letters.
    scratch: Vec<Columns>,
}

/// An event that a letter is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Position of its type in the plan.
    pub(super) event: usize,
    /// Its id as 128 bits.
    pub(super) id: u128,
    /// Its id in hexadecimal, as ClickHouse says it.
    pub(super) hex: String,
}

/// A row that a letter's bytes are.
#[derive(Debug)]
pub(super) struct Row<T> {
    /// Position of its event type in the plan.
    pub(super) event: usize,
    /// Its id as 128 bits.
    pub(super) id: u128,
    /// What was seen of it.
    pub(super) seen: T,
    /// Whether its time is acceptable.
    pub(super) judged: Result<(), Reason>,
}

impl Reader {
    pub(super) fn new(settings: &Settings, plan: Arc<Plan>) -> Result<Reader> {
        let registry = settings.registry()?.map(|endpoint| {
            let outage = Outage::of(format!("the schema registry at {endpoint:?}"));
            (registry::Client::new(endpoint), outage)
        });
        Ok(Reader::of(plan, registry))
    }

    fn of(plan: Arc<Plan>, registry: Option<(registry::Client, Outage)>) -> Reader {
        let scratch = plan.types.iter().map(|planned| planned.decoder.new_columns()).collect();
        Reader { plan, writers: Writers::default(), registry, scratch }
    }

    /// What it reads by.
    pub(super) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The event that a letter is, or why it is none. Waits for the schema registry, if it needs it.
    pub(super) async fn read(&mut self, record: &Record<'_>) -> Result<Event, Reason> {
        let hex = |event: &EventType, columns: &Columns| match &columns.columns[event.id].values {
            Values::Uuid(ids) => format!("{:032x}", ids.first().copied().unwrap_or_default()),
            Values::String(ids) => ids.get(0).iter().map(|byte| format!("{byte:02X}")).collect(),
            // No other kind may be an id.
            _ => String::new(),
        };
        let row = self.row(record, hex).await?;
        row.judged.map(|()| Event { event: row.event, id: row.id, hex: row.seen })
    }

    /// The row that a letter's bytes are, as `look` sees it, and whether a batch would take it in. Waits for the schema
    /// registry, if it needs it.
    pub(super) async fn row<T>(
        &mut self,
        record: &Record<'_>,
        look: impl Fn(&EventType, &Columns) -> T,
    ) -> Result<Row<T>, Reason> {
        let (first_seen, mut asked) = (since_1970(), false);
        loop {
            let Reader { plan, writers, scratch, .. } = &mut *self;
            let id = match writers.open(plan, record, first_seen) {
                Opened::Unknown(id) => id,
                Opened::Known(content) => {
                    let content = content?;
                    let (planned, columns) = (&plan.types[content.event], &mut scratch[content.event]);
                    let row = content.decoder.decode(content.body, columns);
                    let row = row.map_err(|error| Reason::Decode { event: planned.event.name.clone(), error })?;
                    if let Some(pricer) = &planned.pricer {
                        pricer.push_cost(columns, row.time);
                    }
                    let seen = look(&planned.event, columns);
                    columns.truncate(0);
                    if columns.bytes() > SCRATCH {
                        *columns = planned.decoder.new_columns();
                    }
                    let judged = plan.limits.judge(row.time, record.timestamp_ms);
                    return Ok(Row { event: content.event, id: row.id, seen, judged });
                }
            };
            // It did not answer, or is given time to catch up with a letter that is only seconds old.
            if std::mem::replace(&mut asked, true) {
                tokio::time::sleep(PAUSE).await;
            }
            self.learn(id).await;
        }
    }

    /// Asks the registry what an id means.
    async fn learn(&mut self, id: u32) {
        let Some((client, outage)) = &mut self.registry else { return };
        let answer = client.schema(id).await;
        match &answer {
            Ok(_) => outage.passed(),
            Err(error) => outage.failed(error),
        }
        self.writers.answered(&self.plan, id, answer, since_1970());
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::event::wire;
    use crate::plan::{Limits, Sources};

    const SCHEMA: &str = r#"{"type": "record", "name": "tick", "fields": [
        {"name": "event_id", "type": "string", "highwater": {"role": "id"}},
        {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "highwater": {"role": "time"}},
        {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
        {"name": "environment", "type": "string", "highwater": {"role": "dimension"}}]}"#;

    fn plan() -> Arc<Plan> {
        let sources = Sources { schemas: vec![("tick.avsc".to_owned(), SCHEMA.to_owned())], ..Sources::default() };
        let limits = Limits { horizon: 1, max_skew_ms: 1, max_age_ms: 1, lateness_ms: 1, max_series: 1 };
        Arc::new(Plan::compile(&sources, limits).unwrap())
    }

    #[tokio::test]
    async fn a_letter_is_an_event_or_what_it_is_not_and_leaves_nothing_behind() {
        let plan = plan();
        let fingerprint = plan.types[0].event.fingerprint;
        let mut reader = Reader::of(Arc::clone(&plan), None);
        let message = |fingerprint: u64, body: &[u8]| {
            let mut payload = Vec::new();
            wire::frame(fingerprint, body, &mut payload);
            payload
        };
        // The id `a~`, 5 ms after 1970, and one letter each.
        let body = b"\x04a~\x0a\x02x\x02y";
        for (payload, timestamp_ms, expected) in [
            (message(fingerprint, body), 5, Ok("617E")),
            (message(fingerprint, body), 0, Ok("617E")),
            (message(fingerprint, body), 9, Err("too_old")),
            (message(fingerprint, body), 1, Err("in_the_future")),
            (message(fingerprint, &body[..6]), 5, Err("truncated")),
            (message(fingerprint + 1, body), 5, Err("unknown_schema")),
            (b"\x00\x00\x00\x00\x07body".to_vec(), 5, Err("not_framed")),
            (b"noise".to_vec(), 5, Err("not_framed")),
            (Vec::new(), 5, Err("not_framed")),
        ] {
            let record =
                Record { topic: "t", partition: 0, offset: 1, timestamp_ms, key: None, payload: Some(&payload) };
            let read = reader.read(&record).await;
            let read = read.as_ref().map(|event| event.hex.as_str()).map_err(Reason::name);
            assert_eq!(read, expected, "{payload:02x?}");
            assert!(reader.scratch.iter().all(Columns::is_empty));
        }
    }
}
