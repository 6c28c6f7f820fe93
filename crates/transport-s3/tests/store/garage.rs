//! Garage: a good store for other things, that takes a condition and overwrites.

use std::net::TcpStream;
use std::time::Duration;

use logchain_core::transport::{Error, LogTransportExt, Prefix};

use crate::child::{Server, free_address, installed};
use crate::open_as;

const BUCKET: &str = "console-logs";

/// It takes no others than of such a form.
const ID: &str = "GK000000000000000000000000";
const SECRET: &str = "0000000000000000000000000000000000000000000000000000000000000000";

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`cargo xtask test --stores` runs it"]
async fn it_is_refused() {
    let program = installed("garage/bin/garage");
    assert!(program.is_file(), "`cargo xtask test --stores` installs it");
    let folder = tempfile::tempdir().unwrap();
    let (at, address) = (folder.path(), free_address());
    let text = format!(
        "metadata_dir = \"{0}/meta\"
data_dir = \"{0}/data\"
db_engine = \"sqlite\"
replication_factor = 1
rpc_bind_addr = \"{1}\"
rpc_public_addr = \"{1}\"
rpc_secret = \"{SECRET}\"
[s3_api]
s3_region = \"us-east-1\"
api_bind_addr = \"{address}\"
",
        at.display(),
        free_address(),
    );
    let configuration = at.join("garage.toml");
    std::fs::write(&configuration, text).unwrap();
    let mut server = Server::start(&program, |command| {
        command.arg("-c").arg(&configuration);
        command.args(["server", "--single-node", "--default-bucket"]);
        command.env("GARAGE_DEFAULT_ACCESS_KEY", ID);
        command.env("GARAGE_DEFAULT_SECRET_KEY", SECRET);
        command.env("GARAGE_DEFAULT_BUCKET", BUCKET);
    });
    assert!(server.gets_ready(|| TcpStream::connect(address).is_ok()));
    let url = format!("s3://{BUCKET}/p");
    let endpoint = format!("http://{address}");
    let transport = open_as(&endpoint, &url, PATIENCE, &[], (ID, SECRET));
    let refused = transport.probe().await.unwrap_err();
    assert!(matches!(refused, Error::Denied { .. }), "{refused:?}");
    let said = refused.to_string();
    assert!(
        said.contains("overwrites") && !said.contains('\n'),
        "{said}"
    );
    assert!(transport.list_all(&Prefix::All).await.unwrap().is_empty());
}
