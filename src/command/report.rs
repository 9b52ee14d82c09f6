//! The list that checks write: what is looked at, and below it what was found there.

use std::fmt::Display;
use std::io::Write;

use anyhow::{Context as _, Result};

/// Where a finding's further lines begin.
const INDENT: &str = "\n           ";

/// The list so far.
pub(super) struct Report<W> {
    out: W,
    problems: usize,
}

impl<W: Write> Report<W> {
    pub(super) fn new(out: W) -> Report<W> {
        Report { out, problems: 0 }
    }

    /// What is looked at from here on; shown before it is.
    pub(super) fn about(&mut self, what: &str) -> Result<()> {
        self.line(what)
    }

    pub(super) fn ok(&mut self, what: &str) -> Result<()> {
        self.finding("ok", what)
    }

    pub(super) fn wrong(&mut self, what: impl Display) -> Result<()> {
        self.problems += 1;
        self.finding("WRONG", what)
    }

    /// What was not looked at, and why.
    pub(super) fn skipped(&mut self, why: &str) -> Result<()> {
        self.finding("skipped", why)
    }

    /// What is right, and to be known.
    pub(super) fn note(&mut self, what: &str) -> Result<()> {
        self.finding("note", what)
    }

    /// Says how it is in all, and what was left out; whether nothing is wrong.
    pub(super) fn end(mut self, left_out: &str) -> Result<bool> {
        match self.problems {
            0 => self.line(&format!("\nall is right{left_out}"))?,
            1 => self.line(&format!("\n1 problem{left_out}"))?,
            many => self.line(&format!("\n{many} problems{left_out}"))?,
        }
        Ok(self.problems == 0)
    }

    fn finding(&mut self, mark: &str, what: impl Display) -> Result<()> {
        let what = what.to_string().trim_end().replace('\n', INDENT);
        self.line(&format!("  {mark:<8} {what}"))
    }

    fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).context("writing to standard output")
    }
}
