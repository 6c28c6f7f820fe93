//! Shows what a job tells: sentences for people, or one JSON object a line.
//!
//! What happens goes to the standard output; what people should do or mend, and where a
//! job stands, to the standard error. Whoever closed our output does not want to hear of
//! it, and a terminal that is gone must not end a clean-up: no failure to write is one.
//!
//! Must not know: what a job does.

mod line;
mod sentence;

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use logchain::args::Format;
use logchain_host::{Event, Events, Listener};

pub(crate) use sentence::{Stream, sentence, stream};

/// Between two events of progress.
const EVENTS: Duration = Duration::from_secs(1);

/// Between two plain lines of it.
const LINES: Duration = Duration::from_secs(5);

/// Who is shown how far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// A terminal.
    Terminal,
    /// A terminal, and programs.
    Plain,
    /// These, and whoever reads a pipe.
    Verbose,
}

/// To be shown in this format.
pub(crate) fn events(format: Format, watch: Watch) -> Events {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let progress = match (format, watch) {
        (Format::Json, Watch::Terminal) => Shown::Never,
        (Format::Json, Watch::Plain | Watch::Verbose) => Shown::Events,
        (Format::Text, _) if std::io::stderr().is_terminal() && !dumb => Shown::Line,
        (Format::Text, Watch::Verbose) => Shown::Lines,
        (Format::Text, Watch::Terminal | Watch::Plain) => Shown::Never,
    };
    Events::to(Report { format, progress })
}

/// How the progress of a job is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Never,
    Events,
    /// One line of a terminal, written over.
    Line,
    Lines,
}

#[derive(Clone, Copy, Debug)]
struct Report {
    format: Format,
    progress: Shown,
}

impl Listener for Report {
    fn hear(&self, event: &Event) {
        let is_progress = matches!(event, Event::Phase { .. } | Event::Progress(_));
        if self.format == Format::Json && !is_progress || self.progress == Shown::Events {
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{}", event.to_json()).and_then(|()| out.flush());
        }
        if let Event::Progress(progress) = event {
            match self.progress {
                Shown::Line => line::show(&line::of(progress, true, line::width())),
                Shown::Lines => {
                    let line = line::of(progress, false, usize::MAX);
                    let _ = writeln!(std::io::stderr(), "{line}");
                }
                Shown::Never | Shown::Events => {}
            }
            return;
        }
        self.say(event);
    }

    fn progress_every(&self) -> Option<Duration> {
        match self.progress {
            Shown::Never => None,
            Shown::Events => Some(EVENTS),
            Shown::Line => Some(Duration::ZERO),
            Shown::Lines => Some(LINES),
        }
    }

    fn progress_is_over(&self) {
        line::clear();
    }
}

impl Report {
    fn say(self, event: &Event) {
        let sentence = sentence(event);
        if sentence.is_empty() {
            return;
        }
        match (stream(event), self.format) {
            (Stream::Out, Format::Text) => {
                line::clear();
                let mut out = std::io::stdout().lock();
                let _ = writeln!(out, "{sentence}").and_then(|()| out.flush());
            }
            // People hear of a failure in either format.
            (Stream::Failure, _) | (Stream::Note, Format::Text) => {
                line::clear();
                for line in sentence.lines() {
                    let _ = writeln!(std::io::stderr(), "logchain: {line}");
                }
            }
            (Stream::Out | Stream::Note, Format::Json) => {}
        }
    }
}

/// Whether the terminal's last line is one of these: a process has one terminal.
static SHOWN: Mutex<bool> = Mutex::new(false);

/// Says so, and gives what was said before.
fn is_shown(now: bool) -> bool {
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::replace(&mut shown, now)
}
