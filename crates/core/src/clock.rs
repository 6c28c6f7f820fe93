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

/// The time of a file, given in seconds and nanoseconds, to the millisecond: as exactly as times
/// are written down that are compared.
pub(crate) fn millisecond((seconds, nanoseconds): (i64, u32)) -> Option<Timestamp> {
    let within = i64::from(nanoseconds / 1_000_000);
    let milliseconds = seconds.checked_mul(1000)?.checked_add(within)?;
    Timestamp::from_millisecond(milliseconds).ok()
}
