//! What `agent_soak` is made of: agents, what breaks around them, and what they use.

use std::fs;
use std::time::Duration;

use logchain_tests::{Host, Running, Signal};

use crate::parts::Fallible;

/// How agents meet over TLS.
pub(crate) const TLS: &str = "\
[outbox]
retry_min = \"2s\"
[meet]
way = \"tls\"
patience = \"20s\"
peers = [\"h1:16515\", \"h2:16515\", \"h3:16515\"]
[meet.tls]
ca = \"/etc/libvirt/pki/ca-cert.pem\"
certificate = \"/etc/libvirt/pki/agent-cert.pem\"
key = \"/etc/libvirt/pki/agent-key.pem\"
client_certificate = \"/etc/libvirt/pki/agent-cert.pem\"
client_key = \"/etc/libvirt/pki/agent-key.pem\"
allowed_names = [\"h?\"]
";

/// How they meet in a folder that all hosts have; `STATE` stands for the lab's.
pub(crate) const FOLDER: &str = "\
[outbox]
retry_min = \"2s\"
[meet]
way = \"store\"
patience = \"20s\"
store = \"file://STATE/pieces\"
";

/// How long an agent may take to watch.
const WATCHES: Duration = Duration::from_secs(60);

/// The agent of a host.
pub(crate) struct Agent {
    host: Host,
    config: String,
    running: Running,
}

/// What an agent uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    descriptors: usize,
    /// VmRSS, in KiB.
    memory: u64,
    /// Files of handoffs in its own spool, and in its outbox.
    spooled: usize,
}

impl Usage {
    /// Whether this is no more than `before`, where other guests are here now. A log that is held
    /// takes a descriptor for each of its files, ten guests at the most; connections to two
    /// peers stay open.
    pub(crate) fn fits(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors + 60
            && self.memory <= before.memory + 48 * 1024
            && self.spooled <= before.spooled
    }
}

impl Agent {
    pub(crate) fn start(host: &Host, config: &str) -> Fallible<Self> {
        let file = "/run/agent.toml";
        host.command(["tee", file]).input(config).run()?.checked()?;
        let command = ["logchain", "agent", "--config", file, "--format", "json"];
        let command = host.command(command).env("LOGCHAIN_LOG", "debug");
        let agent = Self {
            host: host.clone(),
            config: config.to_owned(),
            running: command.spawn()?,
        };
        host.until("the agent to watch", WATCHES, || {
            let out = agent.running.stdout();
            let watches = String::from_utf8_lossy(&out).contains("\"watching\"");
            Ok(watches.then_some(()))
        })?;
        Ok(agent)
    }

    /// Its last words, after a failure.
    pub(crate) fn show(&self) {
        let said = [self.running.stdout(), self.running.stderr()].concat();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        let last = lines.len().saturating_sub(400);
        println!("{} said:\n{}", self.host.name(), lines[last..].join("\n"));
    }

    pub(crate) fn usage(&self) -> Fallible<Usage> {
        let pids = self.host.processes("logchain-libvir")?;
        let pid = pids.first().ok_or("no agent runs")?;
        let process = self.host.path(format!("/proc/{pid}"));
        let status = fs::read_to_string(process.join("status"))?;
        let memory = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let memory = memory.and_then(|m| m.trim().split(' ').next()?.parse().ok());
        let find = "find /var/lib/logchain/peers /var/lib/logchain/outbox \
                    /var/lib/logchain/pieces -type f 2>/dev/null | wc -l";
        let spooled = self.host.run(["sh", "-c", find])?.out();
        Ok(Usage {
            descriptors: fs::read_dir(process.join("fd"))?.count(),
            memory: memory.unwrap_or(u64::MAX),
            spooled: spooled.trim().parse()?,
        })
    }
}

/// What breaks in a hop, at one of its two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    KillAgent,
    StopAgent,
    KillLibvirtd,
    ReloadVirtlogd,
    CutNetwork,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] = [
        Self::None,
        Self::KillAgent,
        Self::StopAgent,
        Self::KillLibvirtd,
        Self::ReloadVirtlogd,
        Self::CutNetwork,
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|fault| format!("{fault:?}") == name)
    }

    pub(crate) fn strike(self, agent: &mut Agent) -> Fallible<()> {
        match self {
            Self::None => {}
            Self::KillAgent => agent.running.signal(Signal::KILL)?,
            Self::StopAgent => agent.running.signal(Signal::STOP)?,
            Self::KillLibvirtd => agent.host.kill_libvirtd()?,
            Self::ReloadVirtlogd => drop(agent.host.signal("virtlogd", "USR1")?),
            Self::CutNetwork => agent.host.cut_network()?,
        }
        Ok(())
    }

    pub(crate) fn mend(self, agent: &mut Agent) -> Fallible<()> {
        match self {
            Self::None | Self::ReloadVirtlogd => {}
            Self::KillAgent => *agent = Agent::start(&agent.host, &agent.config)?,
            Self::StopAgent => agent.running.signal(Signal::CONT)?,
            Self::KillLibvirtd => agent.host.start_libvirtd()?,
            Self::CutNetwork => agent.host.mend_network()?,
        }
        Ok(())
    }
}
