//! Against OpenSSH's own sftp-server, started without an sshd.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use logchain_core::ids::HandoffId;
use logchain_core::transport::{
    DirectoryTransport, Error, Key, LogTransport, LogTransportExt, ObjectName, Prefix, conformance,
};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{ServedBy, SshOptions, SshTarget, SshTransport};

const NO_LOGCHAIN: &str = "echo 'sh: logchain: not found' >&2; exit 127";

fn sftp_server() -> &'static str {
    let known = [
        "/usr/lib/openssh/sftp-server",
        "/usr/libexec/openssh/sftp-server",
        "/usr/lib/ssh/sftp-server",
    ];
    let there = known.into_iter().find(|path| Path::new(path).is_file());
    there.expect("OpenSSH's sftp-server is needed: install openssh-sftp-server")
}

/// A program that stands for ssh: `command` answers a command, `sftp` the subsystem.
fn pretend(dir: &Path, command: &str, sftp: &str) -> SshOptions {
    let program = dir.join("ssh");
    let script =
        format!("#!/bin/sh\ncase \" $* \" in\n*' -s -- '*) {sftp} ;;\n*) {command} ;;\nesac\n");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    SshOptions {
        program: program.into(),
        ..SshOptions::default()
    }
}

struct Far {
    dir: TempDir,
    options: SshOptions,
}

impl Far {
    fn new() -> Self {
        Self::with(&format!("exec {}", sftp_server()))
    }

    fn with(sftp: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = pretend(dir.path(), NO_LOGCHAIN, sftp);
        Self { dir, options }
    }

    fn spool(&self) -> PathBuf {
        self.dir.path().join("a/spool")
    }

    fn target(&self) -> SshTarget {
        format!("ssh://h2{}", self.spool().display())
            .parse()
            .unwrap()
    }

    async fn connect(&self) -> Result<SshTransport, Error> {
        SshTransport::connect(self.target(), self.options.clone()).await
    }

    fn folder(&self) -> DirectoryTransport {
        DirectoryTransport::create(&self.spool()).unwrap()
    }

    fn handoff(&self) -> PathBuf {
        let path = self.spool().join(key(ObjectName::Begin).to_string());
        path.parent().unwrap().to_owned()
    }

    /// Names in a folder, sorted.
    fn names(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).unwrap();
        let mut names: Vec<_> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn key(object: ObjectName) -> Key {
    Key {
        domain: Uuid::from_u128(1),
        console: "serial0".parse().unwrap(),
        collection: "00000000-0000-0000-0000-000000000002".parse().unwrap(),
        object,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let far = Far::new();
    let transport = far.connect().await.unwrap();
    assert_eq!(transport.served_by(), ServedBy::Sftp);
    assert!(transport.to_string().ends_with("/a/spool (SFTP)"));
    assert!(
        transport
            .caution()
            .unwrap()
            .contains("can sync files but no folders")
    );
    conformance::run_all(Arc::new(transport)).await;
    for path in [far.spool(), far.spool().join("v1")] {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_spool_two_ways() {
    let far = Far::new();
    let (sftp, folder) = (far.connect().await.unwrap(), far.folder());
    let data = Bytes::from(vec![7; 3_000_000]);
    let ways: [(&dyn LogTransport, &dyn LogTransport); 2] = [(&sftp, &folder), (&folder, &sftp)];
    for (one, other) in ways {
        let (begin, commit) = (key(ObjectName::Begin), key(ObjectName::Commit));
        one.put(&begin, data.clone()).await.unwrap();
        other.put(&commit, Bytes::new()).await.unwrap();
        assert!(other.get_bytes(&begin, 8 << 20).await.unwrap() == data);
        assert!(matches!(
            other.put(&begin, Bytes::new()).await,
            Err(Error::AlreadyExists { .. })
        ));
        let listed = one.list_all(&Prefix::All).await.unwrap();
        assert_eq!(listed, other.list_all(&Prefix::All).await.unwrap());
        assert_eq!(listed.len(), 2);
        for entry in listed {
            other.delete(&entry.key).await.unwrap();
        }
        assert!(Far::names(&far.spool().join("v1")).is_empty());
    }
}

#[tokio::test]
async fn links_are_never_followed() {
    let far = Far::new();
    let transport = far.connect().await.unwrap();
    let (begin, commit) = (key(ObjectName::Begin), key(ObjectName::Commit));
    transport
        .put(&begin, Bytes::from_static(b"x"))
        .await
        .unwrap();
    let secret = far.dir.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    // At an object's own name: neither written through, nor read, nor listed.
    symlink(&secret, far.handoff().join("commit")).unwrap();
    let put = transport.put(&commit, Bytes::from_static(b"y")).await;
    assert!(matches!(put, Err(Error::AlreadyExists { .. })), "{put:?}");
    let got = transport.get(&commit, None).await.err().unwrap();
    assert!(got.to_string().contains("is not a regular file"), "{got}");
    assert_eq!(transport.list_all(&Prefix::All).await.unwrap().len(), 1);
    // One that dangles is as much in the way.
    let nowhere = far.dir.path().join("nowhere");
    symlink(&nowhere, far.handoff().join("abort")).unwrap();
    let put = transport.put(&key(ObjectName::Abort), Bytes::new()).await;
    assert!(matches!(put, Err(Error::AlreadyExists { .. })), "{put:?}");
    assert!(!nowhere.exists());
    // Deleted is the link, and not what it leads to.
    transport.delete(&commit).await.unwrap();
    assert!(!far.handoff().join("commit").is_symlink());
    assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
    // In the place of a folder.
    let elsewhere = far.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let mut other = key(ObjectName::Begin);
    other.domain = Uuid::from_u128(9);
    symlink(
        &elsewhere,
        far.spool().join("v1").join(other.domain.to_string()),
    )
    .unwrap();
    for failed in [
        transport.put(&other, Bytes::new()).await.err(),
        transport.get(&other, None).await.err(),
        transport.delete(&other).await.err(),
    ] {
        let sentence = failed.unwrap().to_string();
        assert!(sentence.contains("is not a folder"), "{sentence}");
    }
    for prefix in [Prefix::All, Prefix::Domain(other.domain)] {
        let listed = transport.list_all(&prefix).await.unwrap();
        assert!(listed.iter().all(|e| e.key.domain != other.domain));
    }
    assert!(Far::names(&elsewhere).is_empty());
}

#[tokio::test]
async fn a_temporary_is_made_anew_or_not_at_all() {
    let far = Far::new();
    let transport = far.connect().await.unwrap();
    transport
        .put(&key(ObjectName::Begin), Bytes::new())
        .await
        .unwrap();
    let target = SshTarget::on("h2").unwrap();
    let session = super::Session::open(&target, &far.options).await.unwrap();
    let (planted, to) = (
        far.handoff().join(".new-planted"),
        far.dir.path().join("to"),
    );
    symlink(&to, &planted).unwrap();
    let made = session
        .create(planted.to_str().unwrap())
        .await
        .err()
        .unwrap();
    assert!(made.sentence().contains("cannot create"));
    assert!(!to.exists(), "a link was followed");
    std::fs::write(&to, "here before").unwrap();
    assert!(session.create(planted.to_str().unwrap()).await.is_err());
    assert_eq!(std::fs::read(&to).unwrap(), b"here before");
    assert!(planted.is_symlink(), "what is not ours was removed");
}

/// What durability there is rests on that order.
#[tokio::test]
async fn a_file_is_synced_before_it_gets_its_name() {
    let far = Far::with(&format!(
        "exec {} -e -l DEBUG3 2>${{0%/*}}/log",
        sftp_server()
    ));
    let transport = far.connect().await.unwrap();
    let data = Bytes::from(vec![7; 1 << 20]);
    transport.put(&key(ObjectName::Begin), data).await.unwrap();
    let log = std::fs::read_to_string(far.dir.path().join("log")).unwrap();
    let at = |what: &str| {
        log.rfind(what)
            .unwrap_or_else(|| panic!("no {what}: {log}"))
    };
    assert!(at(": write ") < at(": fsync "), "{log}");
    assert!(at(": fsync ") < at(": hardlink"), "{log}");
    assert!(at(": hardlink") < at(": remove"), "{log}");
    // In large blocks, and not one by one.
    assert!(log.matches(": write ").count() <= 5, "{log}");
}

#[tokio::test]
async fn a_spool_of_others_is_refused() {
    let far = Far::new();
    std::fs::create_dir_all(far.spool()).unwrap();
    for mode in [0o777, 0o770, 0o1777] {
        std::fs::set_permissions(far.spool(), std::fs::Permissions::from_mode(mode)).unwrap();
        let refused = far.connect().await.unwrap_err();
        assert!(matches!(refused, Error::Denied { .. }), "{refused:?}");
        assert!(
            refused.to_string().contains("others may write in"),
            "{refused}"
        );
    }
    std::fs::set_permissions(far.spool(), std::fs::Permissions::from_mode(0o755)).unwrap();
    far.connect().await.unwrap();
    assert!(
        Far::names(&far.spool()).is_empty(),
        "what was tried is taken away"
    );
    // Only root can give a folder away.
    if std::os::unix::fs::chown(far.spool(), Some(4321), None).is_ok() {
        let refused = far.connect().await.unwrap_err();
        assert!(
            refused.to_string().contains("belongs to somebody else"),
            "{refused}"
        );
    }
    std::fs::remove_dir(far.spool()).unwrap();
    std::fs::write(far.spool(), "").unwrap();
    let refused = far.connect().await.unwrap_err();
    assert!(refused.to_string().contains("is not a folder"), "{refused}");
}

#[tokio::test]
async fn where_only_sftp_is_allowed_sftp_serves() {
    let serve = format!("exec {}", sftp_server());
    for command in [
        // `ForceCommand internal-sftp`, a command asked for all the same.
        "echo 'This service allows sftp connections only.'; exit 1".to_owned(),
        // `ForceCommand /usr/lib/openssh/sftp-server`: it reads our greeting.
        serve.clone(),
        "echo 'This account is currently not available.'; exit 1".to_owned(),
        "echo 'exec request failed on channel 0' >&2; exit 255".to_owned(),
        "echo 'sh: logchain: Permission denied' >&2; exit 126".to_owned(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let options = pretend(dir.path(), &command, &serve);
        let target: SshTarget = format!("ssh://h2{}/spool", dir.path().display())
            .parse()
            .unwrap();
        let transport = SshTransport::connect(target.clone(), options.clone())
            .await
            .unwrap();
        assert_eq!(transport.served_by(), ServedBy::Sftp, "{command}");
        let forbidden = SshOptions {
            sftp: false,
            ..options
        };
        let refused = SshTransport::connect(target, forbidden).await.unwrap_err();
        assert!(
            matches!(refused, Error::Denied { .. }),
            "{command}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_logchain_over_there_is_said_and_not_passed_by() {
    let serve = format!("exec {}", sftp_server());
    for command in [
        "echo 'logchain: cannot make /spool: Permission denied' >&2; exit 1",
        "echo \"error: unrecognized subcommand 'transport'\" >&2; exit 2",
        "echo 'logchain-transport 2'; sleep 5",
        "echo 'Host key verification failed.' >&2; exit 255",
        "echo 'root@h2: Permission denied (publickey).' >&2; exit 255",
        "exit 0",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let options = pretend(dir.path(), command, &serve);
        let target: SshTarget = format!("ssh://h2{}/spool", dir.path().display())
            .parse()
            .unwrap();
        let refused = SshTransport::connect(target, options).await;
        assert!(refused.is_err(), "{command}");
        assert!(!dir.path().join("spool").exists(), "{command}");
    }
}

#[tokio::test]
async fn where_neither_serves_both_reasons_are_said() {
    for (sftp, sentence) in [
        (
            "echo 'subsystem request failed on channel 0' >&2; exit 255",
            "h2 offers no SFTP",
        ),
        (
            "echo 'sh: sftp-server: not found' >&2; exit 127",
            "h2 offers no SFTP",
        ),
        (
            "echo 'Welcome to h2!'; exec sleep 5",
            "what answers at h2 is not SFTP as it is spoken here",
        ),
        ("exit 255", "ssh to h2 ended without a word"),
        // Version 3 with no extensions.
        (
            "printf '\\0\\0\\0\\005\\002\\0\\0\\0\\003'; sleep 5",
            "cannot link a file to a name that must be free",
        ),
        // Version 3 with hard links, but no fsync.
        (
            "printf '\\0\\0\\0\\042\\002\\0\\0\\0\\003\\0\\0\\0\\024hardlink@openssh.com\\0\\0\\0\\0011'; sleep 5",
            "cannot sync a file (fsync@openssh.com)",
        ),
        (
            "printf '\\0\\0\\0\\005\\002\\0\\0\\0\\002'; sleep 5",
            "version 2",
        ),
    ] {
        let refused = Far::with(sftp).connect().await.unwrap_err().to_string();
        assert!(
            refused.contains("logchain is not installed at h2"),
            "{refused}"
        );
        assert!(refused.contains(sentence), "{sftp}: {refused}");
    }
}

#[tokio::test]
async fn an_sftp_that_hangs_is_given_up() {
    let mut far = Far::with("exec sleep 600");
    far.options.connect_timeout = Duration::from_millis(100);
    let refused = far.connect().await.unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("SFTP at h2 did not answer within"),
        "{refused}"
    );
}

/// As the real one, until the connection breaks after so many messages or blocks of
/// them, or stands still. A put of 4 MiB is more than that.
fn breaking(then: &str) -> String {
    format!(
        "(dd bs=65536 count=40 2>/dev/null; {then}) | {}; \
         echo 'Timeout, server h2 not responding.' >&2; exit 255",
        sftp_server()
    )
}

#[tokio::test]
async fn a_connection_that_breaks_fails_what_is_under_way_and_is_made_anew() {
    let far = Far::with(&breaking("true"));
    let transport = far.connect().await.unwrap();
    let data = Bytes::from(vec![1; 4 << 20]);
    let put = transport
        .put(&key(ObjectName::Begin), data)
        .await
        .unwrap_err();
    assert!(matches!(put, Error::Unreachable { .. }), "{put:?}");
    assert!(put.to_string().contains("h2 stopped answering"), "{put}");
    let broken = std::time::Instant::now();
    loop {
        match transport
            .put_same(&key(ObjectName::Begin), Bytes::from_static(b"x"))
            .await
        {
            Ok(()) => break,
            Err(e) => assert!(broken.elapsed() < Duration::from_secs(20), "{e}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        transport
            .get_bytes(&key(ObjectName::Begin), 9)
            .await
            .unwrap(),
        "x"
    );
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_lost() {
    let mut far = Far::with(&breaking("exec sleep 600"));
    far.options.quiet = Duration::from_millis(300);
    let transport = far.connect().await.unwrap();
    let data = Bytes::from(vec![1; 4 << 20]);
    let began = std::time::Instant::now();
    let put = transport
        .put(&key(ObjectName::Begin), data)
        .await
        .unwrap_err();
    assert!(matches!(put, Error::Timeout { .. }), "{put:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
    // The others learn of it, and connect anew.
    tokio::time::sleep(Duration::from_millis(600)).await;
    transport.list(&Prefix::All, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_given_up_leave_the_connection_usable() {
    let far = Far::new();
    let transport = far.connect().await.unwrap();
    let (begin, data) = (key(ObjectName::Begin), Bytes::from(vec![7; 1 << 20]));
    transport.put(&begin, data.clone()).await.unwrap();
    for n in 0..300u64 {
        let time = Duration::from_micros(n * 20);
        let object = ObjectName::Chunk { offset: n, len: 1 };
        let _ = tokio::time::timeout(time, transport.put(&key(object), data.clone())).await;
        let _ = tokio::time::timeout(time, transport.get_bytes(&begin, 1 << 20)).await;
        let _ = tokio::time::timeout(time, transport.list_all(&Prefix::All)).await;
    }
    assert!(transport.get_bytes(&begin, 1 << 20).await.unwrap() == data);
    // What was begun and given up is cleaned up, too.
    let began = std::time::Instant::now();
    while Far::names(&far.handoff())
        .iter()
        .any(|name| name.starts_with(".new-"))
    {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for entry in transport.list_all(&Prefix::All).await.unwrap() {
        assert_eq!(entry.size, 1 << 20);
    }
}

#[tokio::test]
async fn streams_that_nobody_reads_block_nobody() {
    let far = Far::new();
    let transport = far.connect().await.unwrap();
    let begin = key(ObjectName::Begin);
    transport
        .put(&begin, Bytes::from(vec![7; 1 << 20]))
        .await
        .unwrap();
    for _ in 0..200 {
        drop(transport.get(&begin, None).await.unwrap());
    }
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(transport.get(&begin, None).await.unwrap());
    }
    transport
        .put(&key(ObjectName::Commit), Bytes::new())
        .await
        .unwrap();
}

#[tokio::test]
async fn what_killed_writers_left_is_swept() {
    let far = Far::new();
    let transport = far.connect().await.unwrap();
    transport
        .put(&key(ObjectName::Begin), Bytes::new())
        .await
        .unwrap();
    let other = far
        .handoff()
        .parent()
        .unwrap()
        .join(HandoffId::random().to_string());
    std::fs::create_dir(&other).unwrap();
    let old = SystemTime::now() - Duration::from_secs(2 * 3600);
    for (path, stale) in [
        (far.handoff().join(".new-dead"), true),
        (far.handoff().join(".new-live"), false),
        (far.handoff().join("notes"), true),
        (other.join(".new-dead"), true),
        (far.spool().join(".new-elsewhere"), true),
    ] {
        let file = std::fs::File::create(path).unwrap();
        if stale {
            file.set_modified(old).unwrap();
        }
    }
    transport.delete(&key(ObjectName::Commit)).await.unwrap();
    assert_eq!(Far::names(&far.handoff()), [".new-live", "begin", "notes"]);
    assert!(!other.exists());
    assert!(far.spool().join(".new-elsewhere").exists());
}

#[tokio::test]
async fn what_is_not_ours_is_left_alone() {
    let far = Far::new();
    let transport = far.connect().await.unwrap();
    transport
        .put(&key(ObjectName::Begin), Bytes::new())
        .await
        .unwrap();
    std::fs::write(far.spool().join("README"), "hello").unwrap();
    std::fs::write(far.spool().join("v1/file"), "hello").unwrap();
    std::fs::write(far.handoff().join("chunk-1-1"), "unpadded").unwrap();
    std::fs::create_dir(far.handoff().join("commit")).unwrap();
    let all = transport.list_all(&Prefix::All).await.unwrap();
    assert_eq!(all.len(), 1);
    let large = std::fs::File::create(far.handoff().join("abort")).unwrap();
    large.set_len((8 << 20) + 1).unwrap();
    let got = transport
        .get(&key(ObjectName::Abort), None)
        .await
        .err()
        .unwrap();
    assert!(matches!(got, Error::Corrupt { .. }), "{got:?}");
    transport.delete(&key(ObjectName::Begin)).await.unwrap();
    assert!(far.spool().join("README").exists() && far.handoff().exists());
}

/// No ssh stays once the transport is gone.
#[tokio::test]
async fn no_process_outlives_the_transport() {
    let far = Far::with(&format!("echo $$ > ${{0%/*}}/pid; exec {}", sftp_server()));
    let transport = far.connect().await.unwrap();
    let pid = std::fs::read_to_string(far.dir.path().join("pid")).unwrap();
    let proc = PathBuf::from(format!("/proc/{}/cmdline", pid.trim()));
    let runs = || std::fs::read(&proc).is_ok_and(|line| !line.is_empty());
    assert!(runs());
    transport
        .put(&key(ObjectName::Begin), Bytes::new())
        .await
        .unwrap();
    drop(transport);
    let began = std::time::Instant::now();
    while runs() {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
