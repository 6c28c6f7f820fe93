//! Every key of the file: a sentence on it, and whether it needs a restart. The file that is
//! shipped and the reference page are written from this list, and tests compare them with it.
//!
//! Must not know: what the agent does with a value.

/// A key of the configuration file.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Key {
    /// With its sections, as `meet.peers`.
    pub name: &'static str,
    /// What it says, in plain sentences.
    pub says: &'static str,
    /// A value, for a key that has no default.
    pub example: Option<&'static str>,
    /// Whether a new value is in force only after the next start.
    pub needs_restart: bool,
}

const fn key(name: &'static str, says: &'static str) -> Key {
    Key {
        name,
        says,
        example: None,
        needs_restart: false,
    }
}

impl Key {
    /// Without a default; such a value could be given.
    const fn unset(mut self, example: &'static str) -> Self {
        self.example = Some(example);
        self
    }

    const fn at_start(mut self) -> Self {
        self.needs_restart = true;
        self
    }

    /// The section, and the name in it.
    #[cfg(test)]
    fn split(&self) -> (&'static str, &'static str) {
        self.name.rsplit_once('.').unwrap_or(("", self.name))
    }
}

/// The keys, in the order of the file.
pub const KEYS: &[Key] = &[
    key("connect", "URI of the libvirt that the agent watches.").at_start(),
    key(
        "state",
        "Folder in which logchain keeps this host's state: notes, outbox and spool.",
    )
    .at_start(),
    key(
        "log_level",
        "What is logged: error, warn, info, debug or trace, or levels by part, as \
         info,logchain_core=debug.",
    )
    .at_start(),
    key(
        "meet.way",
        "The way of a history from host to host: \"tls\" (agents talk to each other), \"ssh\" (the \
         source logs in at the destination) or \"store\" (both use a store).",
    )
    .at_start(),
    key(
        "meet.store",
        "The store, for way = \"store\": an object store, or a folder that all hosts have.",
    )
    .unset("\"s3://bucket/prefix\"")
    .at_start(),
    key(
        "meet.peers",
        "The other hosts, each as host or host:port. A destination that libvirt names is found \
         without this list.",
    ),
    key(
        "meet.peers_dns",
        "A name whose addresses are the other hosts. It is looked up again as addresses change.",
    )
    .unset("\"hypervisors.example.net\""),
    key("meet.patience", "How long one half waits for the other."),
    key(
        "meet.tls.listen",
        "Address and port on which the agent listens to its peers.",
    )
    .at_start(),
    key(
        "meet.tls.ca",
        "Certificates of the authorities against which peers are checked. The files of this \
         section are libvirt's own by default.",
    )
    .at_start(),
    key(
        "meet.tls.certificate",
        "The certificate that the agent shows to peers that connect to it.",
    )
    .at_start(),
    key("meet.tls.key", "The key of that certificate.")
    .at_start(),
    key(
        "meet.tls.client_certificate",
        "The certificate that the agent shows to peers that it connects to.",
    )
    .at_start(),
    key("meet.tls.client_key", "The key of that certificate.")
    .at_start(),
    key(
        "meet.tls.allowed_names",
        "Names of which a peer's certificate must have one; * stands for any characters. way = \
         \"tls\" needs at least one: [\"*\"] lets every certificate of the authority offer and \
         read logs.",
    )
    .at_start(),
    key(
        "meet.ssh.user",
        "User at the destination. If unset, ssh's own configuration decides.",
    )
    .unset("\"root\""),
    key(
        "meet.ssh.port",
        "Port of the destination's sshd. If unset, ssh's own configuration decides.",
    )
    .unset("22"),
    key("meet.ssh.spool", "The spool folder at the destination."),
    key(
        "meet.ssh.logchain",
        "Name or path of the logchain program at the destination.",
    ),
    key(
        "outbox.max_bytes",
        "How much the outbox holds at most: beyond it the oldest logs are given up, and that is said. \
         If unset, only the free room of its disk limits it.",
    )
    .unset("\"10GiB\""),
    key(
        "outbox.give_up_after",
        "After this time the agent does not try to carry a log any more. The log stays in the \
         outbox, and `logchain offer` carries it.",
    ),
    key(
        "outbox.retry_min",
        "The wait after the first try to carry a log out of the outbox. Each further wait is \
         twice as long.",
    ),
    key("outbox.retry_max", "The longest wait between two tries."),
    key(
        "reap.policy",
        "When a domain that left is undefined here: \"never\", \"when-carried\" (the destination \
         has confirmed every log) or \"when-confirmed\" (its new place is confirmed, too).",
    ),
    key(
        "reap.files",
        "What becomes of log files that the destination has unchanged: \"remove\" or \"keep\".",
    ),
    key(
        "reap.placement_command",
        "A program that confirms a domain's new place with status 0. If unset, the destination's \
         libvirt is asked.",
    )
    .unset("\"/usr/local/bin/confirm-placement\""),
    key(
        "reap.placement_url",
        "A URL that answers 200 where a domain's new place is confirmed. {uuid}, {name} and \
         {host} in it are replaced.",
    )
    .unset("\"http://127.0.0.1:8080/placement/{uuid}\""),
    key(
        "reap.grace",
        "How long a domain stays at least after it left.",
    ),
    key("reap.every", "How long to wait between two looks."),
    key(
        "holds.max_unlinked_bytes",
        "How many bytes of removed log files are held open at most for each log.",
    )
    .at_start(),
    key(
        "holds.keep_boots",
        "A domain's start wipes its log, unless the log has append='on'. The logs of so many \
         earlier boots are kept, and put behind the new log as rotated files.",
    ),
    key(
        "stream.to",
        "The store to which the logs of domains that run here are copied as they grow: an object \
         store, or a folder. If unset, nothing is streamed.",
    )
    .unset("\"s3://bucket/prefix\""),
    key(
        "stream.domains",
        "Names or UUIDs of the domains that are streamed; * stands for any characters, ? for one.",
    ),
    key(
        "stream.consoles",
        "Names of their consoles that are streamed, with the same signs.",
    ),
    key(
        "stream.delay",
        "How long a byte waits at most until it is put, after it was noticed. A log is looked at \
         once a second.",
    ),
    key(
        "stream.keep",
        "How much of each log stays in the store, or \"all\" to leave that to the store's own rules.",
    ),
    key(
        "stream.leave_gap_after",
        "After this time a stream goes on without a history that did not come with its domain, \
         and leaves a gap.",
    ),
    key(
        "stream.memory",
        "How much memory all streams use together for what is not put yet.",
    ),
    key("control.socket", "Path of the control socket.").at_start(),
    key(
        "control.group",
        "A group whose members may use the control socket: to read every console log of this host, \
         and to drain and reload. If unset, only root may.",
    )
    .unset("\"libvirt\"")
    .at_start(),
    key(
        "metrics.listen",
        "Address and port of the page for Prometheus, which needs no password. If unset, the page \
         is on the control socket alone.",
    )
    .unset("\"127.0.0.1:9478\"")
    .at_start(),
    key(
        "metrics.label_per_vm",
        "Whether bytes handed over are also counted for each VM. With many VMs that makes many \
         series.",
    )
    .at_start(),
    key(
        "limits.handoffs",
        "How many handoffs run at once. Further ones wait.",
    )
    .at_start(),
    key(
        "limits.memory",
        "How much memory the pieces of all handoffs use together. A piece has 2 MiB.",
    )
    .at_start(),
];

/// The sections, with those that hold only others.
pub(super) fn sections() -> impl Iterator<Item = &'static str> {
    KEYS.iter()
        .filter_map(|key| Some(key.name.rsplit_once('.')?.0))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::changes::flat;
    use super::super::{Config, read};
    use super::*;

    const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/agent.toml");
    const PAGE: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/src/reference/agent-config.md"
    );

    fn wrapped(text: &str, width: usize) -> Vec<String> {
        let mut lines = vec![String::new()];
        for word in text.split_whitespace() {
            let line = lines.last().unwrap();
            if !line.is_empty() && line.len() + 1 + word.len() > width {
                lines.push(String::new());
            }
            let line = lines.last_mut().unwrap();
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines
    }

    /// The file that is shipped: every key with its default, commented out.
    fn shipped() -> String {
        let mut text = String::new();
        for line in [
            "# Configuration of the logchain agent: /etc/logchain/agent.toml.",
            "#",
            "# A line that begins with # and no blank is a key with its default: remove the # to",
            "# change it. All keys are optional, and so is the file. After a change run",
            "#   logchain agent --check && logchain agent reload",
        ] {
            text.push_str(&format!("{line}\n"));
        }
        let defaults = flat(&Config::default());
        let mut section = "";
        for key in KEYS {
            let (its_section, name) = key.split();
            if its_section != section {
                section = its_section;
                text.push_str(&format!("\n[{section}]\n"));
            } else {
                text.push('\n');
            }
            for line in wrapped(key.says, 96) {
                text.push_str(&format!("# {line}\n"));
            }
            match (defaults.get(key.name), key.example) {
                (Some(default), None) => text.push_str(&format!("#{name} = {default}\n")),
                (None, Some(example)) => {
                    text.push_str(&format!("# For example: {name} = {example}\n"));
                }
                _ => panic!("{}: a default, or an example", key.name),
            }
        }
        text
    }

    /// The reference page.
    fn page() -> String {
        let mut text = "# The agent's configuration\n\n\
            The file is `/etc/logchain/agent.toml`, or what `--config` of `logchain agent` names. Every\n\
            key has a default, and an empty file is a valid one. A key that does not exist is an error.\n\
            Durations are written as `\"90s\"`, `\"5m\"` or `\"1h\"`, sizes as `\"10MiB\"`. A key marked with\n\
            **restart** keeps its value until the agent is started again; all others follow\n\
            `logchain agent reload`.\n\n\
            A test writes this page from the keys and compares it with them.\n"
            .to_owned();
        let defaults = flat(&Config::default());
        let mut section = None;
        for key in KEYS {
            let (its_section, name) = key.split();
            if section != Some(its_section) {
                section = Some(its_section);
                let title = match its_section {
                    "" => "Outside of sections".to_owned(),
                    section => format!("`[{section}]`"),
                };
                text.push_str(&format!(
                    "\n## {title}\n\n| key | default | meaning |\n| --- | --- | --- |\n"
                ));
            }
            let default = match (defaults.get(key.name), key.example) {
                (Some(default), _) => format!("`{default}`"),
                (None, Some(example)) => format!("unset, for example `{example}`"),
                (None, None) => panic!("{}: a default, or an example", key.name),
            };
            let restart = if key.needs_restart {
                " **restart**"
            } else {
                ""
            };
            text.push_str(&format!(
                "| `{name}` | {default} | {}{restart} |\n",
                key.says
            ));
        }
        text
    }

    /// Compares a file with what it has to be; with INSTA_UPDATE=always writes it.
    fn compare(path: &str, want: &str) {
        if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
            std::fs::write(path, want).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == want,
            "{path} is not what the keys say: run this test with INSTA_UPDATE=always"
        );
    }

    #[test]
    fn the_shipped_file_has_every_key_with_its_default() {
        compare(SHIPPED, &shipped());
        let text = std::fs::read_to_string(SHIPPED).unwrap();
        let as_it_is = read::read(Path::new(SHIPPED), &text).unwrap();
        assert_eq!(as_it_is, Config::default());
        let bare = text.lines().map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => rest,
            _ => line,
        });
        let bare = bare.collect::<Vec<_>>().join("\n");
        let read = read::read(Path::new(SHIPPED), &bare).unwrap();
        assert_eq!(read, Config::default());
        // With every example put in as well no key is missing.
        let all = bare.replace("# For example: ", "");
        let table: toml::Table = all.parse().unwrap();
        let config = toml::Table::try_into::<Config>(table).unwrap();
        let found: Vec<_> = flat(&config).into_keys().collect();
        let mut want: Vec<_> = KEYS.iter().map(|key| key.name.to_owned()).collect();
        want.sort();
        assert_eq!(found, want);
    }

    #[test]
    fn the_reference_page_has_every_key() {
        compare(PAGE, &page());
    }

    #[test]
    fn every_example_is_valid() {
        let other = |key: &str| key == "reap.placement_command";
        for key in KEYS.iter().filter(|key| !other(key.name)) {
            let Some(example) = key.example else { continue };
            let text = format!("{} = {example}\n", key.name);
            read::read(Path::new("agent.toml"), &text).unwrap();
        }
    }
}
