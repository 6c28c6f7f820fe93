//! Whether and how the system tells of names that change in a folder.
//!
//! Must not know: what the names mean, who wants to be told.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::fstatfs;
use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;

use super::Folder;

/// File systems that others write too, of which this system hears nothing: NFS, SMB
/// (three numbers), FUSE (and virtiofs), Ceph, OCFS2, GFS2, Lustre, 9P, AFS.
const SHARED: [u64; 11] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x6573_5546,
    0x00c3_6400,
    0x7461_636f,
    0x0116_1970,
    0x0bd0_0bd0,
    0x0102_1997,
    0x5346_414f,
];

impl Folder {
    /// Whether names in it may be changed by another host, unseen here. `false` where the
    /// system does not say.
    pub(crate) fn is_shared(&self) -> bool {
        // The field is signed on some systems; the numbers have 32 bits.
        fstatfs(&self.fd).is_ok_and(|fs| {
            let kind = u64::try_from(fs.f_type).unwrap_or_default() & 0xffff_ffff;
            SHARED.contains(&kind)
        })
    }

    /// Begins to tell `notices` of names that change in this very folder, wherever its path
    /// leads by now.
    pub(crate) fn watch(&self, notices: &OwnedFd, what: WatchFlags) -> Result<i32, Errno> {
        let itself = format!("/proc/self/fd/{}", self.fd.as_fd().as_raw_fd());
        match inotify::add_watch(notices, itself, what) {
            // Without /proc.
            Err(Errno::NOENT | Errno::NOTDIR) => inotify::add_watch(notices, &self.path, what),
            watched => watched,
        }
    }
}
