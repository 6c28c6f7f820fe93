//! How far each handoff on a host is, what it waits for, and what an operator can
//! do: pure, from what was found beside logs, in the spool and in notes.
//!
//! Must not know: libvirt, where things lie, how a command is written.
//!
//! ```
//! use logchain_core::handoff::Stage;
//! use logchain_core::standing::{Spooled, State, of_spooled};
//! use logchain_core::ids::HandoffId;
//! use jiff::Timestamp;
//! use uuid::Uuid;
//!
//! let spooled = Spooled {
//!     domain: Uuid::new_v4(),
//!     console: "serial0".parse()?,
//!     handoff: HandoffId::random(),
//!     begin: Some(("vm1".to_owned(), "h1".to_owned())),
//!     bytes: 4096,
//!     stage: Stage::Committed,
//!     last: Timestamp::constant(1_700_000_000, 0),
//! };
//! let now = Timestamp::constant(1_700_000_060, 0);
//! let standing = of_spooled(&spooled, "logchain adopt …", now);
//! assert_eq!(standing.state, State::Waiting);
//! assert!(standing.sentence(now).ends_with("; run: logchain adopt …"));
//! # Ok::<(), logchain_core::ids::InvalidId>(())
//! ```

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::departure::{Departure, LeftLog};
use crate::handoff::Stage;
use crate::ids::{ConsoleName, HandoffId};
use crate::outbox::Entry;
use crate::placement::under_way::{StagingPhase, UnfinishedStaging};
use crate::reap::{Decision, Here, Known, Log};
use crate::record::{Offered, Record};

/// After so long without any news nobody works on a handoff any more: both
/// halves give up after a minute, unless they are told to wait longer.
pub const ABANDONED: Duration = Duration::from_secs(900);

/// Where a handoff stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The VM left; its log, or a part of it, was not handed over.
    LeftBehind,
    /// The VM left, its log is gone, and no receipt was ever seen.
    Lost,
    /// Handed over; the receipt is missing.
    Offered,
    /// Handed over, with the receipt.
    HandedOver,
    /// The VM left, and its domain is still defined.
    Left,
    /// The VM came back.
    CameBack,
    /// Pieces come in.
    Arriving,
    /// Nothing came in for long.
    Abandoned,
    /// All pieces are there; nobody has adopted them.
    Waiting,
    /// All of it is here, and not in place.
    Sealed,
    /// The migration failed, and leftovers are there.
    Withdrawn,
    /// In place; leftovers are there.
    Placed,
    /// In place, and over.
    Adopted,
    /// It cannot be told.
    Unreadable,
}

impl State {
    /// For programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeftBehind => "left-behind",
            Self::Lost => "lost",
            Self::Offered => "offered",
            Self::HandedOver => "handed-over",
            Self::Left => "left",
            Self::CameBack => "came-back",
            Self::Arriving => "arriving",
            Self::Abandoned => "abandoned",
            Self::Waiting => "waiting",
            Self::Sealed => "sealed",
            Self::Withdrawn => "withdrawn",
            Self::Placed => "placed",
            Self::Adopted => "adopted",
            Self::Unreadable => "unreadable",
        }
    }

    /// Whether nothing more is to happen.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::HandedOver | Self::Adopted)
    }
}

/// How it stands with one handoff, or with a domain that left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// In a word.
    pub state: State,
    /// The domain's name, where it is known.
    pub name: Option<String>,
    /// Its UUID.
    pub domain: Uuid,
    /// Which console; `None`: the domain itself.
    pub console: Option<ConsoleName>,
    /// Which handoff, where there is one.
    pub handoff: Option<HandoffId>,
    /// How many bytes it is about, where that is known.
    pub bytes: Option<u64>,
    /// The other host, or the transport.
    pub peer: Option<String>,
    /// When it came to this.
    pub since: Option<Timestamp>,
    /// Where it stands, in words.
    pub stands: String,
    /// What has to happen, where anything has.
    pub waits_for: Option<String>,
    /// What an operator can do, or a command.
    pub help: Option<String>,
}

impl Standing {
    fn new(state: State, domain: Uuid, console: Option<&ConsoleName>, stands: String) -> Self {
        Self {
            state,
            name: None,
            domain,
            console: console.cloned(),
            handoff: None,
            bytes: None,
            peer: None,
            since: None,
            stands,
            waits_for: None,
            help: None,
        }
    }

    /// For people.
    #[must_use]
    pub fn sentence(&self, now: Timestamp) -> String {
        let domain = self.domain.to_string();
        let name = self.name.as_ref().unwrap_or(&domain);
        let mut text = match &self.console {
            Some(console) => format!("{console} of {name}: {}", self.stands),
            None => format!("{name}: {}", self.stands),
        };
        if let Some(since) = self.since {
            text.push_str(&format!(" ({} ago)", span(elapsed(since, now))));
        }
        if let Some(waits_for) = &self.waits_for {
            text.push_str(&format!("; waits for {waits_for}"));
        }
        if let Some(help) = &self.help {
            text.push_str(&format!("; {help}"));
        }
        text
    }
}

/// The time that went by; none where clocks disagree.
fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// A time in its greatest unit.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "d"), (3600, "h"), (60, "min")];
    let unit = units.iter().find(|(length, _)| seconds >= 2 * length);
    unit.map_or(format!("{seconds} s"), |(length, unit)| {
        format!("{} {unit}", seconds / length)
    })
}

/// A log of a domain that libvirt here knows.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    /// The domain.
    pub domain: Uuid,
    /// Which console.
    pub console: &'a ConsoleName,
    /// Whether a process stands behind the domain here.
    pub active: bool,
    /// The record beside the log, if it is this console's.
    pub record: Option<&'a Record>,
    /// What was begun beside the log.
    pub begun: &'a [UnfinishedStaging],
    /// Whether a note says that the domain left: then that tells of what was offered.
    pub noted: bool,
    /// The command that mends the log.
    pub repair: &'a str,
    /// The command that offers it, to the transport that is filled in.
    pub offer: &'a str,
}

/// What a log and its record tell.
#[must_use]
pub fn of_log(log: &Beside<'_>) -> Vec<Standing> {
    let of = |state, stands| Standing::new(state, log.domain, Some(log.console), stands);
    let mut all: Vec<Standing> = log.begun.iter().map(|b| begun(log, b)).collect();
    let Some(record) = log.record else {
        return all;
    };
    // A domain that is here again offers anew when it leaves.
    if let Some(offered) = record
        .offered
        .as_ref()
        .filter(|_| !log.active && !log.noted)
    {
        let mut standing = of(State::Offered, String::new());
        fill(&mut standing, offered);
        if !offered.received {
            standing.help = Some(format!("run: {}", log.offer));
        }
        all.push(standing);
    } else if let Some(adopted) = record.adopted.last()
        && !log.noted
    {
        let (bytes, from) = (adopted.bytes, &adopted.from);
        all.push(Standing {
            handoff: Some(adopted.handoff),
            bytes: Some(bytes),
            peer: Some(from.clone()),
            since: Some(adopted.at),
            ..of(
                State::Adopted,
                format!("{bytes} bytes of history from {from} are in place"),
            )
        });
    }
    all
}

fn begun(log: &Beside<'_>, begun: &UnfinishedStaging) -> Standing {
    let (state, stands) = match begun.phase {
        StagingPhase::Begun => (State::Arriving, "history is on its way into place"),
        StagingPhase::Sealed => (
            State::Sealed,
            "all of its history is here and not yet in place",
        ),
        StagingPhase::Placed => (
            State::Placed,
            "its history is in place and is not yet cleared up",
        ),
    };
    let mut standing = Standing::new(state, log.domain, Some(log.console), stands.to_owned());
    standing.handoff = Some(begun.handoff);
    if begun.busy {
        standing.waits_for = Some("the logchain process that works on it".to_owned());
    } else {
        let undo = "nobody works on it: it is finished or undone by the next handoff, or run: ";
        standing.help = Some(format!("{undo}{}", log.repair));
    }
    standing
}

fn fill(standing: &mut Standing, offered: &Offered) {
    let Offered { bytes, to, .. } = offered;
    standing.handoff = Some(offered.handoff);
    standing.bytes = Some(*bytes);
    standing.peer = Some(to.clone());
    standing.since = Some(offered.at);
    if offered.received {
        standing.state = State::HandedOver;
        standing.stands = format!("{bytes} bytes handed over to {to}, with the receipt");
    } else {
        standing.state = State::Offered;
        standing.stands = format!("{bytes} bytes offered to {to}, no receipt yet");
        standing.waits_for = Some("the receipt".to_owned());
    }
}

/// What a note tells, with what was found of its domain and of its logs (in the
/// note's order, with what the record says of them). `offer` writes the command that
/// brings a log over.
#[must_use]
pub fn of_departure(
    note: &Departure,
    here: &Here,
    decision: &Decision,
    logs: &[(Log, Option<Offered>)],
    offer: impl Fn(&LeftLog) -> String,
) -> Vec<Standing> {
    let mut all = Vec::new();
    let back = matches!(decision, Decision::Forget(_));
    for (left, (log, offered)) in note.logs.iter().zip(logs).filter(|_| !back) {
        all.push(of_left(note, left, log, offered.as_ref(), &offer));
    }
    let uri = &note.to.uri;
    let defined = matches!(here, Here::Over { .. });
    let stands = match (back, defined) {
        (true, _) => format!("left for {uri} and came back"),
        (false, true) => format!("left for {uri}, and is still defined here"),
        (false, false) => format!("left for {uri}"),
    };
    let state = if back { State::CameBack } else { State::Left };
    let mut domain = Standing::new(state, note.domain, None, stands);
    domain.peer = Some(uri.clone());
    domain.since = Some(note.at);
    match decision {
        Decision::Ask | Decision::Reap => {
            domain.waits_for = Some("its new place to be confirmed".to_owned());
            domain.help = Some("run: logchain reap".to_owned());
        }
        Decision::Forget(_) => {
            domain.help = Some("the next logchain reap drops the note of it".to_owned());
        }
        Decision::Keep(why) => domain.help = Some(format!("logchain reap leaves it alone: {why}")),
    }
    all.push(domain);
    for standing in &mut all {
        standing.name = Some(note.name.clone());
    }
    all
}

fn of_left(
    note: &Departure,
    left: &LeftLog,
    log: &Log,
    offered: Option<&Offered>,
    offer: &impl Fn(&LeftLog) -> String,
) -> Standing {
    let path = left.path.display();
    let of = |state, stands| Standing::new(state, note.domain, Some(&left.console), stands);
    let by_offer = || Some(format!("run: {}", offer(left)));
    let mut standing = match log {
        Log::There(Known::HandedOver { .. }) => {
            let mut standing = of(State::Offered, "offered".to_owned());
            if let Some(offered) = offered {
                fill(&mut standing, offered);
            }
            if standing.state == State::Offered {
                standing.help = by_offer();
            }
            return standing;
        }
        Log::Gone { received } if *received || left.received => {
            return of(
                State::HandedOver,
                format!("handed over with the receipt; its files are gone from {path}"),
            );
        }
        Log::Gone { .. } => of(
            State::Lost,
            format!("the log is gone from {path}, and no receipt was seen"),
        ),
        Log::PutDown(at) => Standing {
            help: by_offer(),
            ..of(
                State::LeftBehind,
                format!(
                    "the log is gone from {path} and put down at {}",
                    at.display()
                ),
            )
        },
        Log::There(Known::Nothing) => Standing {
            help: by_offer(),
            ..of(
                State::LeftBehind,
                format!("the log stayed behind at {path}"),
            )
        },
        Log::There(Known::More) => Standing {
            help: by_offer(),
            ..of(
                State::LeftBehind,
                format!("{path} holds what was not handed over"),
            )
        },
        Log::UnderWay => Standing {
            waits_for: Some("what was begun beside it to be over".to_owned()),
            ..of(State::Arriving, format!("something is begun beside {path}"))
        },
        Log::Unreadable(why) => of(State::Unreadable, why.clone()),
    };
    standing.since = Some(note.at);
    standing
}

/// What a log in the outbox tells, of whose departure no note tells. `offer` is the
/// command that brings it over; `active`: its VM runs here again.
#[must_use]
pub fn of_put_down(entry: &Entry, active: bool, offer: &str) -> Standing {
    let stands = format!(
        "{} bytes of its log are put down at {}",
        entry.bytes,
        entry.path.display()
    );
    let mut standing = Standing::new(
        State::LeftBehind,
        entry.domain,
        Some(&entry.console),
        stands,
    );
    standing.bytes = Some(entry.bytes);
    if active {
        standing.waits_for = Some("its VM to migrate: they join its log before that".to_owned());
    } else {
        standing.help = Some(format!("run: {offer}"));
    }
    standing
}

/// A handoff in the spool of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spooled {
    /// The domain.
    pub domain: Uuid,
    /// Which console.
    pub console: ConsoleName,
    /// Which handoff.
    pub handoff: HandoffId,
    /// The domain's name and the source's host, as the source says.
    pub begin: Option<(String, String)>,
    /// How many bytes of history are there.
    pub bytes: u64,
    /// How far it is.
    pub stage: Stage,
    /// When the last object came.
    pub last: Timestamp,
}

/// What the spool tells of a handoff. `adopt` is the command that adopts it.
#[must_use]
pub fn of_spooled(spooled: &Spooled, adopt: &str, now: Timestamp) -> Standing {
    let bytes = spooled.bytes;
    let from = match &spooled.begin {
        Some((_, host)) => format!(" from {host}"),
        None => String::new(),
    };
    let quiet = elapsed(spooled.last, now) >= ABANDONED;
    let (state, stands) = match spooled.stage {
        Stage::Received => (State::Placed, format!("the history{from} is in place")),
        Stage::Withdrawn => (State::Withdrawn, format!("withdrawn by the source{from}")),
        Stage::Committed | Stage::Claimed | Stage::Headless => {
            let stands = format!("{bytes} bytes{from} wait to be adopted");
            (State::Waiting, stands)
        }
        Stage::Begun | Stage::HalfCleared | Stage::Remains if quiet => {
            let stands = format!("{bytes} bytes came{from}, and nothing more does");
            (State::Abandoned, stands)
        }
        Stage::Begun | Stage::HalfCleared | Stage::Remains => {
            (State::Arriving, format!("{bytes} bytes came{from} so far"))
        }
    };
    let mut standing = Standing::new(state, spooled.domain, Some(&spooled.console), stands);
    match state {
        State::Placed => {
            standing.help = Some("the next logchain offer at the source clears it".to_owned());
        }
        State::Waiting => standing.help = Some(format!("run: {adopt}")),
        State::Arriving => standing.waits_for = Some("the rest".to_owned()),
        State::Abandoned => {
            let help = "if the VM left, run logchain offer at the source, which sends it anew; \
                        these pieces can be removed";
            standing.help = Some(help.to_owned());
        }
        _ => standing.help = Some("its pieces can be removed".to_owned()),
    }
    standing.name = spooled.begin.as_ref().map(|(name, _)| name.clone());
    standing.handoff = Some(spooled.handoff);
    standing.bytes = Some(bytes);
    standing.peer = spooled.begin.as_ref().map(|(_, host)| host.clone());
    standing.since = Some(spooled.last);
    standing
}

#[cfg(test)]
mod tests;
