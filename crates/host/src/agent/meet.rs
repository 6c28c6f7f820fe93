//! How the two halves of a handoff find each other.
//!
//! - *Store*: both hosts use one store or folder. What is offered lies there below the domain's
//!   UUID, so no agent has to know another one.
//!
//! Must not know: what is handed over.

use std::sync::Arc;
use std::time::Duration;

use logchain_core::transport::LogTransport;
use logchain_transport_ssh::SshOptions;
use tokio::sync::Mutex;

use super::Options;
use crate::transports::{TransportChoice, ssh_options};
use crate::{Error, Result};

/// How the halves find each other, as the operator chose it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Meeting {
    /// In a store or a folder that both hosts have, by its URL.
    Store(String),
}

/// The choice, and what of it is open already.
pub(super) struct Meet {
    choice: TransportChoice,
    ssh: SshOptions,
    patience: Duration,
    open: Mutex<Option<Arc<dyn LogTransport>>>,
}

impl Meet {
    pub(super) fn of(options: &Options) -> Result<Self> {
        let Meeting::Store(url) = &options.meeting;
        let choice = TransportChoice::of(Some(url), None)?;
        if choice.needs_far() {
            return Err(Error::Usage(format!(
                "{url} is a spool of one host; give a store or a folder that all hosts have"
            )));
        }
        Ok(Self {
            choice,
            ssh: ssh_options(options.remote_logchain.as_deref(), options.patience),
            patience: options.patience,
            open: Mutex::default(),
        })
    }

    pub(super) fn choice(&self) -> &TransportChoice {
        &self.choice
    }

    pub(super) fn ssh(&self) -> &SshOptions {
        &self.ssh
    }

    /// The transport. It is opened once: to open a store takes requests of its own.
    pub(super) async fn transport(&self) -> Result<Arc<dyn LogTransport>> {
        let mut open = self.open.lock().await;
        if let Some(transport) = &*open {
            return Ok(Arc::clone(transport));
        }
        let transport = self.choice.open(&self.ssh, self.patience).await?;
        *open = Some(Arc::clone(&transport));
        Ok(transport)
    }
}
