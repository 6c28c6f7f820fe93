//! Waits for something to happen in a folder: by inotify, else by looking again.
//!
//! Must not know: what is in the folder.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::OkLogged as _;
use crate::pause::pause;

/// Notices of what happens in a folder, where the system gives them.
#[derive(Debug)]
pub(super) struct Notices(Option<OwnedFd>);

impl Notices {
    pub(super) fn of(folder: &Path) -> Self {
        Self(watch(folder))
    }

    /// For whoever never waits here: the system has few of these notices to give.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Waits until something happened, or for `time`.
    pub(super) fn wait(&self, time: Duration) {
        let Some(notices) = &self.0 else {
            return pause(time);
        };
        let timeout = Timespec::try_from(time).ok();
        let mut fds = [PollFd::new(notices, PollFlags::IN)];
        if poll(&mut fds, timeout.as_ref()).is_ok_and(|n| n > 0) {
            let mut seen = [0; 4096];
            while rustix::io::read(notices, &mut seen).is_ok_and(|n| n > 0) {}
        }
    }
}

fn watch(folder: &Path) -> Option<OwnedFd> {
    const LOOKS: &str = "the folder is looked at again and again instead";
    let notices = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok_logged(LOOKS)?;
    let what = WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::CREATE;
    inotify::add_watch(&notices, folder, what).ok_logged(LOOKS)?;
    Some(notices)
}
