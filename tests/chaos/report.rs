//! What was done to the system, and what came of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::SystemTime;

use highwater::failpoint::Point;

/// The place of a kill that the proxy makes: half of a request has arrived.
pub const BODY: &str = "middle_of_insert";

#[derive(Debug)]
pub struct Report {
    /// What was done when, to be read beside the logs.
    journal: File,
    actions: BTreeMap<&'static str, u64>,
    kills: BTreeMap<&'static str, u64>,
    /// By place: ended there, frozen there.
    places: BTreeMap<&'static str, [u64; 2]>,
    violations: Vec<String>,
}

impl Report {
    pub fn new(folder: &Path) -> Report {
        let journal = File::create(folder.join("journal.log")).unwrap();
        let (actions, kills, places) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Report { journal, actions, kills, places, violations: Vec::new() }
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

    /// How often a process ended at the place where it did so least.
    pub fn least(&self) -> u64 {
        let places = Point::ALL.into_iter().map(Point::name).chain([BODY]);
        places.map(|place| self.places.get(place).map_or(0, |counts| counts[0])).min().unwrap_or(0)
    }

    /// The table.
    pub fn print(&self) {
        println!("{:<44} {:>6}", "action", "times");
        self.actions.iter().for_each(|(name, count)| println!("{name:<44} {count:>6}"));
        println!("\n{:<44} {:>6}", "kill", "times");
        self.kills.iter().for_each(|(name, count)| println!("{name:<44} {count:>6}"));
        println!("{:<44} {:>6}", "all", self.killed());
        println!("\n{:<44} {:>6} {:>6}", "place in the protocol", "ended", "frozen");
        for place in Point::ALL.into_iter().map(Point::name).chain([BODY]) {
            let [ended, frozen] = self.places.get(place).copied().unwrap_or_default();
            println!("{place:<44} {ended:>6} {frozen:>6}");
        }
        println!();
    }
}
