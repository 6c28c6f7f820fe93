//! A domain that comes to this host, as the destination's half sees it.

use async_trait::async_trait;
use logchain_core::BoxError;
use logchain_core::handoff::adopt::{Destination, Place};
use logchain_core::ids::ConsoleName;
use logchain_libvirt::consoles::consoles;
use logchain_libvirt::{Connection, Error};
use uuid::Uuid;

use crate::limits::Limits;
use crate::neighbours;

/// A domain that comes, or came, to this host.
pub(crate) struct IncomingDomain {
    /// libvirt here.
    pub(crate) connection: Connection,
    /// UUID of the domain.
    pub(crate) domain: Uuid,
    /// The console whose log is adopted.
    pub(crate) console: ConsoleName,
    /// How logs are rolled over here.
    pub(crate) limits: Limits,
}

#[async_trait]
impl Destination for IncomingDomain {
    async fn place(&self) -> Result<Option<Place>, BoxError> {
        let domain = match self.connection.lookup_uuid(self.domain).await {
            Ok(domain) => domain,
            Err(Error::NoDomain { .. }) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        if !domain.state().await?.is_active() {
            return Ok(None);
        }
        let xml = match domain.live_xml().await {
            Ok(xml) => xml,
            Err(Error::NoDomain { .. }) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let found = consoles(&xml)?;
        let console = found.into_iter().find(|c| c.name == self.console.as_str());
        match console {
            Some(console) => {
                neighbours::learn(&self.connection, vec![console.path.clone()]).await;
                Ok(Some(self.limits.place(console.path)))
            }
            None => Err(format!(
                "domain {} has no console {} here",
                domain.name(),
                self.console
            )
            .into()),
        }
    }
}
