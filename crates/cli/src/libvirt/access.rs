//! Whether a command reads this host itself or asks the agent: the one place that decides it.
//!
//! 1. With `--agent` the agent is asked, and nothing else is tried.
//! 2. Otherwise the command reads by itself, whatever agent is there.
//! 3. A user who is not root and is refused what that takes asks the agent, if its socket lets them
//!    in. "Refused" means that they may not read the files, or that their libvirt cannot be asked or
//!    knows no such domain; it is one of their own, unless they chose another. Options that say
//!    which files or which libvirt are meant rule this out: the agent might read others.
//!
//! Must not know: what is read.

use std::io;
use std::path::{Path, PathBuf};

use logchain::args::{Show, Status};
use logchain_core::chain::NumberingChoice;
use logchain_core::departure::DEFAULT_STATE;
use logchain_host::Error;
use logchain_host::agent::config::{DEFAULT_PATH, DEFAULT_SOCKET, Reloadable};
use logchain_host::agent::control::client;

/// Whether the agent may take the place of this user for `show`.
pub(crate) fn may_ask_for_log(args: &Show) -> bool {
    let names_a_domain = !args.log.what.contains('/');
    let says_where = args.log.connect.uri.is_some() || args.log.numbering != NumberingChoice::Auto;
    names_a_domain && !says_where && !is_root()
}

/// Whether the agent may take the place of this user for `status`.
pub(crate) fn may_ask_for_status(args: &Status) -> bool {
    let says_where = args.connect.uri.is_some() || args.state.folder != Path::new(DEFAULT_STATE);
    !says_where && !is_root()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this user's libvirt cannot say which log is meant.
pub(crate) fn is_unknown_here(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<Error>();
    error.is_some_and(|e| e.is_no_domain() || e.is_no_libvirt())
}

/// Whether the system refused this user something.
pub(crate) fn is_refused(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|e| e.downcast_ref::<io::Error>());
    causes.any(|e| e.kind() == io::ErrorKind::PermissionDenied)
}

/// The socket that `--agent` names, or the usual one.
pub(crate) async fn socket(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match named {
        Some(path) => Ok(path),
        None => socket_of(Path::new(DEFAULT_PATH)).await,
    }
}

/// The socket of the agent with this configuration file. The usual one where this user may not
/// read the file: whether they may call is another question.
pub(crate) async fn socket_of(file: &Path) -> anyhow::Result<PathBuf> {
    let path = file.to_owned();
    let opened = tokio::task::spawn_blocking(move || std::fs::File::open(path)).await?;
    if opened.is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied) {
        return Ok(DEFAULT_SOCKET.into());
    }
    let config = Reloadable::open(file).await;
    let config = config.map_err(|problems| Error::Usage(problems.to_string()))?;
    Ok(config.current().control.socket.clone())
}

/// Why the agent is not asked although this user was refused.
pub(crate) struct NotAsked {
    refused: anyhow::Error,
    /// `None`: there is no agent here.
    pub(crate) why: Option<String>,
}

impl From<NotAsked> for anyhow::Error {
    fn from(not: NotAsked) -> Self {
        let Some(why) = not.why else {
            return not.refused;
        };
        let refused = logchain_core::sentence(not.refused.as_ref());
        anyhow::anyhow!("{refused}; {why}")
    }
}

/// The socket of the agent that is asked because this user was `refused`.
pub(crate) async fn instead(refused: anyhow::Error) -> Result<PathBuf, NotAsked> {
    let Ok(socket) = self::socket(None).await else {
        return Err(NotAsked { refused, why: None });
    };
    let Err(why) = client::reach(&socket).await else {
        tracing::info!(socket = %socket.display(), why = %refused, "the agent is asked instead");
        return Ok(socket);
    };
    let why = is_there(&socket).then(|| format!("nor can the agent be asked: {}", why.sentence()));
    Err(NotAsked { refused, why })
}

fn is_there(socket: &Path) -> bool {
    let looked = std::fs::symlink_metadata(socket);
    !looked.is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}
