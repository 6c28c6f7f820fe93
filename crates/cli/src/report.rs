//! Tells what happens: sentences for people, or one JSON object a line.

use std::io::Write;

use serde_json::Value;

use crate::args::Format;

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
        // Whoever closed our output does not want to hear of it.
        let _ = match self.format {
            Format::Text if sentence.is_empty() => Ok(()),
            Format::Text => writeln!(out, "{sentence}"),
            Format::Json => writeln!(out, "{event}"),
        };
        let _ = out.flush();
    }

    /// Something is amiss, but it goes on.
    pub(crate) fn warn(self, sentence: &str) {
        match self.format {
            Format::Text => eprintln!("logchain: {sentence}"),
            Format::Json => {
                self.event(
                    "",
                    &serde_json::json!({ "event": "warning", "reason": sentence }),
                );
            }
        }
    }

    /// Where a job stands; for people only, on one line that is overwritten.
    pub(crate) fn progress(self, line: &str) {
        if self.format == Format::Text {
            eprint!("\r{line}\x1b[K");
        }
    }

    /// No more progress: what follows begins a new line.
    pub(crate) fn progress_done(self) {
        if self.format == Format::Text {
            eprintln!();
        }
    }
}
