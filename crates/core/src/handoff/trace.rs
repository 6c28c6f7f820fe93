//! The span that everything of one half of a handoff happens in.

#[cfg(test)]
mod tests;

use tracing::{Span, info_span};

use super::Handoff;

/// Which half it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Half {
    Offer,
    Adopt,
}

impl Handoff {
    /// Work of this half that goes on elsewhere (a task, a thread) has to carry the span
    /// there.
    pub(super) fn span(&self, half: Half) -> Span {
        let half = match half {
            Half::Offer => "offer",
            Half::Adopt => "adopt",
        };
        let (domain, console) = (self.domain, &self.console);
        info_span!("handoff", half, %domain, %console, handoff = %self.id)
    }
}
