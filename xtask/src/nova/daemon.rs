//! A service of the cloud: started on a host, watched, and ended with it.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use logchain_tests::{Host, HostCommand, Running};

use super::wait::until;

/// A machine that others use as well needs this at times.
const LIMIT: Duration = Duration::from_secs(180);
/// How many lines are shown of a service that failed.
const LINES: usize = 15;

/// How a service is started.
#[derive(Clone)]
pub(crate) struct Recipe {
    pub(crate) name: String,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    /// Its log, as the host sees it.
    pub(crate) log: Option<String>,
}

/// A service; it ends when this is dropped.
pub(crate) struct Daemon {
    host: Host,
    recipe: Recipe,
    running: Mutex<Option<Running>>,
}

impl Daemon {
    pub(crate) fn start(host: &Host, recipe: Recipe) -> Result<Self> {
        let daemon = Daemon {
            host: host.clone(),
            recipe,
            running: Mutex::new(None),
        };
        daemon.start_again()?;
        Ok(daemon)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it again after [`Daemon::kill`].
    pub(crate) fn start_again(&self) -> Result<()> {
        let mut command: HostCommand = self.host.command(&self.recipe.args);
        for (name, value) in &self.recipe.env {
            command = command.env(name, value);
        }
        *self.lock() = Some(command.spawn()?);
        Ok(())
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&self) -> Result<()> {
        if let Some(running) = self.lock().take() {
            running.kill()?;
        }
        Ok(())
    }

    /// Waits until `probe` says that it is ready. If it ends meanwhile, or is not ready in time,
    /// the error has its last lines.
    pub(crate) fn ready(&self, mut probe: impl FnMut() -> Result<bool>) -> Result<()> {
        let name = &self.recipe.name;
        let what = format!("{name} on {} to be ready", self.host.name());
        let waited = until(&what, LIMIT, || {
            if !self.lives()? {
                bail!("{name} on {} came to an end", self.host.name());
            }
            Ok(probe()?.then_some(()))
        });
        waited.map_err(|e| match crate::process::was_interrupted(&e) {
            true => e,
            false => anyhow!("{e:#}\n{}", self.last_lines()),
        })
    }

    /// Whether it runs.
    pub(crate) fn lives(&self) -> Result<bool> {
        match self.lock().as_mut() {
            Some(running) => Ok(running.is_running()?),
            None => Ok(false),
        }
    }

    /// Whether it has printed this since it was started.
    pub(crate) fn said(&self, words: &str) -> bool {
        let running = self.lock();
        let printed = running.as_ref().map(Running::stdout).unwrap_or_default();
        String::from_utf8_lossy(&printed).contains(words)
    }

    /// What it said last.
    pub(crate) fn last_lines(&self) -> String {
        let mut said = String::new();
        if let Some(running) = self.lock().as_ref() {
            said += &String::from_utf8_lossy(&running.stdout());
            said += &String::from_utf8_lossy(&running.stderr());
        }
        if let Some(log) = &self.recipe.log {
            let path: PathBuf = self.host.path(log);
            said += &fs::read(path).map_or(String::new(), |bytes| {
                String::from_utf8_lossy(&bytes).into_owned()
            });
        }
        let lines: Vec<&str> = said.lines().collect();
        let from = lines.len().saturating_sub(LINES);
        let last = lines.get(from..).unwrap_or_default().join("\n  ");
        format!("the last lines of {}:\n  {last}", self.recipe.name)
    }
}
