//! `highwater check` and `highwater schema check` as an operator and a service's CI see them: what is told, all of it at
//! once, and the exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A configuration of its own: the shipped schemas, packs and prices, to be spoiled.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in ["schemas", "packs"] {
            std::fs::create_dir(folder.path(name)).unwrap();
            for file in std::fs::read_dir(root.join(name)).unwrap() {
                let file = file.unwrap();
                if file.path().is_dir() {
                    continue; // what rules are tried on; former schemas
                }
                std::fs::copy(file.path(), folder.path(name).join(file.file_name())).unwrap();
            }
        }
        std::fs::copy(root.join("prices.toml"), folder.path("prices.toml")).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Replaces the first of a text in a file; answers the line, from 1, in which it stands.
    fn spoil(&self, name: &str, from: &str, to: &str) -> usize {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        let at = text.find(from).unwrap_or_else(|| panic!("{name} has no {from}"));
        self.write(name, &text.replacen(from, to, 1));
        1 + text[..at].matches('\n').count()
    }

    /// The exit code and all that was said.
    fn highwater(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        let ours = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("HIGHWATER_"));
        for name in ours {
            command.env_remove(name);
        }
        let output = command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null()).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code().unwrap(), said)
    }

    fn schema_check(&self, arguments: &[&str]) -> (i32, String) {
        self.highwater(&[&["schema", "check"], arguments].concat())
    }
}

/// A port at which nobody listens.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn count(said: &str, mark: &str) -> usize {
    said.lines().filter(|line| line.trim_start().starts_with(mark)).count()
}

#[test]
fn five_mistakes_are_told_in_one_run() {
    let folder = Folder::new();
    let (clickhouse, kafka) = (nobody(), nobody());
    folder.write(
        "highwater.toml",
        &format!("workers = 0\n[clickhouse]\nurl = \"http://{clickhouse}\"\n[kafka]\nbrokers = [\"{kafka}\"]\n"),
    );
    folder.spoil("schemas/llm_call.avsc", r#""role": "measure""#, r#""role": "mesure""#);
    let line = folder.spoil("packs/cache.toml", "by = [\"app\"", "by = [\"aap\"");
    folder.spoil("prices.toml", "input = \"", "input = \"-");
    let (code, said) = folder.highwater(&["check"]);
    assert_eq!(code, 1, "{said}");
    let parts = [
        "workers: found 0 in highwater.toml",
        "schemas/llm_call.avsc:",
        &format!("packs/cache.toml:{line}: "),
        "did you mean",
        "prices.toml: ",
        &format!("ClickHouse at {clickhouse}: "),
        "\n6 problems\n",
    ];
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
    // Packs over the event type that can't be read are not blamed for that.
    assert!(!said.contains("packs/llm.toml"), "{said}");
    assert_eq!(count(&said, "WRONG"), 6, "beside the five, Kafka is not there either:\n{said}");
    for place in
        ["settings: highwater.toml", "schemas: ", "packs: ", "prices: ", "ClickHouse: ", "Kafka: ", "schema registry: "]
    {
        assert_eq!(count(&said, place), 1, "{place:?} in\n{said}");
    }
}

#[test]
fn what_is_right_is_said_to_be() {
    let folder = Folder::new();
    let (code, said) = folder.highwater(&["check", "--offline"]);
    assert_eq!((code, count(&said, "WRONG"), count(&said, "ok ")), (0, 0, 4), "{said}");
    assert!(said.contains("all is right (connections were not looked at)"), "{said}");
    assert!(said.contains("3 event types: cache_access, llm_call, suggestion\n"), "{said}");
}

/// Whoever installed rules and named no topic waits for alerts that never come.
#[test]
fn rules_that_nobody_judges_are_counted() {
    let folder = Folder::new();
    let unjudged = "budgets of the packs are not judged, as alerts.topic is \"\"; name a topic";
    let (code, said) = folder.highwater(&["check", "--offline"]);
    assert!(code == 0 && said.contains(unjudged) && count(&said, "note") == 1, "{said}");
    folder.write("highwater.toml", "[alerts]\ntopic = \"highwater-alerts\"\n");
    let (code, said) = folder.highwater(&["check", "--offline"]);
    assert!(code == 0 && count(&said, "note") == 0, "{said}");
    folder.write("highwater.toml", "");
    for pack in std::fs::read_dir(folder.path("packs")).unwrap() {
        std::fs::remove_file(pack.unwrap().path()).unwrap();
    }
    let (code, said) = folder.highwater(&["check", "--offline"]);
    assert!(code == 0 && count(&said, "note") == 0, "there is nothing to judge: {said}");
}

#[test]
fn former_schemas_are_looked_at_too() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("schemas/former")).unwrap();
    let text = std::fs::read_to_string(folder.path("schemas/suggestion.avsc")).unwrap();
    folder.write("schemas/former/suggestion.1.avsc", &text.replacen("\"elapsed_ms\"", "\"taken_ms\"", 1));
    let (code, said) = folder.highwater(&["check", "--offline"]);
    assert!(code == 0 && said.contains("cache_access, llm_call, suggestion; former schemas: 1\n"), "{code}: {said}");
    folder.spoil("schemas/former/suggestion.1.avsc", "\"app\"", "\"application\"");
    let (code, said) = folder.highwater(&["check", "--offline"]);
    assert_eq!((code, count(&said, "WRONG")), (1, 1), "{said}");
    assert!(said.contains("schemas/former/suggestion.1.avsc") && said.contains("field `app`"), "{said}");
}

#[test]
fn what_can_t_be_read_at_all_hides_nothing_else() {
    let folder = Folder::new();
    std::fs::remove_dir_all(folder.path("schemas")).unwrap();
    std::fs::remove_file(folder.path("prices.toml")).unwrap();
    folder.write("packs/cache.toml", "[[rollup]\n");
    let (code, said) = folder.highwater(&["check", "--offline", "--setting", "batch.rows=none"]);
    assert_eq!((code, count(&said, "WRONG")), (1, 4), "{said}");
    for part in ["batch.rows", "setting events.schemas", "packs/cache.toml:1: not a pack", "setting events.prices"] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
    folder.write("highwater.toml", "[kafka\n");
    let (code, said) = folder.highwater(&["check"]);
    assert_eq!((code, count(&said, "WRONG"), count(&said, "skipped")), (1, 1, 1), "{said}");
    assert_eq!(folder.highwater(&["check", "--no-such-flag"]).0, 2);
    assert_eq!(folder.highwater(&["check", "and more"]).0, 2);
}

#[test]
fn a_wrong_command_line_is_told_apart_from_a_wrong_schema() {
    let folder = Folder::new();
    assert_eq!(folder.schema_check(&[]).0, 2);
    let (code, said) = folder.schema_check(&["none.avsc", "schemas/llm_call.avsc", "nor_this.avsc"]);
    assert!(code == 2 && said.contains("none.avsc") && said.contains("nor_this.avsc"), "{code}: {said}");
    let (code, said) = folder.schema_check(&["schemas/llm_call.avsc", "--registry"]);
    assert!(code == 2 && said.contains("registry.url"), "{code}: {said}");
    for (text, part) in [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("\"long\"", "it is an Avro long"),
        ("{\"type\": \"record\", \"name\": \"a\"}", "not a valid Avro schema"),
        ("{\"type\": \"record\", \"name\": \"a\", \"fields\": []}", "field `event_id`"),
    ] {
        folder.write("mine.avsc", text);
        let (code, said) = folder.schema_check(&["mine.avsc"]);
        assert!(code == 1 && said.contains("WRONG    mine.avsc") && said.contains(part), "{text}: {code}: {said}");
    }
}

#[test]
fn new_types_and_those_that_run_are_fine_and_none_is_declared_twice() {
    let folder = Folder::new();
    let (code, said) = folder.schema_check(&["schemas/llm_call.avsc", "schemas/suggestion.avsc"]);
    assert!(code == 0 && said.contains("llm_call is what highwater runs with"), "{code}: {said}");
    std::fs::copy(folder.path("schemas/llm_call.avsc"), folder.path("mine.avsc")).unwrap();
    let (code, said) = folder.schema_check(&["schemas/llm_call.avsc", "mine.avsc"]);
    assert!(code == 1 && said.contains("as schemas/llm_call.avsc does already"), "{code}: {said}");
    folder.spoil("mine.avsc", r#""name": "llm_call""#, r#""name": "translation""#);
    let (code, said) = folder.schema_check(&["mine.avsc"]);
    assert!(code == 0 && said.contains("translation is a new event type"), "{code}: {said}");
}

#[test]
fn each_incompatible_field_is_told_with_its_reason() {
    let folder = Folder::new();
    let id = r#"{"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}, "highwater": {"role": "id"}},
        {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "highwater": {"role": "time"}},
        {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
        {"name": "environment", "type": "string", "highwater": {"role": "dimension"}}"#;
    let schema = |more: &str| format!(r#"{{"type": "record", "name": "visit", "fields": [{id}{more}]}}"#);
    let before = r#", {"name": "pages", "type": "long"}, {"name": "seconds", "type": "int"},
        {"name": "kind", "type": {"type": "enum", "name": "kinds", "symbols": ["a", "b"]}}"#;
    folder.write("schemas/visit.avsc", &schema(before));

    let grown = format!(r#"{before}, {{"name": "note", "type": ["null", "string"], "default": null}}"#);
    folder.write("mine.avsc", &schema(&grown));
    let (code, said) = folder.schema_check(&["mine.avsc"]);
    assert!(
        code == 0 && said.contains("visit is compatible") && said.contains("schemas/former: without"),
        "{code}: {said}"
    );

    let changed = r#", {"name": "seconds", "type": "string"}, {"name": "reason", "type": "string"},
        {"name": "kind", "type": {"type": "enum", "name": "kinds", "symbols": ["a", "b", "c"]}}"#;
    folder.write("mine.avsc", &schema(changed));
    let (code, said) = folder.schema_check(&["mine.avsc"]);
    assert_eq!(code, 1, "{said}");
    // What runs misses `pages`, and can't read the other two; with the new one `reason` was never written.
    for part in ["`pages`", "`seconds`", "`kind` (some values only)", "`reason`", "the column `seconds`"] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
    assert_eq!(count(&said, "WRONG"), 6, "{said}");
}

/// Answers each question with the same body, and says what was asked.
fn registry(status: &'static str, body: String) -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (asked, questions) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let question = lines.next().unwrap();
            lines.find(String::is_empty);
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").unwrap();
            asked.send(question).unwrap();
        }
    });
    (address, questions)
}

#[test]
fn the_registry_is_asked_for_the_latest_version() {
    let folder = Folder::new();
    let text = std::fs::read_to_string(folder.path("schemas/suggestion.avsc")).unwrap();
    let check = |address: &str| {
        let url = format!("registry.url={address}");
        folder.schema_check(&["schemas/suggestion.avsc", "--registry", "--setting", &url])
    };
    let older = text.replacen("\"app\"", "\"application\"", 1);
    let (address, questions) = registry("200 OK", serde_json::json!({ "schema": older }).to_string());
    let (code, said) = check(&address);
    assert!(code == 1 && said.contains("field `app`"), "{code}: {said}");
    let question = questions.recv().unwrap();
    assert!(
        question.starts_with("GET /subjects/usage-events-") && question.contains("suggestion/versions/latest "),
        "{question}"
    );

    let (address, _questions) = registry("200 OK", serde_json::json!({ "schema": text }).to_string());
    let (code, said) = check(&address);
    assert!(code == 0 && said.contains("it reads what is written with the registry's latest"), "{code}: {said}");
    let missing = r#"{"error_code": 40401, "message": "Subject not found."}"#;
    let (address, _questions) = registry("404 Not Found", missing.to_owned());
    let (code, said) = check(&address);
    assert!(code == 0 && said.contains("nothing under the subject"), "{code}: {said}");
    let (code, said) = check(&format!("http://{}", nobody()));
    assert!(code == 1 && said.contains("WRONG") && said.contains("refused"), "{code}: {said}");
}

/// A ClickHouse that answers statements as `answer` has it: an error's code and text, or the body.
fn clickhouse(answer: impl Fn(&str) -> Result<&'static str, (u32, &'static str)> + Send + 'static) -> String {
    use std::io::Read as _;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut input = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut statement) = (Vec::new(), String::new());
            loop {
                let mut line = String::new();
                if input.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                head.push(line.to_ascii_lowercase());
            }
            if head.is_empty() {
                continue;
            }
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
            if let Some(length) = length {
                input.take(length).read_to_string(&mut statement).unwrap();
            } else {
                // In chunks: each has its length before it.
                loop {
                    let mut line = String::new();
                    input.read_line(&mut line).unwrap();
                    let length = u64::from_str_radix(line.trim(), 16).unwrap();
                    if length == 0 {
                        break;
                    }
                    let mut chunk = vec![0; usize::try_from(length).unwrap() + 2];
                    input.read_exact(&mut chunk).unwrap();
                    chunk.truncate(chunk.len() - 2);
                    statement.push_str(&String::from_utf8(chunk).unwrap());
                }
            }
            let (status, header, body) = match answer(&statement) {
                Ok(body) => ("200 OK", String::new(), body.to_owned()),
                Err((code, text)) => {
                    let status = match code {
                        516 => "403 Forbidden",
                        81 => "404 Not Found",
                        _ => "500 Internal Server Error",
                    };
                    let body = format!("Code: {code}. DB::Exception: {text} (version 26.7.3.1 (official build))\n");
                    (status, format!("X-ClickHouse-Exception-Code: {code}\r\n"), body)
                }
            };
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\n{header}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    address
}

const MAY_NOT: &str = "highwater: Not enough privileges. To execute this query, it's necessary to have the grant ";

fn asked_of(folder: &Folder, clickhouse: &str, command: &str) -> (i32, String) {
    let (url, brokers) = (format!("clickhouse.url={clickhouse}"), format!("kafka.brokers={}", nobody()));
    let user = ["--setting", "clickhouse.user=highwater", "--setting", "telemetry.listen="];
    let begun = std::time::Instant::now();
    let answer = folder.highwater(
        &[&[command, "--setting", &url, "--setting", &brokers, "--setting", "kafka.topics=t"][..], &user].concat(),
    );
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{command} took {:?}", begun.elapsed());
    answer
}

/// Errors that come again until an administrator does something end every command, and say what he is to do.
#[test]
fn a_clickhouse_that_denies_is_told_with_what_to_grant() {
    let folder = Folder::new();
    let failed = "highwater: Authentication failed: password is incorrect, or there is no user with such name. (AUTHENTICATION_FAILED)";
    let read_only = "Cannot modify 'max_query_size' setting in readonly mode. (READONLY)";
    for (code, text, part) in [
        (516, failed, "look at clickhouse.user and clickhouse.password"),
        (164, read_only, "let an administrator give it readonly = 0"),
        (81, "Database highwater does not exist. (UNKNOWN_DATABASE)", "highwater migrate"),
    ] {
        let address = clickhouse(move |_| Err((code, text)));
        for command in ["check", "run", "migrate"] {
            let (exit, said) = asked_of(&folder, &address, command);
            assert!(exit == 1 && said.contains(part), "{code} {command}: {exit}: {said}");
        }
    }
}

#[test]
fn each_statement_that_is_denied_names_its_grant() {
    let folder = Folder::new();
    // No row, and no right to one.
    let nothing = |statement: &str| match statement {
        _ if statement.contains("version()") => Ok("{\"version\": \"26.7\"}\n"),
        _ if statement.contains("CHECK GRANT") => Ok("{\"result\": 0}\n"),
        _ => Ok(""),
    };
    let address = clickhouse(nothing);
    for command in ["check", "run"] {
        let (exit, said) = asked_of(&folder, &address, command);
        let lines = said.lines().filter(|line| {
            line.contains("run: GRANT SELECT, INSERT ON `highwater`.* TO `highwater`")
                && line.contains("the user highwater lacks")
        });
        assert!(exit == 1 && lines.count() == 1, "{command}: {exit}: {said}");
    }
    let denials: [(&str, &'static str, &str); 5] = [
        ("CREATE DATABASE", "CREATE DATABASE ON highwater.*", "GRANT CREATE DATABASE ON highwater.* TO `highwater`"),
        (
            "CREATE TABLE",
            "CREATE TABLE ON highwater.llm_call",
            "GRANT CREATE TABLE ON highwater.llm_call TO `highwater`",
        ),
        ("VIEW", "CREATE VIEW ON highwater.llm_call_1m", "GRANT CREATE VIEW ON highwater.llm_call_1m TO `highwater`"),
        (
            "system.columns",
            "SELECT(table, name, type) ON system.columns",
            "GRANT SELECT ON system.columns TO `highwater`",
        ),
        ("system.tables", "SHOW TABLES ON highwater.*", "GRANT SHOW TABLES ON highwater.* TO `highwater`"),
    ];
    for (statement, grant, expected) in denials {
        let text: &'static str = format!("{MAY_NOT}{grant}. (ACCESS_DENIED)").leak();
        let address =
            clickhouse(move |asked| if asked.contains(statement) { Err((497, text)) } else { nothing(asked) });
        let (exit, said) = asked_of(&folder, &address, "migrate");
        assert!(exit == 1 && said.contains(expected), "{statement}: {exit}: {said}");
    }
    // A right to ask for rights is not a given either.
    let text: &'static str = format!("{MAY_NOT}SELECT ON highwater.*. (ACCESS_DENIED)").leak();
    let address =
        clickhouse(move |asked| if asked.contains("CHECK GRANT") { Err((497, text)) } else { nothing(asked) });
    for command in ["check", "run"] {
        let (exit, said) = asked_of(&folder, &address, command);
        assert!(exit == 1 && said.contains("GRANT SELECT ON highwater.* TO `highwater`"), "{command}: {exit}: {said}");
    }
}
