//! The agent: one daemon on each hypervisor that hands logs over whoever starts a migration.
//!
//! - [`config`]: its configuration file, and what of it can change while the agent runs.
//! - [`control`]: its control socket, and the calls that a client makes there.
//! - [`metrics`]: what it counts for Prometheus.
//! - [`operate`]: all of these together, beside the agent's own work.
//! - [`reloader`]: the one place that loads the configuration anew.
//! - [`systemd`]: what it tells the service manager.
//!
//! Must not know: command lines, terminals, exit codes.

pub mod config;
pub mod control;
pub mod metrics;
pub mod operate;
pub mod reloader;
pub mod systemd;

use std::sync::Arc;

use tokio::sync::Notify;

use crate::{Error, Events, Finished, Result, Stop};
use config::Reloadable;

/// Runs the agent until it is asked to stop. `reload`: notified by whoever wants the
/// configuration to be loaded anew, as a signal does.
///
/// # Errors
/// [`Error::Refused`]: this build has no agent yet.
pub async fn agent(
    config: Arc<Reloadable>,
    reload: Arc<Notify>,
    events: &Events,
    stop: &Stop,
) -> Result<Finished> {
    let _ = (config, reload, events, stop);
    Err(Error::Refused("the agent is not built in yet".to_owned()))
}
