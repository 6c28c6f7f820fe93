//! Which keys differ between two configurations, and which of them need a restart. Pure.
//!
//! Must not know: why a key needs a restart: `keys` says which ones do.

use std::collections::BTreeMap;

use serde::Serialize;
use toml::{Table, Value};

use super::Config;
use super::keys::KEYS;

/// What a new file changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Changes {
    /// Keys that are in force now and were not before, as `meet.peers`.
    pub applied: Vec<String>,
    /// Keys whose new value is in force after the next start of the agent.
    pub needs_restart: Vec<String>,
}

impl Changes {
    /// Whether the file says what the agent does already.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.needs_restart.is_empty()
    }
}

/// What `new` changes for an agent in which `in_force` holds. A key that needs a restart has in
/// `in_force` the value with which the agent was started.
pub(super) fn changes(in_force: &Config, new: &Config) -> Changes {
    let (before, after) = (flat(in_force), flat(new));
    let mut changes = Changes::default();
    for key in KEYS
        .iter()
        .filter(|k| before.get(k.name) != after.get(k.name))
    {
        let list = if key.needs_restart {
            &mut changes.needs_restart
        } else {
            &mut changes.applied
        };
        list.push(key.name.to_owned());
    }
    changes
}

/// `new`, but with the value in force of each key that needs a restart.
pub(super) fn applicable(in_force: &Config, new: &Config) -> Config {
    let mut merged = new.clone();
    let Config {
        connect,
        state,
        log_level,
        meet,
        holds,
        control,
        metrics,
        limits,
        ..
    } = in_force.clone();
    merged.connect = connect;
    merged.state = state;
    merged.log_level = log_level;
    merged.meet.way = meet.way;
    merged.meet.store = meet.store;
    merged.meet.tls = meet.tls;
    merged.holds.max_unlinked_bytes = holds.max_unlinked_bytes;
    merged.control = control;
    merged.metrics = metrics;
    merged.limits = limits;
    merged
}

/// Every value by its key with its sections.
pub(super) fn flat(config: &Config) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    // Its values are texts, numbers and lists: writing to memory cannot fail.
    let table = Table::try_from(config).unwrap_or_default();
    let mut sections = vec![(String::new(), table)];
    while let Some((section, table)) = sections.pop() {
        for (name, value) in table {
            let name = format!("{section}{name}");
            match value {
                Value::Table(table) => sections.push((format!("{name}."), table)),
                value => {
                    all.insert(name, value);
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_by_its_key() {
        let old = Config::default();
        assert!(changes(&old, &old).is_empty());
        let mut new = old.clone();
        new.meet.peers = vec!["h1".to_owned()];
        new.control.group = Some("ops".to_owned());
        let found = changes(&old, &new);
        assert_eq!(found.applied, ["meet.peers"]);
        assert_eq!(found.needs_restart, ["control.group"]);
        let merged = applicable(&old, &new);
        assert_eq!(merged.meet.peers, ["h1"]);
        assert_eq!(merged.control.group, None);
        // It is told of again as long as the agent was not started anew.
        assert_eq!(changes(&merged, &new).applied, [""; 0]);
        assert_eq!(changes(&merged, &new).needs_restart, ["control.group"]);
    }

    #[test]
    fn what_needs_a_restart_is_never_applied() {
        // Every key has another value in `new`.
        let text = "connect = 'a'\nstate = '/a'\nlog_level = 'warn'\n[meet]\nway = 'store'\n\
            store = 'file:///a'\npeers = ['a']\npeers_dns = 'a'\npatience = '9s'\n\
            [meet.tls]\nlisten = '1.1.1.1:1'\nca = '/a'\ncertificate = '/a'\nkey = '/a'\n\
            client_certificate = '/a'\nclient_key = '/a'\nallowed_names = ['a']\n\
            [meet.ssh]\nuser = 'a'\nport = 1\nspool = '/a'\nlogchain = 'a'\n\
            [outbox]\nmax_bytes = 1\ngive_up_after = '9s'\nretry_min = '9s'\nretry_max = '9s'\n\
            [reap]\npolicy = 'when-carried'\nfiles = 'keep'\nplacement_command = '/a'\n\
            placement_url = 'a'\ngrace = '9s'\nevery = '9s'\n[holds]\nmax_unlinked_bytes = 9\nkeep_boots = 9\n\
            [stream]\nto = 'file:///a'\ndomains = ['a']\nconsoles = ['a']\ndelay = '9s'\n\
            keep = 'all'\nleave_gap_after = '9s'\nmemory = 9\n\
            [control]\nsocket = '/a'\ngroup = 'a'\n[metrics]\nlisten = '1.1.1.1:1'\n\
            label_per_vm = true\n[limits]\nhandoffs = 9\nmemory = 9\n";
        let (old, new) = (Config::default(), toml::from_str::<Config>(text).unwrap());
        let found = changes(&old, &new);
        let count = found.applied.len() + found.needs_restart.len();
        assert_eq!(count, KEYS.len(), "{found:?}");
        let merged = applicable(&old, &new);
        assert_eq!(changes(&old, &merged).applied, found.applied);
        assert_eq!(changes(&old, &merged).needs_restart, [""; 0]);
    }
}
