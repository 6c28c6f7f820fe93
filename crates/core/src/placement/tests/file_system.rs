//! What a file system keeps beside the bytes: modes, labels, attributes, holes; and what it
//! refuses.

use super::*;

#[test]
fn placed_files_take_mode_from_the_base() {
    use std::os::unix::fs::PermissionsExt;
    let bed = Host::new();
    bed.write("console.log", "b");
    fs::set_permissions(&bed.log, fs::Permissions::from_mode(0o640)).unwrap();
    let mut staging = open(&bed, FREE);
    staging.append(true, b"a").unwrap();
    staging.seal(None).unwrap();
    staging.place().unwrap();
    let mode = fs::metadata(bed.dir.path().join("console.log.0"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o640);
}

#[test]
fn placed_files_take_labels_from_the_base() {
    // `security.selinux` needs a kernel with SELinux; `user.` goes the same way.
    const LABEL: &str = "user.logchain";
    let bed = Host::new();
    bed.write("console.log", "b");
    let base = File::open(&bed.log).unwrap();
    if rustix::fs::fsetxattr(&base, LABEL, b"value", rustix::fs::XattrFlags::empty()).is_err() {
        return; // a file system without labels
    }
    let mut staging = open(&bed, FREE);
    staging.append(true, b"a").unwrap();
    let (base, stat) = staging.open_base().unwrap().unwrap();
    let labels = &[LABEL, "user.not-there"];
    let own = staging.own.try_clone().unwrap();
    staging
        .parts
        .match_base(&own, (&base, &stat), labels)
        .unwrap();
    staging.seal(None).unwrap();
    staging.place().unwrap();
    staging.clean().unwrap();
    let placed = File::open(bed.dir.path().join("console.log.0")).unwrap();
    let mut value = [0; 16];
    let length = rustix::fs::fgetxattr(&placed, LABEL, &mut value).unwrap();
    assert_eq!(&value[..length], b"value");
}

/// A hole of the source is one here, and room is asked for what is not a hole.
#[test]
fn what_is_nothing_but_nuls_takes_no_room() {
    let bed = Host::new();
    bed.write("console.log", "base");
    let mut staging = open(&bed, FREE);
    let nuls = vec![0; 4 << 20];
    staging.append(true, b"first line\n").unwrap();
    for _ in 0..128 {
        staging.append(false, &nuls).unwrap();
    }
    staging.append(false, b"last line\n").unwrap();
    let total = staging.staged_bytes();
    staging.seal(None).unwrap();
    staging.place().unwrap();
    staging.clean().unwrap();
    let placed = fs::metadata(bed.dir.path().join("console.log.0")).unwrap();
    assert_eq!(placed.len(), total);
    let allocated = std::os::unix::fs::MetadataExt::blocks(&placed) * 512;
    assert!(allocated < 1 << 20, "{allocated} bytes allocated");
    let snapshot = LogChain::open(&bed.log, NumberingChoice::Auto)
        .unwrap()
        .snapshot()
        .unwrap();
    let mut end = Vec::new();
    let mut tail = snapshot.tail(15).unwrap();
    std::io::Read::read_to_end(&mut tail, &mut end).unwrap();
    assert_eq!(end, b"\0last line\nbase");
}

/// Ends what `chattr` did, whatever came of the test.
struct Attribute<'a>(&'a std::path::Path, &'static str);

impl<'a> Attribute<'a> {
    /// `None` where it cannot be set here.
    fn set(path: &'a std::path::Path, letter: &'static str) -> Option<Self> {
        let mut chattr = std::process::Command::new("chattr");
        let set = chattr.arg(format!("+{letter}")).arg(path).output();
        if set.is_ok_and(|set| set.status.success()) {
            return Some(Self(path, letter));
        }
        eprintln!("skipped: no attributes can be set here");
        None
    }
}

impl Drop for Attribute<'_> {
    fn drop(&mut self) {
        let mut chattr = std::process::Command::new("chattr");
        let _ = chattr.arg(format!("-{}", self.1)).arg(self.0).status();
    }
}

/// An append-only folder takes new names and gives none away: virtlogd's next rollover
/// would fail, and with it the start of the VM.
#[test]
fn where_no_file_can_be_removed_none_is_placed() {
    for letter in ["a", "i"] {
        let bed = Host::new();
        bed.write("console.log", "base");
        let Some(_set) = Attribute::set(bed.dir.path(), letter) else {
            return;
        };
        let opened = Staging::open(&bed.log, HandoffId::random(), FREE, Arc::new(NoWriters));
        let Err(refused) = opened else {
            panic!("opened in a folder with +{letter}");
        };
        assert!(matches!(refused, Error::Stuck { .. }), "{refused}");
        assert_eq!(bed.all_names(), ["console.log"], "+{letter}");
    }
}

/// The folder becomes append-only while the history comes: nothing is sealed, so the
/// source keeps all of it.
#[test]
fn a_folder_that_becomes_append_only_is_found_before_the_history_is_sealed() {
    let bed = Host::new();
    bed.write("console.log", "base");
    let mut staging = open(&bed, FREE);
    staging.append(true, b"history").unwrap();
    let Some(set) = Attribute::set(bed.dir.path(), "a") else {
        return;
    };
    let refused = staging.seal(None).unwrap_err();
    assert!(matches!(refused, Error::Stuck { .. }), "{refused}");
    assert!(!staging.is_sealed());
    drop(set);
    staging.discard().unwrap();
    assert_eq!(bed.all_names(), ["console.log"]);
}

/// Without CAP_CHOWN, or on a server that makes root nobody.
#[test]
fn where_the_owner_cannot_be_set_only_the_owner_may_read() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    let place = |folder_mode: u32| {
        let bed = Host::new();
        bed.write("console.log", "base");
        fs::set_permissions(&bed.log, fs::Permissions::from_mode(0o644)).unwrap();
        let theirs = chown(&bed.log, Some(12345), Some(12345)).is_ok()
            && chown(bed.dir.path(), Some(23456), None).is_ok();
        if !theirs {
            eprintln!("skipped: only root can give files away");
            return None;
        }
        fs::set_permissions(bed.dir.path(), fs::Permissions::from_mode(folder_mode)).unwrap();
        let mut staging = open(&bed, FREE);
        staging.append(true, b"history").unwrap();
        fault::refuse_owner(true);
        let sealed = staging.seal(None);
        fault::refuse_owner(false);
        Some((bed, staging, sealed))
    };
    let Some((bed, mut staging, sealed)) = place(0o777) else {
        return;
    };
    sealed.unwrap();
    let placed = staging.place().unwrap();
    staging.clean().unwrap();
    let file = fs::metadata(bed.dir.path().join("console.log.0")).unwrap();
    assert_ne!(file.uid(), 12345);
    assert_eq!(file.mode() & 0o7777, 0o600);
    let [note] = placed.notes.as_slice() else {
        panic!("{:?}", placed.notes);
    };
    assert!(note.starts_with("console.log.0: belongs to "), "{note}");
    assert!(note.contains("has the mode 0600, not 0644"), "{note}");

    // A sticky folder of somebody else's: the log's user could not take it away.
    let Some((bed, staging, sealed)) = place(0o1777) else {
        return;
    };
    let refused = sealed.unwrap_err();
    assert!(matches!(refused, Error::Stuck { .. }), "{refused}");
    staging.discard().unwrap();
    assert_eq!(bed.all_names(), ["console.log"]);
}

/// Unmounts when dropped, whatever came of the test.
struct SmallDisk(tempfile::TempDir);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut umount = std::process::Command::new("umount");
        let _ = umount.arg("-l").arg(self.0.path()).status();
    }
}

/// A disk of 16 MiB has room for 512 MiB of which all but two lines are a hole.
#[test]
fn a_hole_is_not_refused_for_room() {
    let disk = tempfile::tempdir().unwrap();
    let mut mount = std::process::Command::new("mount");
    let mount = mount.args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]);
    if !mount.arg(disk.path()).status().is_ok_and(|s| s.success()) {
        eprintln!("skipped: nothing can be mounted here");
        return;
    }
    let disk = SmallDisk(disk);
    let log = disk.0.path().join("console.log");
    fs::write(&log, "base").unwrap();
    let mut staging = Staging::open(&log, HandoffId::random(), FREE, Arc::new(NoWriters)).unwrap();
    staging.append(true, b"first\n").unwrap();
    let nuls = vec![0; 4 << 20];
    for _ in 0..128 {
        staging.append(false, &nuls).unwrap();
    }
    staging.append(false, b"last\n").unwrap();
    // Data that does not fit is refused as before.
    let refused = staging.append(false, &vec![b'x'; 16 << 20]).unwrap_err();
    assert!(
        matches!(refused, Error::Folder(folder::Error::NoRoom { .. })),
        "{refused}"
    );
    staging.seal(None).unwrap();
    staging.place().unwrap();
    staging.clean().unwrap();
    let placed = fs::metadata(disk.0.path().join("console.log.0")).unwrap();
    assert_eq!(placed.len(), 11 + (512 << 20));
}
