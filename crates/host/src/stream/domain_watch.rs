//! Whether a domain is here, over restarts of libvirt.
//!
//! Must not know: logs.

use logchain_core::OkLogged as _;
use logchain_libvirt::{Connection, Domain};
use uuid::Uuid;

use crate::{Result, consoles};

/// What libvirt here tells of a domain, over restarts of libvirt.
pub(super) struct DomainWatch<'a> {
    pub(super) uri: Option<&'a str>,
    pub(super) what: &'a str,
    pub(super) connection: Option<Connection>,
}

impl DomainWatch<'_> {
    async fn connection(&mut self) -> Result<&Connection> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => consoles::connect_local(self.uri).await?,
        };
        Ok(self.connection.insert(connection))
    }

    pub(super) async fn find(&mut self) -> Result<Domain> {
        let what = self.what;
        match self.connection().await?.lookup(what).await {
            Ok(domain) => Ok(domain),
            Err(e) => {
                self.connection = None;
                Err(e.into())
            }
        }
    }

    /// Whether it runs here; `None`: nobody can tell now.
    pub(super) async fn see(&mut self, domain: Uuid) -> Option<bool> {
        let connection = self.connection().await;
        let connection = connection.ok_logged("whether the domain runs is asked again")?;
        let state = match connection.lookup_uuid(domain).await {
            Ok(domain) => domain.state().await.map(|state| state.is_active()),
            Err(e) => Err(e),
        };
        match state {
            Ok(active) => Some(active),
            Err(logchain_libvirt::Error::NoDomain { .. }) => Some(false),
            Err(_) => {
                self.connection = None;
                None
            }
        }
    }
}
