//! `logchain agent`: the check of its file, the calls to a running agent, and what is shipped for
//! it.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use logchain_core::stream::{Hop, StreamOffset};
use logchain_host::agent::config::{Changes, DEFAULT_SOCKET};

use logchain_host::agent::control::{
    Agent, Boot, Draining, Frame, Frames, HandoffStatus, Head, Health, LogFile, LogRequest, Part,
    Refusal, Slot, Socket, Start, Status, serve,
};
use logchain_host::status::{HandoffReport, Report};
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

    async fn metrics(&self) -> String {
        String::new()
    }

    async fn handoffs(&self) -> Report {
        Report {
            host: "h1".to_owned(),
            under_way: 1,
            handoffs: vec![HandoffReport {
                state: "waiting".to_owned(),
                sentence: "serial0 of vm1 waits".to_owned(),
                ..HandoffReport::default()
            }],
            warnings: vec!["the outbox is odd".to_owned()],
        }
    }

    /// The log has a gap before offset 8 and ends at 16; what was before 4 has expired.
    async fn log(&self, request: LogRequest, _: Slot) -> Result<Frames, Refusal> {
        if request.domain != "vm1" {
            return Err(Refusal::NoSuchLog("there is none".to_owned()));
        }
        let start = match request.part {
            _ if request.boot.is_some_and(|boot| boot < 0) => Start::NoSuchBoot,
            Part::From { offset: 0..4, .. } => Start::Expired(4),
            Part::From { offset: 17.., .. } => Start::Beyond,
            _ => Start::At(4),
        };
        let head = Head {
            domain: "vm1".to_owned(),
            console: "serial0".to_owned(),
            path: "/logs/vm1.log".to_owned(),
            numbering: "from-zero".to_owned(),
            files: vec![LogFile {
                name: "vm1.log".to_owned(),
                size: 9,
            }],
            remarks: vec!["vm1.log.x is not read".to_owned()],
            hops: vec![Hop {
                host: "h0".to_owned(),
                since: None,
                start: StreamOffset::new(4),
            }],
            boots: vec![Boot {
                since: Some(0),
                start: 4,
                end: 16,
            }],
            start,
            stop: 16,
            end: 16,
            ..Head::default()
        };
        let bytes = |offset, bytes| Frame::Bytes {
            offset,
            bytes: bytes::Bytes::from_static(bytes),
        };
        let mut frames = vec![Frame::Head(Box::new(head))];
        if let Start::At(_) = start {
            frames.push(bytes(4, b"o"));
            frames.push(Frame::Missing {
                next: 8,
                size: Some(3),
            });
            frames.push(bytes(8, b"two\xff\nend"));
            frames.push(Frame::End {
                next: 16,
                more: false,
            });
        }
        Ok(Box::pin(futures_util::stream::iter(frames)))
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
fn pretend(socket: &Path) -> Outcome<(StopRequest, JoinHandle<()>)> {
    let (request, stop) = stop();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let socket = runtime.block_on(Socket::bind(socket, None))?;
    let serving = std::thread::spawn(move || {
        let agent = Arc::new(FakeAgent::default());
        runtime.block_on(serve(socket, agent, &stop));
    });
    Ok((request, serving))
}

#[test]
fn a_running_agent_is_asked() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("agent.sock");
    let (request, _) = pretend(&path)?;
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

/// `logchain show` and `logchain status` by way of an agent print what they print otherwise.
#[test]
fn a_running_agent_is_asked_for_a_log_and_for_handoffs() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("agent.sock");
    let (request, serving) = pretend(&path)?;
    let agent = format!("--agent={}", path.display());
    let ask = |words: &[&str]| -> Outcome<_> {
        let (first, rest) = words.split_first().ok_or("no words")?;
        let mut command = Command::new(LOGCHAIN);
        command.arg(first).arg(&agent).args(rest).env_clear();
        Ok(command.output()?)
    };
    let output = ask(&["show", "vm1"])?;
    assert_eq!(output.stdout, b"otwo\xff\nend");
    let (status, _, err) = said(&output);
    assert_eq!(status, Some(0));
    let want = "logchain: /logs/vm1.log: vm1.log.x is not read\n\
                logchain: 3 bytes are missing before offset 8\n";
    assert_eq!(err, want);
    let (_, _, err) = said(&ask(&["show", "--from", "4", "vm1"])?);
    assert!(
        err.ends_with("logchain: offsets 4 to 16; that is all so far\n"),
        "{err}"
    );

    // An offset that is not there fails, and names one that is.
    for (from, why) in [
        (
            "3",
            "logchain: offset 3 has expired: the first one still there is 4\n",
        ),
        (
            "99",
            "logchain: offset 99 is not there yet: the log ends at 16\n",
        ),
    ] {
        let (status, out, err) = said(&ask(&["show", "--from", from, "vm1"])?);
        assert_eq!((status, out.as_str()), (Some(1), ""));
        assert!(err.ends_with(why), "{err}");
    }
    let json = |words: &[&str]| -> Outcome<(Option<i32>, serde_json::Value)> {
        let (status, out, _) = said(&ask(words)?);
        Ok((status, serde_json::from_str(&out)?))
    };
    let (status, all) = json(&["show", "--format", "json", "vm1"])?;
    assert_eq!(
        (status, &all["bytes"], &all["encoding"]),
        (Some(0), &9.into(), &"base64".into())
    );
    assert_eq!(
        (&all["console"], &all["offset"]),
        (&"serial0".into(), &serde_json::Value::Null)
    );
    // With an offset it is what comes before the gap.
    let (status, part) = json(&["show", "--format", "json", "--from", "4", "vm1"])?;
    assert_eq!(
        (status, &part["content"], &part["next"]),
        (Some(0), &"o".into(), &5.into())
    );
    assert_eq!(part["more"], true);
    let (status, none) = json(&["show", "--format", "json", "--from", "3", "vm1"])?;
    assert_eq!(
        (status, &none["expired"], &none["bytes"]),
        (Some(1), &4.into(), &0.into())
    );

    let (status, out, _) = said(&ask(&["show", "--hops", "vm1"])?);
    let want = "h0\tsince the beginning\tbytes 4 to 16\n";
    assert_eq!((status, out.as_str()), (Some(0), want));
    let (status, out, _) = said(&ask(&["show", "--list-boots", "vm1"])?);
    let want = "0\tsince 1970-01-01 00:00:00 UTC\tbytes 4 to 16\n";
    assert_eq!((status, out.as_str()), (Some(0), want));
    let (status, boot) = json(&["show", "--boot", "0", "--format", "json", "vm1"])?;
    assert_eq!(
        (status, &boot["offset"], &boot["next"]),
        (Some(0), &4.into(), &5.into())
    );
    let (status, out, err) = said(&ask(&["show", "--boot", "-1", "vm1"])?);
    assert_eq!((status, out.as_str()), (Some(1), ""));
    assert!(err.ends_with("logchain: the log of boot -1 is not there; the oldest there is of 0\n"));
    let follow = ["show", "--boot", "-1", "--follow", "vm1"];
    assert_eq!(said(&ask(&follow)?).0, Some(2));

    let (status, _, err) = said(&ask(&["show", "vm2"])?);
    assert_eq!(
        (status, err.as_str()),
        (Some(1), "logchain: there is none\n")
    );
    // The agent says which files are read; a path is none of its business.
    for words in [
        &["show", "/logs/vm1.log"][..],
        &["show", "-c", "test:///default", "vm1"],
        &["show", "--numbering", "from-one", "vm1"],
        &["status", "--state", "/x"],
    ] {
        let (status, out, _) = said(&ask(words)?);
        assert_eq!((status, out.as_str()), (Some(2), ""), "{words:?}");
    }

    let (status, out, err) = said(&ask(&["status"])?);
    assert_eq!((status, out.as_str()), (Some(0), "serial0 of vm1 waits\n"));
    assert_eq!(err, "logchain: the outbox is odd\n");
    let (_, found) = json(&["status", "--format", "json"])?;
    assert_eq!(
        (&found["host"], &found["under_way"]),
        (&"h1".into(), &1.into())
    );
    assert_eq!(found["handoffs"][0]["state"], "waiting");

    request.ask();
    serving.join().map_err(|_| "the agent panicked")?;
    let (status, out, err) = said(&ask(&["show", "vm1"])?);
    assert_eq!((status, out.as_str()), (Some(1), ""));
    assert!(err.starts_with("logchain: no agent listens at "), "{err}");
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
        "FileDescriptorStoreMax=8192",
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
    let known = |line: &&str| {
        (version < 253 && line.ends_with("ignoring: notify-reload"))
            || (version < 254 && line.contains("'FileDescriptorStorePreserve'"))
    };
    let lines = err.lines().filter(of_ours).filter(|line| !known(line));
    let complaints: Vec<_> = lines.collect();
    assert_eq!(
        (status, complaints.concat().as_str()),
        (Some(0), ""),
        "{out}{err}"
    );
    Ok(())
}
