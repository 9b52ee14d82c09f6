//! A producer whose records appear together or not at all, and of which there is one: whoever opens it next under the same
//! name shuts out the one before (a *zombie* that was asleep, say) and undoes what that had not committed.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::access::{Asker, Resource, is_denial};
use super::producer::{Deliveries, Outgoing};
use super::settings::{ConsumerSettings, base};

/// How long the broker keeps a transaction open whose producer is not heard of. Until then it hides what comes after.
const OPEN_FOR: Duration = Duration::from_secs(30);
/// How long one call waits before it is looked whether to go on.
const SLICE: Duration = Duration::from_secs(1);
/// How long Kafka may have no answer before that is told.
const SLOW: Duration = Duration::from_secs(5);
/// How long an abort may take. What it can't undo, the next producer of that name does.
const ABORT: Duration = Duration::from_secs(3);

/// Why records were not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Another producer of that name was opened, or Kafka gave up on this one.
    #[error(
        "another producer has taken over the transactional id {0}, or Kafka has given up on this one, which was silent for too \
         long; nothing more is published by it"
    )]
    Fenced(String),
    /// Something else. Whether the records are in the log is to be found by reading it, once the next producer is open.
    #[error("the transactional producer {id} {doing}: {reason}{advice}")]
    Failed {
        /// The transactional id.
        id: String,
        /// What it was doing.
        doing: &'static str,
        /// What librdkafka says.
        reason: String,
        /// What to do about it, if anything.
        advice: String,
    },
}

/// See the module. Used by one thread.
pub struct Transactions {
    inner: BaseProducer<Deliveries>,
    asker: Asker,
    id: String,
    sent: u64,
}

impl Transactions {
    /// Opens the producer of this name, and shuts out the one before. Gives up when `give_up` says so.
    ///
    /// # Errors
    /// Kafka refuses, or it was given up.
    pub fn open(
        settings: &ConsumerSettings,
        id: &str,
        give_up: &dyn Fn() -> bool,
    ) -> Result<Transactions, TransactionError> {
        let mut config = base(&settings.brokers, &settings.client_id);
        for (key, value) in &settings.properties {
            config.set(key, value);
        }
        let millis = |time: Duration| time.as_millis().to_string();
        config
            .set("transactional.id", id)
            .set("transaction.timeout.ms", millis(OPEN_FOR))
            .set("message.timeout.ms", millis(OPEN_FOR))
            .set("socket.timeout.ms", millis(OPEN_FOR / 3))
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("linger.ms", "0");
        let asker = Asker::new(&settings.brokers, &settings.properties);
        let inner = config.create_with_context(Deliveries::default());
        let inner = inner.map_err(|error| failed(&asker, id, "can't be made", &error))?;
        let producer = Transactions { inner, asker, id: id.to_owned(), sent: 0 };
        producer.patiently("can't begin", give_up, || producer.inner.init_transactions(SLICE))?;
        Ok(producer)
    }

    /// Publishes records in one transaction; `sent` is called when all are in the log and not yet committed. Gives up when
    /// `give_up` says so, and never between a commit that was asked for and its answer as long as it does not.
    ///
    /// # Errors
    /// They were not published, or it is not known whether they were. In both cases this producer is of no more use.
    pub fn publish(
        &mut self,
        records: &[Outgoing<'_>],
        sent: impl FnOnce(),
        give_up: &dyn Fn() -> bool,
    ) -> Result<(), TransactionError> {
        self.inner
            .begin_transaction()
            .map_err(|error| failed(&self.asker, &self.id, "can't begin a transaction", &error))?;
        let outcome = self.send(records, give_up).and_then(|()| {
            sent();
            self.patiently("can't commit", give_up, || self.inner.commit_transaction(SLICE))
        });
        if outcome.as_ref().is_err_and(|error| !matches!(error, TransactionError::Fenced(_))) {
            // What comes of it is known when the next producer reads the log.
            let _ = self.inner.abort_transaction(ABORT);
        }
        outcome
    }

    fn send(&mut self, records: &[Outgoing<'_>], give_up: &dyn Fn() -> bool) -> Result<(), TransactionError> {
        for record in records {
            let mut next = BaseRecord::<[u8], [u8]>::to(record.topic);
            (next.partition, next.timestamp) = (record.partition, record.timestamp_ms);
            (next.key, next.payload) = (record.key, record.payload);
            while let Err((error, back)) = self.inner.send(next) {
                if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) || give_up() {
                    return Err(self.failed("can't send a record", &error));
                }
                self.inner.poll(Duration::from_millis(20));
                next = back;
            }
            self.sent += 1;
        }
        let deadline = Instant::now() + OPEN_FOR;
        while self.inner.in_flight_count() > 0 && Instant::now() < deadline && !give_up() {
            // A failure to flush in time shows in the count below.
            let _ = self.inner.flush(Duration::from_millis(100));
        }
        self.inner.poll(Duration::ZERO);
        let deliveries = self.inner.context();
        if deliveries.delivered.load(Ordering::Relaxed) == self.sent {
            return Ok(());
        }
        if let Some((code, reason)) = self.inner.client().fatal_error() {
            return Err(self.fatal("can't send records", code, reason));
        }
        let first = deliveries.first_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reason = first.unwrap_or_else(|| "they were not acknowledged in time".to_owned());
        Err(TransactionError::Failed {
            id: self.id.clone(),
            doing: "can't send records",
            reason,
            advice: String::new(),
        })
    }

    /// Repeats what Kafka has not done yet, which it may be asked again.
    fn patiently(
        &self,
        doing: &'static str,
        give_up: &dyn Fn() -> bool,
        mut attempt: impl FnMut() -> Result<(), KafkaError>,
    ) -> Result<(), TransactionError> {
        let (begun, mut is_said) = (Instant::now(), false);
        loop {
            let error = match attempt() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let passes = match &error {
                KafkaError::Transaction(error) => error.is_retriable() && !error.is_fatal(),
                error => error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut),
            };
            if !passes || give_up() {
                return Err(self.failed(doing, &error));
            }
            if begun.elapsed() > SLOW && !is_said {
                is_said = true;
                tracing::warn!(
                    "waiting for the transaction coordinator of {}: until it answers nothing is published by that producer, \
                     which {doing}: {error}. Kafka names a coordinator once __transaction_state has as many replicas as \
                     brokers ask for (transaction.state.log.replication.factor, transaction.state.log.min.isr)",
                    self.id
                );
            }
        }
    }

    fn failed(&self, doing: &'static str, error: &KafkaError) -> TransactionError {
        // The first error that ends a producer says more than those that follow from it.
        match self.inner.client().fatal_error() {
            Some((code, reason)) => self.fatal(doing, code, reason),
            None => failed(&self.asker, &self.id, doing, error),
        }
    }

    fn fatal(&self, doing: &'static str, code: RDKafkaErrorCode, reason: String) -> TransactionError {
        if is_fence(code) {
            return TransactionError::Fenced(self.id.clone());
        }
        TransactionError::Failed { id: self.id.clone(), doing, reason, advice: advice(&self.asker, &self.id, code) }
    }
}

fn failed(asker: &Asker, id: &str, doing: &'static str, error: &KafkaError) -> TransactionError {
    let (code, reason) = match error {
        KafkaError::Transaction(error) => (error.code(), error.string()),
        other => (other.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown), other.to_string()),
    };
    if is_fence(code) {
        return TransactionError::Fenced(id.to_owned());
    }
    TransactionError::Failed { id: id.to_owned(), doing, reason, advice: advice(asker, id, code) }
}

fn is_fence(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

/// What to do about an error, by the producer's name, if anything.
fn advice(asker: &Asker, id: &str, code: RDKafkaErrorCode) -> String {
    match code {
        RDKafkaErrorCode::TransactionalIdAuthorizationFailed => {
            format!(": {}", asker.lacks("Write", Resource::TransactionalId(id.to_owned())))
        }
        code if is_denial(code) => "; `highwater check` names the right that is missing".to_owned(),
        _ => String::new(),
    }
}
