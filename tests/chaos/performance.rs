//! Performs actions, and ends in time what lasts a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use devstack::{Proxy, Stack};

use crate::actions::{Action, Fault, Refusal, Server, Then};
use crate::events::VISIT;
use crate::fleet::Fleet;
use crate::report::{BODY, Report};
use crate::stage::{SLOTS, Stage};

/// How long a trap waits for an insert.
const TRAP: Duration = Duration::from_secs(10);
/// How long after its sender's patience a held insert is delivered.
const LATE: Duration = Duration::from_secs(7);

/// The end of something that lasts.
enum Ending {
    Restart(Server),
    LeaveAlone(Server, usize, Fault),
}

/// A trap that is set.
struct Catch {
    then: Then,
    /// How many requests the proxy had caught before.
    before: usize,
    until: Instant,
}

/// The event type that comes up on the way.
enum Addition {
    ToCome,
    /// Replicas are replaced, one after the other.
    Rolling,
    Known,
}

pub struct Performance {
    pub stage: Stage,
    pub fleet: Fleet,
    pub report: Report,
    endings: Vec<(Instant, Ending)>,
    catches: [Option<Catch>; SLOTS],
    /// What would keep the others waiting.
    aside: Vec<JoinHandle<()>>,
    clickhouse_up: Arc<AtomicBool>,
    kafka_up: Arc<AtomicBool>,
    refuses: Arc<AtomicBool>,
    addition: Addition,
}

impl Performance {
    pub fn new(stage: Stage, fleet: Fleet) -> Performance {
        Performance {
            report: Report::new(&stage.folder),
            stage,
            fleet,
            endings: Vec::new(),
            catches: [const { None }; SLOTS],
            aside: Vec::new(),
            clickhouse_up: Arc::new(AtomicBool::new(true)),
            kafka_up: Arc::new(AtomicBool::new(true)),
            refuses: Arc::new(AtomicBool::new(false)),
            addition: Addition::ToCome,
        }
    }

    /// Does what is due by now.
    pub fn tick(&mut self) {
        self.fleet.tick(&self.stage, &mut self.report);
        self.spring();
        self.watch();
        let due: Vec<Ending> =
            self.endings.extract_if(.., |(at, _)| *at <= Instant::now()).map(|(_, end)| end).collect();
        due.into_iter().for_each(|ending| self.end(ending));
    }

    pub fn perform(&mut self, action: Action) {
        let name = action.name();
        let words = format!("{action:?}");
        let done = match action {
            Action::Kill(slot) => self.fleet.running(slot).is_some_and(|slot| self.fleet.kill(slot)),
            Action::Freeze(slot, time) => self.fleet.running(slot).is_some_and(|slot| self.fleet.freeze(slot, time)),
            Action::Terminate(slot) => self.fleet.running(slot).is_some_and(|slot| self.fleet.terminate(slot)),
            Action::Scale(wanted) => {
                self.fleet.scale(wanted);
                true
            }
            Action::KillServer(server, time) => self.kill_server(server, time),
            Action::Cut(server, slot) => self.proxy(server, slot).cut() > 0,
            Action::Disturb(server, slot, fault, time) => {
                disturb(self.proxy(server, slot), fault, true);
                self.later(time, Ending::LeaveAlone(server, slot, fault));
                true
            }
            Action::Catch(slot, trap, then) => {
                let free = self.fleet.running(slot).filter(|slot| self.catches[*slot].is_none());
                free.is_some_and(|slot| {
                    let proxy = &self.stage.clickhouse[slot];
                    self.catches[slot] = Some(Catch { then, before: proxy.sprung(), until: Instant::now() + TRAP });
                    proxy.trap(Some(trap));
                    true
                })
            }
            Action::Refuse(refusal, time) => self.refuse(refusal, time),
        };
        self.report.note(&format!("{words}{}", if done { "" } else { ": nobody there" }));
        if done {
            self.report.action(name);
            match name {
                "kill -9 of a replica" | "kill -9 of ClickHouse" | "kill -9 of Kafka" => self.report.kill(name),
                _ => {}
            }
        }
    }

    /// A server that ended though nobody told it to is brought back, and named in the report.
    fn watch(&mut self) {
        for server in [Server::ClickHouse, Server::Kafka] {
            if self.up(server).load(Ordering::SeqCst) && self.stage.pid(server).is_none() {
                self.report.kill(match server {
                    Server::ClickHouse => "ClickHouse ended by itself",
                    Server::Kafka => "Kafka ended by itself",
                });
                self.report.note(&format!("{server:?} ended by itself"));
                self.up(server).store(false, Ordering::SeqCst);
                self.later(Duration::ZERO, Ending::Restart(server));
            }
        }
    }

    fn later(&mut self, time: Duration, ending: Ending) {
        self.endings.push((Instant::now() + time, ending));
    }

    fn proxy(&self, server: Server, slot: usize) -> &Proxy {
        match server {
            Server::ClickHouse => &self.stage.clickhouse[slot],
            Server::Kafka => &self.stage.kafka,
        }
    }

    fn up(&self, server: Server) -> &Arc<AtomicBool> {
        match server {
            Server::ClickHouse => &self.clickhouse_up,
            Server::Kafka => &self.kafka_up,
        }
    }

    fn kill_server(&mut self, server: Server, time: Duration) -> bool {
        if !self.up(server).swap(false, Ordering::SeqCst) {
            return false;
        }
        match server {
            Server::ClickHouse => self.stage.stack.clickhouse.kill().unwrap(),
            Server::Kafka => self.stage.stack.kafka.kill().unwrap(),
        }
        self.later(time, Ending::Restart(server));
        true
    }

    /// Takes care of inserts that are held in their middle.
    fn spring(&mut self) {
        for slot in 0..SLOTS {
            let proxy = &self.stage.clickhouse[slot];
            let Some(catch) = &self.catches[slot] else { continue };
            let caught = proxy.sprung() > catch.before;
            if !caught && catch.until > Instant::now() {
                continue;
            }
            let then = catch.then;
            match then {
                _ if !caught => {}
                Then::KillReplica => {
                    if self.fleet.kill(slot) {
                        self.report.end(BODY);
                    }
                    proxy.cut();
                }
                Then::Cut => {
                    proxy.cut();
                }
                // Released by its trap into a stall, which does not mind that its sender is gone.
                Then::Deliver => proxy.stall(true),
            }
            proxy.trap(None);
            self.report
                .note(&format!("{then:?}: an insert of {slot} was {}", if caught { "caught" } else { "not caught" }));
            self.catches[slot] = None;
            if caught && then == Then::Deliver {
                self.later(LATE, Ending::LeaveAlone(Server::ClickHouse, slot, Fault::Stall));
            }
        }
    }

    fn end(&mut self, ending: Ending) {
        match ending {
            Ending::Restart(server) => {
                let (stack, up) = (Arc::clone(&self.stage.stack), Arc::clone(self.up(server)));
                self.aside.push(std::thread::spawn(move || {
                    match server {
                        Server::ClickHouse => stack.clickhouse.restart().unwrap(),
                        Server::Kafka => stack.kafka.restart().unwrap(),
                    }
                    up.store(true, Ordering::SeqCst);
                }));
            }
            Ending::LeaveAlone(server, slot, fault) => disturb(self.proxy(server, slot), fault, false),
        }
    }

    /// Aside, since a change of a table waits for the inserts that are under way, of which some are held.
    fn refuse(&mut self, refusal: Refusal, time: Duration) -> bool {
        if self.refuses.swap(true, Ordering::SeqCst) {
            return false;
        }
        let (stack, refuses) = (Arc::clone(&self.stage.stack), Arc::clone(&self.refuses));
        self.aside.push(std::thread::spawn(move || {
            let (on, off): (&[&str], &[&str]) = match refusal {
                Refusal::DiskFull => (
                    &["MODIFY SETTING min_free_disk_bytes_to_perform_insert = 1000000000000000"],
                    &["RESET SETTING min_free_disk_bytes_to_perform_insert"],
                ),
                Refusal::ReadOnly => (
                    &["MODIFY SETTING table_readonly = 1"],
                    &["MODIFY SETTING table_readonly = 0", "RESET SETTING table_readonly"],
                ),
            };
            alter(&stack, on);
            std::thread::sleep(time);
            // The server may be away just now.
            while !alter(&stack, off) {
                std::thread::sleep(Duration::from_millis(500));
            }
            refuses.store(false, Ordering::SeqCst);
        }));
        true
    }

    /// Adds the event type and replaces replicas one by one; true once, when all that run know it.
    pub fn add_schema(&mut self) -> bool {
        match self.addition {
            Addition::ToCome if self.clickhouse_up.load(Ordering::SeqCst) && !self.refuses.load(Ordering::SeqCst) => {
                match self.stage.add_schema(VISIT.name, VISIT.schema) {
                    Ok(()) => {
                        self.fleet.all_are_old();
                        self.addition = Addition::Rolling;
                    }
                    // The server ended in the middle of it, by itself; `watch` brings it back.
                    Err(said) if said.contains("network error") => self.report.note(&format!("migrate again: {said}")),
                    Err(said) => self.report.violation(format!("migrate failed: {said}")),
                }
                false
            }
            Addition::Rolling if self.fleet.replace_old() => {
                self.report.action("schema added");
                self.addition = Addition::Known;
                true
            }
            Addition::ToCome | Addition::Rolling | Addition::Known => false,
        }
    }

    /// Whether nothing is left to be done for the event type.
    pub fn is_added(&self) -> bool {
        matches!(self.addition, Addition::Known)
    }

    /// Brings all servers back and lets connections and replicas be.
    pub fn calm(&mut self) {
        self.catches = [const { None }; SLOTS];
        self.stage.heal();
        let begun = Instant::now();
        while !self.endings.is_empty() || self.aside.iter().any(|thread| !thread.is_finished()) {
            assert!(begun.elapsed() < Duration::from_secs(120), "the servers do not come back");
            self.endings.iter_mut().for_each(|(at, _)| *at = Instant::now());
            self.tick();
            std::thread::sleep(Duration::from_millis(100));
        }
        self.aside.drain(..).for_each(|thread| thread.join().unwrap());
        self.fleet.calm(&mut self.report);
    }
}

fn disturb(proxy: &Proxy, fault: Fault, on: bool) {
    match fault {
        Fault::Stall => proxy.stall(on),
        Fault::Slow(pace) => proxy.slow(on.then_some(pace)),
        Fault::Refuse => proxy.refuse(on),
    }
}

/// Alters all tables; whether all of them were.
fn alter(stack: &Stack, changes: &[&str]) -> bool {
    let tables = stack
        .clickhouse
        .query("SELECT name FROM system.tables WHERE database = 'highwater' AND engine LIKE '%MergeTree' FORMAT TSV");
    let Ok(tables) = tables else { return false };
    let statements = tables.lines().flat_map(|table| changes.iter().map(move |change| (table, change)));
    let mut statements = statements.map(|(table, change)| format!("ALTER TABLE highwater.`{table}` {change}"));
    statements.all(|statement| stack.clickhouse.query(&statement).is_ok())
}
