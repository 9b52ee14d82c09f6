//! What an audit says.

use std::fmt;

use serde::Serialize;

use super::finding::{Finding, thousands};

/// The result of an audit. Its keys in JSON are stable; `docs/audit.md` lists them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Offsets that are in Kafka and not yet in the ledger; null where Kafka was not asked.
    pub lag: Option<u64>,
    /// Since when ranges were checked; null where all were.
    pub since: Option<String>,
    /// What was checked, with figures.
    pub checks: Vec<Check>,
    /// What does not add up.
    pub findings: Vec<Finding>,
    /// What is worth knowing and no fault: batches in flight, rows that expired, sources that stand still.
    pub notes: Vec<String>,
    /// Sums over the ranges that were checked.
    pub totals: Totals,
    /// Where each source stands.
    pub sources: Vec<Standing>,
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

/// Where a source stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// `epoch/topic/partition`.
    pub source: String,
    /// First offset that the ledger has.
    pub first: u64,
    /// One past its last.
    pub end: u64,
    /// Offsets below this one were left out, as proved before.
    pub checked_from: u64,
    /// Seconds since the ledger's last row of it.
    pub age_seconds: u64,
    /// Offsets that are in Kafka and not in the ledger; null where it was not asked, or has the topic no more.
    pub behind: Option<u64>,
}

impl Report {
    /// Whether everything adds up.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// `clean` or `findings`.
    pub fn verdict(&self) -> &'static str {
        if self.is_clean() { "clean" } else { "findings" }
    }

    /// All of it, with the verdict first.
    ///
    /// # Errors
    /// None that is known: every key is a text.
    pub fn to_json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Printed<'a> {
            verdict: &'static str,
            #[serde(flatten)]
            report: &'a Report,
        }
        serde_json::to_string_pretty(&Printed { verdict: self.verdict(), report: self })
    }

    /// Records a check and its findings.
    pub(super) fn checked(&mut self, name: &'static str, figures: String, findings: Vec<Finding>) {
        self.checks.push(Check { name, figures, findings: findings.len() });
        self.findings.extend(findings);
    }
}

fn findings(count: usize) -> String {
    format!("{} finding{}", thousands(count as u64), if count == 1 { "" } else { "s" })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let verdict = match check.findings {
                0 => "ok:".to_owned(),
                count => format!("{} against:", findings(count).to_uppercase()),
            };
            writeln!(f, "{:<10} {verdict} {}", check.name, check.figures)?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for finding in &self.findings {
            writeln!(f, "FINDING {finding}")?;
        }
        let totals = &self.totals;
        let verdict = if self.is_clean() { "clean".to_owned() } else { findings(self.findings.len()) };
        let since = self.since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
        write!(
            f,
            "audit: {verdict}{since} — {} events in {} ranges of {} partitions: {} rows, {} dead letters, {} duplicates",
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
        if let Some(lag) = self.lag {
            write!(f, "; lag {}", thousands(lag))?;
        }
        if self.is_clean() {
            write!(f, "; nothing missing, nothing counted twice")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::finding::Kind;
    use super::*;

    #[test]
    fn a_report_ends_with_its_verdict() {
        let totals = Totals { sources: 4, ranges: 8, events: 19_366, rows: 19_366, ..Totals::default() };
        let mut report = Report { totals, ..Report::default() };
        assert_eq!(
            report.to_string(),
            "audit: clean — 19,366 events in 8 ranges of 4 partitions: 19,366 rows, 0 dead letters, 0 duplicates; \
             nothing missing, nothing counted twice"
        );
        report.checked(
            "ledger",
            "8 ranges".into(),
            vec![Finding::new(Kind::Gap, "ledger", "gap: none").at("1/t/0", 3, 5)],
        );
        report.lag = Some(1_234);
        let text = report.to_string();
        assert!(
            text.contains(
                "ledger     1 FINDING against: 8 ranges\nFINDING ledger 1/t/0 [3, 5): gap: none\naudit: 1 finding — "
            ),
            "{text}"
        );
        assert!(text.ends_with("0 duplicates; lag 1,234"), "{text}");
    }

    #[test]
    fn json_begins_with_the_verdict_and_the_lag() {
        let report = Report { lag: Some(7), ..Report::default() };
        let json = report.to_json().unwrap();
        assert!(json.starts_with("{\n  \"verdict\": \"clean\",\n  \"lag\": 7,\n  \"since\": null,"), "{json}");
    }
}
