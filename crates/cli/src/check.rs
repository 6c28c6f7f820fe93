//! `logchain transport check`: whether a transport works from here.

use std::time::Duration;

use logchain_core::transport::Advice;
use logchain_core::transport::check::{Finding, Step, check};
use logchain_host::transports::{TransportChoice, ssh_options};
use logchain_host::{Event, Events, event};

use crate::args::Format;
use crate::exit::Exit;
use crate::report::{self, Watch};

/// Whoever looks does not want to wait.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn run(url: &str, remote: Option<&str>, format: Format) -> anyhow::Result<Exit> {
    let events = report::events(format, Watch::Terminal);
    let choice = TransportChoice::of(Some(url), None)?;
    let ssh = ssh_options(remote, PATIENCE);
    let transport = choice.open_existing(&ssh, PATIENCE).await?;
    if let Some(caution) = choice.caution() {
        events.warn(caution);
    }
    let works = check(&*transport, |step, finding| tell(&events, step, finding)).await;
    let transport = transport.to_string();
    events.tell(Event::Checked { works, transport });
    Ok(if works { Exit::Done } else { Exit::Failed })
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
