//! What an audit says.

use std::fmt;

use serde::Serialize;

/// The result of an audit.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// What was checked, with figures.
    pub checks: Vec<Check>,
    /// What does not add up.
    pub findings: Vec<Finding>,
    /// What is worth knowing and no fault: batches in flight, rows that expired.
    pub notes: Vec<String>,
    /// Sums over the ledger.
    pub totals: Totals,
}

/// One check and what it went through.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What it covered.
    pub figures: String,
    /// How many findings it has.
    pub findings: usize,
}

/// Something that does not add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The table.
    pub table: String,
    /// `epoch/topic/partition`, where it concerns one.
    pub source: Option<String>,
    /// First offset of the range, where it concerns one.
    pub from: Option<u64>,
    /// One past its last.
    pub to: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// Sums over the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Partitions, in all their epochs.
    pub sources: u64,
    /// Ranges that are not empty.
    pub ranges: u64,
    /// Messages read.
    pub events: u64,
    /// Rows written.
    pub rows: u64,
    /// Messages that could not be read.
    pub dead_letters: u64,
    /// Events that had been seen before.
    pub duplicates: u64,
    /// Offsets that were no longer in the log.
    pub lost: u64,
}

impl Report {
    /// Whether everything adds up.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Records a check and its findings.
    pub(super) fn checked(&mut self, name: &'static str, figures: String, findings: Vec<Finding>) {
        self.checks.push(Check { name, figures, findings: findings.len() });
        self.findings.extend(findings);
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.table)?;
        if let Some(source) = &self.source {
            write!(f, " {source}")?;
        }
        if let (Some(from), Some(to)) = (self.from, self.to) {
            write!(f, " [{from}, {to})")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let verdict = match check.findings {
                0 => "ok".to_owned(),
                count => format!("{} FINDINGS", thousands(count as u64)),
            };
            writeln!(f, "{:<10} {verdict}: {}", check.name, check.figures)?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for finding in &self.findings {
            writeln!(f, "FINDING {finding}")?;
        }
        let totals = &self.totals;
        let verdict = match self.findings.len() {
            0 => "clean".to_owned(),
            count => format!("{} findings", thousands(count as u64)),
        };
        write!(
            f,
            "audit: {verdict} — {} events in {} ranges of {} partitions: {} rows, {} dead letters, {} duplicates",
            thousands(totals.events),
            thousands(totals.ranges),
            thousands(totals.sources),
            thousands(totals.rows),
            thousands(totals.dead_letters),
            thousands(totals.duplicates)
        )?;
        if totals.lost > 0 {
            write!(f, "; {} offsets were lost from the log before they were read", thousands(totals.lost))?;
        }
        if self.is_clean() {
            write!(f, "; nothing missing, nothing counted twice")?;
        }
        Ok(())
    }
}

/// A number with commas.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_groups_of_three() {
        let read = [0, 12, 999, 1_000, 19_366, 1_234_567].map(thousands);
        assert_eq!(read, ["0", "12", "999", "1,000", "19,366", "1,234,567"]);
    }

    #[test]
    fn a_report_ends_with_its_verdict() {
        let totals = Totals { sources: 4, ranges: 8, events: 19_366, rows: 19_366, ..Totals::default() };
        let mut report = Report { totals, ..Report::default() };
        assert_eq!(
            report.to_string(),
            "audit: clean — 19,366 events in 8 ranges of 4 partitions: 19,366 rows, 0 dead letters, 0 duplicates; \
             nothing missing, nothing counted twice"
        );
        let finding = Finding {
            table: "ledger".into(),
            source: Some("1/t/0".into()),
            from: Some(3),
            to: Some(5),
            what: "gap".into(),
        };
        report.checked("ledger", "8 ranges".into(), vec![finding]);
        let text = report.to_string();
        assert!(
            text.contains("ledger     1 FINDINGS: 8 ranges\nFINDING ledger 1/t/0 [3, 5): gap\naudit: 1 findings"),
            "{text}"
        );
        assert!(!text.contains("nothing missing"));
    }
}
