//! The metrics that are read off the [`Board`] when somebody asks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::board::{Board, Link};
use super::catalogue::{self as all, Kind, Metric};
use super::{flood, health, now};
use crate::partition::Status;
use crate::ports::TopicPartition;

/// Names and values of a sample's labels.
pub(super) type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
pub(super) struct Gauges(pub(super) Arc<Board>);

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (metric, samples) in samples(&self.0, now()) {
            put(&mut encoder, metric, &samples)?;
        }
        Ok(())
    }
}

type Sample = (Labels, f64);

fn put(encoder: &mut DescriptorEncoder<'_>, metric: &Metric, samples: &[Sample]) -> fmt::Result {
    if samples.is_empty() {
        return Ok(());
    }
    let (name, unit) = metric.family();
    let help = format!("{}.", metric.help.trim());
    let mut family = encoder.encode_descriptor(name, &help, unit.as_ref(), metric.kind.exposed())?;
    for (labels, value) in samples {
        if labels.is_empty() {
            return encode(metric.kind, *value, family);
        }
        encode(metric.kind, *value, family.encode_family(labels)?)?;
    }
    Ok(())
}

fn encode(kind: Kind, value: f64, encoder: MetricEncoder<'_>) -> fmt::Result {
    match kind {
        Kind::Counter => ConstCounter::new(value).encode(encoder),
        _ => ConstGauge::new(value).encode(encoder),
    }
}

fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// All samples, by metric.
fn samples(board: &Board, now: Duration) -> Vec<(&'static Metric, Vec<Sample>)> {
    let alone = |value: f64| vec![(Labels::new(), value)];
    let up = |link| alone(truth(Link::problem(link, now).is_none()));
    let mut samples = vec![
        (&all::KAFKA_UP, up(&board.kafka)),
        (&all::CLICKHOUSE_UP, up(&board.clickhouse)),
        (&all::READY, alone(truth(health::missing(board, now).is_empty()))),
        (&all::LIMIT, alone(board.memory_limit as f64)),
        (&all::HELD_BACK, alone(flood::HELD_BACK.load(Ordering::Relaxed) as f64)),
    ];
    let lines = flood::lines().map(|(level, count)| (vec![("level", level.to_owned())], count as f64));
    samples.push((&all::LINES, lines.collect()));
    let (mut idle, mut assigned) = (Vec::new(), Vec::new());
    for (number, post) in board.workers().iter().enumerate() {
        let labels = vec![("worker", number.to_string())];
        assigned.push((labels.clone(), post.view().partitions.len() as f64));
        idle.extend(post.stepped().map(|stepped| (labels, now.saturating_sub(stepped).as_secs_f64())));
    }
    samples.extend([(&all::WORKER_IDLE, idle), (&all::ASSIGNED, assigned)]);
    samples.extend(partitions(board, now));
    let judged = board.alerts();
    samples.push((&all::EVALUATOR, alone(truth(judged.is_some()))));
    if let Some(judged) = judged {
        samples.push((&all::EVALUATION_LAG, alone(age(judged.through_ms, now))));
        samples.push((&all::EVALUATED, alone(age(judged.at_ms, now))));
        samples.push((&all::UNJUDGED, alone(judged.unjudged as f64)));
    }
    samples
}

fn partitions(board: &Board, now: Duration) -> Vec<(&'static Metric, Vec<Sample>)> {
    let log = board.log().clone();
    let mut samples: Vec<(&'static Metric, Vec<Sample>)> = Vec::new();
    let mut add = |metric: &'static Metric, labels: &Labels, value: Option<f64>| {
        let Some(value) = value else { return };
        let index = samples.iter().position(|(known, _)| known.name == metric.name).unwrap_or_else(|| {
            samples.push((metric, Vec::new()));
            samples.len() - 1
        });
        samples[index].1.push((labels.clone(), value));
    };
    for (name, status) in board.partitions() {
        let TopicPartition { topic, partition } = &name;
        let mut labels = vec![("topic", topic.to_string()), ("partition", partition.to_string())];
        let range = log.ranges.get(&name).copied();
        let lag = lag(&status, range);
        let freshness = freshness(&status, lag, log.caught_up.get(&name).copied(), now);
        let number = |offset: u64| offset as f64;
        add(&all::LOG_START, &labels, range.map(|(start, _)| number(start)));
        add(&all::LOG_END, &labels, range.map(|(_, end)| number(end)));
        add(&all::POSITION, &labels, status.position.map(number));
        add(&all::DONE, &labels, status.done.map(number));
        add(&all::LAG, &labels, lag.map(number));
        add(&all::FRESHNESS, &labels, freshness);
        let keeps = log.retention.get(topic).map(Duration::as_secs_f64);
        add(&all::HEADROOM, &labels, keeps.zip(freshness).map(|(keeps, age)| keeps - age));
        let above = status.done.zip(range).map(|(done, (start, _))| done as f64 - start as f64);
        add(&all::HEADROOM_OFFSETS, &labels, above);
        add(&all::EVENT_TIME_DELAY, &labels, status.greatest_event_ms.map(|time| age(time, now)));
        add(&all::HELD, &labels, Some(status.bytes as f64));
        add(&all::PAUSED, &labels, Some(truth(status.paused)));
        labels.push(("reason", status.stopped.unwrap_or("none").to_owned()));
        add(&all::STOPPED, &labels, Some(truth(status.stopped.is_some())));
    }
    samples
}

fn age(time_ms: i64, now: Duration) -> f64 {
    now.as_secs_f64() - time_ms as f64 / 1_000.0
}

/// Offsets not read yet.
fn lag(status: &Status, range: Option<(u64, u64)>) -> Option<u64> {
    range.zip(status.position).map(|((_, end), position)| end.saturating_sub(position))
}

/// Age of the oldest record that is not visible, in seconds. The unread are known to be younger than what was read last,
/// and than the moment when all was read.
fn freshness(status: &Status, lag: Option<u64>, caught_up: Option<Duration>, now: Duration) -> Option<f64> {
    let caught_up_ms = caught_up.and_then(|at| i64::try_from(at.as_millis()).ok());
    let unread = || match lag {
        Some(0) => None,
        Some(_) => Some(status.latest_ms.max(caught_up_ms)),
        // Whether anything is left unread is not known.
        None => Some(None),
    };
    match status.oldest_ms.map(Some).or_else(unread) {
        None => Some(0.0),
        Some(time) => time.map(|time| age(time, now).max(0.0)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::board::Judged;
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn status() -> Status {
        Status { position: Some(90), done: Some(70), ..Status::default() }
    }

    fn of(status: Status, range: Option<(u64, u64)>) -> impl Fn(&Metric) -> Option<f64> {
        let board = Board::new(1, 7);
        let name = TopicPartition { topic: "t".into(), partition: 3 };
        board.log().ranges.extend(range.map(|range| (name.clone(), range)));
        board.log().retention.insert("t".into(), Duration::from_secs(500));
        board.show(0, NOW, true, vec![(name, status)]);
        let samples = samples(&board, NOW);
        move |metric| {
            let found = samples.iter().find(|(of, _)| of.name == metric.name)?;
            assert!(found.1[0].0.iter().map(|(name, _)| *name).eq(metric.labels.iter().copied()), "{}", metric.name);
            assert_eq!(found.1.len(), 1, "{}", metric.name);
            Some(found.1[0].1)
        }
    }

    #[test]
    fn what_is_read_and_not_written_says_how_fresh_it_is() {
        let found = of(Status { oldest_ms: Some(900_000), latest_ms: Some(990_000), ..status() }, Some((40, 95)));
        assert_eq!((found(&all::LAG), found(&all::DONE), found(&all::LOG_START)), (Some(5.0), Some(70.0), Some(40.0)));
        assert_eq!((found(&all::FRESHNESS), found(&all::HEADROOM)), (Some(100.0), Some(400.0)));
        assert_eq!((found(&all::HEADROOM_OFFSETS), found(&all::STOPPED)), (Some(30.0), Some(0.0)));
    }

    #[test]
    fn alerts_are_told_of_where_they_are_judged() {
        let board = Board::new(1, 7);
        let found = |metric: &Metric| {
            let samples = samples(&board, NOW);
            samples.iter().find(|(of, _)| of.name == metric.name).map(|(_, samples)| samples[0].1)
        };
        let all = || [&all::EVALUATOR, &all::EVALUATION_LAG, &all::EVALUATED, &all::UNJUDGED].map(found);
        assert_eq!(all(), [Some(0.0), None, None, None]);
        board.judged(Some(Judged { through_ms: 900_000, at_ms: 998_000, unjudged: 3 }));
        assert_eq!(all(), [Some(1.0), Some(100.0), Some(2.0), Some(3.0)]);
        board.judged(None);
        assert_eq!(all(), [Some(0.0), None, None, None]);
    }

    #[test]
    fn caught_up_is_fresh_and_has_the_whole_retention() {
        let found = of(Status { latest_ms: Some(10_000), ..status() }, Some((40, 90)));
        assert_eq!(
            (found(&all::LAG), found(&all::FRESHNESS), found(&all::HEADROOM)),
            (Some(0.0), Some(0.0), Some(500.0))
        );
    }

    #[test]
    fn unread_records_are_at_most_as_old_as_the_last_one_read() {
        let found = of(Status { latest_ms: Some(700_000), ..status() }, Some((40, 91)));
        assert_eq!((found(&all::FRESHNESS), found(&all::HEADROOM)), (Some(300.0), Some(200.0)));
    }

    #[test]
    fn unread_records_came_after_all_was_read() {
        let board = Board::new(1, 0);
        let name = TopicPartition { topic: "t".into(), partition: 0 };
        let second = Duration::from_secs;
        board.show(0, NOW, true, vec![(name.clone(), Status { latest_ms: Some(100_000), ..status() })]);
        let fresh = |now| {
            let samples = samples(&board, second(now));
            samples.iter().find(|(metric, _)| metric.name == all::FRESHNESS.name).map(|(_, samples)| samples[0].1)
        };
        board.ranges(second(985), [(name.clone(), (0, 90))].into());
        assert_eq!(fresh(986), Some(0.0));
        board.ranges(second(990), [(name, (0, 91))].into());
        assert_eq!(fresh(995), Some(10.0), "since second 985");
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        for (status, range) in [(status(), Some((40, 91))), (status(), None), (Status::default(), Some((0, 9)))] {
            let found = of(status, range);
            assert_eq!((found(&all::FRESHNESS), found(&all::HEADROOM)), (None, None));
        }
        assert_eq!(of(Status::default(), Some((0, 9)))(&all::LAG), None);
    }

    #[test]
    fn a_log_that_ran_over_us_shows_as_less_than_nothing() {
        let found = of(Status { stopped: Some("log_starts_later"), ..status() }, Some((80, 95)));
        assert_eq!((found(&all::HEADROOM_OFFSETS), found(&all::STOPPED)), (Some(-10.0), Some(1.0)));
    }
}
