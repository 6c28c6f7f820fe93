//! `logchain transport check`: whether a transport works from here.

use std::time::Duration;

use logchain_core::transport::Advice;
use logchain_core::transport::check::{Finding, Step, check};
use serde_json::json;

use crate::args::Format;
use crate::exit::Exit;
use crate::report::Report;
use crate::transports::{Choice, ssh_options};

/// Whoever looks does not want to wait.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn run(url: &str, remote: Option<&str>, format: Format) -> anyhow::Result<Exit> {
    let report = Report::new(format);
    let choice = Choice::of(Some(url), None)?;
    let ssh = ssh_options(remote, PATIENCE);
    let transport = choice.open_existing(&ssh, PATIENCE).await?;
    if let Some(caution) = choice.caution() {
        report.warn(caution);
    }
    let works = check(&*transport, |step, finding| tell(report, step, finding)).await;
    let last = if works {
        format!("{transport} works from here")
    } else {
        format!("{transport} cannot be relied on from here")
    };
    report.event(&last, &json!({ "event": "checked", "works": works }));
    Ok(if works { Exit::Done } else { Exit::Failed })
}

fn tell(report: Report, step: Step, finding: &Finding) {
    let (sentence, event) = match finding {
        Finding::Works { time, speed } => {
            let ms = time.as_secs_f64() * 1000.0;
            let speed = speed.map(|s| s / (1 << 20));
            let fast = speed.map_or_else(String::new, |s| format!(", {s} MiB/s"));
            (
                format!("{step}: works ({ms:.1} ms{fast})"),
                json!({ "event": "step", "step": step.to_string(), "works": true, "ms": ms, "mib_per_s": speed }),
            )
        }
        Finding::Fails { reason, advice } => {
            let what = match advice {
                Advice::Retry => "it may work later: try again",
                Advice::Fix => "this has to be mended",
                Advice::Report => "this should not happen: report it",
            };
            (
                format!("{step}: {reason}; {what}"),
                json!({ "event": "step", "step": step.to_string(), "works": false, "reason": reason }),
            )
        }
    };
    report.event(&sentence, &event);
}
