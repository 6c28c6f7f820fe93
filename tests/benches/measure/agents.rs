//! Agents on the hosts of a lab, for as long as one migration or one evacuation is measured.
//!
//! With `LOGCHAIN_LOG=debug` what they log goes to `target/agent-h1.log` and so on, with the time
//! of each step; each start begins the file anew.

use std::fs;
use std::path::Path;
use std::time::Duration;

use logchain_tests::{Host, Lab, Running, Signal};
use serde_json::Value;

use super::Fallible;

/// Far more than a handoff takes.
const LIMIT: Duration = Duration::from_secs(120);

/// Where the configuration lies on each host.
const CONFIG: &str = "/run/agent.toml";

/// How the agents of two hosts meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meeting {
    Tls,
    /// In a folder that all hosts of the lab have.
    Folder,
}

impl Meeting {
    /// As [`Meeting::name`] has it.
    pub(crate) fn of(name: &str) -> Option<Self> {
        [Self::Tls, Self::Folder]
            .into_iter()
            .find(|meeting| meeting.name() == name)
    }

    /// What rows of a measurement call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tls => "agents-tls",
            Self::Folder => "agents-folder",
        }
    }

    fn config(self, lab: &Lab) -> String {
        match self {
            Self::Tls => "\
                [meet]\n\
                way = \"tls\"\n\
                [meet.tls]\n\
                ca = \"/etc/libvirt/pki/ca-cert.pem\"\n\
                certificate = \"/etc/libvirt/pki/agent-cert.pem\"\n\
                key = \"/etc/libvirt/pki/agent-key.pem\"\n\
                client_certificate = \"/etc/libvirt/pki/agent-cert.pem\"\n\
                client_key = \"/etc/libvirt/pki/agent-key.pem\"\n\
                allowed_names = [\"h?\"]\n"
                .to_owned(),
            Self::Folder => {
                let store = lab.state().join("pieces");
                format!(
                    "[meet]\nway = \"store\"\nstore = \"file://{}\"\n",
                    store.display()
                )
            }
        }
    }
}

struct Agent {
    host: Host,
    running: Running,
}

/// One on each host.
pub(crate) struct Agents(Vec<Agent>);

impl Agents {
    /// Starts them, and waits until all watch libvirt.
    pub(crate) fn start(lab: &Lab, meeting: Meeting) -> Fallible<Self> {
        let config = meeting.config(lab);
        let mut agents = Vec::new();
        for host in lab.hosts() {
            fs::write(host.path(CONFIG), &config)?;
            let command = ["logchain", "agent", "--config", CONFIG, "--format", "json"];
            let mut command = host.command(command).limit(Duration::from_secs(86_400));
            if let Some(level) = std::env::var_os("LOGCHAIN_LOG") {
                command = command.env("LOGCHAIN_LOG", level);
            }
            let running = command.spawn()?;
            agents.push(Agent {
                host: host.clone(),
                running,
            });
        }
        for agent in &agents {
            let watches = || Ok(agent.tells("watching").first().map(drop));
            agent.host.until("the agent to watch", LIMIT, watches)?;
        }
        Ok(Self(agents))
    }

    /// Waits until each host has told the end of `count` handoffs. Gives of each at the host `at`
    /// the window that its agent tells, in milliseconds: from the guest's start there until its
    /// history was complete.
    ///
    /// # Errors
    /// One of them was not carried.
    pub(crate) fn handoffs(&self, count: usize, at: &Host) -> Fallible<Vec<Option<u64>>> {
        let mut windows = Vec::new();
        for agent in &self.0 {
            let ended = agent.host.until("the handoffs to end", LIMIT, || {
                let ended = agent.tells("handoff");
                Ok((ended.len() >= count).then_some(ended))
            });
            let said = || String::from_utf8_lossy(&agent.running.stdout()).into_owned();
            let ended =
                ended.map_err(|e| format!("{e}\n{} told:\n{}", agent.host.name(), said()))?;
            if let Some(other) = ended.iter().find(|e| !says(e, "outcome", "carried")) {
                return Err(format!("a log was not carried: {other}").into());
            }
            if agent.host.name() == at.name() {
                windows.extend(ended.iter().map(|event| event.get("window_ms")?.as_u64()));
            }
        }
        Ok(windows)
    }

    /// Ends them, and waits until they have.
    pub(crate) fn end(self) -> Fallible<()> {
        let logs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        for mut agent in self.0 {
            agent.running.signal(Signal::TERM)?;
            let said = agent.running.wait(LIMIT)?.checked()?.stderr;
            if std::env::var_os("LOGCHAIN_LOG").is_some() {
                fs::create_dir_all(&logs)?;
                fs::write(logs.join(format!("agent-{}.log", agent.host.name())), said)?;
            }
        }
        Ok(())
    }
}

impl Agent {
    /// The events of this kind that it has told so far.
    fn tells(&self, kind: &str) -> Vec<Value> {
        let out = self.running.stdout();
        let out = String::from_utf8_lossy(&out);
        let events = out.lines().filter_map(|l| serde_json::from_str(l).ok());
        events.filter(|event| says(event, "event", kind)).collect()
    }
}

fn says(event: &Value, field: &str, word: &str) -> bool {
    event.get(field).is_some_and(|value| value == word)
}
