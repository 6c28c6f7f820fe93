//! This host, as libvirt here tells of it.

use std::ffi::OsStr;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use logchain_core::chain::Ownership;
use logchain_core::folder::Folder;
use logchain_core::follow::{Writer, Writers};
use logchain_core::handoff::adopt::{Destination, Place};
use logchain_core::transport::ConsoleName;
use logchain_libvirt::consoles::{Console, consoles, read};
use logchain_libvirt::uri::Uri;
use logchain_libvirt::{Connection, Domain, Error, drain};
use uuid::Uuid;

use crate::exit::Usage;
use crate::hosts::Hosts;
use crate::limits::Limits;
use crate::neighbours;

/// Writers as leases show them.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// Whether a writer says nothing: its guest will never print again.
    left: AtomicBool,
}

impl Leases {
    /// The guest is gone for good, though its process is there.
    pub(crate) fn left(&self) {
        self.left.store(true, Ordering::Relaxed);
    }
}

impl Writers for Leases {
    fn writer(&self, file: &File) -> Writer {
        match drain::has_writer(file) {
            drain::Writer::None => Writer::None,
            drain::Writer::Some if self.left.load(Ordering::Relaxed) => Writer::Unknown,
            drain::Writer::Some => Writer::Some,
            drain::Writer::Unknown => Writer::Unknown,
        }
    }

    fn ownership(&self, folder: &Folder, base: &OsStr) -> Ownership {
        neighbours::ownership(folder, base)
    }
}

/// Connects, to a host whose files are this machine's.
pub(crate) async fn connect_local(uri: Option<&str>) -> anyhow::Result<Connection> {
    let connection = Connection::open(uri).await?;
    if !connection.is_local() && !is_this_host(&connection).await {
        let uri = connection.uri();
        return Err(Usage(format!(
            "{uri} is another host, whose files are not here; run logchain there"
        ))
        .into());
    }
    Ok(connection)
}

/// How long this host's own libvirt may take to say which host it is.
const OWN: Duration = Duration::from_secs(5);

/// Whether a name or an address that leads over the network leads to this very host: its own
/// libvirt gives the same UUID, and the same name, since machines that were cloned share the
/// former.
async fn is_this_host(connection: &Connection) -> bool {
    let Some(uri) = Uri::parse(connection.uri()) else {
        return false;
    };
    let own = format!("{}:///system", uri.driver());
    let Ok(own) = Connection::open_within(Some(&own), OWN).await else {
        return false;
    };
    let hosts = Hosts::of(connection, Some(&own)).await;
    hosts.same().is_some() && own.hostname() == connection.hostname()
}

/// A domain's consoles: those it has now, or would have at its next start.
pub(crate) async fn consoles_of(domain: &Domain) -> anyhow::Result<Vec<Console>> {
    let found = read(&domain.live_xml().await?)?;
    if found.logs.is_empty() && !found.left_out.is_empty() {
        anyhow::bail!(
            "domain {} has no console log that can be followed: {}",
            domain.name(),
            found.left_out.join("; ")
        );
    }
    if found.logs.is_empty() {
        anyhow::bail!(
            "domain {} has no console log: no serial or console device of it has a <log>, or writes \
             to a file; give it one in its XML",
            domain.name()
        );
    }
    let paths = found.logs.iter().map(|console| console.path.clone());
    neighbours::learn(domain.connection(), paths.collect()).await;
    Ok(found.logs)
}

/// One console of a domain: the named one, or the first.
pub(crate) async fn console(
    uri: Option<&str>,
    domain: &str,
    name: Option<&str>,
) -> anyhow::Result<(Domain, Console)> {
    let connection = connect_local(uri).await?;
    let domain = connection.lookup(domain).await?;
    let found = consoles_of(&domain).await?;
    let names: Vec<String> = found.iter().map(|c| c.name.clone()).collect();
    let console = found.into_iter().find(|c| name.is_none_or(|n| n == c.name));
    let console = console.with_context(|| {
        let (asked, there) = (name.unwrap_or_default(), names.join(", "));
        format!(
            "domain {} has no console {asked}; it has {there}",
            domain.name()
        )
    })?;
    Ok((domain, console))
}

/// The name of a console as transports have it.
pub(crate) fn key_name(console: &Console) -> anyhow::Result<ConsoleName> {
    Ok(console.name.parse()?)
}

/// This host's name, for people on the other one.
pub(crate) fn own_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// A domain that comes, or came, to this host.
pub(crate) struct Arriving {
    pub(crate) connection: Connection,
    pub(crate) domain: Uuid,
    pub(crate) console: ConsoleName,
    pub(crate) limits: Limits,
}

#[async_trait]
impl Destination for Arriving {
    async fn place(&self) -> Result<Option<Place>, String> {
        let text = |e: Error| e.to_string();
        let domain = match self.connection.lookup_uuid(self.domain).await {
            Ok(domain) => domain,
            Err(Error::NoDomain { .. }) => return Ok(None),
            Err(e) => return Err(text(e)),
        };
        if !domain.state().await.map_err(text)?.is_active() {
            return Ok(None);
        }
        let xml = match domain.live_xml().await {
            Ok(xml) => xml,
            Err(Error::NoDomain { .. }) => return Ok(None),
            Err(e) => return Err(text(e)),
        };
        let found = consoles(&xml).map_err(text)?;
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
            )),
        }
    }
}
