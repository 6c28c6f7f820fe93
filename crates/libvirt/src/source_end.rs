//! Waiting until the source's domain is over: shut off, or gone.
//!
//! Events tell at once, but can be lost with a connection or a full queue, and
//! none comes when a domain's definition is removed at its end. So the state is
//! asked for as well, now and then. Must not know: what happens then.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::domain::Domain;
use crate::events::{Lifecycle, LifecycleEvents};
use crate::look::Look;
use crate::{Error, Result, Shutoff, State};

/// How often the state is asked for where no event comes.
const POLL: Duration = Duration::from_millis(500);

/// How long one answer may take.
const LOOK: Duration = Duration::from_secs(5);

/// How a domain came to its end on its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceEnd {
    /// Its definition is still there.
    Shutoff(Shutoff),
    /// Its host does not know it any more.
    Gone,
}

/// Waits until `domain` is over on its host, for at most `limit`. A domain that
/// is over already is so at once.
///
/// A host that does not answer for a while is asked again, over a new connection
/// where the old one broke.
///
/// # Errors
/// [`Error::TimedOut`]; where the host could not be asked at the end, the reason why.
pub async fn wait(domain: &Domain, limit: Duration) -> Result<SourceEnd> {
    let end = Instant::now() + limit;
    // Before the state is asked for, so that nothing falls between.
    let subscribe = domain.connection().lifecycle_events(domain.uuid());
    let mut events = match timeout_at(end, subscribe).await {
        Ok(Ok(events)) => Some(events),
        _ => None,
    };
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = Look::at(domain.connection(), domain.uuid(), LOOK.min(limit));
    let mut unanswered = None;
    let watch = async {
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                told = is_told(&mut events) => {
                    if !told {
                        events = None;
                    }
                }
            }
            match look.state().await {
                Ok(State::Shutoff(reason)) => return SourceEnd::Shutoff(reason),
                Ok(State::Gone) => return SourceEnd::Gone,
                Ok(_) => unanswered = None,
                Err(e) => unanswered = Some(e),
            }
        }
    };
    match timeout_at(end, watch).await {
        Ok(over) => Ok(over),
        Err(_) => Err(unanswered.unwrap_or_else(|| Error::TimedOut {
            what: "the end of the domain",
            domain: domain.name().to_owned(),
            uri: domain.connection().uri().to_owned(),
            limit,
        })),
    }
}

/// Waits for an event that may be the end; `false` where none comes any more.
async fn is_told(events: &mut Option<LifecycleEvents>) -> bool {
    let Some(events) = events else {
        return std::future::pending().await;
    };
    loop {
        match events.recv().await {
            Some(event) => {
                if matches!(event.event, Lifecycle::Stopped(_) | Lifecycle::Undefined) {
                    return true;
                }
            }
            None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Machine};

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_is_over_already_is_so_at_once() {
        let machine = Machine::define("over", "").await;
        machine.start().await;
        machine.destroy().await;
        let domain = machine.domain().await;
        let end = wait(&domain, LIMIT).await;
        assert_eq!(end, Ok(SourceEnd::Shutoff(Shutoff::Destroyed)));
        domain.undefine().await.unwrap();
        assert_eq!(wait(&domain, LIMIT).await, Ok(SourceEnd::Gone));
    }

    #[tokio::test]
    async fn the_end_is_seen_when_it_comes() {
        let machine = Machine::define("ends", "").await;
        machine.start().await;
        let domain = machine.domain().await;
        let waiting = tokio::spawn(async move { wait(&domain, LIMIT).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        machine.destroy().await;
        assert_eq!(
            waiting.await.unwrap(),
            Ok(SourceEnd::Shutoff(Shutoff::Destroyed))
        );
    }

    #[tokio::test]
    async fn a_transient_domain_is_gone_in_the_end() {
        let machine = Machine::planned(testing::connect().await, "transient");
        machine.create_transient().await;
        let domain = machine.domain().await;
        let waiting = tokio::spawn(async move { wait(&domain, LIMIT).await });
        machine.destroy().await;
        assert_eq!(waiting.await.unwrap(), Ok(SourceEnd::Gone));
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_given_up() {
        let machine = Machine::define("runs-on", "").await;
        machine.start().await;
        let domain = machine.domain().await;
        let error = wait(&domain, Duration::from_millis(700)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{} at test:///default: the end of the domain did not happen within 0.7 s",
                machine.name
            )
        );
    }
}
