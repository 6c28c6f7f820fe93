//! Live migrations: those that succeed, and those that are called off.

use std::time::Instant;

use anyhow::Result;

use super::Outcome;
use crate::nova::poller::while_reading;
use crate::nova::stage::{Server, Stage};

/// One.
pub(super) fn once(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    let server = stage.server("live", "h1")?;
    let outcome = migration(&server, String::new())?;
    server.delete()?;
    Ok(vec![outcome])
}

/// Three, of one server.
pub(super) fn there_and_back(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    let server = stage.server("back", "h1")?;
    let outcomes: Result<Vec<_>> = ["there", "back", "there again"]
        .into_iter()
        .map(|part| migration(&server, part.to_owned()))
        .collect();
    server.delete()?;
    outcomes
}

/// A migration of a server with a reader beside it.
fn migration(server: &Server<'_>, part: String) -> Result<Outcome> {
    let before = server.look()?;
    let started = Instant::now();
    let ((after, took), reads) = while_reading(server.api(), &server.id, || {
        server.migrate()?;
        let took = started.elapsed();
        server.wait_for_lines(40)?;
        Ok((server.look_until(|look| look.whole_since(&before))?, took))
    })?;
    let whole = after.whole_since(&before);
    let verdict = match (whole, reads.shrank()) {
        (true, false) => "whole, at every read".to_owned(),
        (true, true) => "whole in the end, with less in between".to_owned(),
        (false, _) => "not whole".to_owned(),
    };
    Ok(Outcome {
        part,
        before,
        after,
        reads: reads.to_string(),
        verdict: format!("{verdict}; {:.0} s", took.as_secs_f32()),
        good: whole && !reads.shrank(),
    })
}

/// One that Nova calls off in the middle, and one after it: nothing may be left at the
/// destination that keeps Nova from trying again.
pub(super) fn abort(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    let server = stage.server("abort", "h1")?;
    let before = server.look()?;
    stage.slow(true)?;
    let ((), reads) = while_reading(server.api(), &server.id, || {
        let to = server.begin_migration()?;
        server.wait_for_copying()?;
        let (migration, _) = server.wait_for_migration(&["running"])?;
        server.api().abort(&server.id, migration)?;
        server.wait_for_migration(&["cancelled"])?;
        server.wait_for_status("ACTIVE")?;
        let _ = to;
        server.wait_for_lines(40)
    })?;
    stage.slow(false)?;
    let after = server.look_until(|look| look.whole_since(&before))?;
    let there = stage.cloud.host(server.other_host()?)?;
    let left = server.has_folder_at(there);
    let whole = after.whole_since(&before);
    let words = match (whole, left) {
        (true, false) => "whole; no folder is left at the destination",
        (true, true) => "whole; a folder is left at the destination",
        (false, _) => "not whole",
    };
    let aborted = Outcome {
        part: "aborted".to_owned(),
        before,
        after,
        reads: reads.to_string(),
        verdict: words.to_owned(),
        good: whole && !left && !reads.shrank(),
    };
    let again = migration(&server, "migrated after it".to_owned())?;
    server.delete()?;
    Ok(vec![aborted, again])
}
