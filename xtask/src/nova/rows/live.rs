//! Live migrations that succeed, and the one that an operator calls off.

use std::time::Instant;

use anyhow::Result;

use super::Outcome;
use crate::nova::poller::while_reading;
use crate::nova::stage::{Server, Stage};

/// What a guest prints after a migration, until the log is looked at.
pub(super) const AFTERWARDS: u64 = 40;

/// A reader, and nothing else: what Nova's own reader does to a log.
pub(super) fn nothing(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    let server = stage.server("nothing", "h1")?;
    let before = server.look()?;
    let ((), reads) = while_reading(server.api(), &server.id, || server.wait_for_lines(600))?;
    let after = server.look()?;
    let whole = after.whole_since(&before);
    server.delete()?;
    Ok(vec![Outcome {
        part: String::new(),
        before,
        after,
        reads: reads.to_string(),
        verdict: if whole { "whole" } else { "not whole" }.to_owned(),
        good: whole,
    }])
}

/// One.
pub(super) fn once(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    let server = stage.server("live", "h1")?;
    let outcome = migration(&server, "")?;
    server.delete()?;
    Ok(vec![outcome])
}

/// Three, of one server.
pub(super) fn there_and_back(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    let server = stage.server("back", "h1")?;
    let outcomes: Result<Vec<_>> = ["there", "back", "there again"]
        .into_iter()
        .map(|part| migration(&server, part))
        .collect();
    server.delete()?;
    outcomes
}

/// A migration of a server with a reader beside it.
pub(super) fn migration(server: &Server<'_>, part: &str) -> Result<Outcome> {
    let before = server.look()?;
    let started = Instant::now();
    let ((after, took), reads) = while_reading(server.api(), &server.id, || {
        server.migrate()?;
        let took = started.elapsed();
        server.wait_for_lines(AFTERWARDS)?;
        Ok((server.look_until(|look| look.whole_since(&before))?, took))
    })?;
    let whole = after.whole_since(&before);
    let verdict = match (whole, reads.shrank()) {
        (true, false) => "whole, at every read",
        (true, true) => "whole in the end, with less in between",
        (false, _) => "not whole",
    };
    Ok(Outcome {
        part: part.to_owned(),
        before,
        after,
        reads: reads.to_string(),
        verdict: format!("{verdict}; {:.0} s", took.as_secs_f32()),
        good: whole && !reads.shrank(),
    })
}

/// Two from each host to the other one, all at once.
pub(super) fn pairs(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    let mut servers = Vec::new();
    for (name, host) in [("a", "h1"), ("b", "h1"), ("c", "h2"), ("d", "h2")] {
        servers.push((name, stage.server(name, host)?));
    }
    let mut moves = Vec::new();
    for (name, server) in &servers {
        let before = server.look()?;
        let to = server.begin_migration()?;
        moves.push((name, server, before, to));
    }
    let mut outcomes = Vec::new();
    for (name, server, before, to) in moves {
        server.end_migration(&to)?;
        server.wait_for_lines(AFTERWARDS)?;
        let after = server.look_until(|look| look.whole_since(&before))?;
        let whole = after.whole_since(&before);
        outcomes.push(Outcome {
            part: format!("{name}, to {to}"),
            before,
            after,
            reads: String::new(),
            verdict: if whole { "whole" } else { "not whole" }.to_owned(),
            good: whole,
        });
    }
    for (_, server) in &servers {
        server.delete()?;
    }
    Ok(outcomes)
}

/// One that Nova calls off in the middle, and one after it.
pub(super) fn abort(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    let server = stage.server("abort", "h1")?;
    stage.slow(true)?;
    let before = server.look()?;
    let (status, reads) = while_reading(server.api(), &server.id, || {
        server.begin_migration()?;
        server.wait_for_copying()?;
        let (migration, _) = server.wait_for_migration(&["running"])?;
        server.api().abort(&server.id, migration)?;
        // Which of them depends on what QEMU was writing at that moment.
        let (_, status) = server.wait_for_migration(&["cancelled", "failed", "error"])?;
        let state = server.recover()?;
        server.wait_for_lines(AFTERWARDS)?;
        Ok(format!("migration {status}, server {state}"))
    })?;
    stage.slow(false)?;
    let mut stayed = super::stayed(stage, &server, before, &reads)?;
    stayed.verdict += &format!("; Nova: {status}");
    let again = migration(&server, "a migration after it")?;
    server.delete()?;
    Ok(vec![stayed, again])
}
