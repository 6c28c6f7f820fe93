//! The rows: what is done to servers, and what becomes of their logs.

mod boots;
mod faults;
mod live;
mod tempest;

use anyhow::Result;

use super::poller::{Reads, while_reading};
use super::stage::{Look, Server, Stage};
use live::{AFTERWARDS, migration};

/// Something that is done to servers.
pub(crate) struct Row {
    /// By which it is chosen on the command line.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) what: &'static str,
    pub(crate) run: fn(&Stage<'_>) -> Result<Vec<Outcome>>,
}

/// What came of a row, for one server.
pub(crate) struct Outcome {
    /// Which part of the row, where it has several.
    pub(crate) part: String,
    pub(crate) before: Look,
    pub(crate) after: Look,
    /// What a reader saw meanwhile, where one read.
    pub(crate) reads: String,
    /// In words: what is there, what is not.
    pub(crate) verdict: String,
    /// Whether it is what is promised with agents.
    pub(crate) good: bool,
}

/// All of them, in the order in which they are run.
pub(crate) const ROWS: &[Row] = &[
    row("nothing", "nothing, for half a minute", live::nothing),
    row("live", "live migration with block migration", live::once),
    row("back", "there, back, and there again", live::there_and_back),
    row("abort", "abort while memory is copied", live::abort),
    row(
        "source",
        "nova-compute at the source killed and restarted while memory is copied",
        faults::compute_at_source,
    ),
    row(
        "destination",
        "the same at the destination",
        faults::compute_at_destination,
    ),
    row("reboot", "hard reboot", boots::hard_reboot),
    row(
        "softly",
        "soft reboot that the guest does not heed",
        boots::soft_reboot,
    ),
    row("pairs", "two servers each way at once", live::pairs),
    row("drained", "six servers of a host at once", live::drained),
    row("deleted", "delete while migrating", faults::deleted),
    row(
        "rollback",
        "QEMU at the destination killed while memory is copied",
        faults::rollback,
    ),
    row(
        "confirmed",
        "cold migration, confirmed",
        boots::cold_confirmed,
    ),
    row("reverted", "cold migration, reverted", boots::cold_reverted),
    row("rebuilt", "rebuild", boots::rebuilt),
    row("shelved", "shelve and unshelve", boots::shelved),
    row(
        "evacuated",
        "evacuation of a host that died",
        faults::evacuated,
    ),
    row("tempest", "Tempest", tempest::run_tempest),
];

const fn row(
    name: &'static str,
    what: &'static str,
    run: fn(&Stage<'_>) -> Result<Vec<Outcome>>,
) -> Row {
    Row { name, what, run }
}

impl Outcome {
    /// Of a row that has one part, where nobody read meanwhile.
    fn new(before: Look, after: Look, verdict: impl Into<String>, good: bool) -> Self {
        Self {
            part: String::new(),
            before,
            after,
            reads: String::new(),
            verdict: verdict.into(),
            good,
        }
    }

    fn with_reads(self, reads: &Reads) -> Self {
        let reads = reads.to_string();
        Self { reads, ..self }
    }

    fn of_part(self, part: impl Into<String>) -> Self {
        let part = part.into();
        Self { part, ..self }
    }
}

/// A migration of a new server, of that name, which `fail` has come to nothing while memory is
/// copied; and another one after it.
fn given_up(
    stage: &Stage<'_>,
    name: &str,
    fail: impl FnOnce(&Server<'_>) -> Result<()>,
) -> Result<Vec<Outcome>> {
    let server = stage.server(name, "h1")?;
    stage.slow(true)?;
    let before = server.look()?;
    let (status, reads) = while_reading(server.api(), &server.id, || {
        server.begin_migration()?;
        server.wait_for_copying()?;
        fail(&server)?;
        // Which of them depends on what QEMU was writing at that moment.
        let (_, status) = server.wait_for_migration(&["cancelled", "failed", "error"])?;
        let state = server.recover()?;
        server.wait_for_lines(AFTERWARDS)?;
        Ok(format!("migration {status}, server {state}"))
    })?;
    stage.slow(false)?;
    let mut stayed = stayed(stage, &server, before, &reads)?;
    stayed.verdict += &format!("; Nova: {status}");
    let again = migration(&server, "a migration after it")?;
    server.delete()?;
    Ok(vec![stayed, again])
}

/// Of a server whose migration came to nothing: its log is as it was, and nothing is left at the
/// other host that would keep Nova from trying again.
fn stayed(stage: &Stage<'_>, server: &Server<'_>, before: Look, reads: &Reads) -> Result<Outcome> {
    let after = server.look_until(|look| look.whole_since(&before))?;
    let there = stage.cloud.host(server.other_host()?)?;
    let left = server.has_folder_at(there);
    let whole = after.whole_since(&before);
    let words = match (whole, left) {
        (true, false) => "whole; no folder is left at the destination",
        (true, true) => "whole; a folder is left at the destination",
        (false, _) => "not whole",
    };
    let good = whole && !left && !reads.shrank();
    Ok(Outcome::new(before, after, words, good).with_reads(reads))
}
