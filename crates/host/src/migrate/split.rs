//! Post-copy that broke off: the guest is on both hosts, or on none.

use logchain_core::handoff::offer::Source;
use tokio::sync::watch;

use super::guest::Resumes;
use super::{Migration, Started, end_all};
use crate::carry::Route;
use crate::{Error, Event};

impl Migration<'_> {
    /// Carries the log to where the guest is, since the guest will never print here again,
    /// though libvirt's migration is not over. Gives the error that the migration ends with.
    pub(super) async fn split(
        &self,
        (started, left_out): (Vec<Started>, Vec<Event>),
        (route, source, resumed): (Route<'_>, &watch::Sender<Source>, &Resumes),
        (reason, at_dest): (String, Option<bool>),
    ) -> Error {
        let (name, uri) = (self.domain.name(), &self.options.request.dest_uri);
        self.events.tell(Event::Split {
            domain: name.to_owned(),
            destination: uri.clone(),
            at_destination: at_dest,
            reason: reason.clone(),
        });
        if at_dest == Some(false) {
            source.send_replace(Source::Stays);
            end_all(started).await;
            return Error::NotCarried(format!(
                "post-copy broke off: {reason}; domain {name} is lost at {uri}, and with it the \
                 memory that was there already; what it printed until it left is whole here, \
                 what it printed there is there"
            ));
        }
        route.writers.guest_left();
        source.send_replace(Source::Over);
        let seen = self.stop.count();
        let mut failures = self.arrive(started, (source, resumed), seen, None).await;
        failures.extend(left_out);
        let log = match failures.is_empty() {
            true => "its log is whole there",
            false => "its log is whole here",
        };
        let stands = match at_dest {
            Some(_) => "is on both hosts, a part of its memory on each,",
            None => "left in part, and the destination does not answer; it is paused here",
        };
        Error::NotCarried(format!(
            "post-copy broke off: {reason}; domain {name} {stands} and goes on with the same \
             command and --postcopy-resume; {log}"
        ))
    }
}
