//! A real socket, a real client, and an agent that only pretends.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::stop::{Stop, StopRequest, stop};

const LONG: Duration = Duration::from_secs(20);

/// The domain that there is.
const VM: &str = "vm1";

/// Bytes that its log has.
const LOG: &[u8] = b"booting\nlogin: ";

#[derive(Default)]
struct FakeAgent {
    sick: bool,
    wrong: bool,
    /// It never says how it does.
    stuck: bool,
    /// Its log has no end.
    endless: bool,
    drains: AtomicU64,
}

#[async_trait]
impl Agent for FakeAgent {
    async fn status(&self) -> Status {
        if self.stuck {
            std::future::pending::<()>().await;
        }
        Status {
            host: "h1".to_owned(),
            draining: self.drains.load(Ordering::Relaxed) > 0,
            handoffs: vec![HandoffStatus {
                domain: "vm1".to_owned(),
                ..HandoffStatus::default()
            }],
            ..Status::default()
        }
    }

    async fn health(&self) -> Health {
        let reasons = self.sick.then(|| "libvirt does not answer".to_owned());
        Health {
            reasons: reasons.into_iter().collect(),
        }
    }

    async fn metrics(&self) -> String {
        "logchain_agent_peers_connected 5\n".to_owned()
    }

    async fn handoffs(&self) -> Report {
        Report {
            host: "h1".to_owned(),
            under_way: 1,
            ..Report::default()
        }
    }

    async fn log(&self, request: LogRequest, _: Slot) -> Result<Frames, Refusal> {
        if request.domain != VM {
            return Err(Refusal::NoSuchLog(
                "there is no such domain here".to_owned(),
            ));
        }
        let from = match request.part {
            Part::From { offset, .. } => offset,
            _ => 0,
        };
        let rest = usize::try_from(from).ok().and_then(|from| LOG.get(from..));
        let mut head = Head {
            end: LOG.len() as u64,
            start: Start::At(from),
            ..Head::default()
        };
        let bytes = |bytes| Frame::Bytes {
            offset: from,
            bytes: Bytes::from_static(bytes),
        };
        if rest.is_none() {
            head.start = Start::Expired(0);
        }
        let frames = match rest {
            None => stream::empty().boxed(),
            Some(_) if self.endless => stream::repeat(bytes(&[b'x'; 4096])).boxed(),
            Some(rest) if request.follow => {
                let there = stream::iter([bytes(rest)]);
                there.chain(stream::pending()).boxed()
            }
            Some(rest) => stream::iter([bytes(rest)]).boxed(),
        };
        let head = stream::iter([Frame::Head(Box::new(head))]);
        Ok(head.chain(frames).boxed())
    }

    async fn drain(&self) -> Result<Draining, Refusal> {
        self.drains.fetch_add(1, Ordering::Relaxed);
        Ok(Draining { under_way: 3 })
    }

    async fn reload(&self) -> Result<Changes, Refusal> {
        if self.wrong {
            let what = "agent.toml:4: meet.peer: there is no such key; did you mean meet.peers?";
            return Err(Refusal::Wrong(what.to_owned()));
        }
        Ok(Changes {
            applied: vec!["meet.peers".to_owned()],
            ..Changes::default()
        })
    }
}

/// A served socket.
struct Bed {
    folder: tempfile::TempDir,
    request: StopRequest,
    stop: Stop,
    agent: Arc<FakeAgent>,
    serving: JoinHandle<()>,
}

impl Bed {
    async fn of(agent: FakeAgent) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = Socket::bind(&folder.path().join("s"), None).await.unwrap();
        let (request, stop) = stop();
        let agent = Arc::new(agent);
        let (served, until) = (Arc::clone(&agent), stop.clone());
        let serving = tokio::spawn(async move { serve(socket, served, &until).await });
        Self {
            folder,
            request,
            stop,
            agent,
            serving,
        }
    }

    async fn new() -> Self {
        Self::of(FakeAgent::default()).await
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("s")
    }

    async fn ask(&self, request: &str) -> String {
        let stream = UnixStream::connect(self.socket()).await.unwrap();
        talk(stream, request).await
    }
}

/// Sends a request line; gives all of the answer.
async fn talk<S>(mut stream: S, line: &str) -> String
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let request = format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = timeout(LONG, stream.read_to_string(&mut answer)).await;
    read.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn a_client_calls_each_verb() {
    let bed = Bed::new().await;
    let socket = bed.socket();
    let status = client::status(&socket).await.unwrap();
    assert_eq!((status.host.as_str(), status.draining), ("h1", false));
    assert_eq!(status.handoffs[0].domain, "vm1");
    assert!(client::health(&socket).await.unwrap().is_healthy());
    assert_eq!(client::handoffs(&socket).await.unwrap().under_way, 1);
    assert_eq!(client::drain(&socket).await.unwrap().under_way, 3);
    assert!(client::status(&socket).await.unwrap().draining);
    let changes = client::reload(&socket).await.unwrap();
    assert_eq!(changes.applied, ["meet.peers"]);
    let page = client::metrics(&socket).await.unwrap();
    assert!(page.contains("peers_connected 5"));
    assert_eq!(bed.agent.drains.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_client_is_told_why_not() {
    let bed = Bed::of(FakeAgent {
        sick: true,
        wrong: true,
        ..FakeAgent::default()
    })
    .await;
    let health = client::health(&bed.socket()).await.unwrap();
    assert_eq!(health.reasons, ["libvirt does not answer"]);
    let answer = bed.ask("GET /healthz").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let error = client::reload(&bed.socket()).await.unwrap_err().to_string();
    assert!(error.ends_with("did you mean meet.peers?"), "{error}");
    let nowhere = bed.folder.path().join("nowhere");
    let error = client::status(&nowhere).await.unwrap_err().to_string();
    assert!(error.starts_with("no agent listens at "), "{error}");
}

#[tokio::test]
async fn requests_that_are_no_calls_have_their_status() {
    let bed = Bed::new().await;
    for (line, want) in [
        ("GET /nothing", "404"),
        ("GET /v1/drain", "405"),
        ("POST /v1/status", "405"),
        ("GET /v1/log/vm1/serial0?path=/etc/shadow", "400"),
        ("GET /v1/log/vm1/..%2F..", "400"),
        ("GET /v1/log/..%2Fvm1", "404"),
        ("POST /v1/handoffs", "405"),
        ("nonsense", "400"),
    ] {
        let answer = bed.ask(line).await;
        let want = format!("HTTP/1.1 {want} ");
        assert!(answer.starts_with(&want), "{line}: {answer}");
    }
    let long = format!("GET /{}", "x".repeat(100_000));
    let mut stream = UnixStream::connect(bed.socket()).await.unwrap();
    let _ = stream.write_all(long.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer}"
    );
    assert!(client::status(&bed.socket()).await.is_ok());
}

#[tokio::test]
async fn a_log_is_read_from_an_offset() {
    let bed = Bed::new().await;
    let path = "GET /v1/log/vm1/serial0";
    let answer = bed.ask(&format!("{path}?from=8")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("logchain-offset: 8\r\n"), "{answer}");
    assert!(answer.contains("login: "), "{answer}");
    assert!(!answer.contains("booting"), "{answer}");
    let answer = bed.ask(&format!("{path}?from=999")).await;
    assert!(answer.starts_with("HTTP/1.1 410 "), "{answer}");
    let answer = bed.ask("GET /v1/log/vm2/serial0").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn readers_that_follow_are_limited_and_leave_room_for_others() {
    let bed = Bed::new().await;
    let path = "/v1/log/vm1/serial0?follow=true";
    let line = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut readers = Vec::new();
    for _ in 0..16 {
        let mut reader = UnixStream::connect(bed.socket()).await.unwrap();
        reader.write_all(line.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"login: \r\n") {
            let read = timeout(LONG, reader.read_buf(&mut answer)).await;
            assert!(read.unwrap().unwrap() > 0);
        }
        readers.push(reader);
    }
    let one_more = || bed.ask("GET /v1/log/vm1");
    assert!(one_more().await.starts_with("HTTP/1.1 503 "));
    assert!(client::status(&bed.socket()).await.is_ok());
    // One that goes away makes room, although nothing is written to it.
    drop(readers.pop());
    let room = async {
        while one_more().await.starts_with("HTTP/1.1 503 ") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, room).await.unwrap();
    // The agent ends although they still read.
    bed.request.ask();
    timeout(LONG, bed.serving).await.unwrap().unwrap();
    assert!(!bed.folder.path().join("s").exists());
}

#[tokio::test(start_paused = true)]
async fn clients_that_say_nothing_are_given_up() {
    let bed = Bed::new().await;
    let mut silent = Vec::new();
    for _ in 0..48 {
        silent.push(UnixStream::connect(bed.socket()).await.unwrap());
    }
    // All connections are taken; the next one waits until these are given up.
    assert!(client::status(&bed.socket()).await.is_ok());
    for mut stream in silent {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408 "));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_given_up() {
    let bed = Bed::of(FakeAgent {
        endless: true,
        ..FakeAgent::default()
    })
    .await;
    let path = "/v1/log/vm1/serial0";
    let mut reader = UnixStream::connect(bed.socket()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    reader.write_all(request.as_bytes()).await.unwrap();
    // As long as it reads it may go on, far beyond the life of other connections.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let mut some = vec![0; 1 << 20];
        reader.read_exact(&mut some).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(40)).await;
    // What the kernel holds is still there, and then nothing comes.
    let mut rest = Vec::new();
    let _ = reader.read_to_end(&mut rest).await;
    assert!(rest.len() < 4 << 20, "{}", rest.len());
    assert!(client::status(&bed.socket()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_answer_is_told_of() {
    let bed = Bed::of(FakeAgent {
        stuck: true,
        ..FakeAgent::default()
    })
    .await;
    let error = client::status(&bed.socket()).await.unwrap_err();
    assert_eq!(error.to_string(), "the agent did not answer within 30 s");
    assert!(client::health(&bed.socket()).await.is_ok());
}

async fn page(address: SocketAddr, line: &str) -> String {
    talk(TcpStream::connect(address).await.unwrap(), line).await
}

#[tokio::test]
async fn the_network_sees_metrics_and_health_alone() {
    let bed = Bed::new().await;
    let agent = Arc::clone(&bed.agent);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let served = serve_metrics(any, agent, bed.stop.clone()).await;
    let (address, serving) = served.unwrap();
    let serving = tokio::spawn(serving);
    let answer = page(address, "GET /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4"));
    assert!(answer.ends_with("logchain_agent_peers_connected 5\n"));
    let answer = page(address, "GET /healthz").await;
    assert!(
        answer.ends_with("{\"healthy\":true,\"reasons\":[]}\n"),
        "{answer}"
    );
    for line in [
        "GET /v1/status",
        "GET /v1/handoffs",
        "GET /v1/log/vm1",
        "POST /v1/drain",
        "POST /v1/reload",
    ] {
        let answer = page(address, line).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{line}: {answer}");
    }
    assert_eq!(bed.agent.drains.load(Ordering::Relaxed), 0);
    let (again, never) = (Arc::clone(&bed.agent), Stop::never());
    let taken = serve_metrics(address, again, never).await.err().unwrap();
    assert!(
        taken
            .to_string()
            .starts_with("cannot listen on metrics.listen")
    );
    bed.request.ask();
    timeout(LONG, serving).await.unwrap().unwrap();
}

/// Only root can become somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_kept_out_twice() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let bed = Bed::new().await;
    let path = bed.socket();
    let as_nobody = |socket: &Path| as_stranger(socket, "--clear-groups");
    // The folder lets everybody in.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bed.folder.path(), open).unwrap();
    let output = as_nobody(&path);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Permission denied"), "{said}");
    // Somebody has opened the file to all.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&path, open).unwrap();
    let output = as_nobody(&path);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("HTTP/1.1 403 "), "{said}");
}

/// What somebody who is not root gets of a call; `groups`: how setpriv names his groups.
fn as_stranger(socket: &Path, groups: &str) -> std::process::Output {
    let script = "my $s = IO::Socket::UNIX->new(Peer => shift) or die $!; \
                  print $s \"GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n\"; \
                  $s->flush; print <$s>";
    let mut perl = std::process::Command::new("setpriv");
    perl.args(["--reuid=65534", "--regid=65534", groups]);
    perl.args(["perl", "-MIO::Socket::UNIX", "-e", script]);
    perl.arg(socket).output().unwrap()
}

/// As above: only root can become somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn members_of_the_group_are_let_in() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let path = folder.path().join("s");
    let socket = Socket::bind(&path, Some("64999")).await.unwrap();
    let (request, stop) = stop();
    let agent = Arc::new(FakeAgent::default());
    let serving = tokio::spawn(async move { serve(socket, agent, &stop).await });
    // A group beside its own is enough.
    let output = as_stranger(&path, "--groups=64999");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    let output = as_stranger(&path, "--groups=64998");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Permission denied"), "{said}");
    request.ask();
    timeout(LONG, serving).await.unwrap().unwrap();
}
