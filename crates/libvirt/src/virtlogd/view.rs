//! Files as a process sees them: beneath its own root, its links resolved there.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FileType, Mode, OFlags, ResolveFlags, access, fstat, fstatvfs, openat2};
use rustix::io::Errno;

/// No configuration file is as long; whatever is, is not read to its end.
const MOST: u64 = 1 << 20;

/// So much has to be free where a file is to be made.
const FREE_BYTES: u64 = 64 << 10;
const FREE_FILES: u64 = 8;

/// The root of a process.
pub(super) struct View {
    root: OwnedFd,
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Device,
    Folder,
    Other,
}

impl View {
    /// `root` is a `/proc/PID/root`.
    pub(super) fn of(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        Ok(Self { root })
    }

    pub(super) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        openat2(
            &self.root,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT,
        )
    }

    /// The text of a regular file, and when its inode changed last.
    pub(super) fn read(&self, path: &Path) -> io::Result<(Vec<u8>, Changed)> {
        // A FIFO in its place must not make us wait.
        let file = File::from(self.open(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut bytes = Vec::new();
        (&file).take(MOST).read_to_end(&mut bytes)?;
        Ok((bytes, Changed::of(&found)))
    }

    /// When the inode of `path` changed last.
    pub(super) fn changed(&self, path: &Path) -> io::Result<Changed> {
        let file = File::from(self.open(path, OFlags::PATH)?);
        Ok(Changed::of(&file.metadata()?))
    }

    /// Why a process that sees these files could not open `path` for appending and
    /// make it where it is missing; nothing is opened or made.
    pub(super) fn cannot_append(&self, path: &Path) -> Option<String> {
        match self.open(path, OFlags::PATH) {
            Ok(file) => match kind(&file) {
                Ok(Kind::File | Kind::Device) => not_writable(&file, Access::WRITE_OK),
                Ok(Kind::Folder) => Some("a folder is in its place".to_owned()),
                Ok(Kind::Other) => Some("what is in its place is no file".to_owned()),
                Err(e) => Some(in_words(e)),
            },
            Err(Errno::NOENT) => self.cannot_make(path),
            Err(e) => Some(in_words(e)),
        }
    }

    /// Why a file could not be made at `path`, which is free or about to be.
    pub(super) fn cannot_make(&self, path: &Path) -> Option<String> {
        let link = self.open(path, OFlags::PATH | OFlags::NOFOLLOW);
        let is_link = |file: &OwnedFd| {
            fstat(file).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Symlink)
        };
        if link.is_ok_and(|file| is_link(&file)) {
            return Some("it is a link to a file that is not there".to_owned());
        }
        let folder = path.parent().unwrap_or(Path::new("/"));
        self.has_no_room(folder, FREE_BYTES)
    }

    /// Why no file of `bytes` could be made in `folder`.
    pub(super) fn has_no_room(&self, folder: &Path, bytes: u64) -> Option<String> {
        let opened = match self.open(folder, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Some(format!("its folder {} is gone", folder.display())),
            Err(e) => return Some(format!("its folder {}: {}", folder.display(), in_words(e))),
        };
        let why = not_writable(&opened, Access::WRITE_OK | Access::EXEC_OK);
        if let Some(why) = why {
            return Some(format!(
                "no file can be made in {}: {why}",
                folder.display()
            ));
        }
        let disk = fstatvfs(&opened).ok()?;
        // Some file systems count neither.
        let no_bytes = disk.f_blocks > 0 && disk.f_bavail.saturating_mul(disk.f_frsize) < bytes;
        let no_files = disk.f_files > 0 && disk.f_favail < FREE_FILES;
        (no_bytes || no_files).then(|| format!("the disk of {} is full", folder.display()))
    }
}

/// A moment as files have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Changed(i64, i64);

impl Changed {
    fn of(file: &Metadata) -> Self {
        Self(file.ctime(), file.ctime_nsec())
    }

    /// When the bytes of a file were written last.
    pub(super) fn written(file: &Metadata) -> Self {
        Self(file.mtime(), file.mtime_nsec())
    }

    pub(super) fn seconds(seconds: u64) -> Self {
        Self(i64::try_from(seconds).unwrap_or(i64::MAX), 0)
    }
}

fn kind(file: &OwnedFd) -> Result<Kind, Errno> {
    let mode = fstat(file)?.st_mode;
    Ok(match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Kind::File,
        FileType::CharacterDevice => Kind::Device,
        FileType::Directory => Kind::Folder,
        _ => Kind::Other,
    })
}

/// The kernel's own answer, for permissions, read-only file systems and files that
/// nobody may change alike.
fn not_writable(file: &OwnedFd, wanted: Access) -> Option<String> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    match access(&path, wanted) {
        Ok(()) => None,
        Err(e) => Some(in_words(e)),
    }
}

fn in_words(e: Errno) -> String {
    io::Error::from(e).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_cannot_be_appended_to_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("log"), "x").unwrap();
        fs::create_dir(at("folder")).unwrap();
        symlink("nothing", at("dangling")).unwrap();
        symlink("loop", at("loop")).unwrap();
        symlink("log", at("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("fifo"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let view = View::of(Path::new("/")).unwrap();
        for (name, why) in [
            ("log", None),
            ("link", None),
            ("new", None),
            ("folder", Some("a folder is in its place")),
            ("fifo", Some("is no file")),
            ("dangling", Some("a link to a file that is not there")),
            ("loop", Some("symbolic links")),
            ("log/x", Some("Not a directory")),
            ("gone/x", Some("is gone")),
        ] {
            let found = view.cannot_append(&at(name));
            match why {
                None => assert_eq!(found, None, "{name}"),
                Some(why) => assert!(found.clone().unwrap().contains(why), "{name}: {found:?}"),
            }
        }
        assert!(!at("new").exists(), "nothing is made");
        assert!(
            view.has_no_room(folder.path(), u64::MAX)
                .unwrap()
                .contains("is full")
        );
        assert!(view.read(&at("fifo")).is_err());
        assert_eq!(view.read(&at("log")).unwrap().0, b"x");
    }

    #[test]
    fn links_are_resolved_beneath_the_root_that_is_seen() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/real"), "inside").unwrap();
        symlink("/etc/real", root.path().join("etc/conf")).unwrap();
        let view = View::of(root.path()).unwrap();
        assert_eq!(view.read(Path::new("/etc/conf")).unwrap().0, b"inside");
        assert_eq!(view.cannot_append(Path::new("/etc/conf")), None);
    }
}
