//! Migrations in which something fails: Nova's own services, the destination, a whole host, or the
//! server itself, which its owner deletes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Outcome;
use super::live::{AFTERWARDS, in_words};
use crate::nova::stage::{LONG, Look, Stage};
use crate::nova::wait::{rest, until};

/// As the kernel shortens it.
const QEMU: &str = "qemu-system-x86";
/// How long Nova may take to notice that a migration is over whose nova-compute was killed.
const NOTICE: Duration = Duration::from_secs(45);
/// Whoever makes a folder anew that Nova removed does it within this time.
const ANEW: Duration = Duration::from_secs(10);

/// nova-compute at the source is killed while memory is copied, and started again.
pub(super) fn compute_at_source(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    compute_restarted(stage, "h1")
}

/// The same at the destination.
pub(super) fn compute_at_destination(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    compute_restarted(stage, "h2")
}

fn compute_restarted(stage: &Stage<'_>, killed: &str) -> Result<Vec<Outcome>> {
    let server = stage.server("restart", "h1")?;
    stage.slow(true)?;
    let before = server.look()?;
    server.begin_migration()?;
    server.wait_for_copying()?;
    let compute = stage.cloud.compute(killed)?;
    compute.kill()?;
    compute.start_again()?;
    stage.slow(false)?;
    // libvirt goes on with it. Whether Nova takes notice is Nova's affair.
    let ended = ["completed", "error", "failed", "cancelled"];
    let noticed = until("Nova to notice", NOTICE, || {
        let newest = server.api().migration(&server.id)?;
        Ok(newest.filter(|(_, status)| ended.contains(&status.as_str())))
    });
    let newest = server.api().migration(&server.id)?;
    let (_, migration) = newest.context("Nova has no migration")?;
    let real = until("the domain to run on one host", LONG, || server.real_host())?;
    // Of the host where the domain is, which Nova may not know of.
    let end = before.files.last() + AFTERWARDS;
    let files = server.files_until(real, |files| files.whole() && files.last() > end)?;
    let mut after = server.look()?;
    after.files = files;
    let (status, _) = server.status()?;
    let known = server.host()?.name().to_owned();
    let whole = after.files.whole() && after.files.last() >= before.files.last();
    let agrees = known == real.name();
    let verdict = format!(
        "{}, on {}; Nova: migration {migration}, server {status} on {known}",
        in_words(whole),
        real.name()
    );
    let good = whole && (!agrees || after.console.whole());
    server.delete()?;
    if noticed.is_err() || !agrees {
        server.sweep(real)?;
    }
    Ok(vec![Outcome::new(before, after, verdict, good)])
}

/// QEMU at the destination dies while memory is copied: Nova rolls back, and removes the folder
/// there while a history is written into it. Nothing may keep it from a second try.
pub(super) fn rollback(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    super::given_up(stage, "rollback", |_| {
        stage.cloud.host("h2")?.signal(QEMU, "KILL")?;
        Ok(())
    })
}

/// Its owner deletes a server that migrates. No folder may be there for the sake of a log.
pub(super) fn deleted(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    let server = stage.server("deleted", "h1")?;
    stage.slow(true)?;
    let before = server.look()?;
    server.begin_migration()?;
    server.wait_for_copying()?;
    server.api().delete(&server.id)?;
    stage.slow(false)?;
    server.wait_until_gone()?;
    let hosts = [stage.cloud.host("h1")?, stage.cloud.host("h2")?];
    // Nova may still be removing them.
    rest(ANEW)?;
    let mut left = Vec::new();
    let mut good = true;
    for host in hosts.iter().filter(|host| server.has_folder_at(host)) {
        let files = server.folder_at(host)?;
        // Nova itself leaves the destination's folder, with the server's disk. One with nothing
        // but a log would be ours.
        good &= files.iter().any(|file| file == "disk.info");
        let files = files.join(", ");
        left.push(format!(
            "Nova leaves its folder on {} ({files})",
            host.name()
        ));
    }
    let verdict = match left.as_slice() {
        [] => "gone, and no folder is left".to_owned(),
        some => some.join("; "),
    };
    for host in hosts {
        server.sweep(host)?;
    }
    Ok(vec![Outcome::new(before, Look::nothing(), verdict, good)])
}

/// A host dies, and Nova makes its server anew on the other one; then the host comes back.
pub(super) fn evacuated(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    let server = stage.server("evacuated", "h1")?;
    let host = stage.cloud.host("h1")?;
    let compute = stage.cloud.compute("h1")?;
    let before = server.look()?;
    compute.kill()?;
    if let Some(agents) = stage.agents {
        agents.kill("h1")?;
    }
    host.signal(QEMU, "KILL")?;
    host.cut_network()?;
    server.api().force_down("h1", true)?;
    let evacuated = (|| {
        server
            .api()
            .act(&server.id, &json!({"evacuate": {"host": "h2"}}))?;
        until("the server to be on h2", LONG, || {
            Ok((server.host()?.name() == "h2").then_some(()))
        })?;
        server.wait_for_status("ACTIVE")?;
        server.wait_for_lines(AFTERWARDS)
    })();
    host.mend_network()?;
    if let Some(agents) = stage.agents {
        agents.start_again("h1")?;
    }
    compute.start_again()?;
    // Nova refuses that for as long as it has not cleared what was evacuated from there.
    until("Nova to clear h1", LONG, || {
        Ok(server.api().force_down("h1", false).ok())
    })?;
    compute.ready(|| Ok(server.api().beat("h1")?.is_some()))?;
    evacuated?;
    until("the folder on h1 to go", LONG, || {
        Ok((!server.has_folder_at(host)).then_some(()))
    })?;
    let after = server.look_until(|look| look.files.boots(2))?;
    let verdict = match (after.files.boots(2), after.files.boots(1)) {
        (true, _) => "both boots are there".to_owned(),
        (false, true) => format!(
            "the new boot's log is whole; the {} lines of the dead host are gone",
            before.files.last()
        ),
        (false, false) => "the new boot's log is not whole".to_owned(),
    };
    let good = after.files.boots(1) || after.files.boots(2);
    server.delete()?;
    Ok(vec![Outcome::new(before, after, verdict, good)])
}
