//! The replicas: started, killed, frozen, and started again when they have ended where they were told to.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use devstack::sys::{Signal, send};
use fastrand::Rng;
use highwater::failpoint::{Point, VARIABLE};

use crate::report::Report;
use crate::stage::{SLOTS, Stage};

/// What SIGABRT is called by the system.
const ABORT: i32 = 6;
/// What SIGTERM is called by the system.
const TERMINATE: i32 = 15;
/// How long a replica may take to end in good order: eight seconds by its own word, on a busy machine.
const GOODBYE: Duration = Duration::from_secs(30);

struct Replica {
    child: Child,
    log: PathBuf,
    /// Where it ends or freezes by itself.
    failpoint: Option<Failpoint>,
    /// Frozen until then.
    thaw: Option<Instant>,
    /// Told to end, then.
    leaving: Option<Instant>,
    /// Started before the schema was added.
    old: bool,
}

#[derive(Clone, Copy)]
struct Failpoint {
    point: Point,
    freeze: bool,
}

pub struct Fleet {
    slots: [Option<Replica>; SLOTS],
    wanted: usize,
    /// Whether those started now get failpoints.
    armed: bool,
    started: usize,
    rng: Rng,
}

impl Fleet {
    pub fn new(rng: Rng) -> Fleet {
        let slots = [const { None }; SLOTS];
        Fleet { slots, wanted: 3, armed: true, started: 0, rng }
    }

    /// Looks after all of them.
    pub fn tick(&mut self, stage: &Stage, report: &mut Report) {
        for slot in 0..SLOTS {
            if self.slots[slot].as_mut().is_some_and(|replica| replica.look(report, &mut self.rng)) {
                self.slots[slot] = None;
            } else if self.slots[slot].is_none() && slot < self.wanted {
                self.start(slot, stage, report);
            }
        }
    }

    fn start(&mut self, slot: usize, stage: &Stage, report: &Report) {
        let failpoint = (self.armed && self.rng.u8(..10) > 0).then(|| self.failpoint(report));
        self.started += 1;
        let log = stage.folder.join(format!("replica-{slot}-{:04}.log", self.started));
        let file = std::fs::File::create(&log).unwrap();
        let mut command = stage.replica(slot);
        if let Some(Failpoint { point, freeze }) = failpoint {
            let then = if freeze { "freeze" } else { "end" };
            command.env(VARIABLE, format!("{}:{}:{then}", point.name(), self.rng.u32(1..5)));
        }
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        self.slots[slot] = Some(Replica { child, log, failpoint, thaw: None, leaving: None, old: false });
    }

    /// The place where the fewest have ended so far, those counted that are on their way there.
    fn failpoint(&mut self, report: &Report) -> Failpoint {
        let under_way = |point: Point| {
            let armed = self.slots.iter().flatten().filter_map(|replica| replica.failpoint);
            armed.filter(|armed| armed.point == point && !armed.freeze).count() as u64
        };
        let counted = Point::ALL.map(|point| (report.ended(point.name()) + under_way(point), point));
        let least = counted.iter().map(|(count, _)| *count).min();
        let fewest: Vec<Point> =
            counted.iter().filter(|(count, _)| Some(*count) == least).map(|(_, point)| *point).collect();
        Failpoint { point: fewest[self.rng.usize(..fewest.len())], freeze: self.rng.u8(..8) == 0 }
    }

    /// The slot of a running replica: this one, or the next.
    pub fn running(&self, slot: usize) -> Option<usize> {
        let is_up = |slot: &usize| self.slots[*slot].as_ref().is_some_and(|replica| replica.leaving.is_none());
        (0..SLOTS).map(|more| (slot + more) % SLOTS).find(is_up)
    }

    /// kill -9; whether there was one.
    pub fn kill(&mut self, slot: usize) -> bool {
        self.slots[slot].take().is_some_and(|mut replica| {
            // It may have ended at its failpoint in this moment.
            replica.child.kill().is_ok() && replica.child.wait().unwrap().signal() == Some(9)
        })
    }

    /// SIGSTOP, for so long; whether there was one that was awake.
    pub fn freeze(&mut self, slot: usize, time: Duration) -> bool {
        let Some(replica) = self.slots[slot].as_mut().filter(|replica| replica.thaw.is_none()) else { return false };
        replica.thaw = Some(Instant::now() + time);
        send(replica.child.id(), Signal::Pause).is_ok()
    }

    /// SIGTERM; whether there was one that was awake.
    pub fn terminate(&mut self, slot: usize) -> bool {
        let awake = |replica: &&mut Replica| replica.thaw.is_none() && replica.leaving.is_none();
        let Some(replica) = self.slots[slot].as_mut().filter(awake) else { return false };
        replica.leaving = Some(Instant::now());
        send(replica.child.id(), Signal::Terminate).is_ok()
    }

    /// From now on so many are wanted; those beyond are told to end. Whether it were others before.
    pub fn scale(&mut self, wanted: usize) -> bool {
        let before = std::mem::replace(&mut self.wanted, wanted);
        for slot in wanted..SLOTS {
            self.terminate(slot);
        }
        before != wanted
    }

    /// Those that run now know an older plan than those to come.
    pub fn all_are_old(&mut self) {
        self.slots.iter_mut().flatten().for_each(|replica| replica.old = true);
    }

    /// Replaces old replicas, one after the other; whether none is left.
    pub fn replace_old(&mut self) -> bool {
        if self.slots.iter().flatten().all(|replica| replica.leaving.is_none())
            && let Some(slot) = (0..SLOTS).find(|slot| self.slots[*slot].as_ref().is_some_and(|replica| replica.old))
        {
            self.terminate(slot);
        }
        !self.slots.iter().flatten().any(|replica| replica.old)
    }

    /// No more failpoints: three replicas without, and all awake.
    pub fn calm(&mut self, report: &mut Report) {
        (self.armed, self.wanted) = (false, 3);
        for slot in 0..SLOTS {
            let armed = self.slots[slot].as_ref().is_some_and(|replica| replica.failpoint.is_some());
            if (armed || slot >= 3) && self.kill(slot) {
                report.kill("kill -9 at the end");
            }
        }
        self.slots.iter_mut().flatten().for_each(Replica::wake);
    }

    /// All told to end, and ended well.
    pub fn end(&mut self, stage: &Stage, report: &mut Report) {
        self.scale(0);
        while self.slots.iter().any(Option::is_some) {
            self.tick(stage, report);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Replica {
    /// Whether it has ended.
    fn look(&mut self, report: &mut Report, rng: &mut Rng) -> bool {
        if self.thaw.is_some_and(|at| at <= Instant::now()) {
            self.wake();
        }
        let status = self.child.try_wait().unwrap();
        let Some(status) = status else {
            if let Some(Failpoint { point, freeze: true }) = self.failpoint
                && self.thaw.is_none()
                && self.is_stopped()
            {
                report.freeze(point.name());
                self.failpoint = None;
                // Longer than the group waits for a member.
                self.thaw = Some(Instant::now() + Duration::from_millis(rng.u64(3_500..8_000)));
            }
            if self.leaving.is_some_and(|since| since.elapsed() > GOODBYE) {
                report.violation(format!("still there {GOODBYE:?} after SIGTERM: {}", self.log.display()));
                let _ = self.child.kill();
            }
            return false;
        };
        match self.failpoint {
            Some(Failpoint { point, freeze: false }) if status.signal() == Some(ABORT) => report.end(point.name()),
            _ if self.leaving.is_some() && status.success() => {}
            // Told to end before it had begun to listen.
            _ if self.leaving.is_some() && status.signal() == Some(TERMINATE) && self.has_said_nothing() => {}
            _ => report.violation(format!("a replica ended by itself ({status}): {}", self.log.display())),
        }
        true
    }

    fn has_said_nothing(&self) -> bool {
        std::fs::metadata(&self.log).is_ok_and(|log| log.len() == 0)
    }

    fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    }

    fn wake(&mut self) {
        self.thaw = None;
        // If it has ended meanwhile, the next look will tell how.
        let _ = send(self.child.id(), Signal::Resume);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
