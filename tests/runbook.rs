//! The runbook has what the program says: each message that an operator may find in the log has a heading there, and each
//! heading is of words that the program has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

/// Where messages come from that are not said by `tracing` itself: a command's or a start's end.
const ENDS: [&str; 14] = [
    "clickhouse/claim.rs",
    "clickhouse/schema.rs",
    "command/audit.rs",
    "command/dead_letters/give_up.rs",
    "command/dead_letters/redrive.rs",
    "command/migrate.rs",
    "command/rewind.rs",
    "command/rewind/cut.rs",
    "command/rewind/redriven.rs",
    "command/run.rs",
    "command/run/threads.rs",
    "kafka/bounds.rs",
    "kafka/identity.rs",
    "partition/stop.rs",
];

/// What only says where somebody else's words come from, or what can't be otherwise on a sound system.
const FRAMES: [&str; 9] = [
    "can't freeze at",
    "partition stopped: {stop}",
    "{0}; restart, which says",
    "waiting for the worker",
    "waiting for {}",
    "starting a worker's thread",
    "listening for SIGTERM",
    "the topic has an epoch",
    "no message",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The literals of a text up to where a parenthesis that it opens is closed again, continued lines put together.
fn literals(text: &str) -> Vec<String> {
    let (mut found, mut depth, mut chars) = (Vec::new(), 0, text.chars().peekable());
    while let Some(char) = chars.next() {
        match char {
            '(' => depth += 1,
            ')' if depth == 1 => break,
            ')' => depth -= 1,
            '\'' if chars.next_if_eq(&'"').is_some() => {} // a quote as a character
            '"' => {
                let mut literal = String::new();
                loop {
                    match chars.next() {
                        None | Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some('\n') => while chars.next_if(|char| char.is_whitespace()).is_some() {},
                            escaped => literal.extend(escaped),
                        },
                        Some(char) => literal.push(char),
                    }
                }
                found.push(literal);
            }
            _ => {}
        }
    }
    found
}

/// What follows these words in a file, without what is tested with it.
fn calls<'a>(text: &'a str, names: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    names.iter().flat_map(move |name| code.match_indices(name)).map(|(at, _)| &code[at..])
}

/// A message: several words of its own.
fn is_message(literal: &str) -> bool {
    literal.split(|char: char| !char.is_alphabetic()).filter(|word| word.len() > 1).count() > 2
}

fn headings() -> Vec<String> {
    let runbook = include_str!("../docs/runbook.md");
    let lines = runbook.lines().filter(|line| line.starts_with("### "));
    lines.flat_map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn each_message_has_a_heading() {
    let (root, headings) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), headings());
    let mut files = Vec::new();
    sources(&root, &mut files);
    let (mut messages, mut missing) = (0, Vec::new());
    for file in files {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        if name.ends_with("tests.rs") {
            continue;
        }
        let mut names = vec!["tracing::warn!", "tracing::error!"];
        if ENDS.contains(&name.as_str()) {
            names.extend(["#[error(", "bail!(", "ensure!(", "anyhow!(", ".context(\""]);
        }
        for message in calls(&text, &names).flat_map(literals).filter(|literal| is_message(literal)) {
            messages += 1;
            let is_told = headings.iter().any(|heading| message.contains(heading.as_str()));
            if !is_told && !FRAMES.iter().any(|frame| message.contains(frame)) {
                missing.push(format!("{name}: {message}"));
            }
        }
    }
    assert!(messages > 50, "only {messages} messages were found");
    assert!(missing.is_empty(), "docs/runbook.md has no heading for\n{}", missing.join("\n"));
}

/// Without line breaks that a literal goes on after.
fn joined(text: &str) -> String {
    let lines: Vec<&str> = text.split("\\\n").collect();
    let rest = lines[1..].iter().map(|line| line.trim_start());
    lines[..1].iter().copied().chain(rest).collect()
}

/// Headings whose words the program puts together.
const TOGETHER: [&str; 4] = [
    "waiting for ClickHouse",
    "waiting for the schema registry",
    "waiting for the webhook",
    "waiting for what alerts need",
];

#[test]
fn each_heading_is_of_words_that_the_program_says() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let said: Vec<String> = files.iter().map(|file| joined(&std::fs::read_to_string(file).unwrap())).collect();
    let mut unsaid = headings();
    unsaid.retain(|heading| !TOGETHER.contains(&heading.as_str()) && !said.iter().any(|text| text.contains(heading)));
    assert!(unsaid.is_empty(), "nothing says {unsaid:?}");
}
