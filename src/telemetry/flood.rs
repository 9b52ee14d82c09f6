//! Holds floods of log lines back: what one place in the code says more than so many times a minute is counted, and the
//! count is said instead.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines of one place in a window; more than a process has partitions, each of which may have one thing to say.
const BURST: u64 = 300;
const WINDOW: Duration = Duration::from_secs(60);

/// Lines held back since the process began.
pub(super) static HELD_BACK: AtomicU64 = AtomicU64::new(0);
/// Lines said since the process began, by level: error, warn, info.
static LINES: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
static GATE: LazyLock<Mutex<Gate>> = LazyLock::new(Mutex::default);

/// Lines said so far, by level.
pub(super) fn lines() -> impl Iterator<Item = (&'static str, u64)> {
    ["error", "warn", "info"].into_iter().zip(&LINES).map(|(level, count)| (level, count.load(Ordering::Relaxed)))
}

/// Says what was held back in windows that are over.
pub(super) fn say_held() {
    let held = GATE.lock().unwrap_or_else(PoisonError::into_inner).take_held(Instant::now());
    for (place, count) in held {
        tracing::warn!(held_back = count, place, "too many lines from one place; these were held back");
    }
}

/// The layer that lets lines through or not.
pub(super) struct Flood;

impl<S: Subscriber> Layer<S> for Flood {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let passes = GATE.lock().unwrap_or_else(PoisonError::into_inner).pass(Instant::now(), event.metadata());
        let count = match *event.metadata().level() {
            _ if !passes => &HELD_BACK,
            Level::ERROR => &LINES[0],
            Level::WARN => &LINES[1],
            Level::INFO => &LINES[2],
            // Nobody turns those on to have them held back, but they may flood as well.
            _ => return passes,
        };
        count.fetch_add(1, Ordering::Relaxed);
        passes
    }
}

/// What each place in the code has said in its window.
#[derive(Debug, Default)]
struct Gate(HashMap<Identifier, Window>);

#[derive(Debug)]
struct Window {
    begun: Instant,
    said: u64,
    held: u64,
    place: String,
}

impl Gate {
    fn pass(&mut self, now: Instant, metadata: &Metadata<'_>) -> bool {
        let place =
            || format!("{}:{}", metadata.file().unwrap_or_else(|| metadata.target()), metadata.line().unwrap_or(0));
        let new = || Window { begun: now, said: 0, held: 0, place: place() };
        let window = self.0.entry(metadata.callsite()).or_insert_with(new);
        if now.duration_since(window.begun) >= WINDOW && window.held == 0 {
            (window.begun, window.said) = (now, 0);
        }
        if window.said < BURST {
            window.said += 1;
            return true;
        }
        window.held += 1;
        false
    }

    /// Ends the windows that are over and answers what they held back.
    fn take_held(&mut self, now: Instant) -> Vec<(String, u64)> {
        let mut held = Vec::new();
        for window in self.0.values_mut().filter(|window| now.duration_since(window.begun) >= WINDOW) {
            if window.held > 0 {
                held.push((window.place.clone(), window.held));
            }
            (window.begun, window.said, window.held) = (now, 0, 0);
        }
        held
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// Keeps where lines come from.
    static SEEN: Mutex<Vec<&'static Metadata<'static>>> = Mutex::new(Vec::new());

    struct Keep;

    impl<S: Subscriber> Layer<S> for Keep {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            SEEN.lock().unwrap().push(event.metadata());
        }
    }

    #[test]
    fn a_place_that_floods_is_held_back_and_counted_and_others_are_not() {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Keep), || {
            tracing::warn!("AllBrokersDown");
            tracing::warn!("another");
        });
        let places = SEEN.lock().unwrap().clone();
        let [flood, other] = places[..] else { unreachable!("{places:?}") };
        let (mut gate, begun) = (Gate::default(), Instant::now());
        // 1,300 a minute, as a broker's outage has them.
        let at = |number: u32| begun + WINDOW * number / 1_301;
        let passed = (0..1_300).filter(|&number| gate.pass(at(number), flood)).count();
        assert_eq!(passed as u64, BURST);
        assert!(gate.pass(at(1_300), other));
        assert_eq!(gate.take_held(at(1_300)), [], "said when the minute is over");
        let held = gate.take_held(begun + WINDOW);
        assert_eq!(held.len(), 1);
        assert!(held[0].0.contains("flood.rs") && held[0].1 == 1_300 - BURST, "{held:?}");
        assert!(gate.pass(begun + WINDOW, flood), "a new minute");
        assert_eq!(gate.take_held(begun + 3 * WINDOW), []);
    }
}
