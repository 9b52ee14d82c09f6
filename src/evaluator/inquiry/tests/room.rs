//! Who gives way where rows do not fit into memory.

use super::*;

#[test]
fn where_memory_is_short_the_largest_gives_way() {
    let server = Server::new(Rows(1, 1), Rows(1, 1), Rows(5, 200));
    let mut stage = Stage::new(&server);
    assert_eq!(stage.read(), NONE);
    assert_eq!(server.asked(), ["small", "deep", "large"]);
    // No room for more, and more comes of a question with few rows.
    let full = stage.evaluator.bytes();
    stage.inquiry.memory = full + 100;
    server.says("small", Rows(60, 1));
    stage.news(NOW - 60);
    assert_eq!(stage.read(), ["large"]);
    assert!(stage.evaluator.bytes() < full / 4, "its rows are dropped");
    server.asked();
    // There is no room for it later either, and it takes none from others.
    for (seconds, _) in (11..).step_by(700).zip(0..3) {
        assert_eq!(stage.retry(seconds), ["large"]);
        assert_eq!(server.asked(), ["large"]);
    }
    stage.news(NOW - 60);
    assert_eq!(stage.read(), ["large"]);
    assert_eq!(server.asked(), ["small", "deep"], "others are read as ever");
    stage.inquiry.memory = 2 * full;
    assert_eq!(stage.retry(10_000), NONE);
    assert!(stage.evaluator.bytes() >= full);
}

/// Each would fit without the other: who was there first stays.
#[test]
fn two_that_have_no_room_together_do_not_take_turns() {
    let server = Server::new(Rows(1, 1), Rows(1_200, 1), Rows(5, 60));
    let mut stage = Stage::new(&server);
    assert_eq!(stage.read(), NONE);
    let sizes = stage.sizes();
    let (small, deep, large) = (sizes["small"], sizes["deep"], sizes["large"]);
    assert!(large < deep && deep < large + large / 2, "{sizes:?}");
    let mut stage = Stage::new(&server);
    stage.inquiry.memory = small + deep + large / 2;
    assert_eq!(stage.read(), ["large"]);
    for (seconds, _) in (11..).step_by(700).zip(0..3) {
        assert_eq!(stage.retry(seconds), ["large"]);
    }
}

/// What does not fit itself gives way itself, be it smaller than what is there, and however late in its answer, or whether for
/// memory, it fails.
#[test]
fn nobody_who_is_judged_goes_for_a_question_that_failed() {
    for says in [Rows(5, 40), Rows(60, 30), Half(20, 30, 160)] {
        let server = Server::new(Rows(1, 1), Rows(1_200, 1), Error(396));
        let mut stage = Stage::new(&server);
        assert_eq!(stage.read(), ["large"]);
        let before = stage.sizes()["deep"];
        stage.inquiry.memory = stage.evaluator.bytes() * 10 / 9;
        server.says("large", says);
        server.asked();
        for (seconds, _) in (11..).step_by(700).zip(0..3) {
            assert_eq!(stage.retry(seconds), ["large"], "{says:?}");
            stage.news(NOW - 5);
            assert_eq!(stage.read(), ["large"], "{says:?}");
            assert_eq!(server.asked(), ["large", "small", "deep"], "{says:?}");
            assert!(stage.sizes()["deep"] > before / 2, "its rows are there");
            assert!(stage.evaluator.bytes() <= stage.inquiry.memory);
        }
        stage.inquiry.memory = usize::MAX;
        server.says("large", Rows(1, 1));
        assert_eq!(stage.retry(700), NONE, "it comes back when there is room");
    }
}

/// Half an answer, of a question that failed or is still asked, goes before anything that is judged.
#[test]
fn who_is_judged_has_room_before_who_is_not() {
    for is_asked in [true, false] {
        let server = Server::new(Rows(1, 1), Rows(1_200, 1), Error(396));
        let mut stage = Stage::new(&server);
        assert_eq!(stage.read(), ["large"]);
        let (large, full) = (stage.question("large"), stage.evaluator.bytes());
        server.says("large", if is_asked { Rows(60, 60) } else { Half(5, 60, 160) });
        stage.inquiry.open[large].as_mut().unwrap().again = Instant::now();
        while stage.evaluator.bytes() < full + 1_000 || !is_asked && stage.inquiry.aside.is_some() {
            assert_eq!(stage.attend(0), ["large"]);
        }
        assert_eq!(stage.inquiry.aside.is_some(), is_asked);
        assert!(stage.evaluator.bytes_of(large) < stage.sizes()["deep"], "it is not the largest");
        stage.inquiry.memory = stage.evaluator.bytes();
        server.says("small", Rows(60, 1));
        stage.news(NOW - 60);
        assert_eq!(stage.read(), ["large"], "{is_asked}");
        assert!(stage.inquiry.aside.is_none());
        let open = stage.inquiry.open[large].as_ref().unwrap();
        assert_eq!((open.said.as_str(), open.pause > SHORTEST), ("memory", true));
        assert!(stage.inquiry.stale[large].is_all(), "its rows are dropped");
    }
}
