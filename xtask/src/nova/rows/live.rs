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
    let outcome = Outcome::new(before, after, in_words(whole), whole);
    Ok(vec![outcome.with_reads(&reads)])
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
    let verdict = format!("{verdict}; {:.0} s", took.as_secs_f32());
    let outcome = Outcome::new(before, after, verdict, whole && !reads.shrank());
    Ok(outcome.with_reads(&reads).of_part(part))
}

/// Two from each host to the other one, all at once.
pub(super) fn pairs(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    at_once(stage, &[("a", "h1"), ("b", "h1"), ("c", "h2"), ("d", "h2")])
}

/// All six of a host, as an operator empties it.
pub(super) fn drained(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    at_once(
        stage,
        &["a", "b", "c", "d", "e", "f"].map(|name| (name, "h1")),
    )
}

/// Servers on these hosts, each to the other one, and nobody waits for another.
fn at_once(stage: &Stage<'_>, wanted: &[(&str, &str)]) -> Result<Vec<Outcome>> {
    let mut servers = Vec::new();
    for (name, host) in wanted {
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
        let outcome = Outcome::new(before, after, in_words(whole), whole);
        outcomes.push(outcome.of_part(format!("{name}, to {to}")));
    }
    for (_, server) in &servers {
        server.delete()?;
    }
    Ok(outcomes)
}

/// One that Nova calls off in the middle, and one after it.
pub(super) fn abort(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    super::given_up(stage, "abort", |server| {
        let (migration, _) = server.wait_for_migration(&["running"])?;
        server.api().abort(&server.id, migration)
    })
}

pub(super) fn in_words(whole: bool) -> &'static str {
    if whole { "whole" } else { "not whole" }
}
