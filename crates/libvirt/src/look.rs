//! A domain's state on one host, asked again and again: over a connection that
//! is made anew where it broke, with no answer taking longer than a limit.

use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use crate::connection::Connection;
use crate::{Error, Result, State, migrate};

/// Who looks at one domain on one host.
pub(crate) struct Look {
    connection: Connection,
    uuid: Uuid,
    limit: Duration,
}

impl Look {
    /// By UUID: a migration may have changed the name.
    pub(crate) fn at(connection: &Connection, uuid: Uuid, limit: Duration) -> Self {
        Self {
            connection: connection.clone(),
            uuid,
            limit,
        }
    }

    pub(crate) async fn state(&mut self) -> Result<State> {
        self.ask(false).await.map(|(state, _)| state)
    }

    /// The state, and whether a job (a migration) is under way.
    pub(crate) async fn state_and_job(&mut self) -> Result<(State, bool)> {
        self.ask(true).await
    }

    async fn ask(&mut self, job: bool) -> Result<(State, bool)> {
        let limit = self.limit;
        let uri = self.connection.uri().to_owned();
        match timeout(limit, self.ask_patiently(job)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::NoAnswer {
                action: "tell the state of the domain".to_owned(),
                uri,
                limit,
            }),
        }
    }

    async fn ask_patiently(&mut self, job: bool) -> Result<(State, bool)> {
        if self.connection.is_closed() {
            self.connection = self.connection.reopen(self.limit).await?;
        }
        let domain = match self.connection.lookup_uuid(self.uuid).await {
            Ok(domain) => domain,
            Err(Error::NoDomain { .. }) => return Ok((State::Gone, false)),
            Err(e) => return Err(e),
        };
        // The job first: one that ends in between leaves a state that is settled.
        let busy = job
            && match migrate::progress(&domain).await {
                Ok(progress) => progress.is_some(),
                Err(Error::Unsupported { .. }) => false,
                Err(e) => return Err(e),
            };
        Ok((domain.state().await?, busy))
    }
}
