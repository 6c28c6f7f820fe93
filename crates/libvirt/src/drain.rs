//! Whether anybody still has a log open for writing.
//!
//! At the moment when a domain is over, virtlogd can still hold up to 64 KiB of
//! its output unwritten. It closes the file when it has written them: a file
//! without a writer is complete. But a rollover closes a file too: so ask about
//! the file that is the base, and look afterwards whether it still is.
//!
//! A lease tells of this host's writers only. On a file system that others write
//! too, or whose server answers for it (NFS, SMB, FUSE, Ceph), both answers say
//! nothing: NFSv4 refuses every lease for which the server gave no delegation. There a
//! process of libvirt's on this host that has the file open is a writer, and
//! otherwise nobody knows.
//!
//! Must not know: which file is a log.

use std::fs::File;

use rustix::fs::{OFlags, fcntl_getfl, fstatfs};

use crate::{ffi, written};

/// Who has a file open for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// Nobody, at the moment of asking.
    None,
    /// Somebody; in this process or in another.
    Some,
    /// The question cannot be asked here: the file system is not of this host alone
    /// (NFS, SMB), the file is another user's, or `file` itself is open for writing.
    /// Wait for its size to come to rest instead.
    Unknown,
}

/// What the kernel answered when it was asked for a read lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lease {
    Granted,
    /// EAGAIN: there is a writer, or the file system's server keeps leases to itself.
    Refused,
    Failed,
}

/// Asks for a read lease, which the kernel grants only where nobody has the file
/// open for writing, and gives it back at once. `file` must be open for reading
/// only. A writer that opens the file in that moment waits for microseconds.
///
/// Blocks only where the file system does, and where it is not a local one for as
/// long as a look at the descriptors of virtlogd and QEMU takes.
#[must_use]
pub fn has_writer(file: &File) -> Writer {
    // The kernel would count `file` itself.
    let writable = fcntl_getfl(file).map(|flags| flags.intersects(OFlags::WRONLY | OFlags::RDWR));
    if writable != Ok(false) {
        return Writer::Unknown;
    }
    let kind = fstatfs(file).map_or(0, |stat| magic(i128::from(stat.f_type)));
    if !is_local(kind) {
        return on_a_server(written::is_written_here(file));
    }
    by_lease(match ffi::try_read_lease(file) {
        Ok(()) => Lease::Granted,
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Lease::Refused,
        Err(_) => Lease::Failed,
    })
}

/// Pure: what a lease tells on a local file system.
fn by_lease(lease: Lease) -> Writer {
    match lease {
        Lease::Granted => Writer::None,
        Lease::Refused => Writer::Some,
        Lease::Failed => Writer::Unknown,
    }
}

/// Pure: what is known where other hosts may write too.
fn on_a_server(written_here: bool) -> Writer {
    if written_here {
        Writer::Some
    } else {
        Writer::Unknown
    }
}

/// The type of a file system as the kernel's headers have it: some platforms give it
/// with a sign.
fn magic(kind: i128) -> u32 {
    u32::try_from(kind & 0xffff_ffff).unwrap_or(0)
}

/// Pure: whether only this host writes what lies there, and leases see every writer.
/// Numbers from `linux/magic.h` and the file systems' own sources. One that is not
/// listed is taken for a server's: then rest decides, which is slower and never wrong.
fn is_local(kind: u32) -> bool {
    const LOCAL: &[u32] = &[
        0xEF53,      // ext2, ext3, ext4
        0x5846_5342, // XFS
        0x9123_683E, // Btrfs
        0x0102_1994, // tmpfs
        0x8584_58F6, // ramfs
        0xF2F5_2010, // F2FS
        0x2FC1_2FC1, // ZFS
        0xCA45_1A4E, // bcachefs
        0x794C_7630, // overlayfs
        0x3153_464A, // JFS
        0x5265_4973, // ReiserFS
        0x3434,      // NILFS2
    ];
    LOCAL.contains(&kind)
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
        let device = File::open("/dev/null").unwrap();
        assert_eq!(has_writer(&device), Writer::Unknown);
        let writable = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        assert_eq!(has_writer(&writable), Writer::Unknown);
    }

    #[test]
    fn only_local_file_systems_are_asked_by_lease() {
        for local in [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630] {
            assert!(is_local(local), "{local:#x}");
        }
        // NFS, SMB, SMB2, CIFS, FUSE, Ceph, 9p, GFS2, OCFS2, AFS, Lustre, GPFS; unknown.
        for remote in [
            0x6969,
            0x517B,
            0xFE53_4D42,
            0xFF53_4D42,
            0x6573_5546,
            0x00C3_6400,
            0x0102_1997,
            0x0116_1970,
            0x7461_636F,
            0x5346_414F,
            0x0BD0_0BD0,
            0x4750_4653,
            0,
        ] {
            assert!(!is_local(remote), "{remote:#x}");
        }
        assert!(!is_local(magic(i128::from(0xFF53_4D42_u32.cast_signed()))));
        assert_eq!(
            magic(i128::from(0x9123_683E_u32.cast_signed())),
            0x9123_683E
        );
        assert_eq!(by_lease(Lease::Granted), Writer::None);
        assert_eq!(by_lease(Lease::Refused), Writer::Some);
        assert_eq!(by_lease(Lease::Failed), Writer::Unknown);
        assert_eq!(on_a_server(false), Writer::Unknown);
        assert_eq!(on_a_server(true), Writer::Some);
    }

    /// A mount for one test, ended with it. `None` where it cannot be made here.
    struct Mount(std::path::PathBuf);

    impl Mount {
        fn new(program: &str, arguments: &[&str], at: &std::path::Path) -> Option<Self> {
            let done = Command::new(program).args(arguments).arg(at).status();
            let made = done.is_ok_and(|status| status.success());
            if !made {
                eprintln!("skipped: {program} cannot mount here");
            }
            made.then(|| Self(at.to_owned()))
        }
    }

    impl Drop for Mount {
        fn drop(&mut self) {
            let ended = Command::new("umount").arg(&self.0).status();
            assert!(ended.unwrap().success());
        }
    }

    #[test]
    fn leases_see_writers_through_an_overlay() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let sub = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (lower, upper, work, at) = (sub("lower"), sub("upper"), sub("work"), sub("at"));
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let arguments = ["-t", "overlay", "overlay", "-o", &options];
        let Some(_mount) = Mount::new("mount", &arguments, &at) else {
            return;
        };
        let path = at.join("console.log");
        std::fs::write(&path, "line\n").unwrap();
        let reader = File::open(&path).unwrap();
        assert_eq!(has_writer(&reader), Writer::None);
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(has_writer(&reader), Writer::Some);
        drop(writer);
        assert_eq!(has_writer(&reader), Writer::None);
    }

    /// FUSE stands for all file systems behind which somebody else may write: the kernel
    /// sees no writer there that comes another way.
    #[test]
    fn on_a_fuse_mount_nobody_knows() {
        let folder = tempfile::tempdir().unwrap();
        let (below, at) = (folder.path().join("below"), folder.path().join("at"));
        std::fs::create_dir(&below).unwrap();
        std::fs::create_dir(&at).unwrap();
        let Some(_mount) = Mount::new("bindfs", &[below.to_str().unwrap()], &at) else {
            return;
        };
        std::fs::write(at.join("console.log"), "line\n").unwrap();
        let reader = File::open(at.join("console.log")).unwrap();
        assert_eq!(has_writer(&reader), Writer::Unknown);
        let elsewhere = OpenOptions::new()
            .append(true)
            .open(below.join("console.log"))
            .unwrap();
        assert_eq!(has_writer(&reader), Writer::Unknown);
        drop(elsewhere);
    }
}
