//! A failure that stops nothing leaves a trace: a `debug` event that says what is given up.

use std::error::Error;

use crate::sentence;

/// For results whose failure is given up.
pub trait OkLogged<T> {
    /// `Ok` as `Some`. A failure becomes a `debug` event with this sentence, which says what
    /// is given up, or why nothing is.
    fn ok_logged(self, given_up: &'static str) -> Option<T>;
}

impl<T, E: Error + 'static> OkLogged<T> for Result<T, E> {
    #[track_caller]
    fn ok_logged(self, given_up: &'static str) -> Option<T> {
        self.map_err(|error| {
            let caller = std::panic::Location::caller();
            tracing::debug!(
                error = %sentence(&error),
                at = %format_args!("{}:{}", caller.file(), caller.line()),
                "{given_up}"
            );
        })
        .ok()
    }
}
