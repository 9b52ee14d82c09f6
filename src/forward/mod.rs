//! Alerts handed on to people: a subscriber of the topic of alerts that posts what it reads to webhooks.
//!
//! ```text
//! topic of alerts ──Subscriber──▶ queue ──Courier──▶ webhook, Slack or Alertmanager
//!                      ▲              what fires ──▶ Alertmanager, again and again
//!                      │              no heartbeat ──▶ an alert of our own
//!                      └── commit, once it was taken
//! ```
//!
//! | room | what it is |
//! |---|---|
//! | `address` | a URL that may hold secrets, and how it is dialed |
//! | `post` | one request, and what its answer means |
//! | `body` | what a webhook and Slack get |
//! | `firing` | what fires, as Alertmanager is told of it |
//! | `courier` | one target: a message until it is taken, refused or given up |
//! | `reader` | what records of the topic say, by the schemas that they name |
//! | `news` | which of them are alerts, which heartbeats, and which stop us |
//! | `silence`, `growth`, `own`, `watch` | that nothing is heard of whoever judges, as an alert of our own |
//! | `reading` | one target's place in the topic: what was handed on, and what waits |
//! | `subscriber` | a member of the target's consumer group, and what it does at each step |
//!
//! Each target has a consumer group of its own, so that none waits for another, and its offsets are committed only once it
//! has taken what is before them: each message comes at least once, and twice where the process ends in between.

mod address;
mod body;
mod courier;
mod firing;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod fixture;
mod growth;
mod news;
mod own;
mod post;
mod reader;
mod reading;
mod silence;
mod subscriber;
mod watch;

use std::fmt;
use std::time::Duration;

pub use address::{Address, AddressError, addresses};
pub use courier::Courier;
pub use reader::{ReadError, Reader};
pub use subscriber::Subscriber;

use crate::tls::Section;

/// What a target understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The message as JSON, with the fields of `published/alert.avsc`.
    Webhook,
    /// A text, as Slack's incoming webhooks take it, and those who took after them.
    Slack,
    /// Alerts, as Alertmanager's API v2 takes them.
    Alertmanager,
}

impl Kind {
    /// All there are.
    pub const ALL: [Kind; 3] = [Kind::Webhook, Kind::Slack, Kind::Alertmanager];

    /// As settings and groups name it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Webhook => "webhook",
            Kind::Slack => "slack",
            Kind::Alertmanager => "alertmanager",
        }
    }

    /// Whose settings messages about its connections name.
    pub(crate) fn section(self) -> Section {
        let address = match self {
            Kind::Webhook => "forward.webhook_url",
            Kind::Slack => "forward.slack_url",
            Kind::Alertmanager => "forward.alertmanager_url",
        };
        Section { name: "forward", address }
    }
}

/// Who is told.
#[derive(Clone)]
pub struct Target {
    /// What it understands.
    pub kind: Kind,
    /// Where it is: one, or all members of a cluster of Alertmanagers.
    pub addresses: Vec<Address>,
}

impl Target {
    /// Its consumer group, `{prefix}-{kind}`.
    pub fn group(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.kind.name())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.addresses.iter().map(|address| format!("{address:?}")).collect();
        write!(f, "{} at {}", self.kind.name(), addresses.join(", "))
    }
}

/// How it is handed on.
#[derive(Debug, Clone)]
pub struct Manner {
    /// How long a target may take to answer.
    pub timeout: Duration,
    /// How long one message is tried at a target that fails.
    pub give_up: Duration,
    /// How often Alertmanager is told anew of what fires.
    pub resend: Duration,
    /// How long no heartbeat may come before that is told; `None`: for ever.
    pub silent_after: Option<Duration>,
    /// Longest time from one heartbeat to the next, where all is well.
    pub heartbeat: Duration,
    /// A page about an alert, with places for `{alert_id}` and `{rule}`.
    pub link: Option<String>,
}

/// Whoever has heard nothing for so long knows nothing of what fires.
const HEARD: Duration = Duration::from_secs(5 * 60);
/// Heartbeats that may be missing.
const MISSED: u32 = 3;

impl Manner {
    /// How old the last heartbeat may be where what fires is told anew.
    fn heard_within(&self) -> Duration {
        HEARD.max(self.heartbeat * MISSED)
    }

    /// How old the last heartbeat may be before that is told.
    fn silent_after(&self) -> Option<Duration> {
        self.silent_after.map(|limit| limit.max(self.heartbeat * MISSED))
    }
}
