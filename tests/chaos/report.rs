//! What was done to the system, and what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::SystemTime;

use highwater::failpoint::Point;

use crate::actions::{Action, Server};

/// The place of a kill that the proxy makes: half of a request has arrived.
pub const BODY: &str = "middle_of_insert";
/// Kinds of kills that hit a server.
const SERVERS: [&str; 2] = ["kill -9 of ClickHouse", "kill -9 of Kafka"];
/// Places that every long run has to kill at, and how the table has them.
fn places() -> impl Iterator<Item = &'static str> {
    Point::ALL.into_iter().map(Point::name).chain([BODY])
}

/// What replicas say where it happened to them, and the words that stand in the line.
const SAID: [(&str, &[&str]); 2] = [
    ("burnt tokens", &["the same rows go out under another token"]),
    ("partitions lost with something unwritten", &[" revoked ", "unwritten=true"]),
];

fn lines_with(log: &str, words: &[&str]) -> usize {
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[derive(Debug)]
pub struct Report {
    /// What was done when, to be read beside the logs.
    journal: File,
    actions: BTreeMap<&'static str, u64>,
    kills: BTreeMap<&'static str, u64>,
    /// By place: ended there, frozen there.
    places: BTreeMap<&'static str, [u64; 2]>,
    /// Kills of ClickHouse by how many inserts it had under way, the last for all that it did not say of.
    struck: [u64; 3],
    /// Blocks that it dropped by their token: before it was started last, and since.
    dropped: [u64; 2],
    /// Servers that ended though nobody killed them.
    by_itself: BTreeMap<&'static str, u64>,
    violations: Vec<String>,
}

impl Report {
    pub fn new(folder: &Path) -> Report {
        let journal = File::create(folder.join("journal.log")).unwrap();
        Report {
            journal,
            actions: BTreeMap::new(),
            kills: BTreeMap::new(),
            places: BTreeMap::new(),
            struck: [0; 3],
            dropped: [0; 2],
            by_itself: BTreeMap::new(),
            violations: Vec::new(),
        }
    }

    /// Writes down what happens now.
    pub fn note(&mut self, what: &str) {
        let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap();
        writeln!(self.journal, "{now} {what}").unwrap();
    }

    pub fn action(&mut self, name: &'static str) {
        *self.actions.entry(name).or_default() += 1;
    }

    /// A kill of this kind, anywhere.
    pub fn kill(&mut self, kind: &'static str) {
        *self.kills.entry(kind).or_default() += 1;
    }

    /// A process ended at this place.
    pub fn end(&mut self, place: &'static str) {
        self.note(&format!("ended at {place}"));
        self.places.entry(place).or_default()[0] += 1;
        self.kill("at a place in the protocol");
    }

    /// A process was frozen at this place.
    pub fn freeze(&mut self, place: &'static str) {
        self.note(&format!("frozen at {place}"));
        self.places.entry(place).or_default()[1] += 1;
    }

    /// ClickHouse is killed with so many inserts under way; `None`: it did not say.
    pub fn struck(&mut self, inserts: Option<u64>) {
        self.struck[inserts.map_or(2, |inserts| usize::from(inserts > 0))] += 1;
    }

    /// ClickHouse says how many blocks it has dropped by their token since it was started.
    pub fn dropped(&mut self, since_start: u64) {
        let [before, last] = &mut self.dropped;
        if since_start < *last {
            *before += *last;
        }
        *last = since_start;
    }

    /// A server ended though nobody killed it.
    pub fn ended_by_itself(&mut self, server: Server) {
        self.note(&format!("{server:?} ended by itself"));
        let name = match server {
            Server::ClickHouse => "ClickHouse",
            Server::Kafka => "Kafka",
        };
        *self.by_itself.entry(name).or_default() += 1;
    }

    /// Something that must never happen.
    pub fn violation(&mut self, what: String) {
        self.note(&format!("VIOLATION {what}"));
        println!("VIOLATION {what}");
        self.violations.push(what);
    }

    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Kills of all kinds.
    pub fn killed(&self) -> u64 {
        self.kills.values().sum()
    }

    /// Kills of servers.
    fn servers(&self) -> u64 {
        SERVERS.iter().filter_map(|kind| self.kills.get(kind)).sum()
    }

    /// How many processes ended at this place.
    pub fn ended(&self, place: &str) -> u64 {
        self.places.get(place).map_or(0, |counts| counts[0])
    }

    /// How often a process ended at the place where it did so least.
    fn least(&self) -> u64 {
        places().map(|place| self.ended(place)).min().unwrap_or(0)
    }

    /// What a run of so many minutes lacks of what it is there for. A short one is too short to come to each place and do
    /// each thing.
    pub fn lacks(&self, minutes: f64) -> Vec<String> {
        let is_long = minutes >= 20.0;
        let [replicas, servers, each] = if is_long { [200, 10, 20] } else { [minutes as u64 * 3, 0, 0] };
        let found = [
            ("kills of replicas", self.killed() - self.servers(), replicas),
            ("kills of servers", self.servers(), servers),
            ("kills at the rarest place in the protocol", self.least(), each),
        ];
        let lacking = found.into_iter().filter(|(_, count, wanted)| count < wanted);
        let lacking = lacking.map(|(what, count, wanted)| format!("{count} {what}, {wanted} are wanted"));
        let actions = if is_long { Action::names() } else { BTreeSet::new() };
        let undone = actions.into_iter().filter(|name| !self.actions.contains_key(name));
        lacking.chain(undone.map(|name| format!("«{name}» never happened"))).collect()
    }

    /// The table. `logs` are what replicas said.
    pub fn print<'a>(&self, logs: impl Iterator<Item = &'a str> + Clone) {
        println!("{:<44} {:>6}", "action", "times");
        self.actions.iter().for_each(|(name, count)| println!("{name:<44} {count:>6}"));
        println!("\n{:<44} {:>6}", "kill", "times");
        self.kills.iter().for_each(|(name, count)| println!("{name:<44} {count:>6}"));
        let (all, servers) = (self.killed(), self.servers());
        println!("{:<44} {all:>6}, {} of replicas and {servers} of servers", "all", all - servers);
        println!("\n{:<44} {:>6} {:>6}", "place in the protocol", "ended", "frozen");
        for place in places() {
            let [ended, frozen] = self.places.get(place).copied().unwrap_or_default();
            println!("{place:<44} {ended:>6} {frozen:>6}");
        }
        let [idle, busy, unknown] = self.struck;
        println!("\n{:<44} {:>6}", "what came of it", "times");
        println!(
            "{:<44} {busy:>6}, with none {idle}, not known of {unknown}",
            "ClickHouse killed with inserts under way"
        );
        println!("{:<44} {:>6}", "blocks dropped by their token", self.dropped.iter().sum::<u64>());
        for (what, words) in SAID {
            println!("{what:<44} {:>6}", logs.clone().map(|log| lines_with(log, words)).sum::<usize>());
        }
        for (server, times) in &self.by_itself {
            println!("{:<44} {times:>6}", format!("{server} ended by itself"));
        }
        println!();
    }
}
