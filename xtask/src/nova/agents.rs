//! The agents of the two hypervisors, for as long as rows with agents are run.

use anyhow::{Context as _, Result};
use logchain_tests::{Host, Lab};

use super::daemon::{Daemon, Recipe};
use super::files::write;

const CONFIG: &str = "/run/agent.toml";

/// One on each hypervisor; they end when this is dropped.
pub(crate) struct Agents([(String, Daemon); 2]);

impl Agents {
    /// Starts them, and waits until both watch libvirt. They meet in a folder that both have.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let agents = Agents([start(lab, lab.host(0))?, start(lab, lab.host(1))?]);
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

fn start(lab: &Lab, host: &Host) -> Result<(String, Daemon)> {
    let store = lab.state().join("pieces");
    let text = format!(
        "[meet]\nway = \"store\"\nstore = \"file://{}\"\n[holds]\nkeep_boots = 2\n",
        store.display()
    );
    write(host, CONFIG, &text)?;
    let words = ["logchain", "agent", "--config", CONFIG, "--format", "json"];
    let recipe = Recipe {
        name: format!("{}'s agent", host.name()),
        args: words.map(Into::into).into(),
        env: Vec::new(),
        log: None,
    };
    Ok((host.name().to_owned(), Daemon::start(host, recipe)?))
}
