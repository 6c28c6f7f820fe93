//! The two hosts of a handoff, told apart by the UUIDs that libvirt gives them.
//!
//! ssh and libvirt may reach different machines by one name: through a tunnel, NAT, an
//! address that moves, an entry in ssh's configuration. The destination's half that runs
//! anywhere else must touch nothing: at the source it would find the log itself there.
//! libvirt refuses a migration between hosts of one UUID, so it never takes one for the
//! other; a machine's id or its boot's would, where containers share a kernel.

use std::ffi::OsString;

use logchain_core::OkLogged as _;
use logchain_libvirt::Connection;
use uuid::Uuid;

/// Both, as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// The UUID of the host that the domain leaves.
    pub source: Option<Uuid>,
    /// The UUID of the host that it goes to.
    pub destination: Option<Uuid>,
}

/// Where the destination's half was started instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// At the source.
    Source,
    /// At a host that has no part in the migration.
    OtherHost,
}

impl Hosts {
    /// A host that does not say which one it is stays unknown.
    pub async fn of(source: &Connection, destination: Option<&Connection>) -> Self {
        Self {
            source: uuid_of(source).await,
            destination: match destination {
                Some(there) => uuid_of(there).await,
                None => None,
            },
        }
    }

    /// The host, where both are one.
    #[must_use]
    pub fn same(self) -> Option<Uuid> {
        self.source.filter(|_| self.source == self.destination)
    }

    /// The options with which `logchain adopt` is told of them.
    #[must_use]
    pub fn options(self) -> Vec<OsString> {
        let options = [
            ("--from-host", self.source),
            ("--to-host", self.destination),
        ];
        let given = options.into_iter().filter_map(|(option, host)| {
            let host = host?.to_string();
            Some([OsString::from(option), OsString::from(host)])
        });
        given.flatten().collect()
    }

    /// Whether the destination's half may work at the host `here`.
    ///
    /// # Errors
    /// Where it is instead.
    pub fn check(self, here: Option<Uuid>) -> Result<(), Elsewhere> {
        let Some(here) = here else {
            return Ok(());
        };
        if self.source == Some(here) {
            return Err(Elsewhere::Source);
        }
        match self.destination {
            Some(destination) if destination != here => Err(Elsewhere::OtherHost),
            _ => Ok(()),
        }
    }
}

/// The UUID that libvirt gives its host; `None` where it gives none.
pub async fn uuid_of(host: &Connection) -> Option<Uuid> {
    host.host_uuid()
        .await
        .ok_logged("this host is not told from others")
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_half_there_works_at_the_destination_alone() {
        let [one, two, three] = [1, 2, 3].map(Uuid::from_u128);
        let of = |source, destination| Hosts {
            source,
            destination,
        };
        let both = of(Some(one), Some(two));
        assert_eq!(both.check(Some(two)), Ok(()));
        assert_eq!(both.check(Some(one)), Err(Elsewhere::Source));
        assert_eq!(both.check(Some(three)), Err(Elsewhere::OtherHost));
        // What nobody tells is no reason to leave a log behind.
        assert_eq!(both.check(None), Ok(()));
        assert_eq!(of(None, None).check(Some(one)), Ok(()));
        let source = of(Some(one), None);
        assert_eq!(source.check(Some(three)), Ok(()));
        assert_eq!(source.check(Some(one)), Err(Elsewhere::Source));
        assert_eq!(of(Some(one), Some(one)).same(), Some(one));
        assert_eq!(
            (both.same(), source.same(), of(None, None).same()),
            (None, None, None)
        );
    }
}
