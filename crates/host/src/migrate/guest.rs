//! What libvirt's events tell of the guest: that it stands still here, and that it
//! runs there.

use std::time::Instant;

use logchain_core::OkLogged as _;
use logchain_core::handoff::offer::Source;
use logchain_libvirt::events::{Lifecycle, LifecycleEvents, Resumed};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Migration;

/// When the guest first ran at the destination.
pub(super) type Resumes = watch::Receiver<Option<Instant>>;

impl Migration<'_> {
    /// Tells the halves when the guest stands still here. Without the events its
    /// last bytes come a little later.
    pub(super) async fn watch_source(
        &self,
        source: &watch::Sender<Source>,
    ) -> Option<JoinHandle<()>> {
        let connection = self.domain.connection();
        let events = connection.lifecycle_events(self.domain.uuid()).await;
        let events = events.ok_logged("the last bytes follow when the domain is over here")?;
        Some(tokio::spawn(last_bytes(events, source.clone())))
    }

    /// When the guest first ran at the destination, once it has.
    pub(super) async fn watch_destination(&self) -> Resumes {
        let resumed = watch::Sender::new(None);
        let receiver = resumed.subscribe();
        if let Some(dest) = &self.dest
            && let Ok(events) = dest.lifecycle_events(self.domain.uuid()).await
        {
            tokio::spawn(first_resumed(events, resumed));
        }
        receiver
    }
}

/// Tells the halves when the guest stands still here, to go on there: its last
/// bytes are wanted before its first ones there.
async fn last_bytes(mut events: LifecycleEvents, source: watch::Sender<Source>) {
    while let Some(event) = events.recv().await {
        let (from, to) = match event.event {
            Lifecycle::Suspended(_) => (Source::Running, Source::Stopped),
            Lifecycle::Resumed(_) => (Source::Stopped, Source::Running),
            _ => continue,
        };
        source.send_if_modified(|now| {
            let fits = *now == from;
            if fits {
                *now = to;
            }
            fits
        });
    }
}

async fn first_resumed(mut events: LifecycleEvents, resumed: watch::Sender<Option<Instant>>) {
    while let Some(event) = events.recv().await {
        if matches!(
            event.event,
            Lifecycle::Resumed(Resumed::Migrated | Resumed::Postcopy)
        ) {
            resumed.send_replace(Some(event.at));
            return;
        }
    }
}
