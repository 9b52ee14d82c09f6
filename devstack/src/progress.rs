//! Tells on standard error what is fetched, how much of it is there and how
//! long it has taken. Written past the test harness's capture: who waits for a
//! first test run wants to know for what.

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::log;

const EVERY: Duration = Duration::from_secs(2);

/// Prints one line.
pub(crate) fn say(line: &str) {
    // Progress that nobody can read is no reason to fail.
    let _ = writeln!(io::stderr(), "devstack: {line}");
}

/// Times the fetching of one thing.
#[derive(Debug)]
pub(crate) struct Clock {
    title: &'static str,
    started: Instant,
}

impl Clock {
    pub(crate) fn start(title: &'static str) -> Self {
        say(&format!("fetching {title}, once"));
        Clock { title, started: Instant::now() }
    }

    /// Runs `command`, which fills `folder`, with a line every two seconds.
    ///
    /// # Errors
    /// It cannot be started or fails; the message holds the end of its output.
    pub(crate) fn run(&self, command: &mut Command, folder: &Path) -> Result<()> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut output = tempfile::tempfile().context("cannot make a temporary file")?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut next = Instant::now() + EVERY;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > next {
                next += EVERY;
                say(&format!("fetching {} ({name}): {}", self.title, self.so_far(folder)));
            }
            thread::sleep(Duration::from_millis(50));
        };
        if !status.success() {
            let mut text = Vec::new();
            output.rewind()?;
            output.read_to_end(&mut text)?;
            let text = String::from_utf8_lossy(&text);
            bail!("{name} failed ({status}):\n{}", log::tail(&text));
        }
        Ok(())
    }

    /// Says that all is there.
    pub(crate) fn done(&self, folder: &Path) {
        say(&format!("fetched {}: {}", self.title, self.so_far(folder)));
    }

    fn so_far(&self, folder: &Path) -> String {
        format!("{} MB after {:.0} s", size(folder) / 1_000_000, self.started.elapsed().as_secs_f64())
    }
}

/// The bytes of all files below `folder`, as far as they can be read.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}
