//! Whether anybody still has a log open for writing.
//!
//! At the moment when a domain is over, virtlogd can still hold up to 64 KiB of
//! its output unwritten. It closes the file when it has written them: a file
//! without a writer is complete. But a rollover closes a file too: so ask about
//! the file that is the base, and look afterwards whether it still is.
//!
//! Must not know: which file is a log.

use std::fs::File;

use rustix::fs::{OFlags, fcntl_getfl};

use crate::ffi;

/// Who has a file open for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// Nobody, at the moment of asking.
    None,
    /// Somebody; in this process or in another.
    Some,
    /// The question cannot be asked here: the file system has no leases (NFS),
    /// the file is another user's, or `file` itself is open for writing. Wait
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
    match ffi::try_read_lease(file) {
        Ok(()) => Writer::None,
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Writer::Some,
        Err(_) => Writer::Unknown,
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
        let device = File::open("/dev/null").unwrap();
        assert_eq!(has_writer(&device), Writer::Unknown);
        let writable = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        assert_eq!(has_writer(&writable), Writer::Unknown);
    }
}
