//! What who takes over, or reads rows again that were dropped, judges anew: what was heard of, and no more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::super::fixture::{START, Stage};
use super::tests::{RULES, minutes};
use super::*;

/// An alert fired and is over, and then the rows that it rested on are gone. That is news that nobody was told, so who judges anew shows by it.
fn stage() -> Stage {
    let mut stage = Stage::new(RULES, START);
    stage.samples = [minutes("zest", "ok", 0, &[1; 60]), minutes("zest", "error", 5, &[9; 10])].concat();
    assert_eq!(of_failures(stage.run(START + 30)).len(), 2, "it fired, and is over");
    stage.samples.retain(|sample| !(START + 5..START + 20).contains(&sample.at));
    stage
}

fn of_failures(told: Vec<Message>) -> Vec<Message> {
    told.into_iter().filter(|message| message.rule == "failures").collect()
}

fn restart(stage: &mut Stage, unjudged: &[String]) {
    let checkpoint = stage.evaluator.checkpoint();
    stage.restart(&checkpoint);
    stage.evaluator.trust(None, unjudged);
}

fn questions(stage: &Stage) -> BTreeSet<usize> {
    (0..stage.evaluator.questions().len()).collect()
}

/// All that is told of minutes until ten later, where events came for minutes from one on, or none did.
fn told(stage: &mut Stage, heard: Option<Minute>) -> Vec<(String, Vec<i64>)> {
    for question in questions(stage) {
        heard.into_iter().for_each(|heard| stage.evaluator.heard(question, heard));
    }
    let judged = stage.evaluator.judged();
    let told = [stage.advance(judged, judged), stage.run(judged + 10)].concat();
    of_failures(told).into_iter().map(|message| (message.state, message.corrects)).collect()
}

fn withdrawn() -> Vec<(String, Vec<i64>)> {
    vec![("withdrawn".to_owned(), vec![1, 2])]
}

#[test]
fn the_first_answer_rounds_after_a_start_has_nothing_judged_anew_but_what_was_heard_of() {
    // Whether or not a minute is complete meanwhile.
    for through in [START + 30, START + 31] {
        for (heard, expected) in [(None, vec![]), (Some(START + 5), withdrawn()), (Some(START + 29), vec![])] {
            let mut stage = stage();
            restart(&mut stage, &[]);
            let without = questions(&stage);
            let round = stage.evaluator.advance_without(&without, through, Completeness::default());
            assert_eq!(round.messages, vec![]);
            assert_eq!(told(&mut stage, heard), expected, "{heard:?}");
        }
    }
}

#[test]
fn rows_that_were_dropped_have_nothing_judged_anew_but_what_was_heard_of() {
    for (heard, expected) in [(None, vec![]), (Some(START + 5), withdrawn())] {
        let mut stage = stage();
        questions(&stage).into_iter().for_each(|question| stage.evaluator.drop_rows(question));
        assert_eq!(told(&mut stage, heard), expected);
    }
}

/// Of the rules that were not judged when the checkpoint was written nothing is known, of all others what came since.
#[test]
fn a_successor_trusts_the_rules_that_were_judged() {
    for (unjudged, expected) in [("", vec![]), ("silent", vec![]), ("failures", withdrawn())] {
        let mut stage = stage();
        restart(&mut stage, &[unjudged.to_owned()]);
        assert_eq!(told(&mut stage, None), expected, "{unjudged}");
    }
}
