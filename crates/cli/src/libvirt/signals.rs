//! INT, TERM and HUP: each of them asks the job to end cleanly. A daemon is not ended by HUP: it
//! loads its configuration anew.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use logchain_host::Stop;
use logchain_host::stop::stop;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};

/// Signals that follow each other more closely are one: a terminal that is closed sends two at
/// once, and so does `timeout`.
const ONE: Duration = Duration::from_millis(500);

/// From now on no signal of these ends the process by itself. One that is ignored (`nohup`)
/// stays so.
pub(crate) fn catch() -> io::Result<Stop> {
    catch_of(&[
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ])
}

/// As [`catch`], but HUP notifies whoever loads the configuration. One that comes meanwhile is
/// kept for afterwards.
pub(crate) fn catch_for_daemon() -> io::Result<(Stop, Arc<Notify>)> {
    let stop = catch_of(&[SignalKind::interrupt(), SignalKind::terminate()])?;
    let reload = Arc::new(Notify::new());
    let notified = Arc::clone(&reload);
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            notified.notify_one();
        }
    });
    Ok((stop, reload))
}

fn catch_of(kinds: &[SignalKind]) -> io::Result<Stop> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = ignored(&status);
    let (tell, mut signalled) = mpsc::channel(1);
    for kind in kinds.iter().copied() {
        let bit = u32::try_from(kind.as_raw_value().saturating_sub(1)).unwrap_or(0);
        if ignored.checked_shr(bit).unwrap_or(0) & 1 == 1 {
            continue;
        }
        let mut signals = signal(kind)?;
        let tell = tell.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() && tell.send(()).await.is_ok() {}
        });
    }
    let (request, stop) = stop();
    tokio::spawn(async move {
        // So that the request is never dropped, whatever is ignored.
        let _tell = tell;
        let mut last: Option<Instant> = None;
        while signalled.recv().await.is_some() {
            if last.is_none_or(|last| last.elapsed() > ONE) {
                request.ask();
            }
            last = Some(Instant::now());
        }
    });
    Ok(stop)
}

/// The signals that a process ignores, lowest bit first, from its status in /proc.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_process_status() {
        let hup = "Name:\tx\nSigBlk:\t00000000000000ff\nSigIgn:\t0000000000001001\nSigCgt:\t2\n";
        assert_eq!(ignored(hup), 0x1001);
        assert_eq!(ignored(""), 0);
        assert_eq!(ignored("SigIgn:\tnonsense\n"), 0);
    }
}
