//! Tells what happens: sentences for people, or one JSON object a line.
//!
//! Whoever closed our output does not want to hear of it, and a terminal that is
//! gone must not end a clean-up: no failure to write is one.

use std::io::{IsTerminal, Stderr, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::args::Format;

/// Between two lines of progress where they stay.
const EVERY: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    format: Format,
}

impl Report {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Something happened. `sentence` is for people, `event` for programs.
    pub(crate) fn event(self, sentence: &str, event: &Value) {
        let mut out = std::io::stdout().lock();
        let _ = match self.format {
            Format::Text if sentence.is_empty() => Ok(()),
            Format::Text => writeln!(out, "{sentence}"),
            Format::Json => writeln!(out, "{event}"),
        };
        let _ = out.flush();
    }

    /// Something that people should do or know, beside what happens.
    pub(crate) fn note(self, sentence: &str, event: &Value) {
        match self.format {
            Format::Text => self.fail(sentence),
            Format::Json => self.event("", event),
        }
    }

    /// Something is amiss, but it goes on.
    pub(crate) fn warn(self, sentence: &str) {
        let event = serde_json::json!({ "event": "warning", "reason": sentence });
        self.note(sentence, &event);
    }

    /// Something failed: people hear of it in either format.
    pub(crate) fn fail(self, sentence: &str) {
        let _ = writeln!(std::io::stderr(), "logchain: {sentence}");
    }

    /// Where a job stands; for people only.
    pub(crate) fn progress(self, verbose: bool) -> Progress<Stderr> {
        let err = std::io::stderr();
        let terminal = err.is_terminal();
        let wanted = self.format == Format::Text && (terminal || verbose);
        Progress::new(wanted.then_some(err), terminal)
    }
}

/// Where a job stands: on a terminal one line that is overwritten, elsewhere a
/// plain line now and then.
pub(crate) struct Progress<W: Write> {
    out: Option<W>,
    terminal: bool,
    /// What was written last, and when.
    last: Option<(String, Instant)>,
}

impl<W: Write> Progress<W> {
    fn new(out: Option<W>, terminal: bool) -> Self {
        let last = None;
        Self {
            out,
            terminal,
            last,
        }
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.out.is_some()
    }

    pub(crate) fn show(&mut self, line: &str, now: Instant) {
        let Some(out) = &mut self.out else { return };
        let written = if self.terminal {
            write!(out, "\r{line}\x1b[K").and_then(|()| out.flush())
        } else {
            let same = |(last, at): &(String, Instant)| {
                last == line || now.saturating_duration_since(*at) < EVERY
            };
            if self.last.as_ref().is_some_and(same) {
                return;
            }
            writeln!(out, "{line}")
        };
        let _ = written;
        self.last = Some((line.to_owned(), now));
    }
}

impl<W: Write> Drop for Progress<W> {
    /// What follows begins a new line.
    fn drop(&mut self) {
        if let (Some(out), true, Some(_)) = (&mut self.out, self.terminal, &self.last) {
            let _ = writeln!(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(terminal: bool) -> String {
        let mut out = Vec::new();
        let start = Instant::now();
        let mut progress = Progress::new(Some(&mut out), terminal);
        for (after, line) in [(0, "one"), (1, "two"), (6, "three"), (20, "three")] {
            progress.show(line, start + Duration::from_secs(after));
        }
        drop(progress);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_a_terminal_is_written_over() {
        assert_eq!(
            shown(true),
            "\rone\x1b[K\rtwo\x1b[K\rthree\x1b[K\rthree\x1b[K\n"
        );
        assert_eq!(shown(false), "one\nthree\n");
    }

    #[test]
    fn nothing_shown_is_nothing_written() {
        let mut out = Vec::new();
        drop(Progress::new(Some(&mut out), true));
        Progress::<Vec<u8>>::new(None, true).show("lost", Instant::now());
        assert_eq!(out, b"");
    }
}
