//! Tells what happens: sentences for people, or one JSON object a line.
//!
//! Whoever closed our output does not want to hear of it, and a terminal that is
//! gone must not end a clean-up: no failure to write is one.

use std::io::Write;

use serde_json::Value;

use crate::args::Format;
use crate::meter;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    format: Format,
}

impl Report {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    pub(crate) fn is_for_programs(self) -> bool {
        self.format == Format::Json
    }

    /// Something happened. `sentence` is for people, `event` for programs.
    pub(crate) fn event(self, sentence: &str, event: &Value) {
        if self.format == Format::Text && !sentence.is_empty() {
            meter::clear();
        }
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
        meter::clear();
        let _ = writeln!(std::io::stderr(), "logchain: {sentence}");
    }
}
