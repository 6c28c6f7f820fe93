//! The domains that run on a host, with what their logs need, in one question.
//!
//! A host may run a thousand: one call for all of them, on one thread, instead of three calls
//! for each.

use uuid::Uuid;
use virt::error::ErrorNumber;
use virt_sys as sys;

use crate::consoles::{Consoles, read};
use crate::{Connection, Domain, Job, Result, State, ffi};

/// A domain that runs.
#[derive(Clone, Debug)]
pub struct RunningDomain {
    /// The domain.
    pub domain: Domain,
    /// What it is doing.
    pub state: State,
    /// The job that runs on it; `None` where none does, or the driver does not tell.
    pub job: Option<Job>,
    /// The console logs in its live XML.
    pub consoles: Result<Consoles>,
}

impl Connection {
    /// All domains that run on the host, paused ones too.
    ///
    /// # Errors
    /// [`Error::NoAnswer`](crate::Error::NoAnswer), [`Error::Lost`](crate::Error::Lost).
    pub async fn running(&self) -> Result<Vec<RunningDomain>> {
        let found = self
            .ask("", "list its domains", |connect| {
                let mut found = Vec::new();
                for raw in connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE)? {
                    // One that ended meanwhile is no failure of the others.
                    let Ok((state, reason)) = raw.get_state() else {
                        continue;
                    };
                    let job = ffi::job_operation(&raw).ok().flatten().map(Job::from_raw);
                    let xml = match raw.get_xml_desc(0) {
                        Err(e) if e.code() == ErrorNumber::NoDomain => continue,
                        xml => xml.map_err(|e| e.message().to_owned()),
                    };
                    let consoles = xml.map(|xml| read(&xml));
                    let state = State::from_raw(state, reason);
                    found.push((Domain::describe(raw)?, state, job, consoles));
                }
                Ok(found)
            })
            .await?;
        let running = found.into_iter().map(|(described, state, job, consoles)| {
            let domain = Domain::new(self.clone(), described);
            let consoles = consoles.unwrap_or_else(|message| {
                Err(crate::Error::Failed {
                    action: "read the XML of the domain".to_owned(),
                    uri: self.uri().to_owned(),
                    message,
                })
            });
            RunningDomain {
                domain,
                state,
                job,
                consoles,
            }
        });
        Ok(running.collect())
    }

    /// As one of [`Connection::running`]; `None` where the domain does not run on the host.
    ///
    /// # Errors
    /// As there.
    pub async fn running_domain(&self, uuid: Uuid) -> Result<Option<RunningDomain>> {
        let domain = match self.lookup_uuid(uuid).await {
            Err(crate::Error::NoDomain { .. }) => return Ok(None),
            found => found?,
        };
        let state = domain.state().await?;
        if !state.is_active() {
            return Ok(None);
        }
        let consoles = match domain.live_xml().await {
            Err(crate::Error::NoDomain { .. }) => return Ok(None),
            xml => xml.and_then(|xml| read(&xml)),
        };
        // A driver without jobs tells of none.
        let job = domain.job().await.ok().flatten();
        Ok(Some(RunningDomain {
            domain,
            state,
            job,
            consoles,
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, Machine};

    #[tokio::test]
    async fn only_domains_that_run_are_listed() {
        let connection = testing::connect().await;
        let runs = Machine::planned(connection.clone(), "runs");
        let rests = Machine::planned(connection.clone(), "rests");
        let log = "<serial type='pty'><log file='/var/log/runs.log'/></serial>";
        runs.define_with(log).await;
        rests.define_with("").await;
        runs.start().await;
        let listed = connection.running().await.unwrap();
        let of = |uuid| listed.iter().find(|d| d.domain.uuid() == uuid);
        let one = of(runs.uuid).unwrap();
        assert!(one.state.is_active());
        let logs = &one.consoles.as_ref().unwrap().logs;
        assert_eq!(logs[0].path, std::path::Path::new("/var/log/runs.log"));
        assert!(of(rests.uuid).is_none());
        let same = connection.running_domain(runs.uuid).await.unwrap();
        assert_eq!(same.unwrap().domain.name(), runs.name);
        assert!(
            connection
                .running_domain(rests.uuid)
                .await
                .unwrap()
                .is_none()
        );
        runs.destroy().await;
    }
}
