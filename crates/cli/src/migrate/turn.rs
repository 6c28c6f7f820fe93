//! What is done to a migration that takes its time: the guest is suspended, or goes on
//! at the destination before all its memory is there.
//!
//! Must not know: what becomes of the log.

use std::time::Duration;

use logchain_host::Events;
use logchain_libvirt::events::Passes;
use logchain_libvirt::{Domain, migrate};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::args::Migrate;

/// Between two tries: before memory is copied there is nothing to switch.
const AGAIN: Duration = Duration::from_millis(200);

/// The pass over memory before which all of it was copied once.
const SECOND: u32 = 2;

/// What the options ask for.
struct Turn {
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
    args: &Migrate,
    domain: &Domain,
    events: &Events,
) -> Option<JoinHandle<()>> {
    let after = args.timeout.after.map(Duration::from_secs);
    if after.is_none() && !args.way.postcopy_after_precopy {
        return None;
    }
    let mut passes = None;
    if args.way.postcopy_after_precopy {
        match domain.connection().passes(domain.uuid()).await {
            Ok(found) => passes = Some(found),
            Err(e) => events.warn(format!("it cannot be switched to post-copy: {e}")),
        }
    }
    let turn = Turn {
        domain: domain.clone(),
        events: events.clone(),
        after,
        postcopy_then: args.timeout.postcopy_then,
        passes,
        switched: Mutex::new(false),
    };
    Some(tokio::spawn(turn.run()))
}

impl Turn {
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
