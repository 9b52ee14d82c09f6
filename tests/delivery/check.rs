//! `highwater check` beside real servers: what a first start still needs, and what changed behind highwater's back.

use crate::support::{TOPIC, World};

/// Whether all is right, and what was said.
fn check(world: &World, more: &[&str]) -> (bool, String) {
    let output = world.command(&[&["check"], more].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}: {said}", output.status);
    (output.status.success(), said)
}

fn wrong(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.starts_with("  WRONG")).collect()
}

#[test]
fn it_says_what_is_missing_until_nothing_is() {
    let world = World::new();
    let (_, said) = check(&world, &[]);
    let found = wrong(&said);
    assert_eq!(found.len(), 2, "{said}");
    assert!(found[0].contains("`highwater migrate`") && found[1].contains("llm-calls does not exist"), "{said}");

    world.generate(&["--events", "100"]);
    world.done(&["migrate"]);
    let (right, said) = check(&world, &[]);
    assert!(right && said.ends_with("\nall is right\n"), "{said}");
    assert!(said.contains("with 4 partitions") && said.contains("nobody has written it"), "{said}");

    world.query("DROP VIEW highwater.llm_call_1m");
    world.query("ALTER TABLE highwater.llm_call DROP COLUMN latency_ms");
    let line = "('llm-calls', 1, 'another', 'another', 'highwater')";
    let (_, said) = check(&world, &["--setting", &format!("kafka.topics={TOPIC},nowhere")]);
    let found = wrong(&said);
    assert_eq!(found.len(), 3, "{said}");
    for (found, part) in found.iter().zip(["missing: llm_call_1m", "no column latency_ms", "nowhere does not exist"]) {
        assert!(found.contains(part), "{part}: {said}");
    }
    world.done(&["migrate"]);
    world.query(&format!("INSERT INTO highwater.sources (topic, epoch, cluster_id, topic_id, `group`) VALUES {line}"));
    let (_, said) = check(&world, &[]);
    assert_eq!(wrong(&said).len(), 1, "{said}");
    assert!(said.contains("is not the one that this database knows"), "{said}");
}
