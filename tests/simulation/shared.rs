//! What the servers' models and the clients' sides have in common, and the faults of one schedule.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use highwater::ports::Connection;

use crate::clickhouse::ClickHouse;
use crate::kafka::Kafka;
use crate::log::START_MS;
use crate::mutation::Mutation;

/// After which the store gives up on an insert; and with it the longest pause between a token and its part.
pub const INSERT_TIMEOUT: Duration = Duration::from_secs(10);
/// For how long marks may be built on.
pub const MARKS_LAST: Duration = Duration::from_secs(60);
/// How far two clocks differ at most.
pub const SKEW: Duration = Duration::from_secs(2);

/// What may happen in a schedule, beside what may happen in every one.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// How long raw rows are kept, from their event's time on.
    pub keep_events: Option<Duration>,
    /// They are gone as they land, and not some time later.
    pub expires_at_once: bool,
    /// Dead letters are taken some time after they were written.
    pub dead_letters_expire: bool,
    /// Retention takes what is written already.
    pub retention: bool,
    /// Retention takes what nobody has read.
    pub loss: bool,
    /// Workers stop where that happened; the operator records the loss. Else they record it themselves.
    pub stops_at_loss: bool,
    /// The server is restored from an older backup.
    pub restore: bool,
    /// The topic is deleted and made anew.
    pub anew: bool,
    /// Members hear at once what they are given and late what is taken from them: a partition has two owners for long.
    pub two_owners: bool,
    /// Partitions are added.
    pub grow: bool,
    /// Letters are redriven.
    pub redrives: bool,
    /// The operator rewinds.
    pub rewinds: bool,
    /// Some workers have the new plan.
    pub second_plan: bool,
    /// The server refuses an insert for good.
    pub refusals: bool,
    /// Of 256 inserts, how many kill the server between token and part, and how many between part and token.
    pub deaths: u8,
    /// How many have their part some time after their token.
    pub pauses: u8,
    /// Tokens that a table remembers, in parts.
    pub window: usize,
    /// Messages at which a batch is sealed.
    pub seal_events: u64,
    /// Bytes that a worker may hold.
    pub memory: usize,
}

impl Faults {
    /// What may happen in one schedule. Some exclude each other: where ids are lost, what a TTL took can't replace them.
    pub fn random(rng: &mut fastrand::Rng) -> Faults {
        let mut faults = Faults {
            stops_at_loss: rng.bool(),
            expires_at_once: rng.bool(),
            deaths: [1, 3, 16][rng.usize(0..3)],
            pauses: 8,
            dead_letters_expire: rng.u8(0..4) == 0,
            grow: rng.u8(0..6) == 0,
            two_owners: rng.u8(0..6) == 0,
            second_plan: rng.u8(0..3) == 0,
            refusals: rng.u8(0..8) == 0,
            window: if rng.u8(0..3) == 0 { rng.usize(4..20) } else { 10_000 },
            seal_events: rng.u64(1..12),
            memory: rng.usize(600..4_000),
            ..Faults::default()
        };
        match rng.u8(0..8) {
            0 => faults.retention = true,
            1 => faults.loss = true,
            // What a restore may deceive is a writer that another had overtaken.
            2 => (faults.restore, faults.two_owners) = (true, true),
            3 => faults.anew = true,
            6 if rng.bool() => faults.redrives = true,
            6 => faults = faults.rewound(true),
            7 => faults = faults.rewound(false),
            // Events span two minutes and a half around the start; the older of them have expired or do so soon.
            // What a TTL took leaves a mark where it was, and its tokens have to last as long. Two writers at once for long
            // may then double a raw row, which is where the claim ends.
            4 | 5 => {
                faults.two_owners = false;
                faults.keep_events = Some(Duration::from_secs(rng.u64(1..240)));
                faults.window = 10_000;
            }
            _ => {}
        }
        faults
    }

    /// Its tokens have to last, as what a rewind takes back leaves none of the marks that they name; and letters that it finds
    /// redriven, as it refuses where they are gone.
    fn rewound(self, redrives: bool) -> Faults {
        let dead_letters_expire = self.dead_letters_expire && !redrives;
        Faults { rewinds: true, redrives, second_plan: false, window: 10_000, dead_letters_expire, ..self }
    }

    /// A rule that matters under one fault only is searched for in schedules that have it.
    pub fn focus(&mut self, mutation: Mutation) {
        let keep_events = self.keep_events.or(Some(Duration::from_secs(20 * self.seal_events)));
        let fresh = Faults {
            retention: false,
            loss: false,
            restore: false,
            anew: false,
            redrives: false,
            rewinds: false,
            keep_events: None,
            ..self.clone()
        };
        *self = match mutation {
            Mutation::ExpiredAtOnce => {
                Faults { keep_events, window: 10_000, pauses: 100, deaths: 1, second_plan: false, ..fresh }
            }
            // Of two writers one has to ask before a TTL took the rows that the mark stood on, and one after that.
            Mutation::NoRecordedMarks => Faults { keep_events, window: 10_000, two_owners: true, ..fresh },
            Mutation::LedgerNeverBack => Faults { restore: true, ..fresh },
            Mutation::RewindLedgerLast => fresh.rewound(false),
            Mutation::EpochIgnored | Mutation::ListDuringRewind | Mutation::ListPastRewind => fresh.rewound(true),
            Mutation::ListPerRedrive => Faults { redrives: true, ..fresh },
            Mutation::NoDoubt | Mutation::ForgetIds => Faults { retention: true, ..fresh },
            _ => return,
        };
    }
}

pub struct Shared {
    pub rng: fastrand::Rng,
    pub mutation: Mutation,
    pub faults: Faults,
    pub kafka: Kafka,
    pub clickhouse: ClickHouse,
    /// Each client's open connection and the server's start that it belongs to.
    pub connections: BTreeMap<u32, (Connection, u64)>,
    /// The restores that each client began after.
    pub restores: BTreeMap<u32, u32>,
    /// Clients that were told that an insert is refused for good.
    pub refused: BTreeSet<u32>,
    /// Faults have ended.
    pub calm: bool,
    /// Time since 1970.
    pub now: Duration,
    pub counts: BTreeMap<&'static str, u64>,
    pub violation: Option<String>,
    pub trace: Option<Vec<String>>,
}

impl Shared {
    pub fn new(rng: fastrand::Rng, mutation: Mutation, tracing: bool) -> Shared {
        Shared {
            rng,
            mutation,
            faults: Faults::default(),
            kafka: Kafka::default(),
            clickhouse: ClickHouse::default(),
            connections: BTreeMap::new(),
            restores: BTreeMap::new(),
            refused: BTreeSet::new(),
            calm: false,
            now: Duration::from_millis(START_MS as u64 + 120_000),
            counts: BTreeMap::new(),
            violation: None,
            trace: tracing.then(Vec::new),
        }
    }

    /// Adds a line to the trace: when, who, what.
    pub fn say(&mut self, actor: impl Display, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let since = self.now.as_millis() as i64 - START_MS - 120_000;
            let (seconds, millis) = (since / 1_000, since % 1_000);
            trace.push(format!("{seconds:>5}.{millis:03}  {:<10}  {}", actor.to_string(), what()));
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Takes note of the first thing that must not be.
    pub fn wrong(&mut self, what: String) {
        self.say("!!", || what.clone());
        self.violation.get_or_insert(what);
    }

    /// True with `k` of 256, and never once faults have ended.
    pub fn chance(&mut self, k: u8) -> bool {
        !self.calm && self.rng.u8(..) < k
    }

    /// Before this time, in microseconds since 1970, events are gone, on the fastest of the clocks.
    pub fn expired_before(&self) -> i64 {
        self.faults.keep_events.map_or(i64::MIN, |keep| (self.now + SKEW).saturating_sub(keep).as_micros() as i64)
    }
}
