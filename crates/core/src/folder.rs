//! The folder that a console log lies in, opened once and held.
//!
//! Everything that touches a log goes through a [`Folder`]: names are opened
//! beneath the held descriptor, links are never followed, and only regular
//! files are accepted. A rename of the folder itself (Nova renames an instance's
//! folder before it removes it) takes nothing away from who holds it.
//!
//! Must not know: what the names mean (see [`crate::chain`]).

mod changes;
mod error;
pub(crate) mod fault;
mod listings;
mod renames;
pub(crate) mod sparse;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{
    self, AtFlags, FileType, FlockOperation, Mode, OFlags, RawDir, ResolveFlags, StatxAttributes,
    StatxFlags,
};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::pause::pause;
pub use error::Error;
use error::io_error;
use listings::Version;
pub use listings::with_listings_kept;

/// Which file this is, whatever its name is today.
///
/// An inode number is given to a new file soon after the old one is gone, so the
/// time of birth belongs to the identity where the file system records it (ext4,
/// XFS, Btrfs, tmpfs). The device number does not: all files of a chain lie in one
/// folder, and the kernel may give the same disk another number at the next boot,
/// while a record of identities outlives the boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId {
    /// Inode number.
    pub ino: u64,
    /// Time of birth in seconds and nanoseconds, where known.
    pub born: Option<(i64, u32)>,
}

/// What was found under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Which file it is.
    pub id: FileId,
    /// Size in bytes.
    pub size: u64,
    /// Bytes that it takes on disk: less than its size where it has holes.
    pub allocated: u64,
    /// When it was last written, in seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Whether it is a regular file. Nothing else is ever opened for reading.
    pub regular: bool,
}

/// What a folder is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FolderStat {
    /// Permission bits.
    pub(crate) mode: u32,
    /// The user that owns it.
    pub(crate) owner: u32,
    /// Whether it is append-only or immutable: no name in it is changed or removed.
    pub(crate) is_fixed: bool,
}

/// Lets this process open as many files as the system allows it (it begins with
/// fewer, often 1024), and says how many those are. For programs that hold many
/// logs: each file of each log is one, and a handoff has some ten more.
pub fn allow_descriptors() -> Option<u64> {
    let limits = getrlimit(Resource::Nofile);
    let more = Rlimit {
        current: limits.maximum,
        ..limits
    };
    match setrlimit(Resource::Nofile, more) {
        Ok(()) => limits.maximum,
        Err(_) => limits.current,
    }
}

/// Result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A folder held open.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    /// For messages, and for whoever asks whether it leads here still. Nothing beneath it is
    /// opened by it.
    path: PathBuf,
}

impl Folder {
    /// Opens the folder at `path`. The path itself may lead over links (an
    /// operator's `/var/log` may be one); what lies beneath may not.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Io`] where it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = fs::open(path, flags, Mode::empty())
            .map_err(|e| io_error("open", path.to_owned(), e))?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// As [`Folder::open`]; made with mode 0700 where it is not there, and the folders above it.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be made or opened.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let mut folder = std::fs::DirBuilder::new();
        let made = folder.recursive(true).mode(0o700).create(path);
        made.map_err(|source| Error::Io {
            action: "create",
            path: path.to_owned(),
            source,
        })?;
        Self::open(path)
    }

    /// A folder that is open already, and the path at which it lay when it was opened.
    pub(crate) fn of_open(open: OwnedFd, path: &Path) -> Self {
        Self {
            fd: open,
            path: path.to_owned(),
        }
    }

    /// An own description of the same folder, for another process.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn reopen(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(fs::openat(&self.fd, ".", flags, Mode::empty())?)
    }

    /// Opens the folder that `file` lies in and gives the file's name.
    ///
    /// # Errors
    /// As [`Folder::open`]; [`Error::BadName`] where `file` names no file.
    pub fn of_file(file: &Path) -> Result<(Self, OsString)> {
        let parent = match file.parent() {
            Some(p) if p.as_os_str().is_empty() => Path::new("."),
            Some(p) => p,
            None => Path::new("/"),
        };
        let Some(name) = file.file_name() else {
            return Err(Error::BadName {
                folder: parent.to_owned(),
                name: file.as_os_str().to_owned(),
            });
        };
        Ok((Self::open(parent)?, name.to_owned()))
    }

    /// The path it was opened by, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which folder it is, also after a reboot.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn id(&self) -> Result<FileId> {
        let stat = statx(&self.fd, OsStr::new(""), AtFlags::EMPTY_PATH);
        stat.map(|stat| stat.id)
            .map_err(|e| io_error("look at", self.path.clone(), e))
    }

    /// A second handle on the same folder.
    ///
    /// # Errors
    /// [`Error::Io`] where no descriptor is left.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|source| Error::Io {
            action: "hold",
            path: self.path.clone(),
            source,
        })?;
        Ok(Self {
            fd,
            path: self.path.clone(),
        })
    }

    /// The names in the folder, in no order, without `.` and `..`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn names(&self) -> Result<Vec<OsString>> {
        self.names_where(|_| true)
    }

    /// As [`Folder::names`], but only those that are wanted: a folder may hold thousands.
    pub(crate) fn names_where(&self, wants: impl Fn(&OsStr) -> bool) -> Result<Vec<OsString>> {
        fault::look();
        if !listings::are_kept() {
            return self.list(wants);
        }
        let is_wanted = |name: &&OsString| wants(name);
        // Before and after it is listed: what changed in between is not kept.
        let version = Version::of(&self.fd).filter(|_| !self.is_shared());
        if let Some(known) = version.and_then(listings::kept) {
            return Ok(known.iter().filter(is_wanted).cloned().collect());
        }
        let names = self.list(|_| true)?;
        let wanted = names.iter().filter(is_wanted).cloned().collect();
        if let Some(version) = version.filter(|before| Version::of(&self.fd) == Some(*before)) {
            listings::keep(version, names.into());
        }
        Ok(wanted)
    }

    fn list(&self, wants: impl Fn(&OsStr) -> bool) -> Result<Vec<OsString>> {
        let fail = |e| io_error("list", self.path.clone(), e);
        // An own description: how far it was read belongs to that, and ours has copies.
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, ".", flags, Mode::empty()).map_err(fail)?;
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut entries = RawDir::new(fd, &mut buffer);
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // It was removed: nothing is in it.
                Err(Errno::NOENT) => break,
                Err(e) => return Err(fail(e)),
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." && wants(name) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// What lies under `name`, links not followed; `None` where nothing does.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::BadName`].
    pub fn stat(&self, name: &OsStr) -> Result<Option<Stat>> {
        self.check(name)?;
        fault::look();
        match statx(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(io_error("look at", self.path.join(name), e)),
        }
    }

    /// Opens the regular file `name` for reading.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotRegular`], [`Error::BadName`], [`Error::Io`].
    pub fn open_file(&self, name: &OsStr) -> Result<(File, Stat)> {
        self.open_with(name, OFlags::RDONLY)
    }

    /// Opens the regular file `name` for appending.
    ///
    /// # Errors
    /// As [`Folder::open_file`].
    pub fn open_append(&self, name: &OsStr) -> Result<(File, Stat)> {
        self.open_with(name, OFlags::WRONLY | OFlags::APPEND)
    }

    fn open_with(&self, name: &OsStr, access: OFlags) -> Result<(File, Stat)> {
        self.check(name)?;
        fault::look();
        let path = || self.path.join(name);
        // NONBLOCK: a FIFO put in the log's place would block the open for ever.
        let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match fs::openat2(&self.fd, name, flags, Mode::empty(), RESOLVE) {
            // Seccomp filters of containers answer NOSYS, some EPERM.
            Err(Errno::NOSYS | Errno::PERM) => fs::openat(&self.fd, name, flags, Mode::empty()),
            other => other,
        };
        let fd = fd.map_err(|e| match e {
            Errno::LOOP => Error::NotRegular {
                path: path(),
                what: "a link",
            },
            Errno::ISDIR => Error::NotRegular {
                path: path(),
                what: "a folder",
            },
            Errno::NXIO => Error::NotRegular {
                path: path(),
                what: "a FIFO or a device",
            },
            e => io_error("open", path(), e),
        })?;
        let file = File::from(fd);
        let (stat, kind) = statx_kind(&file, OsStr::new(""), AtFlags::EMPTY_PATH)
            .map_err(|e| io_error("look at", path(), e))?;
        if !stat.regular {
            return Err(Error::NotRegular {
                path: path(),
                what: name_of(kind),
            });
        }
        Ok((file, stat))
    }

    /// Creates the file `name`, which must not exist, for reading and writing.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::BadName`], [`Error::Io`].
    pub fn create_new(&self, name: &OsStr, mode: u32) -> Result<File> {
        self.check(name)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = fault::point()
            .and_then(|()| fs::openat(&self.fd, name, flags, Mode::from_raw_mode(mode)))
            .map_err(|e| io_error("create", self.path.join(name), e))?;
        Ok(File::from(fd))
    }

    /// Gives the file `name` in `from` the further name `new` here. Fails if
    /// `new` exists: a link never overwrites.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::NotFound`], [`Error::BadName`], [`Error::Io`].
    pub fn link_from(&self, from: &Folder, name: &OsStr, new: &OsStr) -> Result<()> {
        from.check(name)?;
        self.check(new)?;
        fault::point()
            .and_then(|()| fs::linkat(&from.fd, name, &self.fd, new, AtFlags::empty()))
            .map_err(|e| io_error("link", self.path.join(new), e))
    }

    /// Moves `name` to `new` in this folder, replacing what is there: only for
    /// our own records, written under a temporary name first.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::BadName`], [`Error::Io`].
    pub fn rename_over(&self, name: &OsStr, new: &OsStr) -> Result<()> {
        self.check(name)?;
        self.check(new)?;
        fault::point()
            .and_then(|()| fs::renameat(&self.fd, name, &self.fd, new))
            .map_err(|e| io_error("rename to", self.path.join(new), e))
    }

    /// Removes the name `name`. It is no error if it is gone already.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::Io`].
    pub fn remove(&self, name: &OsStr) -> Result<()> {
        self.check(name)?;
        match fault::point().and_then(|()| fs::unlinkat(&self.fd, name, AtFlags::empty())) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(io_error("remove", self.path.join(name), e)),
        }
    }

    /// Opens the folder `name` beneath this one, links not followed.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::BadName`], [`Error::Io`].
    pub fn open_folder(&self, name: &OsStr) -> Result<Folder> {
        self.check(name)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let path = self.path.join(name);
        let fd = fs::openat(&self.fd, name, flags, Mode::empty())
            .map_err(|e| io_error("open", path.clone(), e))?;
        Ok(Folder { fd, path })
    }

    /// Creates the folder `name` with mode 0700, or opens it where it exists.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::Io`].
    pub fn make_folder(&self, name: &OsStr) -> Result<Folder> {
        self.check(name)?;
        match fault::point().and_then(|()| fs::mkdirat(&self.fd, name, Mode::RWXU)) {
            Ok(()) | Err(Errno::EXIST) => self.open_folder(name),
            Err(e) => Err(io_error("create the folder", self.path.join(name), e)),
        }
    }

    /// Removes the empty folder `name`; `false` where it is not empty. It is no
    /// error if it is gone already.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::Io`].
    pub fn remove_folder(&self, name: &OsStr) -> Result<bool> {
        self.check(name)?;
        match fault::point().and_then(|()| fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(e) => Err(io_error("remove the folder", self.path.join(name), e)),
        }
    }

    /// Keeps other logchain processes from changing records in this folder, for
    /// as long as what is returned lives. `None` where somebody held it all the time.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn lock(&self, wait: Duration) -> Result<Option<OwnedFd>> {
        // An own description: a lock belongs to that, and ours has copies.
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fail = |e| io_error("lock", self.path.clone(), e);
        let fd = fs::openat(&self.fd, ".", flags, Mode::empty()).map_err(fail)?;
        let end = Instant::now() + wait;
        loop {
            match fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(fd)),
                Err(Errno::WOULDBLOCK) if Instant::now() < end => pause(LOCK_LOOK),
                Err(Errno::WOULDBLOCK) => return Ok(None),
                // A file system without locks has nobody to exclude.
                Err(Errno::OPNOTSUPP | Errno::NOLCK | Errno::NOSYS) => return Ok(None),
                Err(e) => return Err(fail(e)),
            }
        }
    }

    /// What this folder itself is like.
    pub(crate) fn own_stat(&self) -> Result<FolderStat> {
        let x = fs::statx(&self.fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
            .map_err(|e| io_error("look at", self.path.clone(), e))?;
        let fixed = StatxAttributes::APPEND | StatxAttributes::IMMUTABLE;
        Ok(FolderStat {
            mode: u32::from(x.stx_mode) & 0o7777,
            owner: x.stx_uid,
            is_fixed: x.stx_attributes.intersects(fixed),
        })
    }

    /// Whether so many bytes more may be written here. virtlogd lets go of a log for
    /// good where its disk is full, and a guest's log comes before any history: so
    /// some room is left, a twentieth of all, 1 GiB at the most.
    ///
    /// # Errors
    /// [`Error::NoRoom`], [`Error::Io`].
    pub fn check_room(&self, bytes: u64) -> Result<()> {
        let stat = fs::fstatvfs(&self.fd).map_err(|e| io_error("look at", self.path.clone(), e))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let size = stat.f_blocks.saturating_mul(stat.f_frsize);
        let keep = KEEP_FREE.min(size / KEEP_FREE_SHARE);
        // Some file systems do not tell.
        if size == 0 || free >= bytes.saturating_add(keep) {
            return Ok(());
        }
        Err(Error::NoRoom {
            path: self.path.clone(),
            bytes,
            free,
            keep,
        })
    }

    /// Makes the names in this folder durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&self) -> Result<()> {
        fault::point()
            .and_then(|()| fs::fsync(&self.fd))
            .map_err(|e| io_error("sync", self.path.clone(), e))
    }

    fn check(&self, name: &OsStr) -> Result<()> {
        let bytes = name.as_bytes();
        if bytes.is_empty()
            || bytes == b"."
            || bytes == b".."
            || bytes.contains(&b'/')
            || bytes.contains(&0)
        {
            return Err(Error::BadName {
                folder: self.path.clone(),
                name: name.to_owned(),
            });
        }
        Ok(())
    }
}

/// Opens the file behind a descriptor once more, whether it has a name or not. A copy of the
/// descriptor shares leases and the place that is read next with the first one; this does not.
pub(crate) fn reopen(open: impl AsFd) -> io::Result<OwnedFd> {
    let itself = format!("/proc/self/fd/{}", open.as_fd().as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(fs::open(itself, flags, Mode::empty())?)
}

/// What an open file is now: a file keeps its identity, its size may have grown.
pub fn stat_open(file: &File) -> io::Result<Stat> {
    Ok(statx(file, OsStr::new(""), AtFlags::EMPTY_PATH)?)
}

/// What stays free of a file system: this share, and at most so much.
const KEEP_FREE_SHARE: u64 = 20;
const KEEP_FREE: u64 = 1 << 30;

/// Time between two tries of a lock.
const LOCK_LOOK: Duration = Duration::from_millis(5);

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

fn statx(fd: impl AsFd, name: &OsStr, flags: AtFlags) -> Result<Stat, Errno> {
    statx_kind(fd, name, flags).map(|(stat, _)| stat)
}

fn statx_kind(fd: impl AsFd, name: &OsStr, flags: AtFlags) -> Result<(Stat, FileType), Errno> {
    let x = fs::statx(fd, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
    let born = StatxFlags::from_bits_retain(x.stx_mask)
        .contains(StatxFlags::BTIME)
        .then_some((x.stx_btime.tv_sec, x.stx_btime.tv_nsec));
    let kind = FileType::from_raw_mode(x.stx_mode.into());
    let stat = Stat {
        id: FileId {
            ino: x.stx_ino,
            born,
        },
        size: x.stx_size,
        allocated: x.stx_blocks.saturating_mul(512),
        modified: (x.stx_mtime.tv_sec, x.stx_mtime.tv_nsec),
        mode: u32::from(x.stx_mode) & 0o7777,
        owner: (x.stx_uid, x.stx_gid),
        regular: kind == FileType::RegularFile,
    };
    Ok((stat, kind))
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "a link",
        FileType::Directory => "a folder",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something else",
    }
}
