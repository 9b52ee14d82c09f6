//! What `/livez` and `/readyz` answer.

use std::time::Duration;

use super::board::{Board, Link};

/// A worker's thread that has not stepped for so long hangs. A step waits for Kafka for a few seconds at most.
const HANGING: Duration = Duration::from_secs(60);

/// Why the process should be started anew; empty: it lives.
pub(super) fn dead(board: &Board, now: Duration) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, post) in board.workers().iter().enumerate() {
        let idle = post.stepped().map(|stepped| now.saturating_sub(stepped));
        if post.has_ended() {
            problems.push(format!("the thread of worker {number} has ended"));
        } else if let Some(idle) = idle.filter(|&idle| idle > HANGING) {
            problems.push(format!("the thread of worker {number} has not taken a step for {} s", idle.as_secs()));
        }
    }
    problems
}

/// What is missing for events to flow; empty: it is ready.
pub(super) fn missing(board: &Board, now: Duration) -> Vec<String> {
    let mut missing = Vec::new();
    for (name, link) in [("Kafka", &board.kafka), ("ClickHouse", &board.clickhouse)] {
        missing.extend(Link::problem(link, now).map(|problem| format!("{name} {problem}")));
    }
    for (number, post) in board.workers().iter().enumerate() {
        if post.stepped().is_none() {
            missing.push(format!("worker {number} has not begun"));
            continue;
        }
        let view = post.view();
        if !view.member {
            missing.push(format!("worker {number} is not a member of the consumer group"));
        }
        for (name, status) in view.partitions {
            if status.done.is_none() && status.stopped.is_none() {
                missing.push(format!("worker {number} does not know yet where {name} begins"));
            }
        }
    }
    missing.extend(dead(board, now));
    missing
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::partition::Status;
    use crate::ports::TopicPartition;
    use crate::telemetry::Reporter;

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn at(partition: i32, done: Option<u64>) -> (TopicPartition, Status) {
        (TopicPartition { topic: "t".into(), partition }, Status { done, ..Status::default() })
    }

    fn healthy() -> Arc<Board> {
        let board = Board::new(2, 0);
        Link::answered(&board.kafka, NOW, Ok(()));
        Link::answered(&board.clickhouse, NOW, Ok(()));
        board.show(0, NOW, true, vec![at(0, Some(5))]);
        board.show(1, NOW, true, vec![]);
        board
    }

    #[test]
    fn all_there_is_ready_and_a_member_without_partitions_too() {
        let board = healthy();
        assert_eq!((missing(&board, NOW), dead(&board, NOW)), (vec![], vec![]));
    }

    #[test]
    fn before_the_start_it_lives_and_is_not_ready() {
        let board = Board::new(1, 0);
        assert_eq!(dead(&board, NOW), [""; 0]);
        let expected = ["Kafka was not reached yet", "ClickHouse was not reached yet", "worker 0 has not begun"];
        assert_eq!(missing(&board, NOW), expected);
    }

    #[test]
    fn each_thing_missing_is_named() {
        let board = healthy();
        Link::answered(&board.clickhouse, NOW, Err("refused".to_owned()));
        board.show(0, NOW, false, vec![]);
        board.show(1, NOW, true, vec![at(3, None), at(4, Some(0))]);
        let expected = [
            "ClickHouse does not answer: refused",
            "worker 0 is not a member of the consumer group",
            "worker 1 does not know yet where t/3 begins",
        ];
        assert_eq!(missing(&board, NOW), expected);
        assert_eq!(dead(&board, NOW), [""; 0], "none of that is cured by a restart");
    }

    #[test]
    fn a_stopped_partition_does_not_hold_the_others_up() {
        let board = healthy();
        let (name, status) = at(0, None);
        board.show(0, NOW, true, vec![(name, Status { stopped: Some("refused"), ..status })]);
        assert_eq!(missing(&board, NOW), [""; 0]);
    }

    #[test]
    fn an_answer_grows_old() {
        let board = healthy();
        let later = NOW + 31 * SECOND;
        for number in 0..2 {
            board.show(number, later, true, vec![]);
        }
        assert_eq!(missing(&board, later), ["Kafka has not answered for 31 s", "ClickHouse has not answered for 31 s"]);
    }

    #[test]
    fn a_thread_that_hangs_or_has_ended_is_dead() {
        let board = healthy();
        board.show(0, NOW - 60 * SECOND, true, vec![]);
        board.show(1, NOW - 61 * SECOND, true, vec![]);
        assert_eq!(dead(&board, NOW), ["the thread of worker 1 has not taken a step for 61 s"]);
        drop(Reporter::new(Arc::clone(&board), 0));
        assert_eq!(dead(&board, NOW)[0], "the thread of worker 0 has ended");
        assert_eq!(missing(&board, NOW).len(), 2);
    }
}
