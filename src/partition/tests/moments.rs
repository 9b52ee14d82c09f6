//! When batches are sealed for their age.

use super::*;

const APART: Duration = Duration::from_secs(5);

fn tuning() -> Tuning {
    Tuning { seal_after: APART, ..Bench::new(Some(0), 0, 0, None).tuning }
}

fn source(topic: &str, partition: i32) -> Source {
    Source { epoch: 1, redrive: None, topic: topic.into(), partition }
}

#[test]
fn no_batch_grows_older_than_the_interval_and_one_is_sealed_in_each() {
    let tuning = tuning();
    for partition in [0, 1, 77, i32::MAX] {
        let source = source("calls", partition);
        let mut now = Duration::from_nanos(1_700_000_000_123_456_789);
        for _ in 0..50 {
            let moment = tuning.seal_by(&source, now);
            assert!(moment > now && moment <= now + APART, "{partition}: {moment:?} of {now:?}");
            assert_eq!(tuning.seal_by(&source, moment), moment + APART, "{partition}");
            now += Duration::from_millis(737);
        }
        assert!(tuning.seal_by(&source, Duration::ZERO) <= APART);
    }
}

#[test]
fn partitions_that_lie_beside_each_other_seal_far_from_each_other() {
    let tuning = tuning();
    for count in [2, 8, 13, 64] {
        let now = Duration::from_secs(1_700_000_000);
        let mut moments: Vec<Duration> =
            (0..count).map(|partition| tuning.seal_by(&source("calls", partition), now)).collect();
        moments.sort();
        let around = moments[0] + APART - moments[moments.len() - 1];
        let least = moments.windows(2).map(|pair| pair[1] - pair[0]).chain([around]).min().unwrap();
        // Evenly they would be `APART / count`.
        assert!(least * 3 > APART / count.cast_unsigned(), "{count}: {least:?}");
    }
}

#[test]
fn a_batch_is_sealed_at_its_partitions_moment_and_not_before() {
    let mut bench = Bench::new(Some(0), 0, 0, None);
    bench.run();
    let moment = bench.tuning.seal_by(bench.partition.source(), bench.now);
    bench.noise(0);
    let mut wants = |now| {
        let terms =
            Terms { plan: &bench.plan, writers: &bench.writers, tuning: &bench.tuning, now, meter: &bench.notes };
        bench.partition.next(terms).is_some()
    };
    assert!(!wants(moment - Duration::from_nanos(1)));
    assert!(wants(moment));
}
