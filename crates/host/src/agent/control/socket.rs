//! The socket file. It never has a mode that lets in more than it must: it is made in a folder of
//! its own that nobody else can enter, gets its group and mode there, and is then linked into
//! place.
//!
//! A lock beside it says whether an agent serves it: the kernel drops the lock of a process that
//! died, whose socket file is then replaced.
//!
//! Must not know: what goes through it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
    PermissionsExt as _, chown,
};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixListener;
use tokio::process::Command;
use uuid::Uuid;

use super::peer::Allowed;
use crate::blocking::blocking;
use crate::{Error, Result};

/// The kernel takes paths of sockets of at most 107 bytes, and the folder in which one is made
/// needs some of them.
const LONGEST: usize = 90;

/// How long the system's databases are given to say which group it is.
const GROUP_PATIENCE: Duration = Duration::from_secs(10);

/// A control socket on which an agent listens. Dropped, its file is removed.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: UnixListener,
    pub(super) allowed: Allowed,
    _file: SocketFile,
}

/// The file, and the lock that says that it is served.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    _lock: File,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever has put another file there keeps it.
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Socket {
    /// Listens at `path`. Root and this process's user may connect, and members of `group` if one
    /// is given.
    ///
    /// # Errors
    /// [`Error::Refused`] where an agent serves this socket, something else lies there, the path
    /// is too long or there is no such group; [`Error::Io`] where the file cannot be made.
    pub async fn bind(path: &Path, group: Option<&str>) -> Result<Self> {
        let group = match group {
            Some(name) => Some(group_id(name).await?),
            None => None,
        };
        let path = path.to_owned();
        let (listener, file) = blocking(move || make(&path, group)).await?;
        let listener = UnixListener::from_std(listener).map_err(|e| failed(&file.path, e))?;
        Ok(Self {
            listener,
            allowed: Allowed::with(group),
            _file: file,
        })
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Io {
        action: format!("cannot make the control socket {}", path.display()),
        source,
    }
}

fn make(path: &Path, group: Option<u32>) -> Result<(net::UnixListener, SocketFile)> {
    if path.as_os_str().len() > LONGEST {
        return Err(Error::Refused(format!(
            "the path of the control socket {} is too long; give one of at most {LONGEST} bytes",
            path.display()
        )));
    }
    let io = |e| failed(path, e);
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder.create(folder).map_err(io)?;
    let lock = lock(path)?;
    remove_stale(path)?;
    let (listener, identity) = link_into_place(folder, path, group).map_err(io)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity,
        _lock: lock,
    };
    Ok((listener, file))
}

/// The lock that an agent holds as long as it lives.
fn lock(path: &Path) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(name).map_err(|e| failed(path, e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(served(path)),
        Err(e) => Err(failed(path, e.into())),
    }
}

fn served(path: &Path) -> Error {
    Error::Refused(format!(
        "another agent serves {}; stop it, or give this one another control.socket",
        path.display()
    ))
}

/// Removes the socket of an agent that died.
fn remove_stale(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => {
            return Err(Error::Refused(format!(
                "{} is not a socket; remove it, or give another control.socket",
                path.display()
            )));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(path, e)),
    }
    // Somebody who does not know of the lock may serve it.
    if net::UnixStream::connect(path).is_ok() {
        return Err(served(path));
    }
    fs::remove_file(path).map_err(|e| failed(path, e))
}

/// The one place that makes the file.
fn link_into_place(
    folder: &Path,
    path: &Path,
    group: Option<u32>,
) -> io::Result<(net::UnixListener, (u64, u64))> {
    let mut name = Uuid::new_v4().simple().to_string();
    name.truncate(8);
    let private = folder.join(format!(".{name}"));
    DirBuilder::new().mode(0o700).create(&private)?;
    let made = private.join("s");
    let result = (|| {
        let listener = net::UnixListener::bind(&made)?;
        if group.is_some() {
            chown(&made, None, group)?;
        }
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(&made, Permissions::from_mode(mode))?;
        listener.set_nonblocking(true)?;
        // Never over another file.
        fs::hard_link(&made, path)?;
        Ok((listener, identity(path)?))
    })();
    let _ = fs::remove_file(&made);
    let _ = fs::remove_dir(&private);
    result
}

/// Device and inode.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// The number of a group, by the system's databases.
async fn group_id(name: &str) -> Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let mut getent = Command::new("getent");
    getent.args(["group", "--", name]).stdin(Stdio::null());
    let output = tokio::time::timeout(GROUP_PATIENCE, getent.kill_on_drop(true).output()).await;
    let output = output.map_err(|_| {
        Error::Refused(format!(
            "nobody said within {} s which group {name} is; give control.group as a number",
            GROUP_PATIENCE.as_secs()
        ))
    })?;
    let output = output.map_err(|source| Error::Io {
        action: "cannot run getent".to_owned(),
        source,
    })?;
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = line
        .split(':')
        .nth(2)
        .and_then(|number| number.parse().ok());
    number.ok_or_else(|| {
        Error::Refused(format!(
            "there is no group {name}; create it, or change control.group"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[tokio::test]
    async fn the_socket_has_its_mode_and_group_and_goes_with_its_agent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/agent.sock");
        let own = rustix::process::getegid().as_raw();
        for (group, want) in [(None, 0o600), (Some(own.to_string()), 0o660)] {
            let socket = Socket::bind(&path, group.as_deref()).await.unwrap();
            assert_eq!(mode(&path), want);
            assert_eq!(fs::metadata(&path).unwrap().gid(), own);
            let names = fs::read_dir(path.parent().unwrap()).unwrap().count();
            assert_eq!(names, 2, "the socket and its lock");
            drop(socket);
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn a_live_agent_is_left_alone_and_a_dead_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let refused = async || {
            let error = Socket::bind(&path, None).await.unwrap_err();
            assert!(matches!(error, Error::Refused(_)), "{error}");
            error.to_string()
        };
        let first = Socket::bind(&path, None).await.unwrap();
        assert!(refused().await.starts_with("another agent serves "));
        assert!(path.exists());
        drop(first);
        // As a killed process leaves it.
        drop(net::UnixListener::bind(&path).unwrap());
        let second = Socket::bind(&path, None).await.unwrap();
        assert!(tokio::net::UnixStream::connect(&path).await.is_ok());
        drop(second);
        // Somebody without a lock.
        let other = net::UnixListener::bind(&path).unwrap();
        assert!(refused().await.starts_with("another agent serves "));
        drop(other);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(refused().await.contains("is not a socket"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_group_is_found_by_name() {
        assert_eq!(group_id("root").await.unwrap(), 0);
        assert_eq!(group_id("7").await.unwrap(), 7);
        let error = group_id("no-such-group").await.unwrap_err().to_string();
        assert!(error.starts_with("there is no group no-such-group"));
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(100)));
        let error = Socket::bind(&long, None).await.unwrap_err().to_string();
        assert!(error.contains("too long"), "{error}");
    }
}
