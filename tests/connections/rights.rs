//! A broker that denies: what is missing is told, all of it and with the command that grants it, and what the
//! documentation says is enough is enough.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use devstack::{ClickHouse, Kafka, SecureListener, Stack};

use crate::support::{TOPIC, World};

const USER: &str = "highwater";
const GROUP: &str = "highwater";
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker at which our user may do nothing yet.
fn denied() -> World {
    let users = vec![(USER.to_owned(), "secret".to_owned())];
    let kafka = Kafka::options().denying().secure(SecureListener {
        protocol: "SASL_PLAINTEXT",
        users,
        ..SecureListener::default()
    });
    let stack = Stack::start_with(kafka, ClickHouse::options()).unwrap();
    let mut world = World::of(stack);
    // Those of the plain port may do all.
    world.generate(&["--events", "1000"]);
    world.done(&["migrate"]);
    for (key, value) in [
        ("KAFKA__BROKERS", world.stack.kafka.secure_bootstrap(0).unwrap().as_str()),
        ("KAFKA__SECURITY", "sasl_plaintext"),
        ("KAFKA__SASL_MECHANISM", "SCRAM-SHA-256"),
        ("KAFKA__USERNAME", USER),
        ("KAFKA__PASSWORD", "secret"),
        ("KAFKA__GROUP", GROUP),
    ] {
        world.set(key, value);
    }
    world
}

/// Exit code and all that is said; it must not hang.
fn said(world: &World, arguments: &[&str]) -> (i32, String) {
    let begun = Instant::now();
    let output = world.command(arguments).output().unwrap();
    assert!(begun.elapsed() < PATIENCE, "{arguments:?} took {:?}", begun.elapsed());
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code().unwrap(), said)
}

/// The commands of `kafka-acls.sh` in a text, without what stands before them in their lines.
fn commands(text: &str) -> BTreeSet<String> {
    let of = |line: &str| line.find("kafka-acls.sh ").map(|at| line[at..].trim_end().to_owned());
    text.lines().filter(|line| line.contains(" --add ")).filter_map(of).collect()
}

/// Those that are said to be missing to run, of which there is a line each.
fn missing(text: &str) -> BTreeSet<String> {
    let lines =
        text.lines().filter(|line| line.contains("lacks the right") && !line.contains("without it there is no metric"));
    commands(&lines.collect::<Vec<_>>().join("\n"))
}

/// Runs a command as it was printed, but for the address of the brokers.
fn obey(world: &World, command: &str) {
    let words: Vec<&str> = command.split_whitespace().map(|word| word.trim_matches('\'')).collect();
    let at = words.iter().position(|word| *word == "--bootstrap-server").unwrap();
    world.stack.kafka.acls(&words[at + 2..]).unwrap();
}

fn revoke(world: &World, command: &str) {
    obey(world, &command.replace(" --add ", " --remove --force "));
}

/// ACLs reach a broker a moment after they were made.
fn until(world: &World, arguments: &[&str], is_so: impl Fn(i32, &str) -> bool) -> (i32, String) {
    let begun = Instant::now();
    loop {
        let (code, said) = said(world, arguments);
        if is_so(code, &said) {
            return (code, said);
        }
        assert!(begun.elapsed() < PATIENCE, "{arguments:?}: {code}: {said}");
    }
}

fn is_named(said: &str, operation: &str, what: &str, option: &str) -> bool {
    let parts = [
        format!("User:{USER} lacks the right {operation} on the {what}"),
        format!("--allow-principal User:{USER} --operation {operation} {option} --resource-pattern-type literal"),
    ];
    said.lines().any(|line| parts.iter().all(|part| line.contains(part)))
}

fn names_topic(said: &str) -> bool {
    is_named(said, "Read", &format!("topic {TOPIC}"), &format!("--topic {TOPIC}"))
}

fn names_group(said: &str) -> bool {
    is_named(said, "Read", &format!("consumer group {GROUP}"), &format!("--group {GROUP}"))
}

#[test]
fn each_right_that_is_missing_is_told_with_what_grants_it() {
    let world = denied();
    // With nothing granted, both at once, whoever asks.
    for command in ["check", "run"] {
        let (code, said) = said(&world, &[command]);
        assert!(code == 1 && names_topic(&said) && names_group(&said), "{command}: {code}: {said}");
        assert_eq!(missing(&said).len(), 2, "{command}: {said}");
    }
    let (code, report) = said(&world, &["audit"]);
    assert!(code == 3 && report.contains("highwater check"), "{code}: {report}");

    // To see a topic or a group is not to read it.
    for (option, name) in [("--topic", TOPIC), ("--group", GROUP)] {
        let allowed = ["--add", "--allow-principal", "User:highwater", "--operation", "Describe", option, name];
        world.stack.kafka.acls(&allowed).unwrap();
    }
    let (_, report) = until(&world, &["check"], |_, said| said.contains("with 4 partitions"));
    assert!(names_topic(&report) && names_group(&report), "{report}");

    // What is told, done, is enough for it.
    for command in missing(&report) {
        obey(&world, &command);
    }
    let (_, report) = until(&world, &["check"], |code, _| code == 0);
    assert!(missing(&report).is_empty() && report.contains("DescribeConfigs"), "{report}");
    let mut process = world.run("granted");
    world.wait_for(1_000, &mut process, PATIENCE);

    // Taken away while it runs.
    let (topic, group) = (format!("--topic {TOPIC} "), format!("--group {GROUP} "));
    let begun = Instant::now();
    revoke(
        &world,
        &format!("kafka-acls.sh --bootstrap-server x --add --allow-principal User:highwater --operation Read {topic}"),
    );
    let status = loop {
        if let Some(status) = process.child.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < PATIENCE, "it goes on without the right: {}", process.said());
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(status.code(), Some(1), "{}", process.said());
    assert!(names_topic(&process.said()) && !names_group(&process.said()), "{}", process.said());
    revoke(
        &world,
        &format!("kafka-acls.sh --bootstrap-server x --add --allow-principal User:highwater --operation Read {group}"),
    );
    let (code, report) = until(&world, &["run"], |_, said| names_group(said));
    assert!(code == 1 && names_topic(&report), "{code}: {report}");
}

#[test]
fn whoever_writes_is_told_what_writing_takes() {
    let world = denied();
    let generate = |topic: &str| {
        ["generate", "--type", "llm_call", "--topic", topic, "--partitions", "4", "--events", "10"].map(str::to_owned)
    };
    let run = |topic: &str, is_so: &dyn Fn(i32, &str) -> bool| {
        let arguments = generate(topic);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        until(&world, &arguments, is_so).1
    };
    // There and not to be seen; not there.
    for topic in [TOPIC, "another"] {
        let report = run(topic, &|code, said| code == 1 && said.contains("lacks the right"));
        assert!(is_named(&report, "Write", &format!("topic {topic}"), &format!("--topic {topic}")), "{report}");
        missing(&report).iter().for_each(|command| obey(&world, command));
    }
    run(TOPIC, &|code, _| code == 0);
    let report = run("another", &|_, said| !said.contains("right Write"));
    assert!(is_named(&report, "Create", "topic another", "--topic another"), "{report}");
    missing(&report).iter().for_each(|command| obey(&world, command));
    run("another", &|code, _| code == 0);
}

fn is_for_alerts(command: &str) -> bool {
    ["--topic highwater-alerts", "--topic highwater-budgets", "--transactional-id"]
        .iter()
        .any(|of| command.contains(of))
}

/// What is printed, done, is enough to publish alerts too, and is what the documentation says. Until then events are
/// consumed without.
#[test]
fn alerts_are_told_once_all_that_is_said_to_be_missing_is_granted() {
    let mut world = denied().missed_soon();
    for what in [["--topic", TOPIC], ["--group", GROUP]] {
        let granted = ["--add", "--allow-principal", "User:highwater", "--operation", "Read"];
        world.stack.kafka.acls(&[&granted[..], &what[..]].concat()).unwrap();
    }
    until(&world, &["check"], |code, _| code == 0);
    world.set("ALERTS__TOPIC", "highwater-alerts");
    let (code, report) = said(&world, &["check"]);
    assert!(
        code == 1 && missing(&report).len() == 4 && missing(&report).iter().all(|one| is_for_alerts(one)),
        "{report}"
    );
    let mut granted = BTreeSet::new();
    loop {
        let mut process = world.run("run");
        let judging = "judging alerts";
        let begun = Instant::now();
        while !process.said().contains(judging) && missing(&process.said()).is_subset(&granted) {
            assert!(process.child.try_wait().unwrap().is_none() && begun.elapsed() < PATIENCE, "{}", process.said());
            std::thread::sleep(Duration::from_millis(100));
        }
        let report = process.said();
        if report.contains(judging) {
            break;
        }
        if granted.is_empty() {
            world.wait_for(1_000, &mut process, PATIENCE);
        }
        process.kill();
        for command in missing(&report).difference(&granted.clone()) {
            assert!(is_for_alerts(command), "{report}");
            obey(&world, command);
            granted.insert(command.clone());
        }
    }
    let (code, report) = said(&world, &["check"]);
    assert!(code == 0 && report.contains("the topic highwater-budgets is there and can be written"), "{report}");
    let printed = |command: &str| {
        let words: Vec<&str> = command.split_whitespace().collect();
        words[3..].join(" ").replace(" --resource-pattern-type literal", "")
    };
    let granted: BTreeSet<String> = granted.iter().map(|command| printed(command)).collect();
    let documentation = commands(&std::fs::read_to_string("docs/connections.md").unwrap());
    let documented = documentation.iter().filter(|command| is_for_alerts(command)).map(|command| printed(command));
    assert_eq!(granted, documented.collect());
}

/// The commands in docs/connections.md, word by word, and nothing else granted.
#[test]
fn what_the_documentation_grants_is_enough() {
    let mut world = denied();
    world.set("KAFKA__TOPICS", "usage-events");
    let documentation = std::fs::read_to_string("docs/connections.md").unwrap();
    let granted: BTreeSet<String> =
        commands(&documentation).into_iter().filter(|command| !is_for_alerts(command)).collect();
    let needed: Vec<&String> = granted
        .iter()
        .filter(|command| command.contains("--operation Read") || command.contains("DescribeConfigs"))
        .collect();
    assert_eq!(needed.len(), 3, "{granted:?}");
    assert!(needed.iter().all(|command| command.contains("User:highwater")), "{granted:?}");
    let writing: Vec<&String> = granted.iter().filter(|command| !needed.contains(command)).collect();
    writing.iter().for_each(|command| obey(&world, command));
    let generate =
        ["generate", "--type", "llm_call", "--topic", "usage-events", "--partitions", "2", "--events", "1000"];
    until(&world, &generate, |code, _| code == 0);
    writing.iter().for_each(|command| revoke(&world, command));
    until(&world, &["check"], |code, said| code == 1 && said.contains("lacks the right Read"));

    needed.iter().for_each(|command| obey(&world, command));
    let (_, report) = until(&world, &["check"], |code, _| code == 0);
    assert!(!report.contains("lacks"), "{report}");
    world.done(&["migrate"]);
    let mut process = world.run("classic");
    world.wait_for(1_000, &mut process, PATIENCE);
    let (code, report) = said(&world, &["check"]);
    assert!(code == 0 && !report.contains("lacks"), "{report}");
    let (status, said_then) = process.terminate();
    assert!(status.success() && !said_then.contains("lacks"), "{status}: {said_then}");

    // The brokers' own protocol: another kind of group, and other questions.
    world.set("KAFKA__PROTOCOL", "consumer");
    let mut command = world.command(&["run"]);
    for property in ["SESSION__TIMEOUT__MS", "HEARTBEAT__INTERVAL__MS"] {
        command.env_remove(format!("HIGHWATER_KAFKA__PROPERTIES__{property}"));
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let is_there = || world.query("SELECT count() FROM highwater.watermarks").trim() != "0";
    while !(is_there() && begun.elapsed() > Duration::from_secs(5)) {
        assert!(child.try_wait().unwrap().is_none() && begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(100));
    }
    let check = ["check", "--setting", "kafka.protocol=classic"];
    let (code, report) = said(&world, &check);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(code == 0 && !report.contains("lacks"), "{report}");
    world.set("KAFKA__PROTOCOL", "classic");
    assert!(world.done(&["audit"]).contains("clean"));
}
