use super::*;

fn open(path: &str, ino: u64) -> Descriptor {
    Descriptor {
        process: 7,
        fd: 3,
        kind: Kind::Virtlogd,
        path: PathBuf::from(path.trim_end_matches(" (deleted)")),
        removed: path.ends_with(" (deleted)"),
        inode: (1, ino),
    }
}

fn log(path: &str) -> Log<'_> {
    Log {
        path: Path::new(path),
        base: None,
        rotated: &[],
        others: &[],
        is_only_one_without_writer: false,
    }
}

#[test]
fn the_file_at_its_path_comes_first() {
    let all = [open("/c/vm.log (deleted)", 8), open("/c/vm.log", 9)];
    let here = Log {
        base: Some((1, 9)),
        ..log("/c/vm.log")
    };
    assert_eq!(decide(&here, &all), Written::AtItsPath);
}

#[test]
fn a_removed_log_is_found_by_the_path_that_it_had() {
    let all = [open("/c/vm.log (deleted)", 8), open("/c/other.log", 9)];
    let hidden = Written::Hidden(all[0].clone());
    assert_eq!(decide(&log("/c/vm.log"), &all), hidden);
    // A new file that somebody made in its place is not the one that is written.
    let touched = Log {
        base: Some((1, 10)),
        ..log("/c/vm.log")
    };
    assert_eq!(decide(&touched, &all), hidden);
    assert_eq!(decide(&log("/c/web.log"), &all), Written::ByNobody);
}

#[test]
fn a_renamed_log_is_found_by_its_chain_or_its_name() {
    for name in ["/c/vm.log.1", "/c/vm.log-20261127", "/c/vm.log.old"] {
        let all = [open(name, 8), open("/c/vm.log2", 9)];
        assert_eq!(
            decide(&log("/c/vm.log"), &all),
            Written::Hidden(all[0].clone()),
            "{name}"
        );
    }
    let all = [open("/c/else", 8)];
    let chain = Log {
        rotated: &[(1, 8)],
        ..log("/c/vm.log")
    };
    assert_eq!(decide(&chain, &all), Written::Hidden(all[0].clone()));
}

/// `web.1` may be the console of another machine.
#[test]
fn the_log_of_another_domain_is_never_this_one() {
    let all = [open("/c/web.1", 8), open("/c/web.1.old", 9)];
    let others = [PathBuf::from("/c/web.1")];
    let web = Log {
        others: &others,
        is_only_one_without_writer: true,
        ..log("/c/web")
    };
    assert_eq!(decide(&web, &all), Written::ByNobody);
    let others = [PathBuf::from("/c/web")];
    let other = Log {
        others: &others,
        base: Some((1, 8)),
        ..log("/c/web.1")
    };
    assert_eq!(decide(&other, &all), Written::AtItsPath);
    // What the other one had is told by its longer name.
    let all = [open("/c/web.1.old", 9)];
    let moved = Log {
        base: None,
        ..other
    };
    assert_eq!(decide(&moved, &all), Written::Hidden(all[0].clone()));
}

#[test]
fn by_elimination_only_where_nothing_else_could_be_it() {
    let own = [
        open("/run/virtlogd.pid", 1),
        open("/var/log/libvirt/qemu/vm.log", 2),
        open("/var/log/libvirt/virtlogd.log", 3),
        open("/c/other.log", 4),
        open("/c/other.log.0", 5),
    ];
    let others = [PathBuf::from("/c/other.log")];
    let mut vm = Log {
        others: &others,
        is_only_one_without_writer: true,
        ..log("/d/vm.log")
    };
    assert_eq!(decide(&vm, &own), Written::ByNobody);
    let mut all = own.to_vec();
    all.push(open("/old/moved.log", 6));
    assert_eq!(
        decide(&vm, &all),
        Written::Hidden(open("/old/moved.log", 6))
    );
    let mut disk = open("/images/disk.raw", 7);
    disk.kind = Kind::Qemu;
    all.push(disk);
    assert_eq!(
        decide(&vm, &all),
        Written::Hidden(open("/old/moved.log", 6))
    );
    all.push(open("/old/moved too.log", 8));
    assert!(matches!(decide(&vm, &all), Written::Doubtful(two) if two.len() == 2));
    vm.is_only_one_without_writer = false;
    assert_eq!(decide(&vm, &all), Written::ByNobody);
}

#[test]
fn what_the_kernel_says_is_read() {
    assert!(is_writable(
        "pos:\t0\nflags:\t0100001\nmnt_id:\t9\nino:\t5\n"
    ));
    assert!(!is_writable("pos:\t0\nflags:\t0100000\n") && !is_writable("flags:\tx\n"));
    assert_eq!(field("pos:\t0\nino:\t77\n", "ino:"), Some("77"));
    assert_eq!(kind_of(b"virtlogd\n"), Some(Kind::Virtlogd));
    assert_eq!(kind_of(b"qemu-system-x86\n"), Some(Kind::Qemu));
    assert_eq!(kind_of(b"virtlogd-x\n"), None);
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().join("a (deleted)");
    std::fs::write(&real, "").unwrap();
    assert_eq!(living(real.clone(), 1), (real, false));
    let gone = PathBuf::from("/c/vm\n.log (deleted)");
    assert_eq!(living(gone, 0), (PathBuf::from("/c/vm\n.log"), true));
}

#[test]
fn a_removed_file_is_opened_through_its_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm.log");
    let writer = File::create(&path).unwrap();
    std::fs::write(&path, "all of it\n").unwrap();
    let stat = writer.metadata().unwrap();
    std::fs::remove_file(&path).unwrap();
    let proc = Path::new("/proc/self");
    let inode = (stat.dev(), stat.ino());
    let all = open_for_writing(proc, Kind::Qemu, Some(inode.1)).unwrap();
    let found = Descriptor {
        process: std::process::id().cast_signed(),
        fd: all[0].0,
        kind: Kind::Virtlogd,
        path,
        removed: true,
        inode,
    };
    assert_eq!(
        io::read_to_string(found.open().unwrap()).unwrap(),
        "all of it\n"
    );
    drop(writer);
    let gone = found.open().map(|_| ());
    assert!(gone.is_err(), "{gone:?}");
}

/// A lock that virtlogd inherited from whoever started it is not taken for a log.
#[test]
fn virtlogd_opens_logs_to_append_and_to_be_closed_on_exec() {
    let log = "pos:\t0\nflags:\t02102001\n";
    let lock = "pos:\t0\nflags:\t0100001\n";
    assert!(may_be_log(Kind::Virtlogd, log) && may_be_log(Kind::Qemu, log));
    assert!(!may_be_log(Kind::Virtlogd, lock) && may_be_log(Kind::Qemu, lock));
    assert!(!may_be_log(Kind::Virtlogd, "flags:\t02102000\n"));
}
