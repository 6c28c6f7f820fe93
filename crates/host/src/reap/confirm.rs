//! Whether a domain is at its new place: its libvirt, a program or a URL says so.
//!
//! Whoever does not answer in time has not confirmed. Must not know: what follows.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use logchain_core::OkLogged as _;
use logchain_core::departure::Departure;
use logchain_core::reap::Placement;
use logchain_core::sentence;
use logchain_libvirt::Connection;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::url::Template;
use crate::{Error, Result, consoles};

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// What a program says last is quoted, no more of it.
const QUOTED: usize = 4096;

/// Who is asked.
pub(super) enum Confirm {
    /// The destination's libvirt.
    Libvirt,
    /// Nobody: the destination's receipts say enough.
    Receipts,
    Command(PathBuf),
    Url(Template, Box<reqwest::Client>),
}

impl Confirm {
    pub(super) fn of(command: Option<&Path>, url: Option<&str>) -> Result<Self> {
        Ok(match (command, url) {
            (Some(command), _) => Self::Command(command.to_owned()),
            (None, Some(url)) => {
                let template = Template::new(url)?;
                // One is chosen for all of this process, whoever is first.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let client = reqwest::Client::builder()
                    .timeout(LIMIT)
                    // A login page answers 200 as well.
                    .redirect(reqwest::redirect::Policy::none())
                    .build()
                    .map_err(|e| Error::Usage(format!("--placement-url: {e}")))?;
                Self::Url(template, Box::new(client))
            }
            (None, None) => Self::Libvirt,
        })
    }

    pub(super) async fn ask(&self, note: &Departure, here: &Connection) -> Placement {
        let asked = match self {
            Self::Libvirt => match timeout(LIMIT, libvirt(note, here)).await {
                Ok(asked) => asked,
                Err(_) => Err(silent(&note.to.uri)),
            },
            Self::Receipts => Ok("it has confirmed all of its logs".to_owned()),
            Self::Command(program) => command(program, note).await,
            Self::Url(template, client) => url(template, client, note).await,
        };
        match asked {
            Ok(how) => Placement::Confirmed(how),
            Err(why) => Placement::NotConfirmed(why),
        }
    }
}

fn silent(who: &str) -> String {
    format!("{who} did not answer within {} s", LIMIT.as_secs())
}

async fn libvirt(note: &Departure, here: &Connection) -> Result<String, String> {
    let uri = &note.to.uri;
    use logchain_libvirt::Error;

    let text = |e: Error| e.to_string();
    let there = Connection::open_within(Some(uri), LIMIT)
        .await
        .map_err(text)?;
    let host = there.host_uuid().await.map_err(text)?;
    if host.is_some() && host == here.host_uuid().await.map_err(text)? {
        return Err(format!("{uri} is this very host now"));
    }
    if let (Some(then), Some(now)) = (note.to.host, host)
        && then != now
    {
        return Err(format!("{uri} is another host now ({now}, it was {then})"));
    }
    let domain = match there.lookup_uuid(note.domain).await {
        Ok(domain) => domain,
        Err(Error::NoDomain { .. }) => return Err(format!("{uri} does not know it")),
        Err(e) => return Err(text(e)),
    };
    let state = domain.state().await.map_err(text)?;
    if state.is_active() {
        Ok(format!("it is {} at {uri}", state.word()))
    } else {
        Err(format!("it is {} at {uri}", state.word()))
    }
}

async fn command(program: &Path, note: &Departure) -> Result<String, String> {
    let name = program.display();
    let child = Command::new(program)
        .env("LOGCHAIN_DOMAIN_UUID", note.domain.to_string())
        .env("LOGCHAIN_DOMAIN_NAME", &note.name)
        .env("LOGCHAIN_HOST", consoles::own_name())
        .env("LOGCHAIN_DESTINATION", &note.to.uri)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = child.map_err(|e| format!("cannot run {name}: {e}"))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let said = child.stderr.take();
    let ended = timeout(LIMIT, async {
        let mut words = Vec::new();
        let mut block = [0; QUOTED];
        if let Some(mut said) = said {
            while let Ok(length @ 1..) = said.read(&mut block).await {
                words.extend_from_slice(block.get(..length).unwrap_or_default());
                let surplus = words.len().saturating_sub(QUOTED);
                words.drain(..surplus);
            }
        }
        (child.wait().await, words)
    })
    .await;
    let (status, words) = match ended {
        Ok((status, words)) => (
            status.map_err(|e| format!("cannot wait for {name}: {e}"))?,
            words,
        ),
        Err(_) => {
            // Whom it started as well; it leads a group of its own.
            if let Some(group) = group.and_then(Pid::from_raw) {
                kill_process_group(group, Signal::KILL)
                    .ok_logged("its group ended by itself meanwhile");
            }
            return Err(silent(&name.to_string()));
        }
    };
    if status.success() {
        return Ok(format!("{name} confirms it"));
    }
    let words = String::from_utf8_lossy(&words);
    let last = words.lines().map(str::trim).rfind(|l| !l.is_empty());
    let last: String = last
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    match last.as_str() {
        "" => Err(format!("{name} ended with {status}")),
        last => Err(format!("{name}: {last} ({status})")),
    }
}

async fn url(
    template: &Template,
    client: &reqwest::Client,
    note: &Departure,
) -> Result<String, String> {
    let url = template.fill(&note.domain.to_string(), &note.name, &consoles::own_name());
    match client.get(&url).send().await {
        Ok(answer) if answer.status() == reqwest::StatusCode::OK => {
            Ok(format!("{url} answers {}", answer.status()))
        }
        Ok(answer) => Err(format!("{url} answers {}", answer.status())),
        Err(e) if e.is_timeout() => Err(silent(&url)),
        Err(e) => Err(sentence(&e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use logchain_core::departure::Destination;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use uuid::Uuid;

    fn note() -> Departure {
        let to = Destination {
            uri: "qemu+tcp://h2/system".to_owned(),
            host: None,
        };
        Departure::new(
            Uuid::from_u128(1),
            "vm",
            "qemu:///system",
            to,
            jiff::Timestamp::UNIX_EPOCH,
        )
    }

    /// Answers one request with this status line and headers; gives what was asked for.
    async fn answer(head: &'static str) -> (Result<String, String>, String) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut client, _) = server.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = client.read(&mut request).await.unwrap();
            let text = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n");
            client.write_all(text.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let template = format!("http://{address}/at?vm={{name}}&id={{uuid}}");
        let confirm = Confirm::of(None, Some(&template)).unwrap();
        let Confirm::Url(template, client) = confirm else {
            panic!("a URL was given")
        };
        let asked = url(&template, &client, &note()).await;
        (asked, served.await.unwrap())
    }

    #[tokio::test]
    async fn only_200_confirms() {
        let (asked, request) = answer("200 OK").await;
        assert!(asked.unwrap().ends_with("answers 200 OK"));
        let line = "GET /at?vm=vm&id=00000000-0000-0000-0000-000000000001 HTTP/1.1";
        assert!(request.starts_with(line), "{request}");
        for head in [
            "404 Not Found",
            "302 Found\r\nlocation: /login",
            "204 No Content",
        ] {
            let (asked, _) = answer(head).await;
            let status = head.lines().next().unwrap();
            assert!(asked.unwrap_err().ends_with(&format!("answers {status}")));
        }
    }

    async fn script(text: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ask");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        command(&path, &note()).await
    }

    #[tokio::test]
    async fn a_program_confirms_with_its_status() {
        assert!(
            script("exit 0")
                .await
                .unwrap()
                .ends_with("/ask confirms it")
        );
        let why = script("echo first >&2; echo \"$LOGCHAIN_DOMAIN_NAME is not there\" >&2; exit 4");
        let why = why.await.unwrap_err();
        assert!(
            why.ends_with("/ask: vm is not there (exit status: 4)"),
            "{why}"
        );
        assert!(
            script("kill -9 $$")
                .await
                .unwrap_err()
                .contains("signal: 9")
        );
        let long = script("yes | head -c 1000000 >&2; echo last >&2; exit 1").await;
        assert!(long.unwrap_err().contains("/ask: last ("));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let lives = folder.path().join("lives");
        let began = Instant::now();
        let text = format!(
            "(while :; do date >{}; sleep 0.02; done) & wait",
            lives.display()
        );
        let why = script(&text).await.unwrap_err();
        assert!(why.contains("did not answer within 30 s"), "{why}");
        assert!(began.elapsed() < Duration::from_secs(20));
        let _ = std::fs::remove_file(&lives);
        #[expect(clippy::disallowed_methods, reason = "real time passes")]
        std::thread::sleep(Duration::from_millis(200));
        assert!(!lives.exists());
    }
}
