//! Post-copy that broke off: the guest is on both hosts, or on none.

use logchain_core::handoff::offer::Source;
use logchain_host::Event;
use tokio::sync::watch;

use super::{Migration, Resumes, Started, end_all};
use crate::carry::Way;
use crate::exit::{Ended, Exit};

impl Migration<'_> {
    /// Post-copy broke off. The guest will never print here again, so its log goes
    /// where it is, though libvirt's migration is not over.
    pub(super) async fn split(
        &self,
        (started, left_out): (Vec<Started>, Vec<String>),
        (way, source, resumed): (Way<'_>, &watch::Sender<Source>, &Resumes),
        (reason, at_dest): (String, Option<bool>),
    ) -> anyhow::Result<Exit> {
        let (name, uri) = (self.domain.name(), &self.request.dest_uri);
        self.events.tell(Event::Split {
            domain: name.to_owned(),
            destination: uri.clone(),
            at_destination: at_dest,
            reason: reason.clone(),
        });
        if at_dest == Some(false) {
            source.send_replace(Source::Stays);
            end_all(started).await;
            let (exit, told) = (Exit::NotCarried, false);
            let reason = format!(
                "post-copy broke off: {reason}; domain {name} is lost at {uri}, and with it the \
                 memory that was there already; what it printed until it left is whole here, \
                 what it printed there is there"
            );
            return Err(Ended { exit, reason, told }.into());
        }
        way.writers.guest_left();
        source.send_replace(Source::Over);
        let seen = self.interrupt.count();
        let mut reasons = self.arrive(started, (source, resumed), seen, None).await;
        reasons.extend(left_out);
        let log = match reasons.is_empty() {
            true => "its log is whole there",
            false => "its log is whole here",
        };
        let (exit, told) = (Exit::NotCarried, false);
        let reason = format!(
            "post-copy broke off: {reason}; domain {name} is on both hosts, a part of its memory \
             on each, and goes on with the same command and --postcopy-resume; {log}"
        );
        Err(Ended { exit, reason, told }.into())
    }
}
