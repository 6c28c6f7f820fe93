//! The console logs of this host's domains, as libvirt here tells of them.

use std::time::Duration;

use logchain_core::ids::ConsoleName;
use logchain_libvirt::consoles::{Console, read};
use logchain_libvirt::uri::Uri;
use logchain_libvirt::{Connection, Domain};

use crate::error::{Error, Result};
use crate::hosts::Hosts;
use crate::neighbours;

/// Connects, to a host whose files are this machine's.
///
/// # Errors
/// [`Error::Usage`] where the URI leads to another host; libvirt's.
pub async fn connect_local(uri: Option<&str>) -> Result<Connection> {
    let connection = Connection::open(uri).await?;
    if !connection.is_local() && !is_this_host(&connection).await {
        let uri = connection.uri();
        return Err(Error::Usage(format!(
            "{uri} is another host, whose files are not here; run logchain there"
        )));
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
///
/// # Errors
/// [`Error::Refused`] where it has no log that can be followed; libvirt's.
pub async fn consoles_of(domain: &Domain) -> Result<Vec<Console>> {
    let found = read(&domain.live_xml().await?)?;
    if found.logs.is_empty() && !found.left_out.is_empty() {
        return Err(Error::Refused(format!(
            "domain {} has no console log that can be followed: {}",
            domain.name(),
            found.left_out.join("; ")
        )));
    }
    if found.logs.is_empty() {
        return Err(Error::Refused(format!(
            "domain {} has no console log: no serial or console device of it has a <log>, or writes \
             to a file; give it one in its XML",
            domain.name()
        )));
    }
    let paths = found.logs.iter().map(|console| console.path.clone());
    neighbours::learn(domain.connection(), paths.collect()).await;
    Ok(found.logs)
}

/// One console of a domain: the named one, or the first.
///
/// # Errors
/// [`Error::Refused`] where it has no such console; as [`consoles_of`].
pub async fn console(
    uri: Option<&str>,
    domain: &str,
    name: Option<&str>,
) -> Result<(Domain, Console)> {
    let connection = connect_local(uri).await?;
    let domain = connection.lookup(domain).await?;
    let console = console_of(&domain, name).await?;
    Ok((domain, console))
}

/// The same of a domain that was found already.
///
/// # Errors
/// [`Error::Refused`] where it has no such console; as [`consoles_of`].
pub async fn console_of(domain: &Domain, name: Option<&str>) -> Result<Console> {
    let found = consoles_of(domain).await?;
    let names: Vec<String> = found.iter().map(|c| c.name.clone()).collect();
    let console = found.into_iter().find(|c| name.is_none_or(|n| n == c.name));
    console.ok_or_else(|| {
        let (asked, there) = (name.unwrap_or_default(), names.join(", "));
        Error::Refused(format!(
            "domain {} has no console {asked}; it has {there}",
            domain.name()
        ))
    })
}

/// The name of a console as transports have it.
///
/// # Errors
/// [`Error::Name`] where transports take no such name.
pub fn key_name(console: &Console) -> Result<ConsoleName> {
    Ok(console.name.parse()?)
}

/// This host's name, for people on the other one.
#[must_use]
pub fn own_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
