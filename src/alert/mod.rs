//! Alerts and budgets: rules over metrics, judged on complete minutes, with the evidence that each message stands on.
//!
//! ```text
//! packs/*.toml ──resolve──▶ Rules ──Question::all──▶ queries
//!                             │                         │ rows
//!                             └───────▶ Evaluator ◀─────┘
//!                                          │ advance(through)
//!                                          ▼
//!                        Message (published/alert.avsc), BudgetState (published/budget_state.avsc)
//! ```
//!
//! | room | what it is |
//! |---|---|
//! | `resolve` | `[[alert]]` and `[[budget]]` of packs → [`Rules`], or what is wrong with them |
//! | `rule` | a rule: its test, its windows, its step |
//! | `signal`, `series`, `packed`, `book` | what rules look at: whole numbers that add up, per step, series and signal |
//! | `distinct` | how many series are left out, in little memory |
//! | `query`, `raw` | what is asked of ClickHouse: one query for all rules that need the same; the same of raw rows, to explain what was told |
//! | `verdict`, `stat` | what a rule says of a series at a moment; Wilson, median and MAD, quantiles |
//! | `state` | pending, firing, resolved: a fold over moments |
//! | `history` | what was told, and what is to be told so that it is right again |
//! | `desk`, `period`, `decimal` | budgets; days, weeks and months of a time zone; exact money |
//! | `evaluate` | all of it, round by round |
//! | `message`, `template` | what subscribers get |
//! | `record`, `backlog` | what stands on the topics beside that, and what a successor reads back |
//! | `trial` | rules tried on given numbers: `highwater alerts test` |
//!
//! No socket, clock or thread: rows, the time up to which they are complete and the messages sent before come in as
//! arguments, so that the evaluator, a look at the past, an explanation and a test run the same code.

mod backlog;
mod book;
mod decimal;
mod desk;
mod distinct;
mod evaluate;
#[cfg(test)]
pub(crate) mod fixture;
mod history;
mod message;
mod packed;
mod period;
mod query;
mod raw;
mod record;
mod resolve;
mod rule;
mod series;
mod signal;
mod stat;
mod state;
mod template;
mod trial;
mod verdict;

pub use backlog::Backlog;
pub use evaluate::{Checkpoint, Evaluator, Overflow, Round};
pub use history::{Before, History, Publication, State, Told};
pub use message::{
    ALERT_SCHEMA, BUDGET_STATE_SCHEMA, BudgetState, Completeness, Message, MessageBaseline, MessageBudget,
    MessageError, MessageReading, alert_id,
};
pub(crate) use period::span;
pub use period::{Calendar, Minute, Period, Unit};
pub use query::{Answer, Number, Question, Row};
pub use raw::Which;
pub use record::{
    FORMER, Framing, HEARTBEAT_KEY, HEARTBEAT_SCHEMA, Heartbeat, JudgedRule, RULE_SET_SCHEMA, RULES_KEY, Record,
    RuleSet, SCHEMAS,
};
pub use resolve::resolve;
pub(crate) use rule::aligned;
pub use rule::{Budget, BudgetLevel, Kind, Notice, Proof, Quantile, Rule, Rules, Severity, Side, Test};
pub use signal::Signal;
pub use state::{Phase, Standing, Transition};
pub use template::Template;
pub use trial::{Sample, Tried, rows, try_file};
pub use verdict::{Baseline, Outcome, Reading, Verdict};
