//! What happens in a job, as a type: one language for three readers.
//!
//! - With `--format json` a program prints each event as one line of JSON.
//! - The destination's half prints them to the source's half, which started it over ssh.
//! - A terminal shows sentences that are rendered from them.
//!
//! # Versions
//! The field `event` names the kind. Whoever reads events ignores kinds and fields that it
//! does not know, so a release may add both; it renames and removes none. The destination's
//! half begins with [`Event::Hello`], from which the source knows what it understands; a
//! destination that does not say hello is one of release 0.1. `tests/wire/` keeps lines that
//! each release has written, and a test reads them.
//!
//! Must not know: how events are shown.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use logchain_core::ids::ConsoleName;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::progress::{Phase, Progress};

#[cfg(feature = "schema")]
pub mod schema;

/// The version of what the two halves say to each other.
pub const PROTOCOL: u32 = 1;

/// One thing that happened in a job. See the [module](self) for who reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// The destination's half has started. It is the first event that this half tells the
    /// source's half.
    Hello {
        /// The newest version that it speaks of the protocol between the two halves.
        protocol: u32,
        /// The oldest version that it speaks of that protocol.
        oldest: u32,
        /// Its release of logchain, for people.
        release: String,
    },
    /// Something is wrong, and the command goes on.
    Warning {
        /// What is wrong, in a sentence.
        reason: String,
    },
    /// The command failed: always the last event.
    Error {
        /// Why, in a sentence.
        reason: String,
    },
    /// From now on the job waits for something else.
    Phase {
        /// What it waits for.
        phase: Phase,
    },
    /// How far the job is. It comes at most once a second.
    Progress(Progress),

    /// The guest runs at the destination.
    Migrated {
        /// Name of the domain.
        domain: String,
        /// The URI of the libvirt where it runs now.
        destination: String,
        /// Whether the domain has a console log; `true` where the field is missing. If it has
        /// none, `no-log` follows.
        #[serde(default = "yes")]
        has_log: bool,
    },
    /// The domain has no console log.
    NoLog {
        /// Name of the domain.
        domain: String,
    },
    /// Post-copy broke off: parts of the guest are on both hosts.
    Split {
        /// Name of the domain.
        domain: String,
        /// The URI of the destination's libvirt.
        destination: String,
        /// Whether the destination still has its part; null if the destination does not answer.
        at_destination: Option<bool>,
        /// What libvirt said.
        reason: String,
    },
    /// libvirt at the source has forgotten the domain.
    Undefined {
        /// Name of the domain.
        domain: String,
    },
    /// The destination has this log and has confirmed it.
    Carried {
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
        /// Length of the history in bytes.
        bytes: u64,
        /// How many of the oldest bytes were dropped, because the rotation there does not keep
        /// so much.
        dropped: u64,
        /// Name and size in bytes of each file that holds the history there, the newest first.
        files: Vec<(String, u64)>,
        /// The destination's own host name.
        host: String,
        /// What the destination found wrong with these files, in sentences.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
        /// Milliseconds from the moment the guest first ran there until its history was complete
        /// there; missing if that moment is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window_ms: Option<u64>,
    },
    /// The destination had this log already.
    AlreadyCarried {
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
        /// URL of the transport over which it was handed over.
        to: String,
    },
    /// The migration failed, and the source took the handoff back.
    Withdrawn {
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
    },
    /// The destination does not have this log. It is whole at the source.
    NotCarried {
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
        /// Why, in a sentence.
        reason: String,
    },
    /// Says where a log that was not carried lies, and how to carry it later.
    LeftBehind {
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
        /// Path of the log's base file.
        path: String,
        /// The shell command that offers it.
        command: String,
        /// Whether `path` is in the outbox, because the log's own files are gone or about to go.
        #[serde(default)]
        in_outbox: bool,
    },
    /// A log was not carried, and nothing of it is left at the source.
    NothingLeft {
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
        /// Path where its base file was.
        path: String,
        /// Why, in a sentence.
        reason: String,
    },
    /// What lay in the outbox of an earlier stay or boot of this domain is behind its log again.
    Rejoined {
        /// The domain's name, or its UUID where libvirt does not tell the name.
        domain: String,
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
        /// How many bytes.
        bytes: u64,
    },
    /// logchain does not start the destination's half over this transport. Somebody has to run
    /// this command there.
    AdoptThere {
        /// The shell command.
        command: String,
    },

    /// ssh led to another host than the destination. Nothing was touched there.
    Elsewhere {
        /// That host's own name.
        host: String,
        /// Whether that host is the source.
        source: bool,
    },
    /// The command waits for a domain, or for its log to be offered.
    Waiting {
        /// The domain, by the name or UUID that was given.
        domain: String,
        /// URL of the transport in which nothing is offered yet; missing if it waits for the
        /// domain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transport: Option<String>,
        /// How many seconds it waits at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
    },
    /// Both hosts have the folder of this log: nothing is sent.
    Shared {
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
    },
    /// The destination is ready: the migration may begin.
    Ready {
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
    },
    /// A part of the history has arrived at the destination.
    Staged {
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
        /// How many bytes have arrived so far.
        bytes: u64,
    },
    /// Readers at the destination see this part of the history, and each further part as it
    /// arrives.
    Shown {
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
        /// How many bytes they see.
        bytes: u64,
    },
    /// The history has its place among the files of the log.
    Placed {
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
        /// As in `carried`.
        files: Vec<(String, u64)>,
        /// As in `carried`.
        dropped: u64,
        /// As in `carried`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    },
    /// The history is in place, and the source was told.
    Adopted {
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
        /// As in `carried`.
        bytes: u64,
        /// As in `carried`.
        dropped: u64,
        /// As in `carried`.
        #[serde(default)]
        files: Vec<(String, u64)>,
    },
    /// The source withdrew the history. The destination is as it was before.
    Aborted {
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
    },
    /// A part of the command failed. If a domain could not be reaped, the event has all fields of
    /// `reaped`.
    Failed {
        /// Which console, if the failure concerns one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
        console: Option<ConsoleName>,
        /// Name of the domain, if the failure concerns one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        domain: Option<String>,
        /// Why, in a sentence.
        reason: String,
        /// More about the domain, if `reap` failed.
        #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
        departed: Option<Departed>,
    },

    /// `logchain stream` starts to put a log into the transport.
    Streaming {
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
        /// Offset in the VM's stream of the first byte that is put.
        offset: u64,
    },
    /// A transport that did not answer answers again.
    Recovered {
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
    },
    /// `logchain stream` ended, and all of the log is in the transport.
    Ended {
        /// Which console.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        console: ConsoleName,
        /// Offset in the VM's stream after the last byte.
        offset: u64,
    },

    /// A handoff that the agent made ended.
    Handoff(HandoffSummary),
    /// The agent watches the libvirt of this host.
    Watching {
        /// URI of that libvirt.
        uri: String,
        /// How many domains run here.
        domains: u64,
    },

    /// A log was rotated.
    Rotated(Rotation),
    /// A log was not rotated, because it is empty.
    Empty(Rotation),

    /// No domain waits to be reaped.
    Nothing,
    /// A domain that left stays defined here.
    Kept(Reaping),
    /// A domain that left is no longer a candidate for reaping, because it runs here again.
    Forgotten(Reaping),
    /// Without `--dry-run` this domain would have been reaped.
    WouldReap(Reaping),
    /// A domain that left was undefined here, and the files that it handed over were removed.
    Reaped(Reaping),

    /// One step of `logchain transport check`.
    Step {
        /// Name of the step.
        step: String,
        /// Whether the transport did what it must.
        works: bool,
        /// How many milliseconds the step took.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ms: Option<f64>,
        /// Speed of the step in MiB/s.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mib_per_s: Option<u64>,
        /// Why it failed, in a sentence.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// What the caller can do about the failure.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        advice: Option<Advice>,
    },
    /// The result of `logchain transport check`.
    Checked {
        /// Whether the transport can be relied on from here.
        works: bool,
        /// URL of the transport.
        #[serde(default)]
        transport: String,
    },
}

fn yes() -> bool {
    true
}

/// What a caller can do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Advice {
    /// Try again later.
    Retry,
    /// Fix what the reason names.
    Fix,
    /// Report a bug: this should not happen.
    Report,
}

/// Which half of a handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HandoffRole {
    /// The host that the domain left.
    Source,
    /// The host that it came to.
    Destination,
}

/// How a handoff ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HandoffOutcome {
    /// The destination has all of the log.
    Carried,
    /// The migration failed, so the log stays where it is.
    Withdrawn,
    /// The destination does not have the log, or not yet.
    NotCarried,
}

/// How a handoff that the agent made ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HandoffSummary {
    /// Name of the domain.
    pub domain: String,
    /// UUID of the domain.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub uuid: Uuid,
    /// Which console.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub console: ConsoleName,
    /// Which half this host was.
    pub role: HandoffRole,
    /// How it ended.
    pub outcome: HandoffOutcome,
    /// Name of the other host; missing where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Length of the history in bytes; 0 where it was not carried.
    pub bytes: u64,
    /// As in `carried`.
    pub dropped: u64,
    /// As in `carried`; the destination alone knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_ms: Option<u64>,
    /// Why it was not carried, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What happens next with a log that was not carried, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A log that logchain was asked to rotate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rotation {
    /// Name of the domain.
    pub domain: String,
    /// UUID of the domain.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub uuid: Uuid,
    /// Which console, as libvirt names it.
    pub console: String,
    /// Path of the log's base file.
    pub path: String,
    /// Size of the rotated file in bytes; null if virtlogd was quicker or the log is empty.
    pub bytes: Option<u64>,
    /// Who rotated it: `logchain` or `virtlogd`; null if nobody did.
    pub by: Option<String>,
}

/// What became of a domain that left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reaping {
    /// Name of the domain.
    pub domain: String,
    /// Why, in a sentence; may be empty.
    pub reason: String,
    /// What was done, or would be done, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub done: String,
    /// More about the domain.
    #[serde(flatten)]
    pub departed: Departed,
}

/// A domain that left this host by migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Departed {
    /// UUID of the domain.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub uuid: Uuid,
    /// URI of the libvirt to which the domain migrated.
    pub destination: String,
    /// When it left, in seconds since 1970 (UTC).
    pub left: u64,
    /// Whether `--dry-run` was given, so that nothing was changed.
    pub dry_run: bool,
    /// How many files were removed.
    pub files: u64,
    /// How many bytes the removed files had.
    pub bytes: u64,
    /// Names of the files that stay.
    pub kept: Vec<String>,
}

impl Event {
    /// A warning with this sentence.
    #[must_use]
    pub fn warning(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Warning { reason }
    }

    /// The part of a job that was this console's failed.
    #[must_use]
    pub fn failed(console: ConsoleName, reason: impl Into<String>) -> Self {
        Self::Failed {
            console: Some(console),
            domain: None,
            reason: reason.into(),
            departed: None,
        }
    }

    /// The first event of the destination's half.
    #[must_use]
    pub fn hello() -> Self {
        Self::Hello {
            protocol: PROTOCOL,
            oldest: PROTOCOL,
            release: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// One line of JSON, without its newline.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Its keys are names and its numbers finite: writing to memory cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads one line. `None`: it is no event, or of a kind that this release does not know.
    #[must_use]
    pub fn from_json(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

/// Hears what happens. It is called on the thread on which that happens: it must not wait.
pub trait Listener: Send + Sync {
    /// Something happened.
    fn hear(&self, event: &Event);

    /// How often it wants to hear of a job's progress; `None`: never.
    fn progress_every(&self) -> Option<Duration> {
        None
    }

    /// Nothing is waited for any more: what was shown of a job's progress is out of date.
    fn progress_is_over(&self) {}
}

impl<F: Fn(&Event) + Send + Sync> Listener for F {
    fn hear(&self, event: &Event) {
        self(event);
    }
}

/// Where a job tells its events.
#[derive(Clone)]
pub struct Events(Arc<dyn Listener>);

impl Events {
    /// To this listener.
    pub fn to(listener: impl Listener + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// To nobody.
    #[must_use]
    pub fn ignored() -> Self {
        Self::to(|_: &Event| {})
    }

    /// Something happened.
    pub fn tell(&self, event: Event) {
        tracing::debug!(event = %event.to_json(), "a job tells");
        self.0.hear(&event);
    }

    /// A part of the job failed: tells it, and gives it back for
    /// [`Finished::failures`](crate::Finished::failures).
    pub(crate) fn fail(&self, failure: Event) -> Event {
        self.tell(failure.clone());
        failure
    }

    /// Something is amiss, and the job goes on.
    pub fn warn(&self, reason: impl Into<String>) {
        self.tell(Event::warning(reason));
    }

    /// As [`Listener::progress_every`].
    #[must_use]
    pub fn progress_every(&self) -> Option<Duration> {
        self.0.progress_every()
    }

    /// As [`Listener::progress_is_over`].
    pub fn progress_is_over(&self) {
        self.0.progress_is_over();
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}
