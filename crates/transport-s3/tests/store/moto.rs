//! A moto server of a test's own, ended with it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use crate::child::{START, Server, free_address, installed};

pub(crate) const BUCKET: &str = "console-logs";

pub(crate) struct Moto {
    _server: Server,
    pub(crate) address: SocketAddr,
}

impl Moto {
    /// Starts one, with an empty bucket. Before anything else of a test runs.
    pub(crate) fn start() -> Self {
        let program = program();
        // Somebody else may take the port in between.
        for _ in 0..3 {
            let address = free_address();
            let mut server = Server::start(&program, |command| {
                command.args(["-H", "127.0.0.1", "-p", &address.port().to_string()]);
            });
            if server.gets_ready(|| TcpStream::connect(address).is_ok()) {
                let moto = Self {
                    _server: server,
                    address,
                };
                let answer = moto.raw("PUT", &format!("/{BUCKET}"), b"");
                assert!(answer.contains(" 200 "), "{answer}");
                return moto;
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

/// `LOGCHAIN_MOTO`, or where `cargo xtask test` installs it.
fn program() -> PathBuf {
    let path = std::env::var_os("LOGCHAIN_MOTO")
        .map_or_else(|| installed("moto/bin/moto_server"), PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not there: `cargo xtask test` installs it, and so do\n  \
         /usr/bin/python3 -m venv target/moto && target/moto/bin/pip install 'moto[server]'",
        path.display()
    );
    path
}
