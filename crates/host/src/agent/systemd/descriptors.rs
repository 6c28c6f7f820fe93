//! systemd's file descriptor store: it keeps descriptors for the agent, and hands them to the
//! next one, however this one ends.
//!
//! A descriptor goes with a datagram to the socket that `NOTIFY_SOCKET` names. Those that are kept
//! are open when the process starts, from number 3 on; `LISTEN_FDS` says how many, and
//! `LISTEN_FDNAMES` how each was called. systemd answers nothing: what has no room is dropped, so
//! the room is known from here on only by counting.
//!
//! Source: `man 3 sd_pid_notify_with_fds`, `man 3 sd_listen_fds_with_names`, and
//! `FileDescriptorStoreMax=` in `man 5 systemd.service`.
//!
//! Must not know: what is in the files.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use logchain_core::holds::{DescriptorStore, Put, is_ours};
use logchain_libvirt::inherited;
use rustix::io::Errno;
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr,
};

use crate::Events;

/// So many are given at most. All of their names are in one variable of the next process, for
/// which the kernel takes 128 KiB.
const MOST: usize = 8192;

/// No more are taken at the start, whatever the environment says.
const MOST_TAKEN: usize = 1 << 16;

/// How long a message may wait until the manager has room for it. Whoever holds a log waits for
/// this.
const WAIT: Duration = Duration::from_millis(100);

/// After a message that was not taken, nothing more is sent for so long.
const REST: Duration = Duration::from_secs(5);

/// The store of the service manager that started this process.
pub(in crate::agent) struct Descriptors {
    socket: UnixDatagram,
    manager: SocketAddrUnix,
    most: usize,
    events: Events,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    names: BTreeSet<String>,
    /// Of these the manager could not be told that they are not wanted any more.
    unwanted: BTreeSet<String>,
    rests_until: Option<Instant>,
    /// Whether it was said that there is no more room.
    told: bool,
}

/// What the manager gave back, by name.
pub(in crate::agent) type Came = Vec<(String, OwnedFd)>;

impl Descriptors {
    /// As the environment says that the manager set for this process; `None`: nobody keeps
    /// descriptors for it.
    ///
    /// # Errors
    /// The socket that is named cannot be used.
    pub(in crate::agent) fn from_env(events: &Events) -> io::Result<Option<(Self, Came)>> {
        let variable = |name: &str| std::env::var_os(name);
        let names = given_names(variable, std::process::id());
        let open = inherited::take(names.len());
        let came = names.into_iter().zip(open);
        let came = came.filter_map(|(name, open)| Some((name, open?)));
        Self::new(variable, came.collect(), events)
    }

    fn new(
        variable: impl Fn(&str) -> Option<OsString>,
        came: Came,
        events: &Events,
    ) -> io::Result<Option<(Self, Came)>> {
        let Some(path) = variable("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let came: Came = came.into_iter().filter(|(name, _)| is_ours(name)).collect();
        // Said by systemd 254 and newer, where the unit has a store.
        let room = variable("FDSTORE").and_then(|room| room.to_str()?.parse().ok());
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(WAIT))?;
        let store = Self {
            socket,
            manager: address(&path)?,
            most: room.unwrap_or(MOST).min(MOST),
            events: events.clone(),
            kept: Mutex::new(Kept {
                names: came.iter().map(|(name, _)| name.clone()).collect(),
                ..Kept::default()
            }),
        };
        Ok(Some((store, came)))
    }

    /// Says it, unless the manager took nothing just now.
    fn send(
        &self,
        kept: &mut Kept,
        message: &str,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), Put> {
        let now = Instant::now();
        if kept.rests_until.is_some_and(|until| now < until) {
            return Err(Put::Later);
        }
        kept.rests_until = None;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if let Some(descriptor) = &descriptor
            && !control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(
                descriptor,
            )))
        {
            return Err(Put::Full);
        }
        let parts = [IoSlice::new(message.as_bytes())];
        let sent = sendmsg_addr(
            &self.socket,
            &self.manager,
            &parts,
            &mut control,
            SendFlags::NOSIGNAL,
        );
        match sent {
            Ok(_) => Ok(()),
            // It has much to do, or so many descriptors are on their way to it.
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::TOOMANYREFS | Errno::INTR) => {
                kept.rests_until = now.checked_add(REST);
                Err(Put::Later)
            }
            Err(error) => {
                tracing::debug!(%error, message, "the service manager keeps nothing");
                Err(Put::Full)
            }
        }
    }

    fn send_unwanted(&self, kept: &mut Kept) {
        while let Some(name) = kept.unwanted.pop_first() {
            let message = format!("FDSTOREREMOVE=1\nFDNAME={name}");
            if self.send(kept, &message, None).is_err() {
                kept.unwanted.insert(name);
                return;
            }
            kept.names.remove(&name);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Each change is one step, so a panic leaves no half of one.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DescriptorStore for Descriptors {
    fn put(&self, name: &str, descriptor: BorrowedFd<'_>) -> Put {
        let mut kept = self.kept();
        self.send_unwanted(&mut kept);
        if kept.names.len() >= self.most {
            if !std::mem::replace(&mut kept.told, true) {
                self.events.warn(format!(
                    "the service manager keeps no more than {} descriptors: of the log files \
                     beyond that, those that are removed while no agent runs are lost",
                    self.most
                ));
            }
            return Put::Full;
        }
        // FDPOLL: what the store polls it may give up by itself.
        let message = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0");
        match self.send(&mut kept, &message, Some(descriptor)) {
            Ok(()) => {
                kept.names.insert(name.to_owned());
                Put::Kept
            }
            Err(why) => why,
        }
    }

    fn remove(&self, name: &str) {
        let mut kept = self.kept();
        kept.unwanted.insert(name.to_owned());
        self.send_unwanted(&mut kept);
    }
}

/// How the descriptors are called that this process got, in order. None where another process
/// was meant to get them: what it starts inherits its environment.
fn given_names(variable: impl Fn(&str) -> Option<OsString>, process: u32) -> Vec<String> {
    let number = |name: &str| variable(name)?.to_str()?.parse::<usize>().ok();
    if variable("LISTEN_PID").is_none_or(|pid| pid.to_str() != Some(&process.to_string())) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or(0).min(MOST_TAKEN);
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.to_string_lossy();
    // Where there are fewer names than descriptors, the rest is nobody's, and is closed.
    let names = names.split(':').chain(std::iter::repeat(""));
    names.take(count).map(str::to_owned).collect()
}

fn address(path: &OsStr) -> io::Result<SocketAddrUnix> {
    Ok(match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(path)?,
    })
}

#[cfg(test)]
mod tests;
