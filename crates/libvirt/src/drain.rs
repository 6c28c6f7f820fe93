//! Whether anybody still has a log open for writing.
//!
//! At the moment when a domain is over, virtlogd can still hold up to 64 KiB of
//! its output unwritten. It closes the file when it has written them: a file
//! without a writer is complete. But a rollover closes a file too: so ask about
//! the file that is the base, and look afterwards whether it still is.
//!
//! Must not know: which file is a log.

use std::fs::File;

use rustix::fs::{OFlags, fcntl_getfl, fstatfs};

use crate::{ffi, virtlogd};

/// Who has a file open for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// Nobody, at the moment of asking.
    None,
    /// Somebody; in this process or in another.
    Some,
    /// The question cannot be answered here: the file system is not one whose
    /// leases tell (NFS, SMB, FUSE) and nobody on this host writes the file, as far
    /// as we may see; or the file is another user's; or `file` itself is open for
    /// writing. Wait for its size to come to rest instead.
    Unknown,
}

/// What the kernel answers to the wish for a read lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lease {
    Granted,
    /// EAGAIN.
    Refused,
    /// Any other error.
    Failed,
}

/// File systems (`statfs`'s `f_type`) whose leases the kernel keeps by itself, so that
/// a refused one means a writer and nothing else. ext2, ext3 and ext4 share a number.
/// An overlay refuses for whoever opened the file through it; only somebody who writes
/// beneath it, to its upper folder, is not seen.
const LOCAL: [u32; 9] = [
    0x0000_ef53, // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0xf2f5_2010, // F2FS
    0x2fc1_2fc1, // ZFS
    0xca45_1a4e, // bcachefs
    0x794c_7630, // overlay
];

/// Pure: what a lease says on the file system `kind`. Elsewhere than on [`LOCAL`] ones
/// it says nothing: NFSv4 and SMB refuse it wherever the server gave no delegation, and
/// grant it though another host writes.
fn told(kind: u32, lease: Lease) -> Writer {
    if !LOCAL.contains(&kind) {
        return Writer::Unknown;
    }
    match lease {
        Lease::Granted => Writer::None,
        Lease::Refused => Writer::Some,
        Lease::Failed => Writer::Unknown,
    }
}

/// Asks for a read lease, which the kernel grants only where nobody has the file
/// open for writing, and gives it back at once. `file` must be open for reading
/// only. A writer that opens the file in that moment waits for microseconds.
///
/// Where a lease says nothing, the processes of this host are looked at: a virtlogd
/// that has the log open here is a writer, whatever the file system is.
///
/// Blocks only where the file system or /proc does.
#[must_use]
pub fn has_writer(file: &File) -> Writer {
    // The kernel would count `file` itself.
    let writable = fcntl_getfl(file).map(|flags| flags.intersects(OFlags::WRONLY | OFlags::RDWR));
    if writable != Ok(false) {
        return Writer::Unknown;
    }
    // The type of `f_type` differs between architectures; its 32 bits do not.
    let kind = fstatfs(file).map_or(0, |fs| i128::from(fs.f_type) & 0xffff_ffff);
    let kind = u32::try_from(kind).unwrap_or(0);
    let lease = match ffi::try_read_lease(file) {
        Ok(()) => Lease::Granted,
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Lease::Refused,
        Err(_) => Lease::Failed,
    };
    match told(kind, lease) {
        Writer::Unknown => on_this_host(file),
        told => told,
    }
}

/// What the processes of this host tell: somebody here, or nobody that we see.
fn on_this_host(file: &File) -> Writer {
    match virtlogd::writer_of(file) {
        Ok(virtlogd::Writer::Virtlogd(_) | virtlogd::Writer::Others(_)) => Writer::Some,
        Ok(virtlogd::Writer::Nobody) | Err(_) => Writer::Unknown,
    }
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
    fn what_cannot_be_asked_is_unknown() {
        let (_folder, path) = log();
        // Nobody has it open for writing, but procfs is not one that tells.
        let device = File::open("/proc/version").unwrap();
        assert_eq!(has_writer(&device), Writer::Unknown);
        let writable = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        assert_eq!(has_writer(&writable), Writer::Unknown);
    }

    /// NFS, SMB1, SMB2 and CIFS, FUSE, 9p, Ceph, GFS2, OCFS2, and one nobody has heard of.
    const ELSEWHERE: [u32; 9] = [
        0x6969,
        0x517b,
        0xfe53_4d42,
        0xff53_4d42,
        0x6573_5546,
        0x0102_1997,
        0x00c3_6400,
        0x0116_1970,
        0x7461_636f,
    ];

    #[test]
    fn a_lease_tells_on_local_file_systems_only() {
        for kind in LOCAL {
            assert_eq!(told(kind, Lease::Granted), Writer::None, "{kind:x}");
            assert_eq!(told(kind, Lease::Refused), Writer::Some, "{kind:x}");
            assert_eq!(told(kind, Lease::Failed), Writer::Unknown, "{kind:x}");
        }
        for kind in ELSEWHERE.into_iter().chain([0, u32::MAX]) {
            for lease in [Lease::Granted, Lease::Refused, Lease::Failed] {
                assert_eq!(told(kind, lease), Writer::Unknown, "{kind:x} {lease:?}");
            }
        }
    }

    /// Unmounts when dropped, whatever came of the test.
    struct Mounted(std::path::PathBuf);

    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }

    /// A folder seen through a FUSE file system; `None` where there is none here.
    fn through_fuse(below: &std::path::Path, at: &std::path::Path) -> Option<Mounted> {
        let mounted = Command::new("bindfs")
            .arg(below)
            .arg(at)
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Mounted(at.to_owned()));
        }
        eprintln!("skipped: bindfs is not installed, or may not mount here");
        None
    }

    #[test]
    fn through_fuse_a_writer_of_this_host_is_seen_and_silence_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let (below, at) = (folder.path().join("below"), folder.path().join("at"));
        std::fs::create_dir(&below).unwrap();
        std::fs::create_dir(&at).unwrap();
        let Some(_mounted) = through_fuse(&below, &at) else {
            return;
        };
        let path = at.join("console.log");
        std::fs::write(&path, "line\n").unwrap();
        let reader = File::open(&path).unwrap();
        // Somebody may write beneath the mount: a server's other client does.
        assert_eq!(has_writer(&reader), Writer::Unknown);
        let beneath = OpenOptions::new()
            .append(true)
            .open(below.join("console.log"))
            .unwrap();
        assert_eq!(has_writer(&reader), Writer::Unknown);
        drop(beneath);
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(has_writer(&reader), Writer::Some);
        drop(writer);
        drop(reader);
    }
}
