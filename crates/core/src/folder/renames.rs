//! Renames that never overwrite, also where the file system has no such call.
//!
//! Must not know: what the names mean.

use std::ffi::OsStr;

use rustix::fs::{self, RenameFlags};
use rustix::io::Errno;

use super::{Error, Folder, Result, Stat, fault, io_error};

/// What came of a rename that must not overwrite.
enum Renamed {
    Done,
    /// The file system has no such call; nothing was done.
    Unsupported,
}

impl Folder {
    /// Moves `name` to `new` in `to` (which may be this folder). Never overwrites, and
    /// moves whatever lies under `name` at that moment.
    ///
    /// NFS and CephFS cannot do that, nor can some FUSE file systems: they rename only
    /// with the risk of overwriting, and are refused. Where one of the names is ours
    /// alone, [`Folder::take_aside`] and [`Folder::put_back`] work there too.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::NotFound`], [`Error::BadName`],
    /// [`Error::MayOverwrite`], [`Error::Io`].
    pub fn rename_noreplace(&self, name: &OsStr, to: &Folder, new: &OsStr) -> Result<()> {
        match self.try_noreplace(name, to, new)? {
            Renamed::Done => Ok(()),
            Renamed::Unsupported => Err(Error::MayOverwrite {
                path: to.path.join(new),
            }),
        }
    }

    /// As [`Folder::rename_noreplace`], where nobody but the caller, one process at a
    /// time, makes the name `new`: then looking first is enough not to overwrite.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::NotFound`], [`Error::BadName`], [`Error::Io`].
    pub fn take_aside(&self, name: &OsStr, to: &Folder, new: &OsStr) -> Result<()> {
        if let Renamed::Done = self.try_noreplace(name, to, new)? {
            return Ok(());
        }
        if to.stat(new)?.is_some() {
            return Err(Error::AlreadyExists {
                path: to.path.join(new),
            });
        }
        fault::point()
            .and_then(|()| fs::renameat(&self.fd, name, &to.fd, new))
            .map_err(|e| self.rename_error(name, to, new, e))
    }

    /// As [`Folder::rename_noreplace`], where nobody but the caller, one process at a
    /// time, makes or removes the name `name`: then the file can have both names for
    /// a moment. A caller that was killed in that moment calls it again.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::NotFound`], [`Error::BadName`], [`Error::Io`].
    pub fn put_back(&self, name: &OsStr, to: &Folder, new: &OsStr) -> Result<()> {
        if let Renamed::Done = self.try_noreplace(name, to, new)? {
            return Ok(());
        }
        match to.link_from(self, name, new) {
            Err(Error::AlreadyExists { path }) => {
                let id = |found: Option<Stat>| found.map(|stat| stat.id);
                if id(self.stat(name)?) != id(to.stat(new)?) {
                    return Err(Error::AlreadyExists { path });
                }
            }
            other => other?,
        }
        self.remove(name)
    }

    fn try_noreplace(&self, name: &OsStr, to: &Folder, new: &OsStr) -> Result<Renamed> {
        self.check(name)?;
        to.check(new)?;
        let renamed = fault::noreplace()
            .and_then(|()| fault::point())
            .and_then(|()| fs::renameat_with(&self.fd, name, &to.fd, new, RenameFlags::NOREPLACE));
        match renamed {
            Ok(()) => Ok(Renamed::Done),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(Renamed::Unsupported),
            Err(e) => Err(self.rename_error(name, to, new, e)),
        }
    }

    fn rename_error(&self, name: &OsStr, to: &Folder, new: &OsStr, errno: Errno) -> Error {
        let path = if errno == Errno::NOENT {
            self.path.join(name)
        } else {
            to.path.join(new)
        };
        io_error("rename to", path, errno)
    }
}
