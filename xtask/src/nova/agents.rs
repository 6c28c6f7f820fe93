//! The agents of the two hypervisors, for as long as rows with agents are run.

use anyhow::{Context as _, Result};
use logchain_tests::{Host, Lab};

use super::daemon::{Daemon, Recipe};
use super::files::write;

const CONFIG: &str = "/run/agent.toml";

/// How the agents meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meet {
    /// In a folder that both hypervisors have.
    Store,
    /// Over TLS, with certificates that libvirt could have as well.
    Tls,
    /// Over root's ssh.
    Ssh,
}

impl Meet {
    pub(crate) const ALL: [Meet; 3] = [Self::Store, Self::Tls, Self::Ssh];

    /// As the configuration calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Tls => "tls",
            Self::Ssh => "ssh",
        }
    }

    fn config(self, lab: &Lab) -> String {
        let more = match self {
            Self::Store => format!("store = \"file://{}/pieces\"\n", lab.state().display()),
            Self::Tls => {
                let pki = "/etc/libvirt/pki";
                format!(
                    "[meet.tls]\nca = \"{pki}/ca-cert.pem\"\n\
                     certificate = \"{pki}/agent-cert.pem\"\nkey = \"{pki}/agent-key.pem\"\n\
                     client_certificate = \"{pki}/agent-cert.pem\"\n\
                     client_key = \"{pki}/agent-key.pem\"\nallowed_names = [\"h?\"]\n"
                )
            }
            Self::Ssh => String::new(),
        };
        let way = self.name();
        format!("[holds]\nkeep_boots = 2\n[meet]\nway = \"{way}\"\n{more}")
    }
}

/// One on each hypervisor; they end when this is dropped.
pub(crate) struct Agents([(String, Daemon); 2]);

impl Agents {
    /// Starts them, and waits until both watch libvirt.
    pub(crate) fn start(lab: &Lab, meet: Meet) -> Result<Self> {
        let config = meet.config(lab);
        let agents = Agents([start(lab.host(0), &config)?, start(lab.host(1), &config)?]);
        for (_, agent) in &agents.0 {
            wait_for(agent)?;
        }
        Ok(agents)
    }

    fn on(&self, host: &str) -> Result<&Daemon> {
        let found = self.0.iter().find(|(name, _)| name == host);
        let (_, agent) = found.with_context(|| format!("there is no agent on {host}"))?;
        Ok(agent)
    }

    /// Kills the agent of this host, as a host that dies would.
    pub(crate) fn kill(&self, host: &str) -> Result<()> {
        self.on(host)?.kill()
    }

    /// Starts it again.
    pub(crate) fn start_again(&self, host: &str) -> Result<()> {
        let agent = self.on(host)?;
        agent.start_again()?;
        wait_for(agent)
    }

    /// What both said last.
    pub(crate) fn last_lines(&self) -> String {
        let said = self.0.iter().map(|(_, agent)| agent.last_lines());
        said.collect::<Vec<_>>().join("\n")
    }
}

fn wait_for(agent: &Daemon) -> Result<()> {
    agent.ready(|| Ok(agent.said("\"watching\"")))
}

fn start(host: &Host, config: &str) -> Result<(String, Daemon)> {
    write(host, CONFIG, config)?;
    let words = ["logchain", "agent", "--config", CONFIG, "--format", "json"];
    let recipe = Recipe {
        name: format!("{}'s agent", host.name()),
        args: words.map(Into::into).into(),
        env: Vec::new(),
        log: None,
    };
    Ok((host.name().to_owned(), Daemon::start(host, recipe)?))
}
