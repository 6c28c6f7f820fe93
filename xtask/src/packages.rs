//! The Debian packages that building and testing need: which are missing, and
//! their installation.

use std::collections::HashSet;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::process::{answers, catch_signals, run_whole};
use crate::progress::begin;

#[derive(Clone, Copy)]
pub(crate) struct Need {
    package: &'static str,
    why: &'static str,
    /// Newer releases moved this program into it out of another package; older
    /// ones do not have the package.
    newer: Option<&'static str>,
}

pub(crate) const fn need(package: &'static str, why: &'static str) -> Need {
    Need {
        package,
        why,
        newer: None,
    }
}

const fn newer(package: &'static str, program: &'static str, why: &'static str) -> Need {
    Need {
        package,
        why,
        newer: Some(program),
    }
}

/// The guest's kernel is not here: it is unpacked, never installed.
const NEEDS: [Need; 20] = [
    need("gcc", "links every program, and builds the guest's"),
    need("libc6-dev", "links every program"),
    need("pkg-config", "finds libvirt for the build"),
    need("libvirt-dev", "logchain is linked against libvirt"),
    need("libvirt-daemon", "the lab's hypervisors"),
    need("libvirt-daemon-system", "their configuration and hooks"),
    need("libvirt-daemon-driver-qemu", "libvirt's driver for QEMU"),
    newer(
        "libvirt-daemon-log",
        "/usr/sbin/virtlogd",
        "writes and rotates the guests' logs",
    ),
    newer(
        "libvirt-daemon-lock",
        "/usr/sbin/virtlockd",
        "libvirtd may ask for it",
    ),
    need("libvirt-clients", "virsh"),
    need("qemu-system-x86", "runs the guests"),
    need("openssh-server", "hands history from host to host"),
    need("openssh-client", "hands history from host to host"),
    need("iproute2", "the network between the hosts"),
    need("hostname", "names the hosts"),
    need("faketime", "gives a host of the tests another time"),
    need("openssl", "certificates for migrations with TLS"),
    need(
        "bindfs",
        "a file system that does not show who writes a log",
    ),
    need(
        "prometheus",
        "promtool, which checks metrics, alerts and the dashboard",
    ),
    need("python3-venv", "runs the object store of the tests"),
];

const INSTALL: &str = include_str!("install.sh");

/// Installs what is missing, of `more` as well. Says what and why first; asks on a terminal unless
/// `yes`. From its end on, signals are caught.
pub(crate) fn ensure(yes: bool, more: &[Need]) -> Result<()> {
    let needs: Vec<_> = NEEDS.iter().chain(more).collect();
    let missing = missing(&needs)?;
    if missing.is_empty() {
        println!("all packages are there");
        return catch_signals();
    }
    println!("missing packages:");
    for need in &missing {
        println!("  {:28} {}", need.package, need.why);
    }
    let names = names(&missing);
    let root = rustix::process::geteuid().is_root();
    if !root && !answers("sudo", &["--version"]) {
        bail!(
            "installing packages needs root, and there is no sudo here: run as root\n  apt-get install {}",
            names.join(" ")
        );
    }
    if !yes && std::io::stdin().is_terminal() && !agreed()? {
        bail!("nothing was installed");
    }
    if !root {
        // The password is asked for here, where a terminal is at hand; the
        // installation itself runs apart from it.
        let allowed = Command::new("sudo").arg("-v").status();
        if !allowed.is_ok_and(|status| status.success()) {
            bail!("installing packages needs root, and sudo did not allow it: run this as root");
        }
    }
    // Until here a signal may end this program at once.
    catch_signals()?;
    let started = Instant::now();
    let mut command = Command::new(if root { "sh" } else { "sudo" });
    if !root {
        command.args(["-n", "sh"]);
    }
    command.args(["-c", INSTALL, "install"]);
    for need in &missing {
        // The mark says: only if this release has it.
        let mark = if need.newer.is_some() { "?" } else { "" };
        command.arg(format!("{mark}{}", need.package));
    }
    run_whole(&mut command).context("cannot install the packages")?;
    if names.contains(&"libvirt-dev") {
        // A build that was tried without it found no libvirt, and cargo would not
        // look again.
        let mut clean = Command::new(crate::process::cargo());
        run_whole(clean.args(["clean", "-p", "virt-sys"])).context("cannot clean virt-sys")?;
    }
    println!("installed in {:.1} s", started.elapsed().as_secs_f32());
    Ok(())
}

/// Fetches what the lab's guests boot: unpacked in the build's folder, not installed.
pub(crate) fn guest() -> Result<()> {
    let step = begin("preparing the guest's kernel");
    logchain_tests::prepare_guest()?;
    step.done();
    Ok(())
}

fn missing<'a>(needs: &[&'a Need]) -> Result<Vec<&'a Need>> {
    if !Path::new("/usr/bin/dpkg-query").exists() || !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "this is neither Debian nor Ubuntu: install by hand what these packages bring: {}",
            names(needs).join(" ")
        );
    }
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${binary:Package}\t${db:Status-Abbrev}\n"])
        .stdin(Stdio::null())
        .output()
        .context("cannot run dpkg-query")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let there = installed(&text);
    let missing = needs.iter().filter(|need| match need.newer {
        Some(program) => !Path::new(program).exists(),
        None => !there.contains(need.package),
    });
    Ok(missing.copied().collect())
}

fn names<'a>(needs: &[&'a Need]) -> Vec<&'a str> {
    needs.iter().map(|need| need.package).collect()
}

/// The packages that are wholly installed, without their architecture.
fn installed(dpkg: &str) -> HashSet<&str> {
    dpkg.lines()
        .filter_map(|line| line.split_once('\t'))
        .filter(|(_, status)| status.starts_with("ii"))
        .map(|(name, _)| name.split(':').next().unwrap_or(name))
        .collect()
}

fn agreed() -> Result<bool> {
    print!("install them now? [Y/n] ");
    std::io::stdout().flush().context("cannot ask")?;
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    let answer = answer.trim().to_lowercase();
    Ok(answer.is_empty() || answer == "y" || answer == "yes")
}

#[cfg(test)]
mod tests {
    use super::installed;

    #[test]
    fn only_whole_installations_count() {
        let text = "gcc\tii \nlibvirt-dev:amd64\tii \ncpio\trc \nqemu\tiU \n";
        let there = installed(text);
        assert!(there.contains("gcc") && there.contains("libvirt-dev"));
        assert!(!there.contains("cpio") && !there.contains("qemu"));
    }
}
