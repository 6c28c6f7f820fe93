//! Whether a transport works from here.

use std::time::Duration;

use logchain_core::transport::Advice;
use logchain_core::transport::check::{Finding, Step, check};

use crate::transports::{TransportChoice, ssh_options};
use crate::{Event, Events, Result, event};

/// Whoever looks does not want to wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tries each verb of the transport at `url`, tells each step, and gives whether it can be
/// relied on. What is put there is taken away again. `remote_logchain`: what logchain is called
/// at the far side of ssh.
///
/// # Errors
/// [`Error::Usage`](crate::Error::Usage) for no URL of a transport;
/// [`Error::Transport`](crate::Error::Transport) where it cannot be reached at all.
pub async fn check_transport(
    url: &str,
    remote_logchain: Option<&str>,
    events: &Events,
) -> Result<bool> {
    let choice = TransportChoice::of(Some(url), None)?;
    let ssh = ssh_options(remote_logchain, PATIENCE);
    let transport = choice.open_existing(&ssh, PATIENCE).await?;
    if let Some(caution) = choice.caution() {
        events.warn(caution);
    }
    let works = check(&*transport, |step, finding| tell(events, step, finding)).await;
    let transport = transport.to_string();
    events.tell(Event::Checked { works, transport });
    Ok(works)
}

fn tell(events: &Events, step: Step, finding: &Finding) {
    let step = step.to_string();
    events.tell(match finding {
        Finding::Works { time, speed } => Event::Step {
            step,
            works: true,
            ms: Some(time.as_secs_f64() * 1000.0),
            mib_per_s: speed.map(|s| s / (1 << 20)),
            reason: None,
            advice: None,
        },
        Finding::Fails { reason, advice } => Event::Step {
            step,
            works: false,
            ms: None,
            mib_per_s: None,
            reason: Some(reason.clone()),
            advice: Some(match advice {
                Advice::Retry => event::Advice::Retry,
                Advice::Fix => event::Advice::Fix,
                Advice::Report => event::Advice::Report,
            }),
        },
    });
}
