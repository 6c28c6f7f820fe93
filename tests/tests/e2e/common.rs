//! What the end-to-end tests share.
use std::error::Error;
use std::time::Duration;

use logchain_tests::{GuestOn, Host, LabError, Output, Running};
use serde_json::Value;

pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// A migration of an emulated guest takes seconds; a busy machine makes it more.
pub(crate) const MIGRATION: Duration = Duration::from_secs(180);

/// `logchain migrate` to a host.
pub(crate) fn migrate(guest: &GuestOn, to: &Host, way: &[&str]) -> Result<Output, Box<dyn Error>> {
    let command = guest.host().command(["logchain", "migrate"]).args(way);
    Ok(command
        .args([guest.name(), &to.uri()])
        .limit(MIGRATION)
        .run()?)
}

/// The same, as the events that it tells.
pub(crate) fn migrate_json(
    guest: &GuestOn,
    to: &Host,
    way: &[&str],
) -> Result<Vec<Value>, Box<dyn Error>> {
    let way = [way, &["--format", "json"]].concat();
    let output = migrate(guest, to, &way)?.checked()?;
    let events: Result<_, _> = output.out().lines().map(serde_json::from_str).collect();
    Ok(events?)
}

/// The event that tells of the log's arrival.
pub(crate) fn carried(events: &[Value]) -> Result<&Value, Box<dyn Error>> {
    let carried = events.iter().find(|e| e["event"] == "carried");
    Ok(carried.ok_or_else(|| format!("nothing was carried: {events:?}"))?)
}

/// `logchain show` on a host.
pub(crate) fn show(host: &Host, args: &[&str]) -> Result<Vec<u8>, Box<dyn Error>> {
    Ok(host
        .command(["logchain", "show"])
        .args(args)
        .run()?
        .checked()?
        .stdout)
}

/// The whole log of a guest, as logchain shows it.
pub(crate) fn history(guest: &GuestOn) -> Result<Vec<u8>, Box<dyn Error>> {
    show(guest.host(), &["-n", "all", guest.name()])
}

/// The names in the folder of a guest's log.
pub(crate) fn sorted_names(host: &Host, guest: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let log = host.path(host.log_path(guest));
    let folder = log.parent().ok_or("a path without a folder")?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Whether nothing of any handoff lies in a host's spool.
pub(crate) fn spool_is_empty(host: &Host) -> Result<bool, Box<dyn Error>> {
    Ok(spool_files(host)?.is_empty())
}

/// The files in a host's spool, a line each.
pub(crate) fn spool_files(host: &Host) -> Result<String, Box<dyn Error>> {
    let spool = host.path("/var/lib/logchain/spool");
    let output = std::process::Command::new("find")
        .arg(spool)
        .args(["-type", "f"])
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What happens to the guests of a host, as virsh tells.
pub(crate) fn watch(host: &Host) -> Result<Running, LabError> {
    // Line by line, though nobody sits at a terminal.
    let mut virsh = vec!["stdbuf", "-oL", "virsh"];
    virsh.extend(["event", "--loop", "--event", "lifecycle"]);
    let mut running = host.spawn(virsh)?;
    assert!(running.is_running()?);
    Ok(running)
}
