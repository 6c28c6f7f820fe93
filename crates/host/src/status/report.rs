//! The handoffs of a host as programs get them: the JSON of `logchain status` and of the agent's
//! `GET /v1/handoffs`.
//!
//! Must not know: how a host is looked at.

use jiff::Timestamp;
use logchain_core::ids::ConsoleName;
use logchain_core::standing::Standing;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Status;
use crate::consoles::own_name;

/// Every handoff on a host. Fields may be added; a client that does not find one takes its
/// default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The host's own name.
    pub host: String,
    /// How many of the handoffs are not over.
    pub under_way: u64,
    /// The handoffs, and the domains that left.
    pub handoffs: Vec<HandoffReport>,
    /// What could not be looked at, and what is wrong beside the handoffs, in sentences.
    pub warnings: Vec<String>,
}

/// A handoff, or a domain that left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HandoffReport {
    /// A word of [`State`](logchain_core::standing::State).
    pub state: String,
    /// Whether nothing more is to happen.
    pub over: bool,
    /// The domain's name, where it is known.
    pub domain: Option<String>,
    /// Its UUID.
    pub uuid: Uuid,
    /// Which console; `None`: the domain itself.
    pub console: Option<String>,
    /// The handoff's UUID, where there is one.
    pub handoff: Option<String>,
    /// How many bytes it is about, where that is known.
    pub bytes: Option<u64>,
    /// The other host, or the URL of the transport.
    pub peer: Option<String>,
    /// When it came to this, in seconds since 1970 (UTC).
    pub since: Option<i64>,
    /// Where it stands, in words.
    pub stands: String,
    /// What has to happen next, in words.
    pub waits_for: Option<String>,
    /// What to do, in words.
    pub help: Option<String>,
    /// All of this in one sentence for people.
    pub sentence: String,
}

impl Status {
    /// As programs get it.
    #[must_use]
    pub fn report(&self) -> Report {
        let handoffs = self.handoffs.iter();
        Report {
            host: own_name(),
            under_way: self.under_way() as u64,
            handoffs: handoffs.map(|s| described(s, self.at)).collect(),
            warnings: self.warnings.clone(),
        }
    }
}

fn described(standing: &Standing, now: Timestamp) -> HandoffReport {
    HandoffReport {
        state: standing.state.as_str().to_owned(),
        over: standing.state.is_over(),
        domain: standing.name.clone(),
        uuid: standing.domain,
        console: standing
            .console
            .as_ref()
            .map(|c| ConsoleName::as_str(c).to_owned()),
        handoff: standing.handoff.map(|h| h.to_string()),
        bytes: standing.bytes,
        peer: standing.peer.clone(),
        since: standing.since.map(Timestamp::as_second),
        stands: standing.stands.clone(),
        waits_for: standing.waits_for.clone(),
        help: standing.help.clone(),
        sentence: standing.sentence(now),
    }
}
