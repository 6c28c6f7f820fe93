//! Pure: libvirt's numbers for a domain's state and its reason, as types.

use virt_sys as sys;

/// What a domain is doing, as its host says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// It runs.
    Running(Running),
    /// It is there, and its guest stands still.
    Paused(Paused),
    /// It is on its way down; the guest may still print.
    ShuttingDown,
    /// It is defined and not running.
    Shutoff(Shutoff),
    /// Its guest crashed, and it was kept as it was.
    Crashed,
    /// Its guest sleeps.
    PmSuspended,
    /// The host does not know it (any more).
    Gone,
    /// Anything else; the number is libvirt's.
    Other(i32),
}

impl State {
    /// From libvirt's state and reason.
    pub(crate) fn from_raw(state: u32, reason: i32) -> Self {
        match state {
            // Blocked is Xen's word for a guest that waits for its next turn.
            sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED => {
                Self::Running(Running::from_raw(reason))
            }
            sys::VIR_DOMAIN_PAUSED => Self::Paused(Paused::from_raw(reason)),
            sys::VIR_DOMAIN_SHUTDOWN => Self::ShuttingDown,
            sys::VIR_DOMAIN_SHUTOFF => Self::Shutoff(Shutoff::from_raw(reason)),
            sys::VIR_DOMAIN_CRASHED => Self::Crashed,
            sys::VIR_DOMAIN_PMSUSPENDED => Self::PmSuspended,
            other => Self::Other(i32::try_from(other).unwrap_or(-1)),
        }
    }

    /// Whether a hypervisor process stands behind it.
    #[must_use]
    pub fn is_active(self) -> bool {
        !matches!(self, Self::Shutoff(_) | Self::Gone)
    }

    /// Whether nothing can write its log any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        !self.is_active()
    }

    /// In a word, for messages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running(_) => "running",
            Self::Paused(_) => "paused",
            Self::ShuttingDown => "shutting down",
            Self::Shutoff(_) => "shut off",
            Self::Crashed => "crashed",
            Self::PmSuspended => "asleep",
            Self::Gone => "not there",
            Self::Other(_) => "in a state that is not known here",
        }
    }
}

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $raw:path,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
            /// Any other; the number is libvirt's.
            Other(i32),
        }

        impl $name {
            pub(crate) fn from_raw(raw: i32) -> Self {
                match u32::try_from(raw) {
                    $(Ok($raw) => Self::$variant,)*
                    _ => Self::Other(raw),
                }
            }
        }
    };
}
pub(crate) use reasons;

reasons! {
    /// Why a domain runs.
    Running {
        /// It was started.
        Booted = sys::VIR_DOMAIN_RUNNING_BOOTED,
        /// It came here by migration.
        Migrated = sys::VIR_DOMAIN_RUNNING_MIGRATED,
        /// It was paused before.
        Unpaused = sys::VIR_DOMAIN_RUNNING_UNPAUSED,
        /// It was to leave, and stayed.
        MigrationCancelled = sys::VIR_DOMAIN_RUNNING_MIGRATION_CANCELED,
        /// It runs while part of its memory is still at the source.
        Postcopy = sys::VIR_DOMAIN_RUNNING_POSTCOPY,
        /// As before, and the rest does not come.
        PostcopyFailed = sys::VIR_DOMAIN_RUNNING_POSTCOPY_FAILED,
    }
}

reasons! {
    /// Why a domain is paused.
    Paused {
        /// Somebody paused it.
        User = sys::VIR_DOMAIN_PAUSED_USER,
        /// It is being migrated.
        Migration = sys::VIR_DOMAIN_PAUSED_MIGRATION,
        /// A disk failed.
        IoError = sys::VIR_DOMAIN_PAUSED_IOERROR,
        /// Its process was just started.
        StartingUp = sys::VIR_DOMAIN_PAUSED_STARTING_UP,
        /// It left, and still serves memory to the destination.
        Postcopy = sys::VIR_DOMAIN_PAUSED_POSTCOPY,
        /// As before, and the destination cannot be reached.
        PostcopyFailed = sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED,
    }
}

reasons! {
    /// Why a domain is shut off.
    Shutoff {
        /// Not known: what a libvirtd that was restarted says of every domain.
        Unknown = sys::VIR_DOMAIN_SHUTOFF_UNKNOWN,
        /// Its guest shut down.
        Shutdown = sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN,
        /// Somebody ended it.
        Destroyed = sys::VIR_DOMAIN_SHUTOFF_DESTROYED,
        /// Its process died.
        Crashed = sys::VIR_DOMAIN_SHUTOFF_CRASHED,
        /// It left by migration.
        Migrated = sys::VIR_DOMAIN_SHUTOFF_MIGRATED,
        /// It was saved to a file.
        Saved = sys::VIR_DOMAIN_SHUTOFF_SAVED,
        /// It could not be started.
        Failed = sys::VIR_DOMAIN_SHUTOFF_FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_states() {
        for (raw, want) in [
            ((1, 1), State::Running(Running::Booted)),
            ((1, 11), State::Running(Running::PostcopyFailed)),
            ((2, 0), State::Running(Running::Other(0))),
            ((3, 2), State::Paused(Paused::Migration)),
            ((3, -1), State::Paused(Paused::Other(-1))),
            ((4, 0), State::ShuttingDown),
            ((5, 4), State::Shutoff(Shutoff::Migrated)),
            ((5, 0), State::Shutoff(Shutoff::Unknown)),
            ((5, 99), State::Shutoff(Shutoff::Other(99))),
            ((0, 0), State::Other(0)),
            ((u32::MAX, 0), State::Other(-1)),
        ] {
            assert_eq!(State::from_raw(raw.0, raw.1), want, "{raw:?}");
        }
        assert!(State::Paused(Paused::Postcopy).is_active());
        assert!(State::Shutoff(Shutoff::Unknown).is_over() && State::Gone.is_over());
    }
}
