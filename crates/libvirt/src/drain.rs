//! Whether anybody still has a log open for writing.
//!
//! At the moment when a domain is over, virtlogd can still hold up to 64 KiB of
//! its output unwritten. It closes the file when it has written them: a file
//! without a writer is complete. But a rollover closes a file too: so ask about
//! the file that is the base, and look afterwards whether it still is.
//!
//! A lease tells that only where every writer is this kernel's. An NFSv4 client answers
//! EAGAIN whenever the server has not delegated the file to it, an SMB client whenever it
//! has no oplock, writer or not; and what either grants says nothing of other hosts. So
//! the type of the file system decides whether the answer means anything.
//!
//! Must not know: which file is a log.

use std::fs::File;
use std::io;

use rustix::fs::{OFlags, fcntl_getfl, fstatfs};

use crate::ffi;

/// Who has a file open for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// Nobody, at the moment of asking.
    None,
    /// Somebody; in this process or in another.
    Some,
    /// The question cannot be asked here: the file system has no leases, or its leases
    /// say nothing of writers (NFS, SMB, any that is not known to be this kernel's
    /// alone); the file is another user's, or `file` itself is open for writing. Wait
    /// for its size to come to rest instead.
    Unknown,
}

/// Asks for a read lease, which the kernel grants only where nobody has the file
/// open for writing, and gives it back at once. `file` must be open for reading
/// only. A writer that opens the file in that moment waits for microseconds.
///
/// Blocks only where the file system does.
#[must_use]
pub fn has_writer(file: &File) -> Writer {
    // The kernel would count `file` itself.
    let writable = fcntl_getfl(file).map(|flags| flags.intersects(OFlags::WRONLY | OFlags::RDWR));
    if writable != Ok(false) {
        return Writer::Unknown;
    }
    match fstatfs(file) {
        // Widened: its type differs from one architecture to the next.
        Ok(stat) if sees_all_writers(i128::from(stat.f_type)) => told_by(ffi::try_read_lease(file)),
        _ => Writer::Unknown,
    }
}

/// Pure: what the kernel's answer says, where it says anything.
fn told_by(lease: io::Result<()>) -> Writer {
    match lease {
        Ok(()) => Writer::None,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Writer::Some,
        Err(_) => Writer::Unknown,
    }
}

/// Pure: whether every writer of a file system of this type (`f_type` of statfs(2)) is a
/// process of this kernel, and is counted by it. On overlayfs leases see the writers that
/// came through the overlay (tried), and there must be no others.
fn sees_all_writers(file_system: i128) -> bool {
    const EXT: i128 = 0xEF53;
    const XFS: i128 = 0x5846_5342;
    const BTRFS: i128 = 0x9123_683E;
    const F2FS: i128 = 0xF2F5_2010;
    const BCACHEFS: i128 = 0xCA45_1A4E;
    const ZFS: i128 = 0x2FC1_2FC1;
    const TMPFS: i128 = 0x0102_1994;
    const RAMFS: i128 = 0x8584_58F6;
    const OVERLAYFS: i128 = 0x794C_7630;
    // Sign-extended where the type is a signed 32-bit number.
    let file_system = file_system & 0xFFFF_FFFF;
    [
        EXT, XFS, BTRFS, F2FS, BCACHEFS, ZFS, TMPFS, RAMFS, OVERLAYFS,
    ]
    .contains(&file_system)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    fn log() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        std::fs::write(&path, "line\n").unwrap();
        (folder, path)
    }

    #[test]
    fn a_writer_in_this_process() {
        let (_folder, path) = log();
        let reader = File::open(&path).unwrap();
        let other_reader = File::open(&path).unwrap();
        assert_eq!(has_writer(&reader), Writer::None);
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(has_writer(&reader), Writer::Some);
        // Its name does not matter: the file does.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(has_writer(&reader), Writer::Some);
        drop(writer);
        assert_eq!(has_writer(&reader), Writer::None);
        assert_eq!(has_writer(&other_reader), Writer::None);
    }

    #[test]
    fn a_writer_in_another_process() {
        let (_folder, path) = log();
        let reader = File::open(&path).unwrap();
        let append = OpenOptions::new().append(true).open(&path).unwrap();
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(append)
            .spawn()
            .unwrap();
        assert_eq!(has_writer(&reader), Writer::Some);
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"last\n").unwrap();
        drop(input);
        assert!(child.wait().unwrap().success());
        assert_eq!(has_writer(&reader), Writer::None);
        assert_eq!(std::fs::read(&path).unwrap(), b"line\nlast\n");
    }

    #[test]
    fn no_lease_is_left_behind() {
        let (_folder, path) = log();
        let reader = File::open(&path).unwrap();
        for _ in 0..200 {
            assert_eq!(has_writer(&reader), Writer::None);
            let began = Instant::now();
            drop(OpenOptions::new().append(true).open(&path).unwrap());
            // A lease that is held makes this wait 45 s.
            assert!(began.elapsed() < Duration::from_secs(5));
        }
    }

    /// The signal of a lease that is broken must not end the process, however
    /// the two meet.
    #[test]
    fn writers_that_come_at_the_same_moment_are_survived() {
        let (_folder, path) = log();
        let reader = File::open(&path).unwrap();
        let opener = std::thread::spawn({
            let path = path.clone();
            move || {
                for _ in 0..3000 {
                    let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
                    writer.write_all(b"x").unwrap();
                }
            }
        });
        let mut seen = [0_u32; 2];
        while !opener.is_finished() {
            match has_writer(&reader) {
                Writer::None => seen[0] += 1,
                Writer::Some => seen[1] += 1,
                Writer::Unknown => panic!("leases work on this file system"),
            }
        }
        opener.join().unwrap();
        assert!(seen[0] + seen[1] > 0);
        assert_eq!(has_writer(&reader), Writer::None);
        assert_eq!(std::fs::read(&path).unwrap().len(), 5 + 3000);
    }

    #[test]
    fn a_lease_counts_where_all_writers_are_this_kernels() {
        for (name, file_system, counts) in [
            ("ext4", 0xEF53, true),
            ("btrfs, sign-extended", 0x9123_683E - (1 << 32), true),
            ("overlayfs", 0x794C_7630, true),
            ("NFS", 0x6969, false),
            ("CIFS", 0xFF53_4D42, false),
            ("SMB2", 0xFE53_4D42, false),
            ("FUSE", 0x6573_5546, false),
            ("CephFS", 0x00C3_6400, false),
            ("GFS2", 0x0116_1970, false),
            ("9p", 0x0102_1997, false),
            ("one that nobody knows", 7, false),
        ] {
            assert_eq!(sees_all_writers(file_system), counts, "{name}");
        }
        let answer = |kind| told_by(Err(io::Error::from(kind)));
        assert_eq!(told_by(Ok(())), Writer::None);
        assert_eq!(answer(io::ErrorKind::WouldBlock), Writer::Some);
        assert_eq!(answer(io::ErrorKind::InvalidInput), Writer::Unknown);
        assert_eq!(answer(io::ErrorKind::PermissionDenied), Writer::Unknown);
    }

    #[test]
    fn what_cannot_be_asked_is_unknown() {
        let (_folder, path) = log();
        let device = File::open("/dev/null").unwrap();
        assert_eq!(has_writer(&device), Writer::Unknown);
        // No file system of which it is known what its leases say.
        let other = File::open("/proc/version").unwrap();
        assert_eq!(has_writer(&other), Writer::Unknown);
        let writable = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        assert_eq!(has_writer(&writable), Writer::Unknown);
    }
}
