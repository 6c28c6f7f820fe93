//! This host, as libvirt here tells of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use async_trait::async_trait;
use logchain_core::chain::{Numbering, NumberingChoice, Ownership};
use logchain_core::folder::Folder;
use logchain_core::follow::{Writer, Writers};
use logchain_core::handoff::adopt::{Destination, Place};
use logchain_core::placement::Rules;
use logchain_core::rotation::Retention;
use logchain_core::transport::ConsoleName;
use logchain_libvirt::consoles::{Console, consoles};
use logchain_libvirt::virtlogd_conf::{
    LogLimits, QEMU_CONF, StdioHandler, VIRTLOGD_CONF, read_limits, read_stdio_handler,
};
use logchain_libvirt::{Connection, Domain, Error, drain};
use uuid::Uuid;

use crate::exit::Usage;
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

/// How logs are rolled over on this host. `None`: QEMU writes them, nothing does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits(Option<LogLimits>);

pub(crate) fn limits() -> Limits {
    let handler = read_stdio_handler(Path::new(QEMU_CONF));
    let limits = read_limits(Path::new(VIRTLOGD_CONF));
    for note in [handler.note, limits.note].into_iter().flatten() {
        // Nobody may be there to read it any more.
        let _ = writeln!(std::io::stderr(), "logchain: {note}");
    }
    Limits((handler.value == StdioHandler::Logd).then_some(limits.value))
}

impl Limits {
    /// The numbering of a log on this host.
    pub(crate) fn numbering(self) -> NumberingChoice {
        if self.0.is_some() {
            NumberingChoice::FromZero
        } else {
            NumberingChoice::Auto
        }
    }

    /// What placing has to keep to. What QEMU writes itself, only an operator's
    /// own rotation touches; carried files are numbered as virtlogd's are.
    pub(crate) fn rules(self) -> Rules {
        let retention = self.0.map_or(Retention::UNLIMITED, |l| {
            Retention::virtlogd(l.max_size.unwrap_or(0), l.max_backups)
        });
        Rules {
            numbering: Numbering::FromZero,
            retention,
        }
    }
}

/// Connects, to a host whose files are this machine's.
pub(crate) async fn connect_local(uri: Option<&str>) -> anyhow::Result<Connection> {
    let connection = Connection::open(uri).await?;
    if !connection.is_local() {
        let uri = connection.uri();
        return Err(Usage(format!(
            "{uri} is another host, whose files are not here; run logchain there"
        ))
        .into());
    }
    Ok(connection)
}

/// A domain's consoles: those it has now, or would have at its next start.
pub(crate) async fn consoles_of(domain: &Domain) -> anyhow::Result<Vec<Console>> {
    let found = consoles(&domain.live_xml().await?)?;
    if found.is_empty() {
        anyhow::bail!(
            "domain {} has no console log: no serial or console device of it has a <log>, or writes \
             to a file; give it one in its XML",
            domain.name()
        );
    }
    let paths = found.iter().map(|console| console.path.clone());
    neighbours::learn(domain.connection(), paths.collect()).await;
    Ok(found)
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

impl Limits {
    /// A log of this host.
    pub(crate) fn place(self, path: PathBuf) -> Place {
        Place {
            path,
            rules: self.rules(),
        }
    }
}
