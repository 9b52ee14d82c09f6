//! Joining, giving back and leaving: the consumer's part in its group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::super::context::{Context, Rebalance, accept, give_back};
use super::super::observer::Quiet;
use super::super::slots::Slots;
use super::{KafkaLog, list, position};
use crate::ports::{Log, LogEvent, TopicPartition};

/// How long a revocation waits for its offsets to be committed.
const LAST_COMMIT: Duration = Duration::from_secs(2);
/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(3);
/// How long librdkafka may take to ask for the partitions back when it is told to leave. It asks nobody else for that; only
/// in the middle of a rebalance it waits for the rebalance's end.
const GIVE_BACK: Duration = Duration::from_millis(500);

impl KafkaLog {
    /// Whether the group counts on this member: it was assigned what it is to have, if only nothing, and did not lose it.
    /// Under the brokers' own protocol it always counts as a member.
    pub fn is_member(&self) -> bool {
        self.consumer.context().is_member()
    }

    /// Leaves the group, which shares out the partitions at once, while the caller goes on writing what it has read: nothing
    /// is delivered from here on, [`Log::poll`] is not to be called any more, and the caller is told of no revocation.
    ///
    /// A static member (`group.instance.id`) stays, so that its partitions wait for it to come back.
    pub fn leave(&mut self) {
        if self.settings.properties.contains_key("group.instance.id") {
            return;
        }
        let begun = Instant::now();
        let mut holds = self.slots.iter().next().is_some();
        self.slots = Slots::default();
        self.left = true;
        self.consumer.unsubscribe();
        while holds && begun.elapsed() < GIVE_BACK {
            // What was fetched already is for the next owner.
            let _ = self.consumer.poll(Duration::from_millis(5));
            self.give_all_back();
            holds = self.consumer.assignment().is_ok_and(|assigned| assigned.count() > 0);
        }
        tracing::debug!(holds, "asked to leave the group within {:?}", begun.elapsed());
    }

    /// Answers what the group decided without telling anybody.
    fn give_all_back(&self) {
        while let Some(rebalance) = self.consumer.context().next_rebalance() {
            let answered = match &rebalance {
                Rebalance::Assign(_) => accept(&self.consumer),
                Rebalance::Revoke { partitions, .. } => give_back(&self.consumer, partitions),
            };
            if let Err(error) = answered {
                tracing::debug!("rebalance while leaving: {error}");
            }
        }
    }

    /// Hands over what the group decided, then answers it. True if there was something.
    pub(super) fn rebalance(&mut self, on: &mut dyn FnMut(LogEvent<'_>)) -> bool {
        let mut any = false;
        while let Some(rebalance) = self.consumer.context().next_rebalance() {
            any = true;
            self.stand(on);
            match rebalance {
                Rebalance::Assign(partitions) => self.assigned(&partitions, on),
                Rebalance::Revoke { partitions, lost } => self.revoked(&partitions, lost, on),
            }
        }
        any
    }

    fn assigned(&mut self, partitions: &TopicPartitionList, on: &mut dyn FnMut(LogEvent<'_>)) {
        let names = self.names(partitions);
        if let Err(error) = accept(&self.consumer) {
            // Without an answer the group would wait for this member until it is thrown out.
            self.fatal = Some(format!("cannot take the Kafka partitions assigned: {error}; restart this process"));
            return;
        }
        for name in &names {
            self.slots.add(name.clone());
        }
        if !names.is_empty() {
            on(LogEvent::Assigned(names));
        }
        // Commits during the rebalance were refused, and nobody tells.
        let done: Vec<_> = self.done.clone().into_iter().collect();
        self.commit(&done);
    }

    fn revoked(&mut self, partitions: &TopicPartitionList, lost: bool, on: &mut dyn FnMut(LogEvent<'_>)) {
        let names = self.names(partitions);
        self.resume_all(&names);
        for name in &names {
            if self.slots.get(&name.topic, name.partition).is_some_and(|slot| slot.is_unread()) {
                self.inbox.detach(name);
            }
            self.slots.remove(name);
        }
        if !names.is_empty() {
            on(LogEvent::Revoked(names.clone()));
        }
        if lost && self.brokers.is_away() {
            tracing::debug!("{} partitions lost to the outage", names.len());
        } else if lost {
            tracing::warn!(
                "the group gave up on this consumer and took {} partitions away: is max.poll.interval.ms or session.timeout.ms too short?",
                names.len()
            );
        } else {
            self.commit_last(&names);
        }
        self.done.retain(|name, _| !names.contains(name));
        if let Err(error) = give_back(&self.consumer, partitions) {
            self.fatal = Some(format!("cannot give Kafka partitions back: {error}; restart this process"));
        }
    }

    /// Resumes those that are paused: in librdkafka a pause outlasts the assignment, so that a partition that is given back
    /// to us would stay silent for ever.
    fn resume_all(&self, names: &[TopicPartition]) {
        let is_paused = |name: &&TopicPartition| self.slots.iter().any(|slot| slot.paused && slot.partition == **name);
        let paused: Vec<_> = names.iter().filter(is_paused).map(|name| (name, Offset::Invalid)).collect();
        if !paused.is_empty()
            && let Err(error) = self.consumer.resume(&list(paused))
        {
            tracing::debug!("cannot resume partitions that are taken away: {error}");
        }
    }

    fn names(&self, partitions: &TopicPartitionList) -> Vec<TopicPartition> {
        partitions
            .elements()
            .iter()
            .map(|element| TopicPartition {
                topic: self
                    .topics
                    .iter()
                    .find(|topic| ***topic == *element.topic())
                    .map_or_else(|| Arc::from(element.topic()), Arc::clone),
                partition: element.partition(),
            })
            .collect()
    }

    /// Commits what is done in these partitions and looks whether it arrived.
    pub(super) fn commit_last(&mut self, partitions: &[TopicPartition]) {
        let offsets: Vec<(TopicPartition, u64)> =
            partitions.iter().filter_map(|name| self.done.get(name).map(|offset| (name.clone(), *offset))).collect();
        if offsets.is_empty() {
            return;
        }
        let problem =
            if self.left { self.commit_from_outside(&offsets) } else { commit(&self.consumer, &offsets).err() };
        if let Some(problem) = problem {
            tracing::debug!(
                "the last offsets were not committed ({problem}); the next owner finds its place in ClickHouse"
            );
        }
    }

    /// Who has left the group commits as anybody may while it has no members; with members it is theirs, and brokers refuse.
    fn commit_from_outside(&self, offsets: &[(TopicPartition, u64)]) -> Option<String> {
        let config = match self.settings.client_config() {
            Ok(config) => config,
            Err(error) => return Some(error.to_string()),
        };
        let offsets = offsets.to_vec();
        let (told, telling) = std::sync::mpsc::channel();
        // As with `Leave`, the client's end waits for a commit that a broker does not answer.
        let thread = std::thread::Builder::new().name("kafka-commit".to_owned()).spawn(move || {
            let outsider: KafkaResult<BaseConsumer<Quiet>> = config.create_with_context(Quiet::default());
            let outcome = outsider.map_err(|error| error.to_string()).and_then(|outsider| {
                // What is committed before the coordinator is known would hold up the end of this client.
                let all = list(offsets.iter().map(|(name, _)| (name, Offset::Invalid)));
                outsider.committed_offsets(all, LAST_COMMIT).map_err(|error| error.to_string())?;
                let outcome = commit(&outsider, &offsets);
                let _ = told.send(outcome.clone()); // before the client ends; nobody listens if it took too long
                outcome
            });
            let _ = told.send(outcome);
        });
        match thread.map(|_| telling.recv_timeout(LEAVE)) {
            Ok(Ok(outcome)) => outcome.err(),
            Ok(Err(_)) => Some(format!("no answer within {} s", LEAVE.as_secs())),
            Err(error) => Some(error.to_string()),
        }
    }
}

/// Commits and looks whether it arrived. librdkafka's own synchronous commit has no time-out; a question for the committed
/// offsets has, and the broker answers it after the commit.
fn commit<C: ConsumerContext>(consumer: &BaseConsumer<C>, offsets: &[(TopicPartition, u64)]) -> Result<(), String> {
    let list = list(offsets.iter().map(|(name, offset)| (name, position(*offset))));
    let found = consumer
        .commit(&list, CommitMode::Async)
        .and_then(|()| consumer.committed_offsets(list, LAST_COMMIT))
        .map_err(|error| error.to_string())?;
    let other = offsets.iter().find_map(|(name, offset)| {
        let element = found.find_partition(&name.topic, name.partition)?;
        (element.offset() != position(*offset))
            .then(|| format!("{name} stands at {:?} instead of {offset}", element.offset()))
    });
    other.map_or(Ok(()), Err)
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.consumer.context().close();
        // What waits for an answer would never get one, and the consumer's destructor would wait for ever.
        self.give_all_back();
    }
}

/// Leaves the group and ends librdkafka's client. That waits for every commit on its way, up to a minute where a broker
/// has stopped answering, so it is given a thread of its own and only so much time.
pub(super) struct Leave(pub(super) Option<Arc<BaseConsumer<Context>>>);

impl Drop for Leave {
    fn drop(&mut self) {
        let consumer = self.0.take();
        let (left, leaving) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("kafka-leave".to_owned()).spawn(move || {
            drop(consumer);
            // Nobody listens any more if it took too long.
            let _ = left.send(());
        });
        if thread.is_ok() && leaving.recv_timeout(LEAVE).is_err() {
            tracing::debug!("left the Kafka group without its answer");
        }
    }
}
