//! Programs of a test's own, ended with it.

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server takes seconds to start; a busy machine makes it many.
pub(crate) const START: Duration = Duration::from_secs(60);

/// One that runs.
pub(crate) struct Server(Child);

impl Server {
    /// Ends with this thread at the latest, however that ends.
    pub(crate) fn start(program: impl AsRef<OsStr>, setup: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command.stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        setup(&mut command);
        Self(command.spawn().unwrap())
    }

    pub(crate) fn is_over(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// Whether it got ready; not if it ended by itself.
    pub(crate) fn gets_ready(&mut self, ready: impl FnMut() -> bool) -> bool {
        let mut ready = ready;
        let started = Instant::now();
        while !self.is_over() {
            if ready() {
                return true;
            }
            assert!(started.elapsed() < START, "a server does not start");
            pause();
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end, which must be good and soon.
pub(crate) fn run(command: &mut Command) {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = Server(command.spawn().unwrap());
    let started = Instant::now();
    while !child.is_over() {
        assert!(started.elapsed() < START, "{command:?} does not end");
        pause();
    }
    let status = child.0.wait().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// A port that nobody has now; somebody may take it before it is used.
pub(crate) fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap()
}

/// What `cargo xtask test` installs there.
pub(crate) fn installed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target")
        .join(path)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's server starts before anything else of the test runs"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}
