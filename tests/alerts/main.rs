//! Alerts the whole way, with real servers and the real binary: events → `highwater run` → the topics and the table, held
//! against a list that was worked out by hand; also where whoever judges is killed and frozen again and again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod script;
#[path = "../shared/mod.rs"]
mod shared;
#[allow(dead_code, reason = "shared with the tests of delivery")]
#[path = "../delivery/support.rs"]
mod support;

use std::time::{Duration, Instant};

use devstack::sys::{Signal, send};
use highwater::failpoint::{Point, VARIABLE};
use script::{STAGES, Script};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_scripted_history_is_told_exactly() {
    let script = Script::new();
    let process = script.world.run("run");
    for stage in STAGES {
        script.play(stage);
        script.wait_for(stage, &mut [&process]);
    }
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    script.check();
    script.check_budgets();
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");

    // Whoever comes next finds nothing to tell.
    let before = script.told();
    let process = script.world.run_with("second", &[("HIGHWATER_ALERTS__HEARTBEAT", "1s")]);
    script.wait_for_heartbeat(&process);
    assert!(process.terminate().0.success());
    assert_eq!(script.told(), before);
    script.check();
}

/// `ALERTS_KILLS` sets how often it is killed beside the eighteen times of the script.
#[test]
fn killed_and_frozen_in_the_middle_of_it_each_is_told_once() {
    let more: usize = std::env::var("ALERTS_KILLS").map_or(0, |kills| kills.parse().unwrap());
    let more = [(Point::AlertsJudged, End), (Point::AlertsSent, End)].repeat(more.div_ceil(2 * STAGES.len()));
    let script = Script::new();
    let mut killed = 0;
    for (at, stage) in STAGES.into_iter().enumerate() {
        script.play(stage);
        // Frozen when all is in the log and not committed, and when it is committed and not in the table.
        let places = if at % 2 == 0 {
            let frozen = vec![(Point::AlertsSent, Freeze)];
            [frozen, more.clone(), vec![(Point::AlertsSent, End), (Point::AlertsPublished, End)]].concat()
        } else {
            let frozen = vec![(Point::AlertsPublished, Freeze), (Point::AlertsKept, End)];
            [vec![(Point::AlertsJudged, End)], more.clone(), frozen].concat()
        };
        let mut sleeper = None;
        for (number, (point, then)) in places.into_iter().enumerate() {
            let (point, variable) = (point.name(), if then == End { "end" } else { "freeze" });
            let name = format!("stage-{at}-{number}-{point}-{variable}");
            let mut process = script.world.run_with(&name, &[(VARIABLE, &format!("{point}:1:{variable}"))]);
            if then == End {
                wait_until(&name, || process.child.try_wait().unwrap().is_some(), &process_log(&script, &name));
                killed += 1;
            } else {
                let stat = || std::fs::read_to_string(format!("/proc/{}/stat", process.child.id())).unwrap();
                wait_until(&name, || stat().contains(") T "), &process_log(&script, &name));
                sleeper = Some(process);
            }
        }
        let successor = script.world.run(&format!("stage-{at}-successor"));
        script.wait_for(stage, &mut [&successor]);
        let sleeper = sleeper.unwrap();
        send(sleeper.child.id(), Signal::Resume).unwrap();
        if at % 2 == 0 {
            let said = || sleeper.said().contains("alerts are judged by another replica now");
            wait_until("shut out", said, &|| sleeper.said());
            assert!(sleeper.said().contains("taken over the transactional id highwater-alerts"));
        } else {
            // It writes the table's rows, which are there by now.
            std::thread::sleep(Duration::from_secs(1));
        }
        sleeper.kill();
        let (status, said) = successor.terminate();
        assert!(status.success(), "{status}: {said}");
        script.check_once();
    }
    // What the last that was killed had no time to write into the table, the next one writes.
    let last = script.world.run("last");
    script.check();
    assert!(last.terminate().0.success());
    println!("killed {killed} times and frozen {} times", STAGES.len());
}

/// What becomes of a process at its failpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    End,
    Freeze,
}
use Then::{End, Freeze};

fn process_log(script: &Script, name: &str) -> impl Fn() -> String + use<> {
    let path = script.world.folder.path().join(name);
    move || std::fs::read_to_string(&path).unwrap()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool, said: &dyn Fn() -> String) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < MINUTE, "{what}: it never came to that: {}", said());
        std::thread::sleep(Duration::from_millis(50));
    }
}
