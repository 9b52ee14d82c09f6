//! Asks both servers, every few seconds and whatever the workers do, whether they answer; and Kafka for where the logs
//! begin and end and how long topics keep records.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::board::{Board, Link};
use super::counters::Counters;
use super::{flood, now};
use crate::clickhouse::{Client, Endpoint};
use crate::kafka::{ConsumerSettings, Observer, keeps};

/// Between two questions.
const ROUND: Duration = Duration::from_secs(5);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at the topics' settings.
const SETTINGS: Duration = Duration::from_secs(300);

/// Watches for as long as the runtime lives.
pub fn watch(board: Arc<Board>, counters: Arc<Counters>, endpoint: Endpoint, consumer: ConsumerSettings) {
    tokio::spawn(clickhouse(Arc::clone(&board), endpoint));
    tokio::spawn(retention(Arc::clone(&board), consumer.clone()));
    tokio::spawn(kafka(board, consumer));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            counters.say(false);
            flood::say_held();
        }
    });
}

async fn clickhouse(board: Arc<Board>, endpoint: Endpoint) {
    // The database need not be there for the server to answer.
    let client = Client::new(endpoint).with_timeout(PATIENCE).outside();
    loop {
        let answer = client.execute("SELECT 1").await.map_err(|error| error.to_string());
        Link::answered(&board.clickhouse, now(), answer);
        tokio::time::sleep(ROUND).await;
    }
}

async fn kafka(board: Arc<Board>, consumer: ConsumerSettings) {
    let mut observer = None;
    loop {
        let begun = Instant::now();
        let (consumer, watched) = (consumer.clone(), Arc::clone(&board));
        let asked = spawn_blocking(move || ask(&watched, observer, &consumer));
        observer = asked.await.ok().flatten();
        tokio::time::sleep(ROUND.saturating_sub(begun.elapsed()).max(Duration::from_millis(500))).await;
    }
}

/// One round. Gives the observer back, to be asked again.
fn ask(board: &Board, observer: Option<Observer>, consumer: &ConsumerSettings) -> Option<Observer> {
    let observer = match observer.map_or_else(|| Observer::new(consumer, PATIENCE), Ok) {
        Ok(observer) => observer,
        Err(error) => {
            Link::answered(&board.kafka, now(), Err(error.to_string()));
            return None;
        }
    };
    let begun = now();
    let names: Vec<_> = board.partitions().into_iter().map(|(name, _)| name).collect();
    let answer = match names.is_empty() {
        true => consumer.topics.first().map_or(Ok(()), |topic| observer.reach(topic)),
        false => observer.bounds_of(&names).map(|bounds| {
            let ranges = names.into_iter().zip(bounds.iter().map(|bounds| (bounds.start, bounds.end)));
            board.ranges(begun, ranges.collect());
        }),
    };
    Link::answered(&board.kafka, now(), answer.map_err(|error| error.to_string()));
    Some(observer)
}

async fn retention(board: Arc<Board>, consumer: ConsumerSettings) {
    loop {
        let again = match keeps(&consumer, PATIENCE).await {
            Ok(kept) => {
                board.log().retention = kept;
                SETTINGS
            }
            Err(error) => {
                tracing::debug!("the topics' retention is not known: {error:#}");
                ROUND * 6
            }
        };
        tokio::time::sleep(again).await;
    }
}
