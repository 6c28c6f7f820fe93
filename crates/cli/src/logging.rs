//! What the parts of the program say of their work, for whoever looks for a fault.
//!
//! What a command tells its user is no part of this.

use std::io;
use std::os::unix::fs::MetadataExt;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt, registry};

/// From now on what `filter` lets through goes to the journal, where systemd started this
/// process and reads its standard error, else to the standard error. Without a filter warnings
/// go to the journal, and nothing anywhere else, which costs a `show` no time.
pub(crate) fn start(filter: Option<Targets>) {
    let is_journal = is_journal();
    let filter = match filter {
        Some(filter) => filter,
        None if is_journal => Targets::new().with_default(LevelFilter::WARN),
        None => return,
    };
    let journal = is_journal.then(tracing_journald::layer);
    // Without a journal that can be reached, its reader has the standard error still.
    let begun = match journal {
        Some(Ok(journal)) => registry().with(journal.with_filter(filter)).try_init(),
        Some(Err(_)) | None => {
            let lines = fmt::layer().with_writer(io::stderr).with_ansi(false);
            registry().with(lines.with_filter(filter)).try_init()
        }
    };
    // Only a second call fails, and the first one holds then.
    debug_assert!(begun.is_ok(), "logging is started once");
}

/// From now on what the text `filter` of a configuration lets through is logged. What the command
/// line said before holds.
pub fn start_as_configured(filter: &str) {
    if tracing::dispatcher::has_been_set() {
        return;
    }
    // The configuration was checked: another text is none that comes here.
    start(filter.parse().ok());
}

/// Whether the standard error leads to the journal: systemd names its device and inode.
fn is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else {
        return false;
    };
    named == format!("{}:{}", stderr.dev(), stderr.ino())
}
