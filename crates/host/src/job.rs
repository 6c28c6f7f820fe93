//! How a job ends that came to its end.

use crate::Event;

/// A job did what it could.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Finished {
    /// What failed of it: events that its listener has heard already.
    pub failures: Vec<Event>,
}

impl Finished {
    /// Whether nothing failed.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.failures.is_empty()
    }
}

impl From<Vec<Event>> for Finished {
    fn from(failures: Vec<Event>) -> Self {
        Self { failures }
    }
}
