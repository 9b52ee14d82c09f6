//! Performs actions, and ends in time what lasts a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use devstack::{Proxy, Stack, Trap};

use crate::actions::{Action, Fault, Refusal, Server, Then};
use crate::events::VISIT;
use crate::fleet::Fleet;
use crate::report::{BODY, Report};
use crate::stage::{SLOTS, Stage};

/// How long a trap waits for an insert.
const TRAP: Duration = Duration::from_secs(10);
/// How long after its sender's patience a held insert is delivered.
const LATE: Duration = Duration::from_secs(7);

/// How long it is looked whether it was.
const ARRIVAL: Duration = Duration::from_secs(2);
/// How long ClickHouse goes on refusing until somebody was refused.
const REFUSAL: Duration = Duration::from_secs(15);
/// Between two looks at how many blocks ClickHouse dropped by their token.
const LOOK: Duration = Duration::from_secs(2);

/// The end of something that lasts.
enum Ending {
    Restart(Server),
    LeaveAlone(Server, usize, Fault),
    /// The insert of this slot that is held goes on; so many had gone on before it.
    Deliver(usize, usize),
    /// It should have gone on by now.
    Delivered(usize, usize),
}

/// A trap that is set.
struct Catch {
    then: Then,
    /// How many requests the proxy had caught before.
    before: usize,
    /// How many of these had gone on.
    delivered: usize,
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
    /// What came true aside.
    came_true: (Sender<&'static str>, Receiver<&'static str>),
    looked: Instant,
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
            came_true: channel(),
            looked: Instant::now(),
            addition: Addition::ToCome,
        }
    }

    /// Does what is due by now.
    pub fn tick(&mut self) {
        self.fleet.tick(&self.stage, &mut self.report);
        self.spring();
        self.watch();
        self.came_true.1.try_iter().for_each(|name| self.report.action(name));
        if self.looked.elapsed() > LOOK && self.clickhouse_up.load(Ordering::SeqCst) {
            self.look();
        }
        let due: Vec<Ending> =
            self.endings.extract_if(.., |(at, _)| *at <= Instant::now()).map(|(_, end)| end).collect();
        due.into_iter().for_each(|ending| self.end(ending));
    }

    pub fn perform(&mut self, action: Action) {
        let name = action.name();
        let words = format!("{action:?}");
        let awaited = action.is_awaited();
        let done = match action {
            Action::Kill(slot) => self.fleet.running(slot).is_some_and(|slot| self.fleet.kill(slot)),
            Action::Freeze(slot, time) => self.fleet.running(slot).is_some_and(|slot| self.fleet.freeze(slot, time)),
            Action::Terminate(slot) => self.fleet.running(slot).is_some_and(|slot| self.fleet.terminate(slot)),
            Action::Scale(wanted) => self.fleet.scale(wanted),
            Action::KillServer(server, time) => self.kill_server(server, time),
            Action::Cut(server, slot) => self.proxy(server, slot).cut() > 0,
            Action::Disturb(server, slot, fault, time) => self.disturb(server, slot, fault, time),
            Action::Catch(slot, trap, then) => self.catch(slot, trap, then),
            Action::Refuse(refusal, time) => self.refuse(refusal, time),
        };
        self.report.note(&format!("{words}{}", if done { "" } else { ": nobody there" }));
        if done && !awaited {
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
                self.report.ended_by_itself(server);
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
            Server::ClickHouse => {
                self.look();
                self.report.struck(self.inserts());
                self.stage.stack.clickhouse.kill().unwrap();
            }
            Server::Kafka => self.stage.stack.kafka.kill().unwrap(),
        }
        self.later(time, Ending::Restart(server));
        true
    }

    /// How many inserts ClickHouse has under way; `None`: it did not say.
    fn inserts(&self) -> Option<u64> {
        let sql = "SELECT count() FROM system.processes WHERE query_kind = 'Insert'";
        self.stage.stack.clickhouse.query(sql).ok()?.trim().parse().ok()
    }

    /// Looks how many blocks ClickHouse has dropped by their token since it was started.
    fn look(&mut self) {
        self.looked = Instant::now();
        let sql = "SELECT sum(value) FROM system.events WHERE event = 'DuplicatedInsertedBlocks'";
        let answer = self.stage.stack.clickhouse.query(sql).ok();
        if let Some(dropped) = answer.and_then(|answer| answer.trim().parse().ok()) {
            self.report.dropped(dropped);
        }
    }

    /// Disturbs connections for a while; whether there were any.
    fn disturb(&mut self, server: Server, slot: usize, fault: Fault, time: Duration) -> bool {
        let slot = match server {
            Server::ClickHouse => self.fleet.running(slot),
            Server::Kafka => Some(slot),
        };
        let Some(slot) = slot.filter(|slot| self.proxy(server, *slot).connections() > 0) else { return false };
        let proxy = self.proxy(server, slot);
        disturb(proxy, fault, true);
        if fault == Fault::Refuse {
            // Those that are open would stay, and nobody be refused.
            proxy.cut();
        }
        self.later(time, Ending::LeaveAlone(server, slot, fault));
        true
    }

    /// Sets a trap for a replica's next insert.
    fn catch(&mut self, slot: usize, trap: Trap, then: Then) -> bool {
        let free = self.fleet.running(slot).filter(|slot| self.catches[*slot].is_none());
        let Some(slot) = free else { return false };
        let proxy = &self.stage.clickhouse[slot];
        let (before, delivered) = (proxy.sprung(), proxy.delivered());
        self.catches[slot] = Some(Catch { then, before, delivered, until: Instant::now() + TRAP });
        proxy.trap(Some(trap));
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
            let Catch { then, delivered, .. } = *catch;
            let done = match then {
                _ if !caught => false,
                Then::KillReplica => {
                    let killed = self.fleet.kill(slot);
                    if killed {
                        self.report.end(BODY);
                    }
                    proxy.cut();
                    killed
                }
                Then::Cut => proxy.cut() > 0,
                // Released by its trap into a stall, which does not mind that its sender is gone.
                Then::Deliver => {
                    proxy.stall(true);
                    false
                }
            };
            proxy.trap(None);
            if done {
                self.report.action(then.name());
            }
            self.report
                .note(&format!("{then:?}: an insert of {slot} was {}", if caught { "caught" } else { "not caught" }));
            self.catches[slot] = None;
            if caught && then == Then::Deliver {
                self.later(LATE, Ending::Deliver(slot, delivered));
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
            Ending::Deliver(slot, before) => {
                let proxy = &self.stage.clickhouse[slot];
                // Another stall that ended may have let it go before its sender gave it up.
                if proxy.delivered() == before {
                    self.later(ARRIVAL, Ending::Delivered(slot, before));
                }
                self.stage.clickhouse[slot].stall(false);
            }
            // A cut may have taken it meanwhile, or the server was killed.
            Ending::Delivered(slot, before) => {
                if self.stage.clickhouse[slot].delivered() > before {
                    self.report.action(Then::Deliver.name());
                }
            }
        }
    }

    /// Aside, since a change of a table waits for the inserts that are under way, of which some are held.
    fn refuse(&mut self, refusal: Refusal, time: Duration) -> bool {
        if self.refuses.swap(true, Ordering::SeqCst) {
            return false;
        }
        let (stack, refuses, came_true) =
            (Arc::clone(&self.stage.stack), Arc::clone(&self.refuses), self.came_true.0.clone());
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
            let before = refused(&stack, refusal);
            if alter(&stack, on) {
                let begun = Instant::now();
                std::thread::sleep(time);
                // The server counts from its start on, and may have been started anew.
                let happened = || refused(&stack, refusal).is_some_and(|now| now > 0 && Some(now) != before);
                let mut done = happened();
                while !done && begun.elapsed() < REFUSAL {
                    std::thread::sleep(Duration::from_millis(200));
                    done = happened();
                }
                if done {
                    // Nobody listens once the play is over.
                    let _ = came_true.send(refusal.name());
                }
            }
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
        self.came_true.1.try_iter().for_each(|name| self.report.action(name));
        self.look();
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

/// How many times ClickHouse has refused something so since it was started; `None`: it does not answer.
fn refused(stack: &Stack, refusal: Refusal) -> Option<u64> {
    let error = match refusal {
        Refusal::DiskFull => "NOT_ENOUGH_SPACE",
        Refusal::ReadOnly => "TABLE_IS_PERMANENTLY_READ_ONLY",
    };
    let sql = format!("SELECT sum(value) FROM system.errors WHERE name = '{error}'");
    stack.clickhouse.query(&sql).ok()?.trim().parse().ok()
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
