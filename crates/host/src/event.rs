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

use logchain_core::transport::ConsoleName;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::progress::{Phase, Progress};

/// The version of what the two halves say to each other.
pub const PROTOCOL: u32 = 1;

/// Something happened. See the [module](self) for who reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// The destination's half is there: the first event that it tells its source.
    Hello {
        /// The newest [`PROTOCOL`] that it speaks.
        protocol: u32,
        /// The oldest one.
        oldest: u32,
        /// Its release, for people.
        release: String,
    },
    /// Something is amiss, and the job goes on.
    Warning {
        /// What, in a sentence.
        reason: String,
    },
    /// The command failed: always the last event.
    Error {
        /// Why, in a sentence.
        reason: String,
    },
    /// The job waits for something else from now on.
    Phase {
        /// For what.
        phase: Phase,
    },
    /// How far the job is.
    Progress(Progress),

    /// The domain migrated.
    Migrated {
        /// Its name.
        domain: String,
        /// The URI of the libvirt where it runs now.
        destination: String,
        /// Whether it has a console log; [`Event::NoLog`] follows where it has none.
        #[serde(default = "yes")]
        has_log: bool,
    },
    /// The domain has no console log.
    NoLog {
        /// Its name.
        domain: String,
    },
    /// Post-copy broke off: parts of the guest are on both hosts.
    Split {
        /// Its name.
        domain: String,
        /// The URI of the destination's libvirt.
        destination: String,
        /// Whether the destination still has its part; `None`: it does not answer.
        at_destination: Option<bool>,
        /// What libvirt said.
        reason: String,
    },
    /// The domain was undefined at the source.
    Undefined {
        /// Its name.
        domain: String,
    },
    /// The destination has a log.
    Carried {
        /// Which console.
        console: ConsoleName,
        /// Length of the history in bytes.
        bytes: u64,
        /// How many of the oldest bytes the rotation there does not keep.
        dropped: u64,
        /// Name and size in bytes of each file that holds it there, the newest first.
        files: Vec<(String, u64)>,
        /// The destination, as it calls itself.
        host: String,
        /// What the destination says of these files.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
        /// Milliseconds from the moment at which the guest first ran there to that at which
        /// its history was complete there; `None` where that moment is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window_ms: Option<u64>,
    },
    /// The destination had a log already.
    AlreadyCarried {
        /// Which console.
        console: ConsoleName,
        /// The transport over which it was handed over.
        to: String,
    },
    /// The handoff was withdrawn.
    Withdrawn {
        /// Which console.
        console: ConsoleName,
    },
    /// The destination does not have a log, which is whole at the source.
    NotCarried {
        /// Which console.
        console: ConsoleName,
        /// Why, in a sentence.
        reason: String,
    },
    /// Where a log that was not carried is, and how to carry it later.
    LeftBehind {
        /// Which console.
        console: ConsoleName,
        /// Its base file.
        path: String,
        /// The shell command that offers it.
        command: String,
        /// Whether it is in the outbox, since its own files are gone or about to go.
        #[serde(default)]
        in_outbox: bool,
    },
    /// A log was not carried, and nothing is left of it here.
    NothingLeft {
        /// Which console.
        console: ConsoleName,
        /// Where it was.
        path: String,
        /// Why, in a sentence.
        reason: String,
    },
    /// Nobody starts the destination's half: this command does, when it is run there.
    AdoptThere {
        /// The shell command.
        command: String,
    },

    /// The destination's half runs on another host than the destination, and did nothing.
    Elsewhere {
        /// That host, as it calls itself.
        host: String,
        /// Whether it is the source.
        source: bool,
    },
    /// The job waits for a domain, or for its log.
    Waiting {
        /// The domain, by the name or UUID that was given.
        domain: String,
        /// Where nothing is offered yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transport: Option<String>,
        /// For how many seconds at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
    },
    /// Both hosts have the folder of this log: nothing is sent.
    Shared {
        /// Which console.
        console: ConsoleName,
    },
    /// The destination is ready: the migration may begin.
    Ready {
        /// Which console.
        console: ConsoleName,
    },
    /// So much of a history has arrived.
    Staged {
        /// Which console.
        console: ConsoleName,
        /// How many bytes.
        bytes: u64,
    },
    /// Readers at the destination see so much of a history, and what is yet to come.
    Shown {
        /// Which console.
        console: ConsoleName,
        /// How many bytes.
        bytes: u64,
    },
    /// A history has its place among the files of the log.
    Placed {
        /// Which console.
        console: ConsoleName,
        /// As in [`Event::Carried`].
        files: Vec<(String, u64)>,
        /// As in [`Event::Carried`].
        dropped: u64,
        /// As in [`Event::Carried`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    },
    /// A history is in place, and the source was told.
    Adopted {
        /// Which console.
        console: ConsoleName,
        /// As in [`Event::Carried`].
        bytes: u64,
        /// As in [`Event::Carried`].
        dropped: u64,
        /// As in [`Event::Carried`].
        #[serde(default)]
        files: Vec<(String, u64)>,
    },
    /// The source withdrew a history: the destination is as it was.
    Aborted {
        /// Which console.
        console: ConsoleName,
    },
    /// A part of the job failed.
    Failed {
        /// The console of which it was, if it was one of a console.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        console: Option<ConsoleName>,
        /// The domain of which it was, if it was one of a domain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        domain: Option<String>,
        /// Why, in a sentence.
        reason: String,
        /// The domain that could not be reaped, if it was that.
        #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
        departed: Option<Departed>,
    },

    /// A stream begins.
    Streaming {
        /// Which console.
        console: ConsoleName,
        /// At which offset of the VM's stream.
        offset: u64,
    },
    /// A transport that did not answer does again.
    Recovered {
        /// Which console.
        console: ConsoleName,
    },
    /// A stream ended, and all of it is in the transport.
    Ended {
        /// Which console.
        console: ConsoleName,
        /// The offset after its last byte.
        offset: u64,
    },

    /// A log was rotated.
    Rotated(Rotation),
    /// A log was not rotated, since it is empty.
    Empty(Rotation),

    /// No domain waits to be reaped.
    Nothing,
    /// A domain that left stays defined here.
    Kept(Reaping),
    /// A domain that left is not reaped any more.
    Forgotten(Reaping),
    /// A domain that left would be reaped, were it not for `--dry-run`.
    WouldReap(Reaping),
    /// A domain that left was reaped.
    Reaped(Reaping),

    /// A transport was tried out: one step of that.
    Step {
        /// Which step.
        step: String,
        /// Whether it did what it should.
        works: bool,
        /// How many milliseconds it took.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ms: Option<f64>,
        /// How fast it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mib_per_s: Option<u64>,
        /// Why it did not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// What the caller can do then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        advice: Option<Advice>,
    },
    /// A transport was tried out.
    Checked {
        /// Whether it can be relied on.
        works: bool,
        /// Its URL.
        #[serde(default)]
        transport: String,
    },
}

fn yes() -> bool {
    true
}

/// What a caller can do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Advice {
    /// Try again later.
    Retry,
    /// Mend what the reason names.
    Fix,
    /// Report it: it should not happen.
    Report,
}

/// A log that was to be rotated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Name of the domain.
    pub domain: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// Which console, as libvirt names it.
    pub console: String,
    /// The base file.
    pub path: String,
    /// How many bytes the rotated file has; `None` where virtlogd was quicker.
    pub bytes: Option<u64>,
    /// Who rotated it: `logchain` or `virtlogd`.
    pub by: Option<String>,
}

/// What became of a domain that left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaping {
    /// Its name.
    pub domain: String,
    /// Why, in a sentence; empty where there is nothing to say.
    pub reason: String,
    /// What was done, or would be, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub done: String,
    /// More of it.
    #[serde(flatten)]
    pub departed: Departed,
}

/// A domain that left this host by migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departed {
    /// UUID of the domain.
    pub uuid: Uuid,
    /// The URI of the libvirt that it went to.
    pub destination: String,
    /// When, in seconds since 1970.
    pub left: u64,
    /// Whether nothing was to be changed.
    pub dry_run: bool,
    /// How many files were removed.
    pub files: u64,
    /// How many bytes these had.
    pub bytes: u64,
    /// Files that stay.
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
