//! A hypervisor's nova-compute, which runs as the user nova and has its rights, as distributions
//! set it up.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use logchain_tests::Host;

use super::config::{FOLDER, Facts, INSTANCES, LOGS, qemu, sudoers};
use super::daemon::{Daemon, Recipe};
use super::files::{append, make_folder, write};

/// nova-compute as the user nova, on a host that has one.
pub(crate) fn start(host: &Host, facts: &Facts<'_>) -> Result<Daemon> {
    add_user(host, facts.venv)?;
    append(
        host,
        "/etc/libvirt/libvirtd.conf",
        "unix_sock_rw_perms = \"0777\"\n",
    )?;
    write(host, "/etc/libvirt/qemu.conf", &qemu(host.address()))?;
    host.stop_libvirtd()?;
    host.start_libvirtd()?;
    for folder in [FOLDER, LOGS, INSTANCES, "/var/lib/nova/locks"] {
        make_folder(host, folder)?;
    }
    let config = format!("{FOLDER}/nova.conf");
    write(
        host,
        &config,
        &facts.nova_compute(host.name(), host.address()),
    )?;
    // For cold migrations, which copy disks as the user nova.
    host.run(["cp", "-r", "/root/.ssh", "/var/lib/nova/.ssh"])?
        .checked()?;
    host.run(["chown", "-R", "nova:nova", "/var/lib/nova", LOGS])?
        .checked()?;
    let program = facts.venv.join("bin/nova-compute");
    let words = "setpriv --reuid nova --regid nova --init-groups --";
    let mut args: Vec<OsString> = words.split(' ').map(OsString::from).collect();
    args.extend([program.into(), "--config-file".into(), config.into()]);
    let recipe = Recipe {
        name: "nova-compute".to_owned(),
        args,
        env: vec![("HOME".to_owned(), "/var/lib/nova".to_owned())],
        log: Some(format!("{LOGS}/nova-compute.log")),
    };
    Daemon::start(host, recipe)
}

/// Gives the host, and not this machine, a user nova.
fn add_user(host: &Host, venv: &Path) -> Result<()> {
    let folder = format!("{FOLDER}/users");
    make_folder(host, &folder)?;
    for (file, line) in [
        ("passwd", "nova:x:64060:64060::/var/lib/nova:/bin/sh\n"),
        ("group", "nova:x:64060:\n"),
    ] {
        let etc = format!("/etc/{file}");
        let text = fs::read_to_string(host.path(&etc)).with_context(|| etc.clone())?;
        // One that this machine has may have another shell, and no right to log in.
        let others = text.lines().filter(|line| !line.starts_with("nova:"));
        let text: String = others.map(|line| format!("{line}\n")).collect();
        let text = text + line;
        let own = format!("{folder}/{file}");
        write(host, &own, &text)?;
        host.run(["mount", "--bind", &own, &etc])?.checked()?;
    }
    append(host, "/etc/shadow", "nova:*:19000:0:99999:7:::\n")?;
    let rights = format!("{folder}/sudoers.d");
    make_folder(host, &rights)?;
    let file = format!("{rights}/nova");
    write(host, &file, &sudoers(venv))?;
    host.run(["chmod", "440", &file])?.checked()?;
    host.run(["mount", "--bind", &rights, "/etc/sudoers.d"])?
        .checked()?;
    Ok(())
}
