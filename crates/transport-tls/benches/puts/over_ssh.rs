//! The same puts over ssh: an sshd that this process starts for one connection, and this program
//! again behind it in place of `logchain transport serve`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use logchain_core::transport::MemoryTransport;
use logchain_transport_ssh::{SshOptions, SshTarget, SshTransport};
use tempfile::TempDir;

const SSHD: &str = "/usr/sbin/sshd";

/// What the far side runs.
pub(crate) async fn serve() {
    let memory = Arc::new(MemoryTransport::new());
    let (input, output) = (tokio::io::stdin(), tokio::io::stdout());
    logchain_transport_ssh::serve(memory, input, output)
        .await
        .unwrap();
}

fn key(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    let command = command.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
    assert!(command.arg(path).status().unwrap().success());
}

/// A connection, and the folder that it needs; nothing where no sshd can be started.
pub(crate) async fn connect() -> Option<(SshTransport, TempDir)> {
    if !Path::new(SSHD).exists() || !Path::new("/run/sshd").exists() {
        println!("ssh: not measured, since there is no {SSHD} or no /run/sshd");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    key(&at("host"));
    key(&at("user"));
    let sshd = format!(
        "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n",
        at("host").display(),
        at("user.pub").display()
    );
    fs::write(at("sshd_config"), sshd).unwrap();
    let ssh = format!(
        "Host *\nProxyCommand {SSHD} -i -f {}\nIdentityFile {}\nIdentitiesOnly yes\n\
         StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n",
        at("sshd_config").display(),
        at("user").display()
    );
    fs::write(at("config"), ssh).unwrap();
    let options = SshOptions {
        remote_logchain: std::env::current_exe().unwrap().into(),
        extra_args: vec!["-F".into(), at("config").into()],
        sftp: false,
        ..SshOptions::default()
    };
    let target = SshTarget::on("bench").unwrap();
    match SshTransport::connect(target, options).await {
        Ok(transport) => Some((transport, folder)),
        Err(e) => {
            println!("ssh: not measured: {e}");
            None
        }
    }
}
