//! How everything stands, as last seen: written by the workers and by the watch, read by whoever asks over HTTP.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::partition::{Partition, Status};
use crate::ports::TopicPartition;

/// Between two looks at a worker's partitions.
const LOOK: Duration = Duration::from_millis(500);
/// For how long an answer of a server is good: several of the watch's rounds.
const FRESH: Duration = Duration::from_secs(30);

/// All times are since 1970.
#[derive(Debug)]
pub struct Board {
    workers: Vec<Post>,
    /// What all batches together may hold, bytes.
    pub(super) memory_limit: u64,
    pub(super) kafka: Mutex<Link>,
    pub(super) clickhouse: Mutex<Link>,
    log: Mutex<LogView>,
    alerts: Mutex<Option<Judged>>,
}

/// How far alerts were judged here, milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Judged {
    /// Before this time all rules were, but for those that could not be.
    pub through_ms: i64,
    /// When the last round was done.
    pub at_ms: i64,
    /// Rules and budgets that could not be judged.
    pub unjudged: usize,
}

/// One worker.
#[derive(Debug, Default)]
pub(super) struct Post {
    /// When its thread took its last step, in milliseconds; 0: it has not begun.
    step_ms: AtomicU64,
    /// Its thread is no more.
    ended: AtomicBool,
    view: Mutex<View>,
}

/// What a worker has.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// Whether the group has it as a member.
    pub(super) member: bool,
    pub(super) partitions: Vec<(TopicPartition, Status)>,
}

/// Whether a server answers.
#[derive(Debug, Default)]
pub(super) struct Link {
    at: Duration,
    /// `None`: not asked yet.
    answer: Option<Result<(), String>>,
}

/// What is known of the log beside what the workers read.
#[derive(Debug, Clone, Default)]
pub(super) struct LogView {
    /// First offset, and one past the last.
    pub(super) ranges: BTreeMap<TopicPartition, (u64, u64)>,
    /// When a partition was last known to be read to its end: what is unread came after that.
    pub(super) caught_up: BTreeMap<TopicPartition, Duration>,
    /// How long a topic keeps records; a topic that is not there keeps them for ever, or is not known.
    pub(super) retention: BTreeMap<Arc<str>, Duration>,
}

impl Board {
    /// A board for so many workers, which may hold so many bytes together.
    pub fn new(workers: usize, memory_limit: u64) -> Arc<Board> {
        Arc::new(Board {
            workers: (0..workers).map(|_| Post::default()).collect(),
            memory_limit,
            kafka: Mutex::default(),
            clickhouse: Mutex::default(),
            log: Mutex::default(),
            alerts: Mutex::default(),
        })
    }

    pub(super) fn workers(&self) -> &[Post] {
        &self.workers
    }

    pub(super) fn log(&self) -> MutexGuard<'_, LogView> {
        lock(&self.log)
    }

    /// The log's ranges as asked for at `now`.
    pub(super) fn ranges(&self, now: Duration, ranges: BTreeMap<TopicPartition, (u64, u64)>) {
        let stand = self.partitions();
        let mut log = self.log();
        log.caught_up.retain(|name, _| ranges.contains_key(name));
        for (name, status) in stand {
            if let Some(((_, end), position)) = ranges.get(&name).zip(status.position)
                && position >= *end
            {
                log.caught_up.insert(name, now);
            }
        }
        log.ranges = ranges;
    }

    /// Whether one of the workers has a partition.
    pub fn has(&self, name: &TopicPartition) -> bool {
        let has = |post: &Post| !post.has_ended() && lock(&post.view).partitions.iter().any(|(of, _)| of == name);
        self.workers.iter().any(has)
    }

    /// How far alerts were judged here; `None`: nothing is judged here.
    pub fn judged(&self, judged: Option<Judged>) {
        *lock(&self.alerts) = judged;
    }

    /// How far alerts were judged here.
    pub(super) fn alerts(&self) -> Option<Judged> {
        *lock(&self.alerts)
    }

    /// The partitions of all workers.
    pub(super) fn partitions(&self) -> Vec<(TopicPartition, Status)> {
        self.workers.iter().flat_map(|post| post.view().partitions).collect()
    }
}

impl Post {
    pub(super) fn view(&self) -> View {
        lock(&self.view).clone()
    }

    /// When it took its last step; `None`: it has not begun.
    pub(super) fn stepped(&self) -> Option<Duration> {
        let step = self.step_ms.load(Ordering::Relaxed);
        (step > 0).then(|| Duration::from_millis(step))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

impl Link {
    pub(super) fn answered(link: &Mutex<Link>, now: Duration, answer: Result<(), String>) {
        *lock(link) = Link { at: now, answer: Some(answer) };
    }

    /// Why the server is not known to answer now, if so.
    pub(super) fn problem(link: &Mutex<Link>, now: Duration) -> Option<String> {
        let link = lock(link);
        match &link.answer {
            None => Some("was not reached yet".to_owned()),
            Some(Err(error)) => Some(format!("does not answer: {error}")),
            Some(Ok(())) if now.saturating_sub(link.at) > FRESH => {
                Some(format!("has not answered for {} s", now.saturating_sub(link.at).as_secs()))
            }
            Some(Ok(())) => None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A worker's hand on the board. When it is dropped, the worker's thread has ended.
#[derive(Debug)]
pub struct Reporter {
    board: Arc<Board>,
    number: usize,
    due: Duration,
}

impl Reporter {
    /// For the worker of this number, counted from 0.
    pub fn new(board: Arc<Board>, number: usize) -> Reporter {
        Reporter { board, number, due: Duration::ZERO }
    }

    /// Another step was taken. How partitions stand is looked at twice a second.
    pub fn step<'a, P: Iterator<Item = &'a Partition>>(&mut self, now: Duration, look: impl FnOnce() -> (bool, P)) {
        let Some(post) = self.board.workers.get(self.number) else { return };
        post.step_ms.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if now < self.due {
            return;
        }
        self.due = now + LOOK;
        let (member, partitions) = look();
        let stand = |partition: &Partition| {
            let source = partition.source();
            let name = TopicPartition { topic: Arc::clone(&source.topic), partition: source.partition };
            (name, partition.status())
        };
        *lock(&post.view) = View { member, partitions: partitions.map(stand).collect() };
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Some(post) = self.board.workers.get(self.number) {
            post.ended.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
impl Board {
    /// A worker as it is seen.
    pub(super) fn show(
        &self,
        number: usize,
        stepped: Duration,
        member: bool,
        partitions: Vec<(TopicPartition, Status)>,
    ) {
        let post = &self.workers[number];
        post.step_ms.store(stepped.as_millis() as u64, Ordering::Relaxed);
        *lock(&post.view) = View { member, partitions };
    }
}
