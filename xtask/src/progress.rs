//! What is under way, for how long already: on a terminal a line that counts, in
//! a log a line when it begins and one when it ends.

use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A step under way; it ends with [`Progress::done`], or, failed, when dropped.
pub(crate) struct Progress {
    what: String,
    started: Instant,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

/// Says what begins now.
pub(crate) fn begin(what: impl Into<String>) -> Progress {
    let what = what.into();
    let started = Instant::now();
    let ticker = std::io::stderr().is_terminal().then(|| {
        let (stop, stopped) = channel();
        let text = what.clone();
        let thread = std::thread::spawn(move || {
            loop {
                let seconds = started.elapsed().as_secs();
                eprint!("\r  … {text} {seconds} s ");
                let _ = std::io::stderr().flush();
                let next = stopped.recv_timeout(Duration::from_secs(1));
                if !matches!(next, Err(RecvTimeoutError::Timeout)) {
                    return;
                }
            }
        });
        (stop, thread)
    });
    if ticker.is_none() {
        eprintln!("  … {what}");
    }
    Progress {
        what,
        started,
        ticker,
    }
}

impl Progress {
    /// It went well.
    pub(crate) fn done(mut self) {
        self.end("done");
    }

    fn end(&mut self, word: &str) {
        let seconds = self.started.elapsed().as_secs_f32();
        match self.ticker.take() {
            Some((stop, thread)) => {
                drop(stop);
                let _ = thread.join();
                eprintln!("\r  {word}: {} ({seconds:.1} s)\x1b[K", self.what);
            }
            None => eprintln!("  {word}: {} ({seconds:.1} s)", self.what),
        }
        self.what.clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.what.is_empty() {
            self.end("not done");
        }
    }
}
