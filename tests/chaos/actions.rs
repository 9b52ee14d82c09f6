//! What is done to the system, drawn at random: which, to whom, and for how long are a function of the seed.

use std::collections::BTreeSet;
use std::time::Duration;

use devstack::{Pace, Trap};
use fastrand::Rng;

use crate::stage::SLOTS;

/// A server that is killed or whose connections are disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    ClickHouse,
    Kafka,
}

/// What befalls connections for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Stall,
    Slow(Pace),
    Refuse,
}

/// Why ClickHouse takes no inserts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    DiskFull,
    ReadOnly,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// kill -9 of a replica.
    Kill(usize),
    /// SIGSTOP, longer than the group waits for a member; then SIGCONT.
    Freeze(usize, Duration),
    /// SIGTERM; another comes in its place.
    Terminate(usize),
    Scale(usize),
    /// kill -9 of a server, which comes back after a while.
    KillServer(Server, Duration),
    /// All connections of a replica to ClickHouse, or of all replicas to Kafka, end.
    Cut(Server, usize),
    Disturb(Server, usize, Fault, Duration),
    /// The next insert of a replica is held in its middle, and then this happens.
    Catch(usize, Trap, Then),
    Refuse(Refusal, Duration),
}

/// What becomes of an insert that is held in its middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    KillReplica,
    Cut,
    /// It goes on after its sender has given it up.
    Deliver,
}

impl Then {
    pub fn name(self) -> &'static str {
        match self {
            Then::KillReplica => "kill -9 in the middle of an insert",
            Then::Cut => "cut in the middle of an insert",
            Then::Deliver => "insert delivered late",
        }
    }
}

impl Refusal {
    pub fn name(self) -> &'static str {
        match self {
            Refusal::DiskFull => "disk full",
            Refusal::ReadOnly => "tables read-only",
        }
    }
}

/// How often, against the others.
type Weighted = (u32, fn(&mut Rng) -> Action);

const ACTIONS: [Weighted; 14] = [
    (4, |rng| Action::Kill(rng.usize(..SLOTS))),
    (2, |rng| Action::Freeze(rng.usize(..SLOTS), millis(rng, 3_500..8_000))),
    (2, |rng| Action::Terminate(rng.usize(..SLOTS))),
    (2, |rng| Action::Scale(rng.usize(1..=SLOTS))),
    (3, |rng| Action::KillServer(Server::ClickHouse, millis(rng, 0..4_000))),
    (1, |rng| Action::KillServer(Server::Kafka, millis(rng, 0..3_000))),
    (4, |rng| Action::Cut(Server::ClickHouse, rng.usize(..SLOTS))),
    (2, |_| Action::Cut(Server::Kafka, 0)),
    (5, |rng| disturb(rng, Server::ClickHouse)),
    (2, |rng| disturb(rng, Server::Kafka)),
    // Who dies of this does not come to its failpoint.
    (7, |rng| catch(rng, Then::KillReplica)),
    (2, |rng| catch(rng, Then::Cut)),
    (2, |rng| catch(rng, Then::Deliver)),
    (3, |rng| {
        let why = if rng.bool() { Refusal::DiskFull } else { Refusal::ReadOnly };
        Action::Refuse(why, millis(rng, 1_000..6_000))
    }),
];

fn millis(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

fn disturb(rng: &mut Rng, server: Server) -> Action {
    let fault = match rng.u8(..4) {
        0 => Fault::Refuse,
        1 => Fault::Slow(Pace { bytes_per_second: rng.u32(50_000..500_000), latency: millis(rng, 1..100) }),
        _ => Fault::Stall,
    };
    Action::Disturb(server, rng.usize(..SLOTS), fault, millis(rng, 500..8_000))
}

fn catch(rng: &mut Rng, then: Then) -> Action {
    // From the middle of the headers to the middle of a large body.
    let trap = Trap { marker: "INSERT%20INTO".to_owned(), after: rng.usize(600..9_000) };
    Action::Catch(rng.usize(..SLOTS), trap, then)
}

impl Action {
    pub fn draw(rng: &mut Rng) -> Action {
        let all: u32 = ACTIONS.iter().map(|(weight, _)| weight).sum();
        let mut at = rng.u32(..all);
        for (weight, draw) in ACTIONS {
            if at < weight {
                return draw(rng);
            }
            at -= weight;
        }
        unreachable!("weights add up")
    }

    /// The names of all that may be drawn.
    pub fn names() -> BTreeSet<&'static str> {
        let mut rng = Rng::with_seed(1);
        (0..10_000).map(|_| Action::draw(&mut rng).name()).collect()
    }

    /// Whether it happens only if a replica walks into it: then it is counted when one does.
    pub fn is_awaited(&self) -> bool {
        matches!(self, Action::Catch(..) | Action::Refuse(..))
    }

    /// For the report.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Kill(_) => "kill -9 of a replica",
            Action::Freeze(..) => "SIGSTOP past the session time-out, SIGCONT",
            Action::Terminate(_) => "SIGTERM",
            Action::Scale(_) => "scale",
            Action::KillServer(Server::ClickHouse, _) => "kill -9 of ClickHouse",
            Action::KillServer(Server::Kafka, _) => "kill -9 of Kafka",
            Action::Cut(Server::ClickHouse, _) => "connections to ClickHouse cut",
            Action::Cut(Server::Kafka, _) => "connections to Kafka cut",
            Action::Disturb(Server::ClickHouse, _, Fault::Stall, _) => "connections to ClickHouse stalled",
            Action::Disturb(Server::ClickHouse, _, Fault::Slow(_), _) => "connections to ClickHouse slow",
            Action::Disturb(Server::ClickHouse, _, Fault::Refuse, _) => "connections to ClickHouse refused",
            Action::Disturb(Server::Kafka, _, Fault::Stall, _) => "connections to Kafka stalled",
            Action::Disturb(Server::Kafka, _, Fault::Slow(_), _) => "connections to Kafka slow",
            Action::Disturb(Server::Kafka, _, Fault::Refuse, _) => "connections to Kafka refused",
            Action::Catch(_, _, then) => then.name(),
            Action::Refuse(refusal, _) => refusal.name(),
        }
    }
}
