use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use logchain_core::ids::HandoffId;
use logchain_core::transport::{
    DirectoryTransport, Error, Key, LogTransport, LogTransportExt, MemoryTransport, ObjectName,
    Prefix, conformance,
};
use logchain_transport_wire::{IN_FLIGHT, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
use uuid::Uuid;

use crate::{SshLogin, SshOptions, SshTarget, SshTransport, UnknownHostKey, command, serve};

mod thousand;

fn key() -> Key {
    Key {
        domain: Uuid::from_u128(1),
        console: "serial0".parse().unwrap(),
        collection: HandoffId::random().into(),
        object: ObjectName::Begin,
    }
}

async fn over(far: Arc<dyn LogTransport>) -> SshTransport {
    let (near_end, far_end) = duplex(64 * 1024);
    let (input, output) = split(far_end);
    tokio::spawn(serve(far, input, output));
    let (output, input) = split(near_end);
    SshTransport::over(output, input).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn client_and_server_conform_over_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folder = DirectoryTransport::open(dir.path()).unwrap();
    conformance::run_all(Arc::new(over(Arc::new(folder)).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_and_server_conform_over_memory() {
    conformance::run_all(Arc::new(over(Arc::new(MemoryTransport::new())).await)).await;
}

#[tokio::test]
async fn a_connection_that_breaks_fails_what_is_under_way() {
    let (near_end, mut far_end) = duplex(64 * 1024);
    let (output, input) = split(near_end);
    let far = tokio::spawn(async move {
        far_end
            .write_all(&Protocol::TRANSPORT.greeting())
            .await
            .unwrap();
        let mut some = [0; 60];
        far_end.read_exact(&mut some).await.unwrap();
    });
    let transport = SshTransport::over(output, input).await.unwrap();
    let put = transport.put(&key(), Bytes::from(vec![0; 1000])).await;
    assert!(matches!(put, Err(Error::Unreachable { .. })), "{put:?}");
    far.await.unwrap();
    // The next one tries to connect anew, here with a program that fails.
    let again = transport.list(&Prefix::All, None).await;
    assert!(matches!(again, Err(Error::Unreachable { .. })), "{again:?}");
}

#[tokio::test]
async fn nonsense_from_the_client_ends_the_server() {
    for nonsense in [
        &b"\xff\xff\xff\xff"[..],
        b"\0\0\0\x03abc",
        b"\0\0\0\x06\0\0\0\x05{}",
        b"\0\0\0\x06\0\0\0\x02{}",
    ] {
        let (mut near, far) = duplex(64 * 1024);
        let (input, output) = split(far);
        let server = tokio::spawn(serve(Arc::new(MemoryTransport::new()), input, output));
        near.write_all(&Protocol::TRANSPORT.greeting())
            .await
            .unwrap();
        near.write_all(nonsense).await.unwrap();
        near.shutdown().await.unwrap();
        assert!(server.await.unwrap().is_err(), "{nonsense:?}");
    }
}

#[tokio::test]
async fn the_server_ends_with_its_input() {
    let (mut near, far) = duplex(1024);
    let (input, output) = split(far);
    let server = tokio::spawn(serve(Arc::new(MemoryTransport::new()), input, output));
    near.write_all(&Protocol::TRANSPORT.greeting())
        .await
        .unwrap();
    near.shutdown().await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), server).await;
    assert!(ended.unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn noise_before_the_greeting_is_read_over() {
    let (near_end, mut far_end) = duplex(64 * 1024);
    let (output, input) = split(near_end);
    far_end
        .write_all(b"Welcome to h2!\nlogchain-ish\n")
        .await
        .unwrap();
    far_end
        .write_all(&Protocol::TRANSPORT.greeting())
        .await
        .unwrap();
    SshTransport::over(output, input).await.unwrap();
}

#[tokio::test]
async fn another_version_is_said_plainly() {
    let (near_end, mut far_end) = duplex(64 * 1024);
    let (output, input) = split(near_end);
    far_end
        .write_all(b"motd\nlogchain-transport 2\n")
        .await
        .unwrap();
    let error = SshTransport::over(output, input).await.err().unwrap();
    assert_eq!(
        error.to_string(),
        "the other logchain speaks version 2, this one version 1"
    );
}

/// A program that stands for ssh: says something and ends.
fn pretend(dir: &Path, script: &str) -> SshOptions {
    let program = dir.join("ssh");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    SshOptions {
        program: program.into(),
        ..SshOptions::default()
    }
}

#[tokio::test]
async fn failures_of_ssh_are_plain_sentences() {
    let cases = [
        (
            "echo 'bash: logchain: command not found' >&2; exit 127",
            "logchain is not installed at h2",
        ),
        (
            "echo 'Host key verification failed.' >&2; exit 255",
            "the host key of h2 is not known",
        ),
        (
            "echo '@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @' >&2; echo 'Host key verification failed.' >&2; exit 255",
            "the host key of h2 has changed",
        ),
        (
            "echo 'root@h2: Permission denied (publickey).' >&2; exit 255",
            "h2 refuses the login",
        ),
        (
            "echo 'ssh: Could not resolve hostname h2: Name or service not known' >&2; exit 255",
            "finds no address for h2",
        ),
        (
            "echo 'ssh: connect to host h2 port 22: Connection refused' >&2; exit 255",
            "h2 refuses the connection; see whether sshd runs there",
        ),
        (
            "echo 'ssh: connect to host h2 port 22: No route to host' >&2; exit 255",
            "the network does not lead to h2",
        ),
        ("exit 255", "ssh to h2 ended without a word"),
        // What the far command says of its own is not ssh's.
        (
            "echo 'logchain: cannot make /spool: Permission denied' >&2; exit 1",
            "logchain at h2: cannot make /spool: Permission denied",
        ),
        (
            "echo \"error: unrecognized subcommand 'transport'\" >&2; exit 2",
            "the logchain at h2 is too old",
        ),
        ("exit 0", "what answers at h2 is not logchain"),
        (
            "head -c 100000 /dev/zero; exit 0",
            "what answers is not logchain",
        ),
        (
            "echo 'logchain-transport 2'; sleep 5",
            "at h2: the other logchain speaks version 2, this one version 1; bring both to one release",
        ),
    ];
    for (script, sentence) in cases {
        let dir = tempfile::tempdir().unwrap();
        let target: SshTarget = "ssh://h2".parse().unwrap();
        let error = SshTransport::connect(target, pretend(dir.path(), script))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(sentence), "{script}: {error}");
    }
}

/// Only who was turned away at the door comes again, and not for ever.
#[tokio::test]
async fn who_is_turned_away_comes_again_for_a_while() {
    for (said, again) in [
        (
            "kex_exchange_identification: Connection closed by remote host",
            true,
        ),
        ("root@h2: Permission denied (publickey).", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        let script = format!("echo >>{}; echo '{said}' >&2; exit 255", count.display());
        let options = SshOptions {
            connect_timeout: Duration::from_secs(1),
            ..pretend(dir.path(), &script)
        };
        let began = std::time::Instant::now();
        let target: SshTarget = "ssh://h2".parse().unwrap();
        let error = SshTransport::connect(target, options).await.unwrap_err();
        let tries = std::fs::read(&count).unwrap().len();
        assert_eq!(tries > 1, again, "{said}: {tries}, {error}");
        assert!(tries < 20 && began.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn a_full_disk_at_the_far_end_is_told_from_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let script = "echo 'logchain: cannot make /spool: No space left on device' >&2; exit 1";
    let target: SshTarget = "ssh://h2".parse().unwrap();
    let error = SshTransport::connect(target, pretend(dir.path(), script)).await;
    assert!(matches!(error, Err(Error::Full { .. })), "{error:?}");
}

#[tokio::test]
async fn why_a_connection_broke_is_said() {
    let dir = tempfile::tempdir().unwrap();
    // It greets, takes a little, and then the network is gone.
    let script = "printf 'logchain-transport 1\\n'; head -c 40 > /dev/null; \
        echo 'Timeout, server h2 not responding.' >&2; exit 255";
    let target: SshTarget = "ssh://h2".parse().unwrap();
    let transport = SshTransport::connect(target, pretend(dir.path(), script))
        .await
        .unwrap();
    let error = transport
        .put(&key(), Bytes::from_static(b"x"))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("h2 stopped answering"),
        "{error}"
    );
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = pretend(
        dir.path(),
        "printf 'logchain-transport 1\\n'; exec sleep 600",
    );
    options.quiet = Duration::from_millis(200);
    let target: SshTarget = "ssh://h2".parse().unwrap();
    let transport = SshTransport::connect(target, options).await.unwrap();
    let error = transport.list(&Prefix::All, None).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn more_requests_than_may_be_under_way_over_a_narrow_pipe() {
    let (near_end, far_end) = duplex(64);
    let (input, output) = split(far_end);
    tokio::spawn(serve(Arc::new(MemoryTransport::new()), input, output));
    let (output, input) = split(near_end);
    let transport = SshTransport::over(output, input).await.unwrap();
    let (key, data) = (key(), Bytes::from(vec![7; 100_000]));
    transport.put(&key, data.clone()).await.unwrap();
    let gets = (0..3 * IN_FLIGHT).map(|_| transport.get_bytes(&key, 1 << 20));
    for got in futures_util::future::join_all(gets).await {
        assert!(got.unwrap() == data);
    }
}

#[tokio::test]
async fn requests_given_up_leave_the_connection_usable() {
    let far = Arc::new(MemoryTransport::new());
    let transport = over(far).await;
    let (key, data) = (key(), Bytes::from(vec![7; 1 << 20]));
    transport.put(&key, data.clone()).await.unwrap();
    for n in 0..200u64 {
        let time = Duration::from_micros(n * 5);
        let _ = tokio::time::timeout(time, transport.get_bytes(&key, 1 << 20)).await;
    }
    assert!(transport.get_bytes(&key, 1 << 20).await.unwrap() == data);
}

#[tokio::test]
async fn an_ssh_that_hangs_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = pretend(dir.path(), "exec sleep 600");
    options.connect_timeout = Duration::from_millis(100);
    let target: SshTarget = "ssh://h2".parse().unwrap();
    let error = SshTransport::connect(target, options).await.unwrap_err();
    assert!(
        error.to_string().contains("did not answer within"),
        "{error}"
    );
}

#[test]
fn urls() {
    for (url, shown) in [
        ("ssh://h2", "ssh://h2/var/lib/logchain/spool"),
        ("ssh://h2/", "ssh://h2/var/lib/logchain/spool"),
        ("ssh://root@h2:2222/spool", "ssh://root@h2:2222/spool"),
        ("ssh://[fe80::1%eth0]:22/s", "ssh://[fe80::1%25eth0]:22/s"),
        ("ssh://[fe80::1%25eth0]/s", "ssh://[fe80::1%25eth0]/s"),
        ("ssh://adm%40corp@h2/s", "ssh://adm%40corp@h2/s"),
        ("ssh://adm@corp@h2/s", "ssh://adm%40corp@h2/s"),
        ("ssh://CORP%5cadm@h2/s", "ssh://CORP%5Cadm@h2/s"),
        ("ssh://a+b@h2/s", "ssh://a+b@h2/s"),
        (
            "ssh://h2/s?KEYFILE=/a%20b&known_hosts=/k&no_verify=1&command=/usr/bin/ssh",
            "ssh://h2/s?command=/usr/bin/ssh&keyfile=/a%20b&known_hosts=/k&no_verify=1",
        ),
        ("ssh://h2?no_verify=0", "ssh://h2/var/lib/logchain/spool"),
        (
            "ssh://h2/s?known_hosts_verify=auto",
            "ssh://h2/s?known_hosts_verify=auto",
        ),
        (
            "ssh://h2/s?known_hosts_verify=ignore",
            "ssh://h2/s?known_hosts_verify=ignore",
        ),
    ] {
        let target = url.parse::<SshTarget>().unwrap();
        assert_eq!(target.to_string(), shown);
        assert_eq!(shown.parse::<SshTarget>().unwrap(), target);
    }
    for bad in [
        "h2",
        "ssh:/h2",
        "ssh://",
        "ssh:///spool",
        "ssh://-oProxyCommand=x/",
        "ssh://h2:0",
        "ssh://h2:x",
        "ssh://-l@h2",
        "ssh://@h2",
        "ssh://h 2",
        "ssh://h2;id",
        "ssh://[::1",
        "ssh://[::1]x",
        "ssh://h2/a/../b",
        "ssh://h2:99999",
        "ssh://%2dl@h2",
        "ssh://a%00b@h2",
        "ssh://a%0ab@h2",
        "ssh://%2doProxyCommand=x/",
        "ssh://h2%3bid",
        "ssh://h2/s?keyfile=",
        "ssh://h2/s?known_hosts_verify=maybe",
        "ssh://h2/s?no_verify=yes",
        "ssh://h2/s?socket=/run/x",
    ] {
        assert!(bad.parse::<SshTarget>().is_err(), "{bad}");
    }
}

/// What `ssh -G` makes of it: nothing is connected.
#[test]
fn ssh_is_told_how_to_get_in() {
    // One that is not there is passed over.
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("k y");
    std::fs::write(&key, "").unwrap();
    let key = key.to_str().unwrap();
    let (by_key, its_key) = (
        format!("keyfile={}", key.replace(' ', "%20")),
        format!("identityfile {key}"),
    );
    for (query, says) in [
        (by_key.as_str(), &[its_key.as_str()][..]),
        ("no_verify=1", &["stricthostkeychecking false"]),
        ("known_hosts=/a%20b%25c", &["userknownhostsfile /a b%c"]),
        (
            "known_hosts_verify=auto&known_hosts=/a",
            &["stricthostkeychecking accept-new", "userknownhostsfile /a"],
        ),
        (
            "known_hosts_verify=ignore",
            &[
                "stricthostkeychecking false",
                "userknownhostsfile /dev/null",
            ],
        ),
    ] {
        let target: SshTarget = format!("ssh://CORP%5Cadm@h2/s?{query}").parse().unwrap();
        let command = command(&target, &SshOptions::default(), &[]);
        let args = command.as_std().get_args();
        let output = std::process::Command::new(command.as_std().get_program())
            .args(["-F", "none", "-G"])
            .args(args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{query}: {complaint}");
        for says in [&["user CORP\\adm"][..], says].concat() {
            assert!(said.lines().any(|line| line == says), "{says}: {said}");
        }
    }
    let target: SshTarget = "ssh://h2?command=/opt/ssh".parse().unwrap();
    let command = command(&target, &SshOptions::default(), &[]);
    assert_eq!(command.as_std().get_program(), "/opt/ssh");
}

#[test]
fn words_are_quoted_for_the_far_shell() {
    let target: SshTarget = "ssh://root@h2:2222/spool".parse().unwrap();
    let words = [
        "logchain",
        "adopt",
        "a b",
        "it's",
        "",
        "$(id)",
        "serial0=/x",
    ]
    .map(OsString::from);
    let command = command(&target, &SshOptions::default(), &words);
    let args: Vec<_> = command.as_std().get_args().collect();
    let end: Vec<_> = args[args.len() - 7..].to_vec();
    assert_eq!(
        end,
        [
            "-p",
            "2222",
            "-l",
            "root",
            "--",
            "h2",
            "logchain adopt 'a b' 'it'\\''s' '' '$(id)' serial0=/x"
        ]
    );
}

proptest::proptest! {
    /// What `migrate` prints for a log that stayed behind is what `offer` reads.
    #[test]
    fn a_target_reads_what_it_shows(
        user in proptest::option::of("[^\\p{Cc}-][^\\p{Cc}]{0,12}"),
        host in "[A-Za-z0-9_][A-Za-z0-9._:%-]{0,12}",
        port in proptest::option::of(1_u16..),
        file in proptest::option::of("[^\\p{Cc}\"]{1,12}"),
        how in 0_usize..4,
    ) {
        let mut target = SshTarget::on(&host).unwrap();
        if let Some(user) = &user {
            target = target.as_user(user).unwrap();
        }
        if let Some(port) = port {
            target = target.at_port(port);
        }
        let file = file.map(OsString::from);
        let target = target.with_login(SshLogin {
            program: file.clone(),
            key_file: None,
            known_hosts: file,
            unknown_host_key: [
                UnknownHostKey::AsConfigured,
                UnknownHostKey::Accepted,
                UnknownHostKey::Unverified,
                UnknownHostKey::Ignored,
            ][how],
        });
        proptest::prop_assert_eq!(target.to_string().parse::<SshTarget>(), Ok(target));
    }
}
