//! A Ceph cluster of a test's own, with an S3 gateway: one monitor, one OSD that
//! keeps objects in memory, no manager.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use object_store::aws::{AwsAuthorizer, AwsCredential};
use tempfile::TempDir;
use uuid::Uuid;

use crate::child::{Server, free_address, installed, run};
use crate::signed;

pub(crate) const BUCKET: &str = "console-logs";
pub(crate) const KEY: &str = "test";

pub(crate) struct Ceph {
    // Ended before their folder goes.
    _servers: Vec<Server>,
    _folder: TempDir,
    pub(crate) address: SocketAddr,
}

impl Ceph {
    /// Starts one, with an empty bucket.
    pub(crate) async fn start() -> Self {
        for _ in 0..3 {
            if let Some(ceph) = Self::try_start() {
                ceph.make_bucket().await;
                return ceph;
            }
        }
        panic!("a part of Ceph ends as soon as it starts");
    }

    /// `None` where somebody else took a port.
    fn try_start() -> Option<Self> {
        let parent = installed("ceph");
        std::fs::create_dir_all(&parent).unwrap();
        let folder = tempfile::tempdir_in(parent.canonicalize().unwrap()).unwrap();
        let at = folder.path();
        let (monitor, gateway) = (free_address(), free_address());
        let (cluster, osd) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
        let text = configuration(at, &cluster, monitor, gateway);
        std::fs::write(at.join("ceph.conf"), text).unwrap();
        for name in ["mon", "osd", "rgw"] {
            std::fs::create_dir(at.join(name)).unwrap();
        }
        keys(at);
        let of = |program, words: &[&str]| {
            let mut command = Command::new(program);
            command.arg("-c").arg(at.join("ceph.conf")).args(words);
            command.env("CEPH_ARGS", "").current_dir(at);
            command.stderr(std::process::Stdio::null());
            command
        };
        let serve = |program: &str, words: &[&str]| {
            Server::start(program, |command| {
                command.arg("-c").arg(at.join("ceph.conf"));
                // In the foreground: it stays a child of ours.
                command.arg("-f").args(words).current_dir(at);
                command.env("CEPH_ARGS", "");
            })
        };
        let address = format!("[v2:{monitor}]");
        run(&mut of(
            "monmaptool",
            &[
                "--create", "--fsid", &cluster, "--addv", "a", &address, "monmap",
            ],
        ));
        let make = [
            "-i",
            "a",
            "--mkfs",
            "--monmap",
            "monmap",
            "--keyring",
            "keyring",
        ];
        run(&mut of("ceph-mon", &make));
        let mut servers = vec![serve("ceph-mon", &["-i", "a"])];
        if !servers[0].gets_ready(|| TcpStream::connect(monitor).is_ok()) {
            return None;
        }
        run(&mut of(
            "ceph",
            &["--connect-timeout", "30", "osd", "new", &osd, "0"],
        ));
        run(&mut of(
            "ceph-osd",
            &["-i", "0", "--mkfs", "--osd-uuid", &osd],
        ));
        servers.push(serve("ceph-osd", &["-i", "0"]));
        // It waits for the OSD, and makes the gateway's pools.
        run(&mut of(
            "radosgw-admin",
            &[
                "-n",
                "client.rgw",
                "user",
                "create",
                "--uid",
                "test",
                "--display-name",
                "test",
                "--access-key",
                KEY,
                "--secret-key",
                KEY,
            ],
        ));
        let mut server = serve("radosgw", &["-n", "client.rgw"]);
        if !server.gets_ready(|| TcpStream::connect(gateway).is_ok()) {
            return None;
        }
        servers.push(server);
        Some(Self {
            _servers: servers,
            _folder: folder,
            address: gateway,
        })
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn make_bucket(&self) {
        let url = format!("{}/{BUCKET}", self.endpoint());
        let key = AwsCredential {
            key_id: KEY.to_owned(),
            secret_key: KEY.to_owned(),
            token: None,
        };
        let sign = |request: &mut _| {
            AwsAuthorizer::new(&key, "s3", "us-east-1")
                .try_authorize(request, None)
                .unwrap();
        };
        assert_eq!(signed::send("PUT", &url, sign).await, 200);
    }
}

fn configuration(at: &Path, cluster: &str, monitor: SocketAddr, gateway: SocketAddr) -> String {
    let at = at.display();
    format!(
        "[global]
fsid = {cluster}
mon host = [v2:{monitor}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
keyring = {at}/keyring
run dir = {at}
crash dir = {at}
admin socket =
pid file =
log file =
mon cluster log file =
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
[mon.a]
mon data = {at}/mon
mon initial members = a
[osd.0]
osd data = {at}/osd
osd objectstore = memstore
memstore device bytes = 8589934592
[client.rgw]
rgw frontends = beast endpoint={gateway}
rgw data = {at}/rgw
# What was deleted leaves the memory.
rgw gc obj min wait = 1
rgw gc processor period = 1
rgw gc processor max time = 1
"
    )
}

fn keys(at: &Path) {
    for (n, (name, monitor)) in [
        ("mon.", "allow *"),
        ("client.admin", "allow *"),
        ("client.rgw", "allow *"),
        ("osd.0", "allow profile osd"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut command = Command::new("ceph-authtool");
        command.current_dir(at).arg("keyring");
        if n == 0 {
            command.arg("--create-keyring");
        }
        command.args(["--gen-key", "-n", name, "--cap", "mon", monitor]);
        command.args(["--cap", "osd", "allow *"]);
        run(&mut command);
    }
}
