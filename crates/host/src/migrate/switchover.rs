//! What is done about a migration that takes too long: the guest is suspended, or switched to
//! post-copy.
//!
//! Must not know: what becomes of the log.

use std::time::Duration;

use logchain_libvirt::events::Passes;
use logchain_libvirt::{Domain, migrate};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::Options;
use crate::Events;

/// Between two tries: before memory is copied there is nothing to switch.
const AGAIN: Duration = Duration::from_millis(200);

/// When this pass over memory begins, all of it was copied once.
const SECOND: u32 = 2;

/// What the options ask for.
struct Switch {
    domain: Domain,
    events: Events,
    after: Option<Duration>,
    postcopy_then: bool,
    passes: Option<Passes>,
    /// Whether it was switched to post-copy; once is enough.
    switched: Mutex<bool>,
}

/// Waits for its moment beside the migration; to be ended with it.
pub(super) async fn watch(
    options: &Options,
    domain: &Domain,
    events: &Events,
) -> Option<JoinHandle<()>> {
    let after = options.timeout;
    if after.is_none() && !options.postcopy_after_precopy {
        return None;
    }
    let mut passes = None;
    if options.postcopy_after_precopy {
        match domain.connection().passes(domain.uuid()).await {
            Ok(found) => passes = Some(found),
            Err(e) => events.warn(format!("it cannot be switched to post-copy: {e}")),
        }
    }
    let switch = Switch {
        domain: domain.clone(),
        events: events.clone(),
        after,
        postcopy_then: options.postcopy_at_timeout,
        passes,
        switched: Mutex::new(false),
    };
    Some(tokio::spawn(switch.run()))
}

impl Switch {
    async fn run(mut self) {
        let passes = self.passes.take();
        tokio::join!(self.when_late(), self.when_copied(passes));
    }

    async fn when_late(&self) {
        let Some(after) = self.after else {
            return;
        };
        sleep(after).await;
        if self.postcopy_then {
            return self.switch().await;
        }
        if let Err(e) = self.domain.suspend().await {
            self.events.warn(e.to_string());
        }
    }

    async fn when_copied(&self, passes: Option<Passes>) {
        if let Some(mut passes) = passes
            && passes.reach(SECOND).await
        {
            self.switch().await;
        }
    }

    async fn switch(&self) {
        let mut switched = self.switched.lock().await;
        while !*switched {
            match migrate::start_post_copy(&self.domain).await {
                Ok(()) => *switched = true,
                Err(_) => sleep(AGAIN).await,
            }
        }
    }
}
