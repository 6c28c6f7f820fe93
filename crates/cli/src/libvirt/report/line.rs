//! How far a job is, as one line.

use std::io::Write;

use logchain_host::progress::{Amount, Phase, Progress};

use super::is_shown;

/// Columns of a terminal that does not say how wide it is.
const WIDTH: usize = 80;

/// After so many milliseconds in one phase a line says for how long it waits.
const LONG: u64 = 2000;

/// Writes over the terminal's last line.
pub(super) fn show(line: &str) {
    is_shown(true);
    let mut out = std::io::stderr().lock();
    let _ = write!(out, "\r{line}\x1b[K").and_then(|()| out.flush());
}

/// Makes room for what is said for good.
pub(crate) fn clear() {
    if is_shown(false) {
        let mut out = std::io::stderr().lock();
        let _ = write!(out, "\r\x1b[K").and_then(|()| out.flush());
    }
}

/// One column less than there are: where the last one is written some terminals go on below.
pub(super) fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    match columns {
        0 => WIDTH,
        columns => columns,
    }
    .saturating_sub(1)
}

/// Pure: one line, of at most `width` columns: what would not fit is left out, the least
/// important first. `bar`: with one.
pub(super) fn of(progress: &Progress, bar: bool, width: usize) -> String {
    let mut line = words(progress).to_owned();
    let mut add = |more: String| {
        let fits = line.chars().count() + more.chars().count() <= width;
        if fits {
            line.push_str(&more);
        }
    };
    let goal = progress.goal().filter(|goal| goal.total > 0);
    if let Some(goal) = goal {
        let (done, total) = (goal.done.min(goal.total), goal.total);
        let share = |of: u64| u128::from(done) * u128::from(of) / u128::from(total.max(1));
        if bar {
            let full = usize::try_from(share(20)).unwrap_or(20);
            add(format!(" [{}{}]", "#".repeat(full), "-".repeat(20 - full)));
        }
        add(format!(" {} %", share(100)));
    }
    for (name, amount) in [("memory", progress.memory), ("disks", progress.disks)] {
        if let (Phase::Memory, Some(amount)) = (progress.phase, amount) {
            add(format!(", {name} {}", text(amount)));
        }
    }
    if let Some(log) = progress.log {
        add(format!(", log {}", text(log)));
    }
    if let (Some(_), Some(rate)) = (goal, progress.rate) {
        let rate = Amount {
            done: rate,
            total: rate,
        };
        add(format!(", {}/s", text(rate)));
    }
    match progress.seconds_left {
        Some(seconds) => add(format!(", {seconds} s left")),
        None if progress.elapsed_ms >= LONG => {
            add(format!(", for {} s", progress.elapsed_ms / 1000));
        }
        None => {}
    }
    line.chars().take(width).collect()
}

fn words(progress: &Progress) -> &'static str {
    match progress.phase {
        Phase::Prepare => "waiting for the destination to be ready",
        Phase::HeadStart => "sending the log ahead",
        Phase::Memory => "migrating",
        Phase::Switchover => "the guest moves over",
        Phase::SourceEnd => "waiting for the source to end",
        Phase::Arrival if progress.goal().is_some() => "bringing the log over",
        Phase::Arrival => "waiting for the log to be confirmed",
        Phase::Undo => "putting all back as it was",
        _ => "at work",
    }
}

/// `1.5 of 4.0 MiB`; the total only while it is not reached.
fn text(amount: Amount) -> String {
    let all = amount.total.max(amount.done);
    let (unit, name, decimals) = match all {
        0..0x400 => (1.0, "bytes", 0),
        0x400..0x10_0000 => (1024.0, "KiB", 1),
        0x10_0000..0x4000_0000 => (1024.0 * 1024.0, "MiB", 1),
        _ => (1024.0 * 1024.0 * 1024.0, "GiB", 2),
    };
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let shown = |n: u64| format!("{:.decimals$}", n as f64 / unit);
    if amount.left() == 0 {
        return format!("{} {name}", shown(amount.done));
    }
    format!("{} of {} {name}", shown(amount.done), shown(amount.total))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn line(progress: &Progress, bar: bool, width: usize) -> String {
        of(&progress.at_rate(progress.rate), bar, width)
    }

    fn part(done: u64, total: u64) -> Option<Amount> {
        let (done, total) = (done * MIB, total * MIB);
        Some(Amount { done, total })
    }

    fn standing(phase: Phase) -> Progress {
        Progress {
            elapsed_ms: 1000,
            ..Progress::of(phase)
        }
    }

    #[test]
    fn each_phase_says_what_is_waited_for() {
        let copying = Progress {
            memory: part(40, 96),
            log: part(64, 64),
            rate: Some(28 * MIB),
            ..standing(Phase::Memory)
        };
        assert_eq!(
            line(&copying, true, 200),
            "migrating [########------------] 41 %, memory 40.0 of 96.0 MiB, log 64.0 MiB, \
             28.0 MiB/s, 2 s left"
        );
        let ahead = Progress {
            log: part(512, 1024),
            rate: Some(0),
            ..standing(Phase::HeadStart)
        };
        assert_eq!(
            line(&ahead, false, 200),
            "sending the log ahead 50 %, log 0.50 of 1.00 GiB, 0 bytes/s"
        );
        let waits = Progress {
            elapsed_ms: 7000,
            log: Some(Amount {
                done: 700,
                total: 0,
            }),
            ..standing(Phase::SourceEnd)
        };
        assert_eq!(
            line(&waits, true, 200),
            "waiting for the source to end, log 700 bytes, for 7 s"
        );
        let rest = Progress {
            log: part(1, 4),
            ..standing(Phase::Arrival)
        };
        assert_eq!(
            line(&rest, false, 200),
            "bringing the log over 25 %, log 1.0 of 4.0 MiB"
        );
        let there = Progress {
            log: part(4, 4),
            ..standing(Phase::Arrival)
        };
        assert_eq!(
            line(&there, true, 200),
            "waiting for the log to be confirmed, log 4.0 MiB"
        );
    }

    #[test]
    fn a_narrow_terminal_gets_no_second_line() {
        let copying = Progress {
            memory: part(40, 96),
            disks: part(1, 1000),
            log: part(64, 64),
            rate: Some(28 * MIB),
            ..standing(Phase::Memory)
        };
        for width in 0..140 {
            let line = line(&copying, true, width);
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
        assert_eq!(line(&copying, true, 12), "migrating");
        // What is left out leaves room for what is shorter.
        assert_eq!(line(&copying, true, 20), "migrating 3 %");
    }

    #[test]
    fn no_figure_overflows() {
        let most = Some(Amount {
            done: u64::MAX,
            total: u64::MAX,
        });
        let most = Progress {
            memory: most,
            disks: most,
            log: most,
            rate: Some(u64::MAX),
            ..standing(Phase::Memory)
        };
        assert!(line(&most, true, 300).contains("100 %"));
    }
}
