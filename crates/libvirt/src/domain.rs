//! A domain on one host.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;
use virt::connect::Connect;
use virt::error::{Error as VirtError, ErrorNumber};
use virt_sys as sys;

use crate::connection::Connection;
use crate::{Error, Result, State, ffi};

/// A domain on one host. Clones share it; its name is the one it had when it
/// was found.
#[derive(Clone)]
pub struct Domain {
    connection: Connection,
    inner: Arc<Described>,
}

/// A domain with what its handle itself knows.
pub(crate) struct Described {
    domain: virt::domain::Domain,
    name: String,
    uuid: Uuid,
}

/// A job that runs on a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Job {
    /// It leaves its host.
    MigrationOut,
    /// It comes to its host.
    MigrationIn,
    /// Anything else; the number is libvirt's.
    Other(i32),
}

impl Job {
    pub(crate) fn from_raw(operation: i32) -> Self {
        match u32::try_from(operation) {
            Ok(sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT) => Self::MigrationOut,
            Ok(sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN) => Self::MigrationIn,
            _ => Self::Other(operation),
        }
    }
}

impl Domain {
    /// Reads what the handle knows; asks nobody.
    pub(crate) fn describe(domain: virt::domain::Domain) -> Result<Described, VirtError> {
        let name = domain.get_name()?;
        let uuid = domain.get_uuid()?;
        Ok(Described { domain, name, uuid })
    }

    pub(crate) fn new(connection: Connection, described: Described) -> Self {
        Self {
            connection,
            inner: Arc::new(described),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its UUID: what stays the same when it migrates.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.inner.uuid
    }

    /// The host it was found on.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What it is doing. A domain that its host does not know any more is
    /// [`State::Gone`], not an error.
    ///
    /// # Errors
    /// [`Error::NoAnswer`], [`Error::Lost`].
    pub async fn state(&self) -> Result<State> {
        let state = self
            .ask("ask for the state of the domain", |domain, _| {
                domain.get_state()
            })
            .await;
        match state {
            Ok((state, reason)) => Ok(State::from_raw(state, reason)),
            Err(Error::NoDomain { .. }) => Ok(State::Gone),
            Err(e) => Err(e),
        }
    }

    /// Whether its host keeps its definition when it is shut off.
    ///
    /// # Errors
    /// [`Error::NoDomain`], [`Error::NoAnswer`], [`Error::Lost`].
    pub async fn is_persistent(&self) -> Result<bool> {
        self.ask("ask whether the domain is persistent", |domain, _| {
            domain.is_persistent()
        })
        .await
    }

    /// Its XML as it is now: where it runs, that of the running guest.
    ///
    /// # Errors
    /// [`Error::NoDomain`], [`Error::NoAnswer`], [`Error::Lost`].
    pub async fn live_xml(&self) -> Result<String> {
        self.ask("read the XML of the domain", |domain, _| {
            domain.get_xml_desc(0)
        })
        .await
    }

    /// Its XML as it will be at its next start.
    ///
    /// # Errors
    /// As [`Domain::live_xml`]; [`Error::Failed`] for a transient domain, which has none.
    pub async fn inactive_xml(&self) -> Result<String> {
        self.ask("read the inactive XML of the domain", |domain, _| {
            domain.get_xml_desc(sys::VIR_DOMAIN_XML_INACTIVE)
        })
        .await
    }

    /// Which job runs on it now, if any.
    ///
    /// # Errors
    /// [`Error::NoDomain`], [`Error::Unsupported`], [`Error::NoAnswer`], [`Error::Lost`].
    pub async fn job(&self) -> Result<Option<Job>> {
        let operation = self.ask("ask for the job of the domain", |domain, _| {
            ffi::job_operation(domain)
        });
        Ok(operation.await?.map(Job::from_raw))
    }

    /// Pauses its guest.
    ///
    /// # Errors
    /// [`Error::NoDomain`], [`Error::Failed`], [`Error::NoAnswer`], [`Error::Lost`].
    pub async fn suspend(&self) -> Result<()> {
        self.ask("pause the domain", |domain, _| domain.suspend())
            .await
            .map(drop)
    }

    /// Removes its definition, with its saved memory image and what libvirt
    /// remembers of snapshots and checkpoints. Its firmware variables and its
    /// TPM's state stay: they may lie on storage that the destination now uses.
    ///
    /// # Errors
    /// [`Error::StillActive`] where it is not shut off: to undefine a running
    /// domain would make it transient. [`Error::NoDomain`], [`Error::Unsupported`]
    /// where the host is too old to keep a TPM's state.
    pub async fn undefine(&self) -> Result<()> {
        let state = self.state().await?;
        match state {
            State::Gone => return Err(self.connection.no_domain(self.name())),
            state if state.is_active() => {
                return Err(Error::StillActive {
                    action: "undefine it".to_owned(),
                    domain: self.name().to_owned(),
                    uri: self.connection.uri().to_owned(),
                    state: state.word(),
                });
            }
            _ => {}
        }
        let has_tpm = crate::consoles::has_device(&self.inactive_xml().await?, "tpm")?;
        let kept_out = self
            .ask(
                "undefine the domain",
                move |domain, _| match undefine_by_steps(domain, has_tpm) {
                    Ok(()) => Ok(None),
                    Err(Refused::WouldLoseTpm(e)) => Ok(Some(e.message().to_owned())),
                    Err(Refused::Libvirt(e)) => Err(e),
                },
            )
            .await?;
        match kept_out {
            None => Ok(()),
            Some(message) => Err(Error::Unsupported {
                action: "keep the state of the domain's TPM while undefining it".to_owned(),
                uri: self.connection.uri().to_owned(),
                message,
            }),
        }
    }

    /// Asks the host a question about this domain.
    pub(crate) async fn ask<T, F>(&self, action: &str, ask: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&virt::domain::Domain, &Connect) -> Result<T, VirtError> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        self.connection
            .ask(self.name(), action, move |connect| {
                ask(&inner.domain, connect)
            })
            .await
    }

    /// As [`Domain::ask`], for as long as it takes.
    pub(crate) async fn ask_patiently<T, F>(&self, action: &str, ask: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&virt::domain::Domain) -> Result<T, VirtError> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        self.connection
            .ask_within(None, self.name(), action, move |_| ask(&inner.domain))
            .await
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain")
            .field("name", &self.inner.name)
            .field("uuid", &self.inner.uuid)
            .field("uri", &self.connection.uri())
            .finish()
    }
}

enum Refused {
    Libvirt(VirtError),
    WouldLoseTpm(VirtError),
}

/// With every flag first; a driver that does not know one refuses it whole, so
/// the youngest are left out step by step.
fn undefine_by_steps(domain: &virt::domain::Domain, has_tpm: bool) -> Result<(), Refused> {
    const BASIC: u32 =
        sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
    // libvirt 5.6 has checkpoints, 8.9 keeps a TPM.
    const OLDER: u32 =
        BASIC | sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;
    const ALL: u32 = OLDER | sys::VIR_DOMAIN_UNDEFINE_KEEP_TPM;

    let unknown = |e: &VirtError| e.code() == ErrorNumber::InvalidArg;
    match domain.undefine_flags(ALL) {
        Ok(()) => return Ok(()),
        Err(e) if unknown(&e) && has_tpm => return Err(Refused::WouldLoseTpm(e)),
        Err(e) if unknown(&e) => {}
        Err(e) => return Err(Refused::Libvirt(e)),
    }
    match domain.undefine_flags(OLDER) {
        Err(e) if unknown(&e) => domain.undefine_flags(BASIC).map_err(Refused::Libvirt),
        other => other.map_err(Refused::Libvirt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;
    use crate::{Paused, Running, Shutoff};

    #[tokio::test]
    async fn its_states_are_seen_as_they_come() {
        let machine = Machine::define("states", "").await;
        let domain = machine.domain().await;
        assert!(matches!(domain.state().await, Ok(State::Shutoff(_))));
        machine.start().await;
        assert_eq!(domain.state().await, Ok(State::Running(Running::Booted)));
        assert_eq!(domain.is_persistent().await, Ok(true));
        domain.suspend().await.unwrap();
        assert_eq!(domain.state().await, Ok(State::Paused(Paused::User)));
        machine.destroy().await;
        assert_eq!(domain.state().await, Ok(State::Shutoff(Shutoff::Destroyed)));
        domain.undefine().await.unwrap();
        assert_eq!(domain.state().await, Ok(State::Gone));
        assert!(matches!(
            domain.live_xml().await,
            Err(Error::NoDomain { .. })
        ));
        assert!(matches!(
            domain.undefine().await,
            Err(Error::NoDomain { .. })
        ));
    }

    #[tokio::test]
    async fn a_running_domain_is_not_undefined() {
        let machine = Machine::define("undefine", "").await;
        machine.start().await;
        let domain = machine.domain().await;
        let error = domain.undefine().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{} at test:///default is running; it must be shut off to undefine it",
                machine.name
            )
        );
        assert_eq!(domain.is_persistent().await, Ok(true));
    }

    #[tokio::test]
    async fn its_log_is_in_both_xmls() {
        let serial = "<serial type='pty'><log file='/var/log/vm/console.log' append='on'/>\
                      <target port='0'/></serial>";
        let machine = Machine::define("xml", serial).await;
        machine.start().await;
        let domain = machine.domain().await;
        for xml in [
            domain.live_xml().await.unwrap(),
            domain.inactive_xml().await.unwrap(),
        ] {
            let found = crate::consoles::consoles(&xml).unwrap();
            assert_eq!(found.len(), 1, "{xml}");
            assert_eq!(found[0].path.to_str(), Some("/var/log/vm/console.log"));
            assert_eq!(found[0].append, Some(true));
        }
    }
}
