//! `highwater alerts test`: rules of packs tried on given numbers, without a server.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;

use crate::alert::try_file;
use crate::command::load;
use crate::command::report::Report;
use crate::config::Settings;

/// What `highwater alerts test` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Files of tests; docs/alerts.md says how they are written
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Runs the tests of all files against the packs of the settings, and writes how each went; false: one failed.
///
/// # Errors
/// A file, a schema or a pack can't be read or is wrong; `out` can't be written to.
pub(super) fn run(settings: &Settings, args: &Args, out: impl Write) -> Result<bool> {
    let plan = load::plan(settings)?;
    let mut report = Report::new(out);
    for path in &args.files {
        let (file, text) = load::text(path)?;
        report.about(&file)?;
        match try_file(&file, &text, &plan.alerts, &plan.rollups) {
            Err(error) => report.wrong(error)?,
            Ok(tests) => {
                for test in tests {
                    if test.failures.is_empty() {
                        let told = test.messages.len();
                        report.ok(&format!("{}: {told} message{}", test.name, if told == 1 { "" } else { "s" }))?;
                    } else {
                        report.wrong(format!("{}\n{}", test.name, test.failures.join("\n")))?;
                    }
                }
            }
        }
    }
    report.end("")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tried(test: &str) -> (bool, String) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("t.toml");
        std::fs::write(&path, test).unwrap();
        let settings = crate::config::load(None, [], &[]).unwrap();
        let mut out = Vec::new();
        let passed = run(&settings, &Args { files: vec![path] }, &mut out).unwrap();
        (passed, String::from_utf8(out).unwrap())
    }

    #[test]
    fn tests_of_the_shipped_rules_pass_and_wrong_ones_fail() {
        let good = include_str!("../../../packs/tests/llm.toml");
        let (passed, out) = tried(good);
        assert!(
            passed && out.contains("ok       half of all calls fail: 2 messages") && out.contains("all is right"),
            "{out}"
        );
        let (passed, out) = tried(include_str!("../../../packs/tests/suggestions.toml"));
        assert!(passed, "{out}");
        let (passed, out) = tried(&good.replacen("at = \"", "at = \"1", 1));
        assert!(!passed && out.contains("it was not told"), "{out}");
        let (passed, out) = tried("[[test]]");
        assert!(!passed && out.contains("missing field `name`"), "{out}");
    }
}
