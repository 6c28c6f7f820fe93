//! What time it is, for what is written down for people.
//!
//! Decisions never ask: they take `now` as an argument.

use std::time::SystemTime;

use jiff::Timestamp;

/// Now, as it can be written down.
pub(crate) fn now() -> Timestamp {
    // A clock that is off by millennia tells nothing.
    to_the_second(Timestamp::try_from(SystemTime::now()).unwrap_or_default())
}

/// Times are written in whole seconds; one that is compared with what was read must have
/// no more than that.
pub(crate) fn to_the_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
