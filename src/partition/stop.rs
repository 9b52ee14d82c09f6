//! Why a partition stops until an operator acts.

use crate::batch::Source;
use crate::ports::LedgerEnd;

/// A guard's verdict. Nothing is lost or written while a partition is stopped; the others go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The log's retention ran over us.
    #[error(
        "offsets {ledger}..{start} were deleted from the log before they were read (the ledger ends at {ledger}, the log \
         begins at {start}); those events are gone: raise the topic's retention, then restart with kafka.on_loss=record, which \
         records the loss and goes on"
    )]
    LogStartsLater {
        /// End of the ledger.
        ledger: u64,
        /// Start of the log.
        start: u64,
    },
    /// The log is shorter than what was read from it: another topic under the same name, or a log that lost data.
    #[error(
        "the log ends at {end}, before the ledger's end {ledger}: the topic was made anew or lost data; if it was made \
         anew, begin a new epoch for it"
    )]
    LogEndsEarlier {
        /// End of the ledger.
        ledger: u64,
        /// End of the log.
        end: u64,
    },
    /// The topic was made anew while it was read.
    #[error("{0}; restart, which says how to begin a new epoch for it")]
    OtherTopic(String),
    /// The topic went on to another epoch: a rewind took back what follows the place where that one begins.
    #[error(
        "this process claimed epoch {claimed} of the topic, and now it is in epoch {now}: it was rewound, or is being rewound. \
         Nothing more is written in epoch {claimed}; restart, which goes on in the new one once the rewind has ended"
    )]
    EpochOver {
        /// The one that was claimed.
        claimed: u32,
        /// The one in force.
        now: u32,
    },
    /// The topic went on to another epoch while its letters were redriven: a rewind took back some of the run's, perhaps, and
    /// they are read again.
    #[error(
        "the topic was in epoch {began} when this redrive began to write, and now it is in epoch {now}: it was rewound, or is \
         being rewound, which may take letters off the list that this redrive has. Nothing more is written by it; redrive again once \
         the rewind has ended"
    )]
    RedriveOver {
        /// The one that was in force.
        began: u32,
        /// The one in force now.
        now: u32,
    },
    /// The ledger lost rows that it had.
    #[error(
        "the ledger now ends at {}, but it ended at {before}: rows of the ledger are missing (restored from an \
         older backup?); run `highwater audit`, then restart", show(.end)
    )]
    LedgerWentBack {
        /// What it says now.
        end: Option<u64>,
        /// Where it ended before.
        before: u64,
    },
    /// A letter that a redrive set out to write can't be read any more.
    #[error(
        "the dead letter at offset {offset} can't be read as it could when this redrive began ({reason}): schemas, limits or \
         the schema registry have changed since. Nothing of it was written and no letter is lost; put them back (the table \
         plans has what each plan was made of), then redrive again"
    )]
    Unreadable {
        /// Its offset.
        offset: u64,
        /// Why not, as it would be named in `dead_letters`.
        reason: String,
    },
    /// The server refuses for good.
    #[error("ClickHouse refuses {what} for good: {error}; mend the cause, then restart")]
    Refused {
        /// The insert's token, or the question.
        what: String,
        /// Its words.
        error: String,
    },
}

impl Stop {
    /// Whether the epoch that was in force is over, by an answer of the store.
    pub(super) fn by_epoch(source: &Source, in_force: u32, ledger: &LedgerEnd) -> Result<(), Stop> {
        match (ledger.epoch.filter(|&now| now > in_force), source.redrive) {
            (None, _) => Ok(()),
            (Some(now), None) => Err(Stop::EpochOver { claimed: in_force, now }),
            (Some(now), Some(_)) => Err(Stop::RedriveOver { began: in_force, now }),
        }
    }

    /// A short name to group by.
    pub fn name(&self) -> &'static str {
        match self {
            Stop::LogStartsLater { .. } => "log_starts_later",
            Stop::LogEndsEarlier { .. } => "log_ends_earlier",
            Stop::OtherTopic(_) => "other_topic",
            Stop::EpochOver { .. } => "epoch_over",
            Stop::RedriveOver { .. } => "redrive_over",
            Stop::LedgerWentBack { .. } => "ledger_went_back",
            Stop::Unreadable { .. } => "unreadable",
            Stop::Refused { .. } => "refused",
        }
    }
}

fn show(end: &Option<u64>) -> String {
    end.map_or_else(|| "nothing".to_owned(), |end| end.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runbook_has_every_reason() {
        let runbook = include_str!("../../docs/runbook.md");
        let headings: Vec<&str> = runbook
            .lines()
            .filter(|line| line.starts_with("###"))
            .flat_map(|line| line.split('`').skip(1).step_by(2))
            .collect();
        let text = || "it".to_owned();
        let reasons = [
            Stop::LogStartsLater { ledger: 1, start: 2 },
            Stop::LogEndsEarlier { ledger: 2, end: 1 },
            Stop::OtherTopic("the topic t is another one than when it was claimed".to_owned()),
            Stop::EpochOver { claimed: 1, now: 3 },
            Stop::RedriveOver { began: 1, now: 2 },
            Stop::LedgerWentBack { end: None, before: 1 },
            Stop::Unreadable { offset: 1, reason: text() },
            Stop::Refused { what: text(), error: text() },
        ];
        for reason in reasons {
            // A reason that is added here has to be added to the list above.
            match reason {
                Stop::LogStartsLater { .. }
                | Stop::LogEndsEarlier { .. }
                | Stop::OtherTopic(_)
                | Stop::EpochOver { .. }
                | Stop::RedriveOver { .. }
                | Stop::LedgerWentBack { .. }
                | Stop::Unreadable { .. }
                | Stop::Refused { .. } => {}
            }
            let said = reason.to_string();
            assert!(headings.iter().any(|heading| said.contains(heading)), "{said}");
        }
    }
}
