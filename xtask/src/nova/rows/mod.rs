//! The rows: what is done to servers, and what becomes of their logs.

mod live;

use anyhow::Result;

use super::stage::{Look, Stage};

/// Something that is done to servers.
pub(crate) struct Row {
    /// By which it is chosen on the command line.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) what: &'static str,
    pub(crate) run: fn(&Stage<'_>) -> Result<Vec<Outcome>>,
}

/// What came of a row, for one server.
pub(crate) struct Outcome {
    /// Which part of the row, where it has several.
    pub(crate) part: String,
    pub(crate) before: Look,
    pub(crate) after: Look,
    /// What a reader saw meanwhile, where one read.
    pub(crate) reads: String,
    /// In words: what is there, what is not.
    pub(crate) verdict: String,
    /// Whether it is what is promised with agents.
    pub(crate) good: bool,
}

/// All of them, in the order in which they are run.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "live",
        what: "live migration with block migration",
        run: live::once,
    },
    Row {
        name: "back",
        what: "there, back, and there again",
        run: live::there_and_back,
    },
    Row {
        name: "abort",
        what: "`server migration abort` while memory is copied, then a migration",
        run: live::abort,
    },
];
