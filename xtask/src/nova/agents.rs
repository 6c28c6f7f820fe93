//! The agents of the two hypervisors, for as long as rows with agents are run.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use logchain_tests::{Host, Lab, Running};

use super::files::write;
use super::wait::until;

const CONFIG: &str = "/run/agent.toml";
const LIMIT: Duration = Duration::from_secs(60);
/// How many lines of an agent's log are shown.
const LINES: usize = 12;

/// One on each hypervisor; they end when this is dropped.
pub(crate) struct Agents(Vec<Agent>);

struct Agent {
    host: Host,
    running: Running,
}

impl Agents {
    /// Starts them, and waits until both watch libvirt. They meet in a folder that both have.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let hosts = [lab.host(0), lab.host(1)];
        let agents: Result<Vec<_>> = hosts.into_iter().map(|host| start(lab, host)).collect();
        let agents = Agents(agents?);
        for agent in &agents.0 {
            until("the agents to watch", LIMIT, || {
                let out = agent.running.stdout();
                let out = String::from_utf8_lossy(&out).into_owned();
                Ok(out.contains("\"watching\"").then_some(()))
            })
            .map_err(|e| anyhow!("{e:#}\n{}", agent.last_lines()))?;
        }
        Ok(agents)
    }

    /// Kills the agent of this host, as a host that dies would, or starts it again.
    pub(crate) fn restart(&mut self, lab: &Lab, host: &str) -> Result<()> {
        let agent = self.0.iter_mut().find(|agent| agent.host.name() == host);
        let agent = agent.with_context(|| format!("there is no agent on {host}"))?;
        let next = start(lab, &agent.host.clone())?;
        *agent = next;
        Ok(())
    }

    /// What both said last.
    pub(crate) fn last_lines(&self) -> String {
        let said: Vec<_> = self.0.iter().map(Agent::last_lines).collect();
        said.join("\n")
    }
}

impl Agent {
    fn last_lines(&self) -> String {
        let mut said = String::from_utf8_lossy(&self.running.stdout()).into_owned();
        said += &String::from_utf8_lossy(&self.running.stderr());
        let lines: Vec<&str> = said.lines().collect();
        let from = lines.len().saturating_sub(LINES);
        let last = lines.get(from..).unwrap_or_default().join("\n  ");
        format!("the last lines of {}'s agent:\n  {last}", self.host.name())
    }
}

fn start(lab: &Lab, host: &Host) -> Result<Agent> {
    let store = lab.state().join("pieces");
    let text = format!(
        "[meet]\nway = \"store\"\nstore = \"file://{}\"\n[holds]\nkeep_boots = 2\n",
        store.display()
    );
    write(host, CONFIG, &text)?;
    let words = ["logchain", "agent", "--config", CONFIG, "--format", "json"];
    Ok(Agent {
        host: host.clone(),
        running: host.command(words).spawn()?,
    })
}
