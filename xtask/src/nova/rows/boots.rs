//! What starts a server's domain anew, on its host or on the other one: libvirt wipes its log
//! then.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::Outcome;
use super::live::AFTERWARDS;
use crate::nova::cloud::CALM;
use crate::nova::stage::{Look, Server, Stage};

/// The owner reboots it by force.
pub(super) fn hard_reboot(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    let server = stage.server("reboot", "h1")?;
    let before = server.look()?;
    act(&server, &json!({"reboot": {"type": "HARD"}}))?;
    server.wait_for_status("ACTIVE")?;
    let after = started_anew(&server, &before)?;
    let mut outcomes = vec![outcome(before, after)];
    // The earlier boot goes along.
    let before = server.look()?;
    server.migrate()?;
    server.wait_for_lines(AFTERWARDS)?;
    let after = server.look_until(|look| look.files.boots(2))?;
    outcomes.push(outcome(before, after).of_part("a live migration after it"));
    server.delete()?;
    Ok(outcomes)
}

/// The owner asks it to reboot. The lab's guest does not heed the power button, so Nova reboots it by
/// force a little later.
pub(super) fn soft_reboot(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    not_promised(stage, "softly", |server| {
        act(server, &json!({"reboot": {"type": "SOFT"}}))
    })
}

/// Moved while it is shut off, and confirmed.
pub(super) fn cold_confirmed(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    not_promised(stage, "cold", |server| {
        cold(server)?;
        act(server, &json!({"confirmResize": null}))
    })
}

/// The same, but taken back.
pub(super) fn cold_reverted(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    let server = stage.server("cold", "h1")?;
    let before = server.look()?;
    cold(&server)?;
    act(&server, &json!({"revertResize": null}))?;
    server.wait_for_status("ACTIVE")?;
    if server.host()?.name() != "h1" {
        bail!("the server is not back on h1");
    }
    if server.has_serial_port()? {
        let after = started_anew(&server, &before)?;
        server.delete()?;
        return Ok(vec![or_the_present_one(outcome(before, after))]);
    }
    // Nova 34 does so with consoles that are sockets: nobody can read what the guest prints.
    let after = server.look()?;
    let whole = after.files.whole() && after.files.last() >= before.files.last();
    server.delete()?;
    let verdict = "Nova starts it without a serial port; its log ends there";
    Ok(vec![Outcome::new(before, after, verdict, whole)])
}

/// Made anew on its host from its image.
pub(super) fn rebuilt(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    not_promised(stage, "rebuild", |server| {
        let image = server.api().image(CALM)?;
        act(server, &json!({"rebuild": {"imageRef": image}}))
    })
}

/// Put away as an image, and made from it again, on whatever host.
pub(super) fn shelved(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    not_promised(stage, "shelf", |server| {
        act(server, &json!({"shelve": null}))?;
        server.wait_for_status("SHELVED_OFFLOADED")?;
        act(server, &json!({"unshelve": null}))
    })
}

fn act(server: &Server<'_>, what: &Value) -> Result<()> {
    server.api().act(&server.id, what)?;
    Ok(())
}

/// `change` has a new server, of that name, started anew. Nobody promises that the earlier boot is
/// there then; the present one has to be.
fn not_promised(
    stage: &Stage<'_>,
    name: &str,
    change: impl FnOnce(&Server<'_>) -> Result<()>,
) -> Result<Vec<Outcome>> {
    let server = stage.server(name, "h1")?;
    let before = server.look()?;
    change(&server)?;
    server.wait_for_status("ACTIVE")?;
    let after = started_anew(&server, &before)?;
    server.delete()?;
    Ok(vec![or_the_present_one(outcome(before, after))])
}

fn cold(server: &Server<'_>) -> Result<()> {
    act(server, &json!({"migrate": {"host": "h2"}}))?;
    server.wait_for_status("VERIFY_RESIZE")
}

/// A look once the new boot has printed, with the time that earlier boots may need to be put
/// behind it.
fn started_anew(server: &Server<'_>, before: &Look) -> Result<Look> {
    server.wait_for_lines(AFTERWARDS)?;
    server.look_until(|look| kept(look, before))
}

/// Whether the boot of `before` is there, whole, and the present one as well.
fn kept(look: &Look, before: &Look) -> bool {
    let first = look.files.runs().first();
    look.files.boots(2)
        && look.console.boots(2)
        && first.is_some_and(|(_, last)| *last >= before.files.last())
}

fn outcome(before: Look, after: Look) -> Outcome {
    let both = after.files.boots(2) && after.console.boots(2);
    let verdict = match (both, after.files.boots(1)) {
        (true, _) => "both boots are there, whole",
        (false, true) => "only the new boot is there",
        (false, false) => "not whole",
    };
    Outcome::new(before, after, verdict, both)
}

fn or_the_present_one(mut outcome: Outcome) -> Outcome {
    outcome.good |= outcome.after.files.boots(1);
    outcome
}
