//! How logs are rolled over on this host: what the running virtlogd has loaded, and
//! whether it writes the logs at all.
//!
//! What decides what of a VM's history is dropped must not be taken from a file that
//! virtlogd has never read: where that is in doubt, nothing is dropped.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use logchain_core::chain::{self, LogChain, Numbering, NumberingChoice};
use logchain_core::handoff::adopt::Place;
use logchain_core::placement::Rules;
use logchain_core::rotation::Retention;
use logchain_core::verify::Finding;
use logchain_libvirt::virtlogd::{Configuration, Virtlogd};
use logchain_libvirt::virtlogd_conf::{
    self, Cleaner, LogLimits, MAX_BACKUPS, QEMU_CONF, Setting, StdioHandler, VIRTLOGD_CONF,
    read_stdio_handler,
};

use crate::event::Events;

/// Where the daemons that read qemu.conf put their numbers when they start.
const LIBVIRT_PID_FILES: [&str; 2] = ["/run/libvirtd.pid", "/run/virtqemud.pid"];

/// The numbering of a log on this host, which qemu.conf alone decides: no process is
/// looked at for it. And what an operator should know of that file.
#[must_use]
pub fn numbering() -> (NumberingChoice, Option<String>) {
    let Setting { value, note } = read_stdio_handler(&own(QEMU_CONF));
    let choice = match value {
        // virtlogd writes it.
        StdioHandler::Logd => NumberingChoice::FromZero,
        StdioHandler::File => NumberingChoice::Auto,
    };
    (choice, note)
}

/// As [`numbering`], and tells what an operator should know.
pub(crate) fn numbering_of_host(events: &Events) -> NumberingChoice {
    let (numbering, note) = numbering();
    if let Some(note) = note {
        events.warn(note);
    }
    numbering
}

/// The system's file of that path or, where an ordinary user has one of that name, the
/// user's, which a session daemon reads.
fn own(system: &str) -> PathBuf {
    let system = PathBuf::from(system);
    if rustix::process::geteuid().is_root() {
        return system;
    }
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let set = |name: &str| set(name).filter(|path| path.is_absolute());
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let users = folder.zip(system.file_name());
    let users = users.map(|(folder, name)| folder.join("libvirt").join(name));
    users.filter(|path| path.is_file()).unwrap_or(system)
}

/// How logs are rolled over on this host.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `None`: QEMU writes them, nothing does.
    virtlogd: Option<LogLimits>,
    /// Why virtlogd may go by others.
    doubt: Option<String>,
    /// What virtlogd removes beside the rotation.
    cleaner: Option<Cleaner>,
    /// What an operator should know of the configuration.
    notes: Vec<String>,
}

/// Asks the virtlogd that runs for this host's libvirt. Blocks as /proc does.
#[must_use]
pub fn limits() -> Limits {
    let Setting { value, note } = read_stdio_handler(&own(QEMU_CONF));
    let mut notes: Vec<String> = note.into_iter().collect();
    if value == StdioHandler::File {
        return Limits {
            virtlogd: None,
            doubt: None,
            cleaner: None,
            notes,
        };
    }
    let (found, doubt) = loaded(Virtlogd::of_host());
    let Configuration { path, text, .. } = &found;
    let text = String::from_utf8_lossy(text.as_deref().unwrap_or_default());
    let Setting { value, note } = virtlogd_conf::limits(&text);
    notes.extend(note.map(|note| format!("{}: {note}", path.display())));
    Limits {
        virtlogd: Some(value),
        doubt: doubt.or_else(handler_in_doubt),
        cleaner: virtlogd_conf::cleaner(&text),
        notes,
    }
}

/// The configuration that counts, and why it may not be what virtlogd goes by.
fn loaded(running: std::io::Result<Option<Virtlogd>>) -> (Configuration, Option<String>) {
    let unknown = |what: String| {
        let found = Configuration::at(&own(VIRTLOGD_CONF));
        (found, Some(format!("{what}; nothing is dropped")))
    };
    let virtlogd = match running {
        Ok(Some(virtlogd)) => virtlogd,
        // It reads the file when it is started.
        Ok(None) => {
            let found = match rustix::process::geteuid().is_root() {
                true => Configuration::at(&Configuration::of_next_start()),
                false => Configuration::at(&own(VIRTLOGD_CONF)),
            };
            let doubt = found.in_doubt.then(|| {
                let path = found.path.display();
                format!("cannot read {path}; nothing is dropped")
            });
            return (found, doubt);
        }
        Err(e) => return unknown(format!("cannot see which virtlogd writes logs here: {e}")),
    };
    let pid = virtlogd.number();
    match virtlogd.configuration() {
        Ok(found) if found.in_doubt => {
            let doubt = doubt_of(&found.path, pid);
            (found, Some(format!("{doubt}; nothing is dropped")))
        }
        Ok(found) => (found, None),
        Err(e) => unknown(format!(
            "cannot see how virtlogd (process {pid}) rolls logs over: {e}"
        )),
    }
}

/// Says that virtlogd goes by something else than the file.
#[must_use]
pub fn doubt_of(path: &Path, pid: i32) -> String {
    format!(
        "{} changed after virtlogd (process {pid}) loaded it, so how many files virtlogd keeps is \
         not known until it is reloaded (systemctl reload virtlogd)",
        path.display()
    )
}

/// Where qemu.conf changed since libvirt read it, QEMU itself may write the logs.
fn handler_in_doubt() -> Option<String> {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    let started: Option<SystemTime> = LIBVIRT_PID_FILES
        .iter()
        .find_map(|path| changed(Path::new(path)));
    let path = own(QEMU_CONF);
    (changed(&path)? > started?).then(|| {
        let path = path.display();
        format!(
            "{path} changed after libvirt read it, so whether virtlogd writes the logs is not \
             known; nothing is dropped"
        )
    })
}

impl Limits {
    /// Whether virtlogd keeps no rotated file: a rollover then wipes the log.
    #[must_use]
    pub(crate) fn keep_no_rotated_file(&self) -> bool {
        self.virtlogd.is_some_and(|limits| limits.max_backups == 0)
    }

    /// Tells what an operator should know of it.
    pub fn warn(&self, events: &Events) {
        for sentence in self.notes.iter().chain(&self.doubt) {
            events.warn(sentence);
        }
    }

    /// What placing has to keep to, for the log at `path`. What QEMU writes itself, only
    /// an operator's own rotation touches; carried files are numbered as virtlogd's are.
    #[must_use]
    pub fn rules(&self, path: &Path) -> Rules {
        Rules {
            numbering: Numbering::FromZero,
            retention: self.retention(|cleaner| cleaner.reaches(path)),
        }
    }

    fn retention(&self, reaches: impl Fn(&Cleaner) -> bool) -> Retention {
        let Some(limits) = self.virtlogd else {
            return Retention::UNLIMITED;
        };
        if self.doubt.is_some() {
            return Retention::in_one_file(false);
        }
        match limits.max_size {
            // Never rolled over, so never dropped: but high numbers would be removed.
            None if self.cleaner.as_ref().is_some_and(reaches) => Retention::in_one_file(true),
            None => Retention::virtlogd(0, limits.max_backups),
            Some(size) => Retention::virtlogd(size, limits.max_backups.min(MAX_BACKUPS)),
        }
    }

    /// The rotated files of the log at `path` that virtlogd will remove, though its
    /// rotation leaves them.
    ///
    /// # Errors
    /// [`chain::Error::Folder`] where the folder cannot be listed.
    pub fn cleaned(&self, path: &Path) -> chain::Result<Vec<Finding>> {
        match &self.cleaner {
            Some(cleaner) => cleaned_by(cleaner, path),
            None => Ok(Vec::new()),
        }
    }

    /// A log of this host.
    #[must_use]
    pub fn place(&self, path: PathBuf) -> Place {
        Place {
            rules: self.rules(&path),
            path,
        }
    }
}

/// The rotated files of the log at `path` that `cleaner` will remove.
///
/// # Errors
/// [`chain::Error::Folder`] where the folder cannot be listed.
pub fn cleaned_by(cleaner: &Cleaner, path: &Path) -> chain::Result<Vec<Finding>> {
    if !cleaner.reaches(path) {
        return Ok(Vec::new());
    }
    let listing = LogChain::open(path, NumberingChoice::FromZero)?.listing()?;
    let names = listing.rotated().iter().map(|file| &file.name);
    let removed = names.filter(|name| cleaner.removes(name));
    let finding = |name: &OsString| Finding::Cleaned {
        name: name.to_string_lossy().into_owned(),
        max_backups: cleaner.max_backups,
    };
    Ok(removed.map(finding).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits_of(text: &str, doubt: Option<&str>) -> Limits {
        Limits {
            virtlogd: Some(virtlogd_conf::limits(text).value),
            doubt: doubt.map(str::to_owned),
            cleaner: virtlogd_conf::cleaner(text),
            notes: Vec::new(),
        }
    }

    #[test]
    fn nothing_is_dropped_by_limits_that_are_in_doubt() {
        let text = "max_size = 65536\nmax_backups = 1\n";
        let path = Path::new("/srv/console.log");
        let known = limits_of(text, None);
        assert_eq!(known.rules(path).retention.parts(), 2);
        let unknown = limits_of(text, Some("it changed")).rules(path).retention;
        assert_eq!(unknown.max_backups, None);
        // All of it lies under one number, and a rollover may come at any time.
        assert!(!unknown.cut_at_file(1 << 40) && unknown.room(0) > 1 << 60);
        assert!(unknown.may_roll_over(0));
    }

    #[test]
    fn what_the_cleaner_would_remove_lies_under_one_number_or_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let root = folder.path().display();
        let text = format!("max_size = 0\nmax_backups = 2\nlog_root = \"{root}\"\n");
        let never = limits_of(&text, None);
        assert!(never.rules(&path).retention.cut_at_file(10));
        for name in ["console.log.2", "console.log.3", "console.log.4.gz"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(never.cleaned(&path).unwrap(), []);

        let cleaned = limits_of(&format!("{text}max_age_days = 3\n"), None);
        assert!(!cleaned.rules(&path).retention.cut_at_file(10));
        // Elsewhere nothing is removed.
        let other = Path::new("/srv/vm/console.log");
        assert!(cleaned.rules(other).retention.cut_at_file(10));
        let told = cleaned.cleaned(&path).unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0]
                .to_string()
                .starts_with("console.log.3 is removed by virtlogd")
        );
    }
}
