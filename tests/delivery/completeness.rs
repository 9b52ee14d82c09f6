//! When minutes become complete, and what holds them back.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::MINUTE;
use crate::support::{TOPIC, World};

impl World {
    /// How far everything is complete, milliseconds since 1970.
    fn through(&self) -> i64 {
        let answer = self.query("SELECT toUnixTimestamp64Milli(through) FROM highwater.completeness");
        answer.trim().parse().unwrap()
    }

    fn wait_through(&self, time: i64) {
        let begun = Instant::now();
        while self.through() < time {
            let watermarks = || self.query("SELECT source, max(watermark) FROM highwater.watermarks GROUP BY source");
            assert!(begun.elapsed() < MINUTE, "{} never reached {time}:\n{}", self.through(), watermarks());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[test]
fn minutes_complete_in_idle_partitions_and_wait_for_open_transactions() {
    let mut world = World::new().missed_soon();
    world.set("EVENTS__LATENESS", "1s");
    world.generate(&["--events", "4000", "--minutes", "5", "--disorder", "1s"]);
    world.done(&["migrate"]);
    assert_eq!(world.through(), 0);
    let mut process = world.run("first");
    world.wait_for(4_000, &mut process, MINUTE);
    // No event comes any more, and yet time goes on in all four partitions.
    let begun = now();
    world.wait_through(begun);
    let open = "SELECT countIf(NOT complete) FROM highwater.llm_calls WHERE minute + INTERVAL 1 MINUTE <= now() - 60";
    assert_eq!(world.number(open), 0);
    assert_eq!(world.number("SELECT max(through > now64(3)) FROM highwater.completeness"), 0);
    let cost = "SELECT (SELECT sum(value) FROM highwater.llm_cost) = (SELECT sum(cost_usd) FROM highwater.llm_call) AND \
                (SELECT sum(unpriced) FROM highwater.llm_cost) = (SELECT countIf(cost_usd IS NULL) FROM highwater.llm_call)";
    assert_eq!(world.number(cost), 1);

    // A transaction is open: nobody knows what it will bring.
    let mut producer = ClientConfig::new();
    producer.set("bootstrap.servers", world.stack.kafka.bootstrap()).set("transactional.id", "completeness");
    let producer: BaseProducer = producer.create().unwrap();
    producer.init_transactions(MINUTE).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::<[u8], [u8]>::to(TOPIC).partition(2).payload(b"noise")).unwrap();
    producer.flush(MINUTE).unwrap();
    let opened = now();
    std::thread::sleep(Duration::from_secs(12));
    assert!(world.through() < opened, "complete beyond an open transaction");
    let others = "SELECT min(w) FROM (SELECT toUnixTimestamp64Milli(max(watermark)) AS w FROM highwater.watermarks WHERE \
                  NOT endsWith(source, '/2') GROUP BY source)";
    assert!(world.number(others) as i64 > opened, "the other partitions wait too");
    producer.commit_transaction(MINUTE).unwrap();
    world.wait_through(opened + 1);
    assert_eq!(world.number("SELECT count() FROM highwater.dead_letters"), 1, "complete, and yet not written");

    // Nobody is there: time stands still, and goes on with the next worker.
    process.kill();
    let before = world.through();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(world.through(), before);
    let second = world.run("second");
    world.wait_through(before + 1);
    // A third takes partitions over, and then all of them.
    let third = world.run("third");
    world.wait_through(now());
    let before = world.through();
    second.kill();
    world.wait_through(now());
    assert!(world.through() > before);
    let (status, said) = third.terminate();
    assert!(status.success(), "{status}: {said}");
}

#[test]
fn a_partition_that_nobody_reads_holds_everything() {
    let world = World::new();
    world.generate(&["--events", "1000", "--minutes", "5"]);
    world.done(&["migrate"]);
    let mut process = world.run("run");
    world.wait_for(1_000, &mut process, MINUTE);
    world.query("INSERT INTO highwater.watermarks (source, watermark) VALUES ('1/never-read/0', 0)");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(world.through(), 0);
    assert_eq!(world.number("SELECT countIf(complete) FROM highwater.llm_calls"), 0);
    assert!(process.terminate().0.success());
}
