//! What holds whatever the weather: of restarts, of late events, of how much is judged at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::super::fixture::{START, Stage};
use super::super::trial::Sample;
use super::tests::{RULES, minutes};
use super::*;

/// Rules of all kinds that look at calls and failures, some in greater steps.
const MORE: &str = r#"
[[alert]]
name = "few"
metric = "calls"
by = ["app"]
window = "5m"
for = "2m"
below = 10
remember = "30m"

[[alert]]
name = "spike"
metric = "calls"
by = ["app"]
window = "4m"
change = "8m"
above = 1
resolve = 0.2
min_samples = 20

[[alert]]
name = "worse"
metric = "error_rate"
by = ["app", "model"]
window = "5m"
change = "10m"
above = 0.5
for = "1m"

[[alert]]
name = "burn"
metric = "error_rate"
burn_rate = { objective = 0.9, windows = [{ rate = 2, long = "30m", short = "3m", severity = "page" }] }

[[alert]]
name = "gone"
metric = "calls"
by = ["app"]
no_data = "10m"
for = "5m"

[[alert]]
name = "tokens"
metric = "mean_retries"
by = ["app"]
window = "10m"
below = 1
"#;

fn stage() -> Stage {
    // What can still be corrected is not much more than what comes late, so that all else is forgotten on the way.
    Stage::with_horizon(&format!("{RULES}{MORE}"), START, 45)
}

/// Calls of two apps, with failures, pauses and events that come late.
fn weather() -> impl Strategy<Value = Vec<Sample>> {
    let stretch = (0_u64..30, 0_u64..25, 1_usize..12, 0_u8..6);
    let app = prop::collection::vec(stretch, 1..9);
    (app.clone(), app).prop_map(|apps| {
        let mut samples = Vec::new();
        for (name, stretches) in [("zest", apps.0), ("sugar", apps.1)] {
            let mut at = 0;
            for (ok, errors, length, late) in stretches {
                for status in [("ok", ok), ("error", errors)] {
                    let mut more = minutes(name, status.0, at, &vec![status.1; length]);
                    // One stretch in six comes twenty minutes late.
                    more.iter_mut().filter(|_| late == 0).for_each(|sample| sample.arrives = sample.at + 20);
                    samples.extend(more);
                }
                at += length as i64;
            }
        }
        samples
    })
}

/// A message without what depends on when it was sent.
fn timeless(messages: &[Message]) -> Vec<Message> {
    let mut messages = messages.to_vec();
    for message in &mut messages {
        (message.complete_through, message.lag_ms, message.corrected) = (0, 0, false);
    }
    messages.sort_by(|one, other| {
        (&one.rule, &one.alert_id, one.sequence).cmp(&(&other.rule, &other.alert_id, other.sequence))
    });
    messages
}

const END: i64 = 100;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// Without late events it makes no difference how many minutes are judged at once.
    #[test]
    fn in_one_go_as_minute_by_minute(samples in weather(), steps in prop::collection::vec(1_i64..30, 1..8)) {
        let in_time = |samples: &[Sample]| samples.iter().cloned().map(|sample| Sample { arrives: i64::MIN, ..sample }).collect();
        let (mut one, mut many, mut some) = (stage(), stage(), stage());
        one.samples = in_time(&samples);
        (many.samples, some.samples) = (one.samples.clone(), one.samples.clone());
        one.advance(START + END, START + END);
        many.run(START + END);
        let mut at = START;
        for step in steps {
            at = (at + step).min(START + END);
            some.advance(at, at);
        }
        some.advance(START + END, START + END);
        prop_assert_eq!(timeless(&one.told), timeless(&many.told));
        prop_assert_eq!(timeless(&some.told), timeless(&many.told));
        for (_, of_one) in by_alert(&many.told) {
            prop_assert!(of_one.iter().map(|message| message.sequence).eq(1..=of_one.len() as i64), "no gap");
        }
    }

    /// Whoever takes over, at any minute, with late events or without, tells the same under the same numbers; also after
    /// a crash between messages and checkpoint, when what was sent is not sent again.
    #[test]
    fn a_successor_goes_on_where_it_was(samples in weather(), restarts in prop::collection::btree_set(1..END, 0..5), lost in any::<bool>()) {
        let (mut whole, mut broken) = (stage(), stage());
        whole.samples = samples;
        broken.samples = whole.samples.clone();
        whole.run(START + END);
        let mut checkpoint = broken.evaluator.checkpoint();
        for at in 1..=END {
            broken.advance(START + at, START + at);
            let kept = broken.evaluator.checkpoint();
            if restarts.contains(&at) {
                // The messages of this minute are out; whether the checkpoint is, is luck.
                let from = if lost { &checkpoint } else { &kept };
                let before = broken.told.len();
                broken.restart(from);
                let came = |sample: &&Sample| sample.arrives > from.judged && sample.arrives <= START + at;
                broken.evaluator.trust(broken.samples.iter().filter(came).map(|sample| sample.at).min(), &[]);
                let again = broken.advance(START + at, START + at);
                prop_assert_eq!(&again, &Vec::<Message>::new(), "told twice");
                prop_assert_eq!(broken.told.len(), before);
            }
            checkpoint = broken.evaluator.checkpoint();
        }
        let stripped = |told: &[Message]| timeless(told);
        prop_assert_eq!(stripped(&broken.told), stripped(&whole.told));
    }

    /// Of a compacted topic only the last message of each alert is sure to be left, and some come twice.
    #[test]
    fn a_successor_needs_the_last_messages_only(samples in weather(), restarts in prop::collection::btree_set(1..END, 0..5)) {
        let (mut whole, mut broken) = (stage(), stage());
        whole.samples = samples.into_iter().map(|sample| Sample { arrives: i64::MIN, ..sample }).collect();
        broken.samples = whole.samples.clone();
        whole.run(START + END);
        for at in 1..=END {
            broken.advance(START + at, START + at);
            if restarts.contains(&at) {
                let all = std::mem::take(&mut broken.told);
                let last: Vec<Message> = by_alert(&all).into_values().filter_map(|of| of.last().copied().cloned()).collect();
                broken.told = last.iter().chain(&last).cloned().collect();
                let checkpoint = broken.evaluator.checkpoint();
                broken.restart(&checkpoint);
                // Nothing came late, so nothing has to be judged again.
                if at % 2 == 0 {
                    broken.evaluator.trust(None, &[]);
                }
                broken.told = all;
                let again = broken.advance(START + at, START + at);
                prop_assert_eq!(&again, &Vec::<Message>::new(), "told twice");
            }
        }
        prop_assert_eq!(timeless(&broken.told), timeless(&whole.told));
    }

    /// After all late events have come, the last messages say what a look at everything from the start says.
    #[test]
    fn corrections_lead_to_the_truth(samples in weather()) {
        let (mut live, mut truth) = (stage(), stage());
        live.samples = samples;
        truth.samples = live.samples.iter().cloned().map(|sample| Sample { arrives: i64::MIN, ..sample }).collect();
        live.run(START + END + 40);
        truth.run(START + END + 40);
        prop_assert_eq!(standing(&live.told), standing(&truth.told));
    }

    /// Rows that come only some minutes after a start, or go for a while, late events of that time among them: in the end what
    /// stands is what stands of who always had them. What nobody heard of is not judged anew.
    #[test]
    fn rows_that_come_late_lead_to_the_same(
        samples in weather(), restart in 1..END, gone in 1..END, of in 0_i64..10
    ) {
        let (mut whole, mut broken) = (stage(), stage());
        whole.samples = samples;
        broken.samples = whole.samples.clone();
        whole.run(START + END + 40);
        let all: BTreeSet<usize> = (0..broken.evaluator.questions().len()).collect();
        for at in 1..=END + 40 {
            if at == restart {
                let checkpoint = broken.evaluator.checkpoint();
                broken.restart(&checkpoint);
                let names = checkpoint.begun.keys().filter(|_| (gone..gone + of).contains(&(at - 1)));
                broken.evaluator.trust(None, &names.cloned().collect::<Vec<_>>());
            }
            if at == gone {
                all.iter().for_each(|question| broken.evaluator.drop_rows(*question));
            }
            for late in broken.samples.iter().filter(|sample| sample.arrives == START + at) {
                all.iter().for_each(|question| broken.evaluator.heard(*question, late.at));
            }
            let is_hidden = (restart..restart + of).contains(&at) || (gone..gone + of).contains(&at);
            if is_hidden {
                let round = broken.evaluator.advance_without(&all, START + at, Completeness::default());
                prop_assert_eq!(&round.messages, &Vec::<Message>::new());
            } else {
                broken.advance(START + at, START + at);
            }
        }
        prop_assert_eq!(standing(&broken.told), standing(&whole.told));
    }
}

/// What stands of each alert that anything stands of: whether it fires, and when it changed.
fn standing(told: &[Message]) -> BTreeMap<String, (bool, Vec<i64>)> {
    let of = |messages: Vec<&Message>| {
        let gone: Vec<i64> = messages.iter().flat_map(|message| message.corrects.clone()).collect();
        let stands = |message: &&&Message| !gone.contains(&message.sequence) && message.state != "withdrawn";
        let history: Vec<i64> = messages.iter().filter(stands).map(|message| message.at).collect();
        (messages.last().is_some_and(|message| message.state == "firing"), history)
    };
    let alerts = by_alert(told).into_iter().map(|(id, messages)| (id, of(messages)));
    alerts.filter(|(_, (_, history))| !history.is_empty()).collect()
}

fn by_alert(told: &[Message]) -> BTreeMap<String, Vec<&Message>> {
    let mut alerts: BTreeMap<String, Vec<&Message>> = BTreeMap::new();
    for message in told {
        alerts.entry(message.alert_id.clone()).or_default().push(message);
    }
    alerts
}
