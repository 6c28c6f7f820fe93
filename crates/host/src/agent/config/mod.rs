//! The agent's configuration file: its keys as types, each with a default, so that an empty file
//! is a valid one.
//!
//! - `keys`: the list of all keys with a sentence on each, from which the shipped file and the
//!   reference page are written.
//! - `read`: from text to a [`Config`], or to [`Problems`] with file, line and key.
//! - `check`: what one key alone cannot say, as that `store` needs a URL.
//! - `changes`: which keys differ between two files, and which of them need a restart.
//! - `reload`: the configuration in force, and how a new file replaces it.
//!
//! Must not know: what the agent does with a value.

mod changes;
mod check;
mod keys;
mod problem;
mod read;
mod reload;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use logchain_core::departure::DEFAULT_STATE;
use logchain_core::handoff;
use serde::{Deserialize, Serialize};

pub use changes::Changes;
pub use keys::{KEYS, Key};
pub use problem::{Problem, Problems};
pub use reload::Reloadable;

/// Where the file lies unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/logchain/agent.toml";

/// Where the control socket lies unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/logchain/agent.sock";

/// What the agent is told by its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// URI of the libvirt that is watched.
    pub connect: String,
    /// Folder in which logchain keeps this host's state.
    pub state: PathBuf,
    /// What is logged: a level, or levels by part.
    pub log_level: String,
    /// How the two halves of a handoff find each other.
    pub meet: Meet,
    /// What is done with logs that could not be carried.
    pub outbox: Outbox,
    /// What is done with domains that left.
    pub reap: Reap,
    /// Logs that are held open.
    pub holds: Holds,
    /// Logs that are copied to a store as they grow.
    pub stream: Stream,
    /// The control socket.
    pub control: Control,
    /// What is shown to Prometheus.
    pub metrics: Metrics,
    /// What the agent uses at most.
    pub limits: Limits,
}

/// The way by which a history goes from host to host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// Agents talk to each other over TLS.
    Tls,
    /// The source logs in at the destination by ssh.
    #[default]
    Ssh,
    /// Both agents use a store that both reach.
    Store,
}

/// How the two halves of a handoff find each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Meet {
    /// The way by which a history goes.
    pub way: TransportKind,
    /// URL of the store, for [`TransportKind::Store`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The other hosts, as `host` or `host:port`.
    pub peers: Vec<String>,
    /// A name whose addresses are the other hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers_dns: Option<String>,
    /// How long one half waits for the other.
    #[serde(with = "values::duration")]
    pub patience: Duration,
    /// For [`TransportKind::Tls`].
    pub tls: Tls,
    /// For [`TransportKind::Ssh`].
    pub ssh: Ssh,
}

/// For [`TransportKind::Tls`]. The files are libvirt's own unless told otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Tls {
    /// Address on which the agent listens to its peers.
    #[serde(deserialize_with = "values::address")]
    pub listen: SocketAddr,
    /// Certificates of the authorities that peers are checked against.
    pub ca: PathBuf,
    /// Certificate that the agent shows as a server.
    pub certificate: PathBuf,
    /// Key of `certificate`.
    pub key: PathBuf,
    /// Certificate that the agent shows as a client.
    pub client_certificate: PathBuf,
    /// Key of `client_certificate`.
    pub client_key: PathBuf,
    /// Names of which a peer's certificate must have one; `*` stands for any characters. For
    /// [`TransportKind::Tls`] there is at least one.
    pub allowed_names: Vec<String>,
}

/// For [`TransportKind::Ssh`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Ssh {
    /// User at the destination; ssh's own choice without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Port of its sshd; ssh's own choice without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The spool folder at the destination.
    pub spool: PathBuf,
    /// Name or path of the logchain program there.
    pub logchain: String,
}

/// What is done with logs that could not be carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Outbox {
    /// How many bytes it holds at most; only the disk limits it without.
    #[serde(with = "values::maybe_size", skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// After which time a log is not tried any more; `None`: it is tried for ever. It stays in
    /// the outbox in any case.
    #[serde(with = "values::or_never")]
    pub give_up_after: Option<Duration>,
    /// The wait after the first try.
    #[serde(with = "values::duration")]
    pub retry_min: Duration,
    /// The longest wait between two tries.
    #[serde(with = "values::duration")]
    pub retry_max: Duration,
}

/// When a domain that left is undefined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReapPolicy {
    /// It stays until somebody else undefines it.
    #[default]
    Never,
    /// Once the destination has confirmed every log.
    WhenCarried,
    /// Once its new place is confirmed, too.
    WhenConfirmed,
}

/// What becomes of the files that the destination has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReapFiles {
    /// They stay where they are.
    Keep,
    /// They are removed.
    #[default]
    Remove,
}

impl From<ReapFiles> for crate::reap::Files {
    fn from(files: ReapFiles) -> Self {
        match files {
            ReapFiles::Keep => Self::Keep,
            ReapFiles::Remove => Self::Remove,
        }
    }
}

/// What is done with domains that left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Reap {
    /// When one is undefined.
    pub policy: ReapPolicy,
    /// What becomes of the files that the destination has.
    pub files: ReapFiles,
    /// A program that confirms a domain's new place with status 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement_command: Option<PathBuf>,
    /// A URL that answers 200 where a domain's new place is confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement_url: Option<String>,
    /// How long a domain stays at least after it left.
    #[serde(with = "values::duration")]
    pub grace: Duration,
    /// How long to wait between two passes.
    #[serde(with = "values::duration")]
    pub every: Duration,
}

/// Logs that are held open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Holds {
    /// How many bytes of files without a name are held at most.
    #[serde(with = "values::size")]
    pub max_unlinked_bytes: u64,
    /// How many boots that have ended are kept behind the present one.
    pub keep_boots: u32,
}

/// Logs that are copied to a store as they grow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Stream {
    /// URL of the store; nothing is streamed without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Patterns of the names or UUIDs of domains.
    pub domains: Vec<String>,
    /// Patterns of the names of consoles.
    pub consoles: Vec<String>,
    /// How long a byte waits until it is put.
    #[serde(with = "values::duration")]
    pub delay: Duration,
    /// How many of the newest bytes of each log are kept there; `None`: all.
    #[serde(with = "values::or_all")]
    pub keep: Option<u64>,
    /// After which time a stream goes on without a history that does not come; `None`: never.
    #[serde(with = "values::or_never")]
    pub leave_gap_after: Option<Duration>,
    /// How much memory all streams use together.
    #[serde(with = "values::size")]
    pub memory: u64,
}

/// The control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Control {
    /// Its path.
    pub socket: PathBuf,
    /// A group whose members may use it; only root may without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// What is shown to Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Metrics {
    /// Address of the page; it is on the control socket alone without.
    #[serde(
        deserialize_with = "values::maybe_address",
        skip_serializing_if = "Option::is_none"
    )]
    pub listen: Option<SocketAddr>,
    /// Whether bytes are also counted for each VM.
    pub label_per_vm: bool,
}

/// What the agent uses at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// How many handoffs run at once.
    pub handoffs: u32,
    /// How much memory the pieces of all handoffs use together.
    #[serde(with = "values::size")]
    pub memory: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect: "qemu:///system".to_owned(),
            state: DEFAULT_STATE.into(),
            log_level: "info".to_owned(),
            meet: Meet::default(),
            outbox: Outbox::default(),
            reap: Reap::default(),
            holds: Holds::default(),
            stream: Stream::default(),
            control: Control::default(),
            metrics: Metrics::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for Meet {
    fn default() -> Self {
        Self {
            way: TransportKind::default(),
            store: None,
            peers: Vec::new(),
            peers_dns: None,
            patience: Duration::from_secs(60),
            tls: Tls::default(),
            ssh: Ssh::default(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 16515)),
            ca: "/etc/pki/CA/cacert.pem".into(),
            certificate: "/etc/pki/libvirt/servercert.pem".into(),
            key: "/etc/pki/libvirt/private/serverkey.pem".into(),
            client_certificate: "/etc/pki/libvirt/clientcert.pem".into(),
            client_key: "/etc/pki/libvirt/private/clientkey.pem".into(),
            allowed_names: Vec::new(),
        }
    }
}

impl Default for Ssh {
    fn default() -> Self {
        Self {
            user: None,
            port: None,
            spool: logchain_transport_ssh::DEFAULT_SPOOL.into(),
            logchain: "logchain".to_owned(),
        }
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            max_bytes: None,
            give_up_after: None,
            retry_min: Duration::from_secs(30),
            retry_max: Duration::from_secs(600),
        }
    }
}

impl Default for Reap {
    fn default() -> Self {
        Self {
            policy: ReapPolicy::default(),
            files: ReapFiles::default(),
            placement_command: None,
            placement_url: None,
            grace: Duration::from_secs(300),
            every: Duration::from_secs(300),
        }
    }
}

impl Default for Holds {
    fn default() -> Self {
        Self {
            max_unlinked_bytes: 1 << 30,
            keep_boots: 0,
        }
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            to: None,
            domains: vec!["*".to_owned()],
            consoles: vec!["*".to_owned()],
            delay: Duration::from_secs(5),
            keep: Some(1 << 30),
            leave_gap_after: None,
            memory: 32 << 20,
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self {
            socket: DEFAULT_SOCKET.into(),
            group: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handoffs: 64,
            // A size in memory fits.
            memory: u64::try_from(handoff::Limits::default().bytes).unwrap_or(u64::MAX),
        }
    }
}
