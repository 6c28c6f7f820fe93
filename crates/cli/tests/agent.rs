//! `logchain agent`: the check of its file, the calls to a running agent, and what is shipped for
//! it.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use logchain_host::agent::config::{Changes, DEFAULT_SOCKET};
use logchain_host::agent::control::{
    Agent, Draining, HandoffStatus, Health, LogBytes, LogRequest, Refusal, Socket, Status, serve,
};
use logchain_host::stop::{StopRequest, stop};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const LOGCHAIN: &str = env!("CARGO_BIN_EXE_logchain");

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging")
}

fn logchain(words: &[&str]) -> Command {
    let mut command = Command::new(LOGCHAIN);
    command.arg("agent").args(words).env_clear();
    command
}

/// Status, standard output, standard error.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn a_file_is_checked() -> Outcome {
    let shipped = packaging().join("agent.toml");
    let shipped = shipped.to_str().ok_or("no text")?;
    let (status, out, err) = said(&logchain(&["--check", "--config", shipped]).output()?);
    assert_eq!((status, err.as_str()), (Some(0), ""));
    assert_eq!(out, format!("{shipped} is valid\n"));

    let folder = tempfile::tempdir()?;
    let file = folder.path().join("agent.toml");
    fs::write(&file, "peers = []\n[meet]\npeer = []\n")?;
    let name = file.to_str().ok_or("no text")?;
    let (status, out, err) = said(&logchain(&["--check", "--config", name]).output()?);
    assert_eq!((status, out.as_str()), (Some(1), ""));
    let want = format!(
        "{name}:1: peers: there is no such key; did you mean meet.peers?\n\
         {name}:3: meet.peer: there is no such key; did you mean meet.peers?\n"
    );
    assert_eq!(err, want);
    // A daemon that cannot start says so, with the status of bad usage.
    let (status, _, err) = said(&logchain(&["--config", name]).output()?);
    assert_eq!(status, Some(2));
    assert!(err.contains("did you mean meet.peers?"), "{err}");
    let nowhere = folder.path().join("nowhere.toml");
    let nowhere = nowhere.to_str().ok_or("no text")?;
    let (status, _, err) = said(&logchain(&["--check", "--config", nowhere]).output()?);
    assert_eq!(status, Some(1));
    assert!(err.contains("cannot be read"), "{err}");
    Ok(())
}

/// An agent whose handoffs end one by one, each time that it is asked how many there are.
#[derive(Default)]
struct FakeAgent {
    left: AtomicUsize,
    reloads: AtomicUsize,
}

#[async_trait::async_trait]
impl Agent for FakeAgent {
    async fn status(&self) -> Status {
        let less = |left: usize| left.checked_sub(1);
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        Status {
            host: "h1".to_owned(),
            handoffs: vec![HandoffStatus::default(); left.unwrap_or(0)],
            ..Status::default()
        }
    }

    async fn health(&self) -> Health {
        Health::default()
    }

    fn metrics(&self) -> String {
        String::new()
    }

    async fn log(&self, _: LogRequest) -> Result<LogBytes, Refusal> {
        Err(Refusal::NoSuchLog("there is none".to_owned()))
    }

    async fn drain(&self) -> Result<Draining, Refusal> {
        self.left.store(2, Ordering::Relaxed);
        Ok(Draining { under_way: 2 })
    }

    async fn reload(&self) -> Result<Changes, Refusal> {
        if self.reloads.fetch_add(1, Ordering::Relaxed) > 0 {
            return Err(Refusal::Wrong("agent.toml:1: nonsense".to_owned()));
        }
        Ok(Changes::default())
    }
}

/// Serves `socket` on a thread of its own, until what it gives is dropped or asks.
fn pretend(socket: &Path) -> Outcome<StopRequest> {
    let (request, stop) = stop();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let socket = runtime.block_on(Socket::bind(socket, None))?;
    std::thread::spawn(move || {
        let agent = Arc::new(FakeAgent::default());
        runtime.block_on(serve(socket, agent, &stop));
    });
    Ok(request)
}

#[test]
fn a_running_agent_is_asked() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("agent.sock");
    let request = pretend(&path)?;
    let path = path.to_str().ok_or("no text")?;
    let ask = |words: &[&str]| -> Outcome<_> { Ok(said(&logchain(words).output()?)) };

    let (status, out, err) = ask(&["status", "--socket", path])?;
    assert_eq!((status, err.as_str()), (Some(0), ""));
    assert!(out.contains("\nno handoff is under way\n"), "{out}");
    let (status, out, _) = ask(&["status", "--format", "json", "--socket", path])?;
    assert_eq!(status, Some(0));
    let found: Status = serde_json::from_str(&out)?;
    assert_eq!(found.host, "h1");

    let (status, out, _) = ask(&["drain", "--socket", path])?;
    assert_eq!(status, Some(0));
    assert_eq!(
        out,
        "the agent begins nothing new; 2 handoffs are under way\n"
    );
    let (status, _, err) = ask(&["drain", "--wait", "1s", "--socket", path])?;
    assert_eq!(status, Some(1), "{err}");
    assert!(err.contains("under way"), "{err}");
    let (status, out, err) = ask(&["drain", "--wait", "1m", "--socket", path])?;
    assert_eq!(status, Some(0), "{err}");
    assert!(out.contains("no handoff is under way"), "{out}");

    let (status, out, _) = ask(&["reload", "--socket", path])?;
    assert_eq!((status, out.as_str()), (Some(0), "nothing has changed\n"));
    let (status, out, err) = ask(&["reload", "--socket", path])?;
    assert_eq!((status, out.as_str()), (Some(1), ""));
    assert_eq!(err, "logchain: agent.toml:1: nonsense\n");

    // The configuration names the socket as well.
    let file = folder.path().join("agent.toml");
    fs::write(&file, format!("[control]\nsocket = \"{path}\"\n"))?;
    let file = file.to_str().ok_or("no text")?;
    let (status, _, err) = ask(&["status", "--config", file])?;
    assert_eq!(status, Some(0), "{err}");

    request.ask();
    Ok(())
}

#[test]
fn the_unit_is_one_that_systemd_takes() -> Outcome {
    let text = fs::read_to_string(packaging().join("logchain-agent.service"))?;
    for line in [
        "Type=notify-reload",
        "WatchdogSec=60",
        "RestartPreventExitStatus=2",
        "ExecStart=/usr/local/bin/logchain agent",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
    // The default socket lies in the folder that systemd makes.
    assert!(text.contains("\nRuntimeDirectory=logchain\n"));
    assert!(DEFAULT_SOCKET.starts_with("/run/logchain/"));

    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        // A machine without systemd has nothing to judge a unit with.
        return Ok(());
    };
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let version: u32 = version
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.split('.').next()?.parse().ok())
        .ok_or("no version")?;
    let folder = tempfile::tempdir()?;
    let unit = folder.path().join("logchain-agent.service");
    fs::write(&unit, text.replace("/usr/local/bin/logchain", LOGCHAIN))?;
    let mut verify = Command::new("systemd-analyze");
    let output = verify.arg("verify").arg("--man=no").arg(&unit).output()?;
    let (status, out, err) = said(&output);
    let of_ours = |line: &&str| line.contains("logchain-agent.service");
    let known = |line: &&str| version < 253 && line.ends_with("ignoring: notify-reload");
    let lines = err.lines().filter(of_ours).filter(|line| !known(line));
    let complaints: Vec<_> = lines.collect();
    assert_eq!(
        (status, complaints.concat().as_str()),
        (Some(0), ""),
        "{out}{err}"
    );
    Ok(())
}
