//! The files that make a host a host: written once, before it starts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::boot::BootFiles;
use crate::command::PATH;
use crate::error::{Result, io_error};
use crate::tool::tool;

/// As the host sees it.
pub(crate) const SSHD_CONFIG: &str = "/var/lib/lab/sshd/config";

/// What differs between hosts.
#[derive(Debug)]
pub(crate) struct HostPlan<'a> {
    pub(crate) name: &'a str,
    pub(crate) address: &'a str,
    pub(crate) max_size: u64,
    pub(crate) max_backups: u32,
    pub(crate) stdio: &'a str,
    pub(crate) tls: bool,
    pub(crate) boot: &'a BootFiles,
    pub(crate) binary: Option<&'a Path>,
    pub(crate) sees: &'a [PathBuf],
}

/// Fills the state folder `state` with everything but what the hosts know of
/// each other.
pub(crate) fn write(state: &Path, plan: &HostPlan<'_>) -> Result<()> {
    for folder in [
        "etc/libvirt/hooks",
        "lab/bin",
        "lab/boot",
        "root/.ssh",
        "tmp",
        "var/cache/libvirt",
        "var/lib/lab/sshd",
        "var/lib/libvirt",
        "var/lib/logchain",
        "var/log/lab",
        "var/log/libvirt",
    ] {
        let folder = state.join(folder);
        fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
    }
    mode(&state.join("tmp"), 0o1777)?;
    mode(&state.join("root"), 0o700)?;
    mode(&state.join("root/.ssh"), 0o700)?;

    let text = |path: &str, text: String| {
        let path = state.join(path);
        fs::write(&path, text).map_err(io_error("write", &path))
    };
    let HostPlan { name, address, .. } = plan;
    text("address", address.to_string())?;
    // sshd refuses an account whose password field says locked, which root's
    // often does.
    text(
        "etc/shadow",
        "root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n".to_owned(),
    )?;
    mode(&state.join("etc/shadow"), 0o600)?;
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_err(io_error("read", "/proc/sys/kernel/random/uuid"))?;
    text(
        "etc/libvirt/libvirtd.conf",
        format!(
            "# libvirt refuses a migration between hosts of one uuid\n\
             host_uuid = \"{}\"\n\
             listen_tls = 0\nlisten_tcp = 1\nauth_tcp = \"none\"\nauth_unix_rw = \"none\"\n\
             listen_addr = \"0.0.0.0\"\n\
             log_outputs = \"3:file:/var/log/libvirt/libvirtd.log\"\n",
            uuid.trim()
        ),
    )?;
    text(
        "etc/libvirt/virtlogd.conf",
        format!(
            "max_size = {}\nmax_backups = {}\n\
             log_outputs = \"3:file:/var/log/libvirt/virtlogd.log\"\n",
            plan.max_size, plan.max_backups
        ),
    )?;
    text(
        "etc/libvirt/qemu.conf",
        format!(
            "user = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\nremember_owner = 0\n\
             security_driver = \"none\"\nseccomp_sandbox = 0\n\
             cgroup_controllers = []\nnamespaces = []\n\
             stdio_handler = \"{}\"\n\
             migration_address = \"0.0.0.0\"\nmigration_host = \"{name}\"\n{}",
            plan.stdio,
            if plan.tls {
                "migrate_tls_x509_cert_dir = \"/etc/libvirt/pki\"\n"
            } else {
                ""
            }
        ),
    )?;
    text(
        "etc/libvirt/hooks/qemu",
        "#!/bin/sh\n\
         # A guest that comes in begins with its XML on standard input.\n\
         [ \"$2\" = migrate ] || exit 0\n\
         if [ -e /etc/libvirt/hooks/refuse ]; then\n\
         \techo 'this host takes no guests' >&2\n\
         \texit 1\n\
         fi\n\
         cat >/dev/null\n"
            .to_owned(),
    )?;
    mode(&state.join("etc/libvirt/hooks/qemu"), 0o755)?;
    text(
        "var/lib/lab/sshd/config",
        format!(
            "Port 22\nAddressFamily inet\nHostKey /var/lib/lab/sshd/host_key\n\
             PidFile /run/sshd.pid\nLogLevel VERBOSE\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nUsePAM no\nUseDNS no\n\
             MaxStartups 100\nMaxSessions 100\nPrintMotd no\n\
             SetEnv PATH={PATH}\nSubsystem sftp internal-sftp\n"
        ),
    )?;
    text(
        "root/.ssh/config",
        "Host *\n\tStrictHostKeyChecking yes\n\tBatchMode yes\n\tUpdateHostKeys no\n".to_owned(),
    )?;
    let sees = plan.sees.iter().map(|path| format!("{}\n", path.display()));
    text("lab/sees", sees.collect())?;
    keygen(&state.join("var/lib/lab/sshd/host_key"), name)?;
    keygen(&state.join("root/.ssh/id_ed25519"), name)?;

    link(&plan.boot.kernel, &state.join("lab/boot/vmlinuz"))?;
    link(&plan.boot.initramfs, &state.join("lab/boot/initramfs"))?;
    if let Some(binary) = plan.binary {
        link(binary, &state.join("lab/bin/logchain"))?;
        // A program without a second one is as welcome: a test may bring its own.
        let libvirt = binary.with_file_name("logchain-libvirt");
        if libvirt.is_file() {
            link(&libvirt, &state.join("lab/bin/logchain-libvirt"))?;
        }
    }
    Ok(())
}

/// Tells each host all names, addresses and keys. `hosts`: state folder, name, address.
pub(crate) fn introduce(hosts: &[(std::path::PathBuf, String, String)]) -> Result<()> {
    let mut names = "127.0.0.1 localhost\n".to_owned();
    let (mut known, mut allowed) = (String::new(), String::new());
    for (state, name, address) in hosts {
        names += &format!("{address} {name}\n");
        let host_key = read(&state.join("var/lib/lab/sshd/host_key.pub"))?;
        known += &format!("{name},{address} {host_key}");
        allowed += &read(&state.join("root/.ssh/id_ed25519.pub"))?;
    }
    for (state, ..) in hosts {
        for (file, text) in [
            ("etc/hosts", &names),
            ("root/.ssh/known_hosts", &known),
            ("root/.ssh/authorized_keys", &allowed),
        ] {
            let path = state.join(file);
            fs::write(&path, text).map_err(io_error("write", &path))?;
            mode(&path, if file == "etc/hosts" { 0o644 } else { 0o600 })?;
        }
    }
    Ok(())
}

/// Gives all hosts one certificate, for both ends of a connection, of an authority
/// that nobody else knows.
pub(crate) fn certify(lab: &Path, hosts: &[(std::path::PathBuf, String, String)]) -> Result<()> {
    let names: Vec<_> = hosts.iter().map(|(_, n, _)| format!("DNS:{n}")).collect();
    let extensions = format!(
        "subjectAltName={}\nextendedKeyUsage=serverAuth,clientAuth\n\
         keyUsage=digitalSignature,keyEncipherment\n",
        names.join(",")
    );
    let folder = lab.join("pki");
    fs::create_dir(&folder).map_err(io_error("create", &folder))?;
    let path = folder.join("extensions");
    fs::write(&path, extensions).map_err(io_error("write", &path))?;
    let openssl = |command: &str| {
        let args: Vec<&str> = ["openssl"].into_iter().chain(command.split(' ')).collect();
        let limit = Duration::from_secs(20);
        tool("a certificate to be made", &args, &folder, limit)
    };
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=lab -keyout ca-key.pem \
         -out ca-cert.pem -addext keyUsage=critical,keyCertSign",
    )?;
    openssl("req -newkey rsa:2048 -nodes -subj /CN=host -keyout server-key.pem -out request.pem")?;
    openssl(
        "x509 -req -days 2 -in request.pem -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial \
         -extfile extensions -out server-cert.pem",
    )?;
    for (state, name, _) in hosts {
        // An agent has a certificate of its own on each host.
        let own = folder.join(format!("{name}.extensions"));
        let text = format!(
            "subjectAltName=DNS:{name}\nextendedKeyUsage=serverAuth,clientAuth\n\
             keyUsage=digitalSignature\n"
        );
        fs::write(&own, text).map_err(io_error("write", &own))?;
        openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} \
             -keyout {name}-key.pem -out {name}.pem"
        ))?;
        openssl(&format!(
            "x509 -req -days 2 -in {name}.pem -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial \
             -extfile {name}.extensions -out {name}-cert.pem"
        ))?;
        let there = state.join("etc/libvirt/pki");
        fs::create_dir(&there).map_err(io_error("create", &there))?;
        for (from, to) in [
            ("ca-cert.pem", "ca-cert.pem"),
            ("server-cert.pem", "server-cert.pem"),
            ("server-key.pem", "server-key.pem"),
            ("server-cert.pem", "client-cert.pem"),
            ("server-key.pem", "client-key.pem"),
            (&format!("{name}-cert.pem"), "agent-cert.pem"),
            (&format!("{name}-key.pem"), "agent-key.pem"),
        ] {
            let to = there.join(to);
            fs::copy(folder.join(from), &to).map_err(io_error("write", &to))?;
        }
    }
    Ok(())
}

fn keygen(path: &Path, comment: &str) -> Result<()> {
    let (folder, file) = (path.parent().unwrap_or(path), path.to_string_lossy());
    let args = [
        "ssh-keygen",
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-C",
        comment,
        "-f",
        &file,
    ];
    tool("a key to be made", &args, folder, Duration::from_secs(20)).map(drop)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(io_error("read", path))
}

fn mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(io_error("set the mode of", path))
}

fn link(to: &Path, path: &Path) -> Result<()> {
    std::os::unix::fs::symlink(to, path).map_err(io_error("link", path))
}
