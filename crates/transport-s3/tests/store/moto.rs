//! A moto server of a test's own, ended with it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// It takes a second to start; a busy machine makes it more.
const START: Duration = Duration::from_secs(60);

pub(crate) const BUCKET: &str = "console-logs";

pub(crate) struct Moto {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Moto {
    /// Starts one, with an empty bucket. Before anything else of a test runs.
    #[expect(
        clippy::disallowed_methods,
        reason = "nothing else runs in the runtime yet"
    )]
    pub(crate) fn start() -> Self {
        let program = program();
        // Somebody else may take the port in between.
        for _ in 0..3 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let mut child = Command::new(&program)
                .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let started = Instant::now();
            while matches!(child.try_wait(), Ok(None)) {
                if TcpStream::connect(address).is_ok() {
                    let moto = Self { child, address };
                    assert!(
                        moto.raw("PUT", &format!("/{BUCKET}"), b"")
                            .contains(" 200 ")
                    );
                    return moto;
                }
                assert!(started.elapsed() < START, "moto does not start");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        panic!("{} ends as soon as it starts", program.display());
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One request as it is written, without any client's help.
    pub(crate) fn raw(&self, method: &str, target: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(START)).unwrap();
        let (address, len) = (self.address, body.len());
        let authorization = "AWS4-HMAC-SHA256 Credential=test/20300101/us-east-1/s3/aws4_request";
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Authorization: {authorization}\r\nContent-Length: {len}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `LOGCHAIN_MOTO`, or where `cargo xtask test` installs it.
fn program() -> PathBuf {
    let installed = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../target/moto/bin/moto_server"
    );
    let path = std::env::var_os("LOGCHAIN_MOTO").map_or_else(|| installed.into(), PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not there: `cargo xtask test` installs it, and so do\n  \
         /usr/bin/python3 -m venv target/moto && target/moto/bin/pip install 'moto[server]'",
        path.display()
    );
    path
}
