//! Undefines a domain that left this host, and nothing else of it.
//!
//! A saved image, a snapshot or a checkpoint came after it left, for what migrates
//! has none: somebody wants the domain here. libvirt refuses then, and that is
//! the answer. Firmware variables and a TPM's state stay.
//!
//! Must not know: why it may go.

use virt::domain::Domain as Raw;
use virt::error::{Error as VirtError, ErrorNumber};
use virt_sys as sys;

use crate::{Connection, Domain, Error, Result, State};

impl Domain {
    /// Removes its definition, and only that.
    ///
    /// # Errors
    /// [`Error::StillActive`] where it is not shut off, also where it was started
    /// at the very moment: it stays defined then. [`Error::Failed`] with libvirt's
    /// reason to refuse; [`Error::NoDomain`].
    pub async fn forget(&self) -> Result<()> {
        let state = self.state().await?;
        if state == State::Gone {
            return Err(self.connection().no_domain(self.name()));
        }
        if state.is_active() {
            return Err(self.still_active(state));
        }
        let xml = self.inactive_xml().await?;
        let has_tpm = crate::consoles::has_device(&xml, "tpm")?;
        self.ask("undefine the domain", move |domain, _| {
            undefine(domain, has_tpm)
        })
        .await?;
        // libvirt undefines what runs as well, which would then be gone when it ends.
        let state = self.state().await?;
        if state.is_active() {
            let define = move |_: &Raw, c: &_| Raw::define_xml(c, &xml).map(drop);
            self.ask("define the domain again", define).await?;
            return Err(self.still_active(state));
        }
        Ok(())
    }

    fn still_active(&self, state: State) -> Error {
        Error::StillActive {
            action: "undefine it".to_owned(),
            domain: self.name().to_owned(),
            uri: self.connection().uri().to_owned(),
            state: state.word(),
        }
    }
}

impl Connection {
    /// All domains that the host knows, running or not.
    ///
    /// # Errors
    /// [`Error::NoAnswer`], [`Error::Lost`], [`Error::Unsupported`].
    pub async fn domains(&self) -> Result<Vec<Domain>> {
        let found = self
            .ask("", "list its domains", |connect| {
                let all = connect.list_all_domains(0)?;
                all.into_iter().map(Domain::describe).collect()
            })
            .await?;
        let found: Vec<_> = found;
        Ok(found
            .into_iter()
            .map(|described| Domain::new(self.clone(), described))
            .collect())
    }
}

/// A driver that does not know a flag refuses the call whole. Without the one for a
/// TPM its state would go; without the one for firmware variables libvirt refuses
/// where there are any.
fn undefine(domain: &Raw, has_tpm: bool) -> Result<(), VirtError> {
    const NVRAM: u32 = sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM;
    // libvirt 8.9.
    const TPM: u32 = sys::VIR_DOMAIN_UNDEFINE_KEEP_TPM;
    let unknown = |e: &VirtError| e.code() == ErrorNumber::InvalidArg;
    let mut answer = domain.undefine_flags(NVRAM | TPM);
    for flags in [NVRAM, 0] {
        match &answer {
            Err(e) if unknown(e) && !has_tpm => answer = domain.undefine_flags(flags),
            _ => break,
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Machine};

    #[tokio::test]
    async fn what_is_shut_off_goes_and_what_runs_stays() {
        let machine = Machine::define("forget", "").await;
        machine.start().await;
        let domain = machine.domain().await;
        let error = domain.forget().await.unwrap_err();
        assert!(matches!(error, Error::StillActive { .. }), "{error}");
        assert_eq!(domain.is_persistent().await, Ok(true));
        machine.destroy().await;
        domain.forget().await.unwrap();
        assert_eq!(domain.state().await, Ok(State::Gone));
        assert!(matches!(domain.forget().await, Err(Error::NoDomain { .. })));
    }

    #[tokio::test]
    async fn one_with_a_saved_image_stays() {
        let machine = Machine::define("saved", "").await;
        machine.start().await;
        let domain = machine.domain().await;
        let save = |d: &Raw, _: &_| d.managed_save(0).map(drop);
        domain.ask("save", save).await.unwrap();
        let error = domain.forget().await.unwrap_err();
        assert!(error.to_string().contains("managed save"), "{error}");
        assert_eq!(domain.is_persistent().await, Ok(true));
        domain.undefine().await.unwrap();
    }

    #[tokio::test]
    async fn all_domains_are_listed() {
        let machine = Machine::define("listed", "").await;
        let all = testing::connect().await.domains().await.unwrap();
        assert!(all.iter().any(|d| d.uuid() == machine.uuid));
    }
}
