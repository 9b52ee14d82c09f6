//! The program: what it starts ends with it, and it fetches each thing once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use devstack::http;
use devstack::sys::{self, Signal};

fn devstack() -> Command {
    Command::new(env!("CARGO_BIN_EXE_devstack"))
}

/// The processes below `pid`, with all of theirs.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(child) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        if parent(child) == Some(pid) {
            found.push(child);
            found.extend(descendants(child));
        }
    }
    found
}

/// The parent of a process that runs; `None` for one that has ended.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.next()?.parse().ok(),
    }
}

/// Starts `devstack up` and waits for its addresses: Kafka's, and ClickHouse's
/// HTTP port.
fn up(arguments: &[&str], temporary: &Path) -> (Child, String, u16) {
    let mut child =
        devstack().arg("up").args(arguments).env("TMPDIR", temporary).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let lines: Vec<String> = lines.take(2).map(Result::unwrap).collect();
    let word = |line: &String| line.split_whitespace().nth(1).unwrap().to_owned();
    let port = word(&lines[1]).rsplit(':').next().unwrap().parse().unwrap();
    (child, word(&lines[0]), port)
}

fn wait_until(what: &str, limit: Duration, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn servers_die_with_an_owner_that_is_killed() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut owner, _, _) = up(&[], temporary.path());
    let all = descendants(owner.id());
    assert_eq!(all.len(), 4, "two servers and their holders");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 2);

    sys::send(owner.id(), Signal::Kill).unwrap();
    owner.wait().unwrap();
    wait_until("all processes gone", Duration::from_secs(2), || all.iter().all(|pid| parent(*pid).is_none()));
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "folders are left");
}

#[test]
fn a_frozen_server_dies_too() {
    let temporary = tempfile::tempdir().unwrap();
    let (mut owner, _, _) = up(&[], temporary.path());
    let all = descendants(owner.id());
    for holder in all.iter().filter(|pid| parent(**pid) == Some(owner.id())) {
        for server in descendants(*holder) {
            sys::send(server, Signal::Pause).unwrap();
        }
    }
    sys::send(owner.id(), Signal::Kill).unwrap();
    owner.wait().unwrap();
    wait_until("all processes gone", Duration::from_secs(2), || all.iter().all(|pid| parent(*pid).is_none()));
}

#[test]
fn a_kept_folder_goes_on_where_it_stopped() {
    let temporary = tempfile::tempdir().unwrap();
    let kept = tempfile::tempdir().unwrap();
    let arguments = ["--dir", kept.path().to_str().unwrap()];
    let query = |port: u16, sql: &str| http::request(port, "POST", "/", sql, Duration::from_secs(10)).unwrap().body;
    let stop = |mut owner: Child| {
        sys::send(owner.id(), Signal::Terminate).unwrap();
        assert!(owner.wait().unwrap().success());
    };
    let identity = || fs::read_to_string(kept.path().join("kafka/data/meta.properties")).unwrap();

    let (owner, _, port) = up(&arguments, temporary.path());
    query(port, "CREATE TABLE t (a Int32) ENGINE = MergeTree ORDER BY a");
    query(port, "INSERT INTO t VALUES (7)");
    let before = identity();
    stop(owner);
    let (owner, _, port) = up(&arguments, temporary.path());
    assert_eq!(query(port, "SELECT a FROM t"), "7\n");
    stop(owner);
    let cluster = |text: String| text.lines().find(|line| line.starts_with("cluster.id=")).map(str::to_owned);
    assert_eq!(cluster(before).unwrap(), cluster(identity()).unwrap());
}

#[test]
fn all_missing_programs_are_named() {
    let home = tempfile::tempdir().unwrap();
    let output = devstack().arg("fetch").env("PATH", "").env(devstack::HOME_VARIABLE, home.path()).output().unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("not found on the PATH: java, mvn, npm, tar"), "{message}");
    assert!(message.contains("apt-get install openjdk-17-jre-headless maven npm tar"), "{message}");
}

/// A PATH whose `npm` packs a file that is no library, slowly, and writes a
/// line to `calls`. The first call never comes to that, so that whoever made it
/// is interrupted in its middle; it ends when `calls` is removed.
fn slow_npm(folder: &Path) -> String {
    let npm = folder.join("npm");
    let script = "#!/bin/sh
echo called >> \"$CALLS\"
if [ \"$(wc -l < \"$CALLS\")\" -eq 1 ]; then
    left=1200
    while [ -e \"$CALLS\" ] && [ $left -gt 0 ]; do sleep 0.1; left=$((left - 1)); done
    exit 1
fi
sleep 1
mkdir \"$4/package\" && echo text > \"$4/package/libchdb.so\"
tar czf \"$4/x.tgz\" -C \"$4\" package && rm -r \"$4/package\"
";
    fs::write(&npm, script).unwrap();
    fs::set_permissions(&npm, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/bin:/bin", folder.display())
}

#[test]
fn two_fetches_at_once_fetch_once_and_an_interrupted_one_is_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let path = slow_npm(folder.path());
    let calls = folder.path().join("calls");
    let count = || fs::read_to_string(&calls).unwrap_or_default().lines().count();
    let home = folder.path().join("home");
    let fetch = || {
        let mut command = devstack();
        command.args(["clickhouse-local", "--version"]);
        command.env("PATH", &path).env("CALLS", &calls).env(devstack::HOME_VARIABLE, &home);
        command.stderr(Stdio::piped()).spawn().unwrap()
    };

    let mut interrupted = fetch();
    wait_until("npm called", Duration::from_secs(5), || count() == 1);
    sys::send(interrupted.id(), Signal::Kill).unwrap();
    interrupted.wait().unwrap();

    let both = [fetch(), fetch()].map(|child| child.wait_with_output().unwrap());
    assert_eq!(count(), 2, "one call interrupted, one for both");
    for output in both {
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains("cannot open"), "{message}");
        assert!(message.contains("libchdb.so"), "{message}");
    }
    let left: Vec<String> = fs::read_dir(&home)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("partial-"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}
