//! Pieces over an object store that both hosts reach.

use std::path::PathBuf;
use std::time::Duration;

use crate::common::{MIGRATION, Outcome, carried, history, sorted_names, spool_is_empty};
use logchain_tests::{Guest, GuestOn, Host, HostCommand, Lab, Running, Ticks};
use serde_json::Value;

const P2P: &[&str] = &["--live", "--p2p", "--persistent"];
pub(crate) const URL: &str = "s3://console-logs/lab";
const PORT: &str = "5000";

/// `LOGCHAIN_MOTO`, or where `cargo xtask test` installs it.
fn program() -> Result<PathBuf, String> {
    let installed = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../target/moto/bin/moto_server"
    );
    let path = std::env::var_os("LOGCHAIN_MOTO").map_or_else(|| installed.into(), PathBuf::from);
    match path.canonicalize() {
        Ok(_) if path.is_file() => Ok(path),
        _ => Err(format!(
            "{} is not there: `cargo xtask test` installs it",
            path.display()
        )),
    }
}

/// A store with an empty bucket, on `host`, for all of the lab.
pub(crate) fn start_store(host: &Host) -> Result<Running, Box<dyn std::error::Error>> {
    let program = program()?;
    let mut server = host
        .command([program.as_os_str()])
        .args(["-H", "0.0.0.0", "-p", PORT])
        // It lies in the build's folder, wherever that is.
        .with_this_machines_files()
        .spawn()?;
    host.until("the store to answer", Duration::from_secs(60), || {
        if !server.is_running()? {
            return Ok(Some(()));
        }
        Ok(request(host, "PUT", "/console-logs")?.ok().map(drop))
    })?;
    if !server.is_running()? {
        return Err(String::from_utf8_lossy(&server.stderr()).into());
    }
    Ok(server)
}

/// One request to the store, and what it answered.
fn request(
    host: &Host,
    method: &str,
    target: &str,
) -> Result<Result<String, String>, logchain_tests::LabError> {
    let script = "import sys, urllib.request as u\n\
                  r = u.Request(sys.argv[2], method=sys.argv[1])\n\
                  r.add_header('Authorization', 'AWS4-HMAC-SHA256 Credential=x/2030/us-east-1/s3/x')\n\
                  print(u.urlopen(r, timeout=20).read().decode())";
    let url = format!("http://127.0.0.1:{PORT}{target}");
    let output = host.run(["python3", "-c", script, method, &url])?;
    Ok(match output.code() {
        Some(0) => Ok(output.out()),
        _ => Err(output.err()),
    })
}

/// The keys in the bucket.
fn keys(host: &Host) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let listing = request(host, "GET", "/console-logs?list-type=2")??;
    let keys = listing.split("<Key>").skip(1);
    Ok(keys
        .filter_map(|rest| rest.split("</Key>").next().map(str::to_owned))
        .collect())
}

/// The environment that leads to the store on `server`.
pub(crate) fn environment(server: &Host) -> [(&'static str, String); 4] {
    [
        ("AWS_ENDPOINT", format!("http://{}:{PORT}", server.name())),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "lab".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "lab".to_owned()),
    ]
}

pub(crate) fn with(mut command: HostCommand, environment: &[(&str, String)]) -> HostCommand {
    for (name, value) in environment {
        command = command.env(name, value);
    }
    command
}

/// A program on `host` that is logchain with its credentials: ssh brings none.
fn wrap(host: &Host, environment: &[(&str, String)]) -> Result<&'static str, std::io::Error> {
    use std::os::unix::fs::PermissionsExt as _;

    let path = "/var/lib/logchain/with-store";
    let exports: String = environment
        .iter()
        .map(|(name, value)| format!("export {name}='{value}'\n"))
        .collect();
    let file = host.path(path);
    std::fs::write(&file, format!("#!/bin/sh\n{exports}exec logchain \"$@\"\n"))?;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o700))?;
    Ok(path)
}

fn migrate(
    guest: &GuestOn,
    to: &Host,
    environment: &[(&str, String)],
    more: &[&str],
) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let command = guest.host().command(["logchain", "migrate"]);
    let output = with(command, environment)
        .args(P2P)
        .args(["--transport", URL, "--format", "json"])
        .args(more)
        .args([guest.name(), &to.uri()])
        .limit(MIGRATION)
        .run()?
        .checked()?;
    let events: Result<_, _> = output.out().lines().map(serde_json::from_str).collect();
    Ok(events?)
}

fn is_whole(guest: &GuestOn) -> Result<u64, Box<dyn std::error::Error>> {
    let report = Ticks::check_from_boot(&history(guest)?)?;
    let names = sorted_names(guest.host(), "vm")?;
    assert!(
        !names.iter().any(|n| n.ends_with(".logchain.d")),
        "{names:?}"
    );
    Ok(report.count)
}

#[test]
fn a_log_follows_its_guest_over_an_object_store() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let store = start_store(h1)?;
    let environment = environment(h1);
    let vm = h1.define(&Guest::new("vm"))?;
    vm.start()?;
    vm.wait_for_tick(600)?;

    // There, with the destination's half started over ssh.
    let wrapper = wrap(h2, &environment)?;
    let events = migrate(&vm, h2, &environment, &["--remote-logchain", wrapper])?;
    assert!(carried(&events)?["bytes"].as_u64() > Some(0), "{events:?}");
    let there = h2.guest("vm");
    there.wait_for_more_ticks(300)?;
    println!(
        "there: {} lines, all there, once, in order",
        is_whole(&there)?
    );
    let left = keys(h1)?;
    assert!(left.is_empty(), "{left:?}");

    // And back, with nobody to be started over ssh: the command is said, and run.
    h1.stop_sshd()?;
    let back = with(h2.command(["logchain", "migrate"]), &environment)
        .args(P2P)
        .args(["--transport", URL, "--format", "json", "vm", &h1.uri()])
        .limit(MIGRATION)
        .spawn()?;
    let said = h2.until("the command to be said", Duration::from_secs(60), || {
        let out = String::from_utf8_lossy(&back.stdout()).into_owned();
        let events = out
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let said = events
            .filter(|e: &Value| e["event"] == "adopt-there")
            .find_map(|e| e["command"].as_str().map(str::to_owned));
        Ok(said)
    })?;
    let adopt = with(h1.command(["sh", "-c", &said]), &environment);
    adopt.limit(MIGRATION).run()?.checked()?;
    back.wait(MIGRATION)?.checked()?;
    vm.wait_for_more_ticks(300)?;
    println!("back: {} lines, all there, once, in order", is_whole(&vm)?);
    let left = keys(h1)?;
    assert!(left.is_empty(), "{left:?}");
    for host in [h1, h2] {
        assert!(spool_is_empty(host)?, "{}'s spool", host.name());
    }
    store.kill()?;
    Ok(())
}

#[test]
fn a_destination_without_credentials_is_said_to_have_none() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let store = start_store(h1)?;
    let environment = environment(h1);
    let vm = h1.define(&Guest::new("vm"))?;
    vm.start()?;
    vm.wait_for_tick(300)?;
    // It reaches the store, and is nobody there: its half fails, the migration does not.
    let wrapper = wrap(
        h2,
        &[
            ("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9".to_owned()),
            ("AWS_ENDPOINT", format!("http://{}:{PORT}", h1.name())),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ],
    )?;
    let command = h1.command(["logchain", "migrate"]).args(P2P);
    let output = with(command, &environment)
        .args(["--transport", URL, "--remote-logchain", wrapper])
        .args(["vm", &h2.uri()])
        .limit(MIGRATION)
        .run()?;
    let said = output.err();
    assert_eq!(output.code(), Some(3), "{said}");
    assert!(
        said.contains("at h2: ") && said.contains("there are no credentials"),
        "{said}"
    );
    let left = keys(h1)?;
    assert!(left.is_empty(), "{left:?}");
    store.kill()?;
    Ok(())
}
