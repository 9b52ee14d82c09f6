//! Producers, each a thread: some plain, some with transactions that commit, abort or stay open for seconds. They know
//! what became of each message: that is held against the log in the end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::events::Events;
use crate::sent::{Deliveries, End, Sent};
use crate::shared::truth;

/// How long the servers may keep a producer waiting.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long one answer may take before it is asked for again.
const ANSWER: Duration = Duration::from_secs(10);
/// A duplicate follows within so many messages of its producer, which is well within the horizon.
const REPEATED_WITHIN: usize = 300;

/// What all producers share.
struct Common {
    brokers: String,
    topic: &'static str,
    partitions: i32,
    /// Messages a second of each.
    rate: u64,
    stop: AtomicBool,
    visits: AtomicBool,
    sent: AtomicU64,
}

/// All producers.
pub struct Production {
    common: Arc<Common>,
    threads: Vec<JoinHandle<Sent>>,
}

impl Production {
    /// Two plain ones and two with transactions, together at `rate` messages a second.
    pub fn start(brokers: String, topic: &'static str, partitions: i32, rate: u64, seed: u64) -> Production {
        let common = Arc::new(Common {
            brokers,
            topic,
            partitions,
            rate: rate / 4,
            stop: AtomicBool::new(false),
            visits: AtomicBool::new(false),
            sent: AtomicU64::new(0),
        });
        let start = |number: u64| {
            let common = Arc::clone(&common);
            let rng = Rng::with_seed(seed.wrapping_mul(31).wrapping_add(number));
            std::thread::spawn(move || {
                let producer = Producer::new(&common, rng, (number >= 2).then(|| format!("chaos-{number}")));
                producer.run(&common)
            })
        };
        Production { threads: (0..4).map(start).collect(), common }
    }

    /// From now on they send visits too.
    pub fn send_visits(&self) {
        self.common.visits.store(true, Ordering::Relaxed);
    }

    /// How many messages they have sent.
    pub fn sent(&self) -> u64 {
        self.common.sent.load(Ordering::Relaxed)
    }

    /// Stops them all; what each knows of its messages.
    pub fn stop(self) -> Vec<Sent> {
        self.common.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }
}

struct Producer {
    inner: BaseProducer<Deliveries>,
    transactional_id: Option<String>,
    brokers: String,
    rng: Rng,
    events: Events,
    recent: VecDeque<(i32, Option<Vec<u8>>)>,
    sent: Sent,
}

impl Producer {
    fn new(common: &Common, mut rng: Rng, transactional_id: Option<String>) -> Producer {
        Producer {
            inner: connect(&common.brokers, transactional_id.as_deref()),
            transactional_id,
            brokers: common.brokers.clone(),
            events: Events::new(rng.fork()),
            rng,
            recent: VecDeque::new(),
            sent: Sent::default(),
        }
    }

    fn run(mut self, common: &Common) -> Sent {
        let begun = Instant::now();
        let mut count = 0;
        while !common.stop.load(Ordering::Relaxed) {
            let due = (begun.elapsed().as_secs_f64() * common.rate as f64) as u64;
            // After an outage it does not catch up with all at once.
            let batch = due.saturating_sub(count).min(common.rate / 2);
            count = due;
            if batch > 0 {
                match self.transactional_id {
                    None => self.send(common, batch),
                    Some(_) => self.transaction(common, batch),
                }
                common.sent.fetch_add(batch, Ordering::Relaxed);
            }
            self.inner.poll(Duration::ZERO);
            let pause = if self.transactional_id.is_some() { self.rng.u64(50..400) } else { 20 };
            std::thread::sleep(Duration::from_millis(pause));
        }
        self.finish();
        self.sent
    }

    fn finish(&mut self) {
        self.inner.flush(PATIENCE).unwrap();
        self.inner.poll(Duration::ZERO);
        self.sent.delivered(self.inner.context());
    }

    fn send(&mut self, common: &Common, count: u64) {
        for _ in 0..count {
            let (partition, payload) = self.next(common);
            let serial = self.sent.add(partition, truth::hash(payload.as_deref()));
            let mut record =
                BaseRecord::<[u8], [u8], usize>::with_opaque_to(common.topic, serial).key(b"key").partition(partition);
            record.payload = payload.as_deref();
            while let Err((error, back)) = self.inner.send(record) {
                if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                    // A transaction that has failed takes nothing more; its end will say so.
                    assert!(self.transactional_id.is_some(), "a message was refused: {error}");
                    return;
                }
                self.inner.poll(Duration::from_millis(20));
                record = back;
            }
        }
    }

    /// A new message, or one of the last again.
    fn next(&mut self, common: &Common) -> (i32, Option<Vec<u8>>) {
        if !self.recent.is_empty() && self.rng.u8(..100) == 0 {
            return self.recent[self.rng.usize(..self.recent.len())].clone();
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as i64;
        let payload = self.events.next(now, common.visits.load(Ordering::Relaxed));
        let message = (self.rng.i32(0..common.partitions), payload);
        self.recent.push_back(message.clone());
        if self.recent.len() > REPEATED_WITHIN {
            self.recent.pop_front();
        }
        message
    }

    /// Sends so many messages as one transaction.
    fn transaction(&mut self, common: &Common, count: u64) {
        self.inner.begin_transaction().unwrap();
        self.sent.begin();
        self.send(common, count);
        if self.rng.u8(..20) == 0 {
            // Readers wait at its first message meanwhile.
            std::thread::sleep(Duration::from_millis(self.rng.u64(1_000..5_000)));
        }
        let end = if self.rng.u8(..4) == 0 { self.abort() } else { self.commit() };
        self.inner.poll(Duration::ZERO);
        self.sent.delivered(self.inner.context());
        self.sent.end(end);
    }

    fn commit(&mut self) -> End {
        match self.until_answered(|inner| inner.commit_transaction(ANSWER)) {
            Answer::Done => End::Committed,
            Answer::MustAbort => self.abort(),
            Answer::Fatal => self.begin_anew(),
        }
    }

    fn abort(&mut self) -> End {
        match self.until_answered(|inner| inner.abort_transaction(ANSWER)) {
            Answer::Done => End::Aborted,
            Answer::MustAbort | Answer::Fatal => self.begin_anew(),
        }
    }

    fn until_answered(&self, ask: impl Fn(&BaseProducer<Deliveries>) -> Result<(), KafkaError>) -> Answer {
        loop {
            // Both wait for deliveries to be told, and tell none themselves.
            let _ = self.inner.flush(ANSWER);
            match ask(&self.inner) {
                Ok(()) => return Answer::Done,
                Err(KafkaError::Transaction(error)) if error.is_retriable() => {}
                Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => return Answer::MustAbort,
                Err(_) => return Answer::Fatal,
            }
        }
    }

    /// A producer in the place of one that gave up; nobody knows what became of its transaction.
    fn begin_anew(&mut self) -> End {
        self.inner.poll(Duration::ZERO);
        self.sent.delivered(self.inner.context());
        self.inner = connect(&self.brokers, self.transactional_id.as_deref());
        End::Unknown
    }
}

enum Answer {
    Done,
    MustAbort,
    Fatal,
}

fn connect(brokers: &str, transactional_id: Option<&str>) -> BaseProducer<Deliveries> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("reconnect.backoff.max.ms", "1000");
    if let Some(id) = transactional_id {
        config.set("transactional.id", id);
    }
    let producer: BaseProducer<Deliveries> = config.create_with_context(Deliveries::default()).unwrap();
    if transactional_id.is_some() {
        let begun = Instant::now();
        while let Err(error) = producer.init_transactions(PATIENCE) {
            assert!(begun.elapsed() < PATIENCE, "no transactions: {error}");
        }
    }
    producer
}
