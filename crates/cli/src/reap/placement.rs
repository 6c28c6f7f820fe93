//! Whether a domain is at its new place: its libvirt, a program or a URL says so.
//!
//! Whoever does not answer in time has not confirmed. Must not know: what follows.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use logchain_core::departure::Departure;
use logchain_core::reap::Placement;
use logchain_libvirt::{Connection, Error};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::url::Template;
use crate::exit::Usage;
use crate::host;

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// What a program says last is quoted, no more of it.
const QUOTED: u64 = 4096;

/// Who is asked.
pub(super) enum Confirm {
    /// The destination's libvirt.
    Libvirt,
    Command(PathBuf),
    Url(Template, Box<reqwest::Client>),
}

impl Confirm {
    pub(super) fn of(command: Option<&Path>, url: Option<&str>) -> anyhow::Result<Self> {
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
                    .map_err(|e| Usage(format!("--placement-url: {e}")))?;
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
        .env("LOGCHAIN_HOST", host::own_name())
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
        if let Some(said) = said {
            // What it says beyond this meets a closed pipe.
            let _ = said.take(QUOTED).read_to_end(&mut words).await;
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
                let _ = kill_process_group(group, Signal::KILL);
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
    let url = template.fill(&note.domain.to_string(), &note.name, &host::own_name());
    match client.get(&url).send().await {
        Ok(answer) if answer.status() == reqwest::StatusCode::OK => {
            Ok(format!("{url} answers {}", answer.status()))
        }
        Ok(answer) => Err(format!("{url} answers {}", answer.status())),
        Err(e) if e.is_timeout() => Err(silent(&url)),
        Err(e) => Err(crate::exit::sentence(&e.into())),
    }
}
