//! The one place where a thread of ours sleeps.

use std::time::Duration;

#[expect(
    clippy::disallowed_methods,
    reason = "file work is synchronous; async callers run it on a thread that may block"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
