//! Serves what is beside the agent's work: the control socket, the page for Prometheus, reloads
//! that a signal asks for, and signs of life to the service manager.
//!
//! 1. [`open`] makes the socket and listens. It fails if another agent is there: begin with it.
//! 2. The agent starts its work, and calls [`Notifier::ready`](super::systemd::Notifier::ready).
//! 3. [`Endpoints::run`] runs beside that work until its `stop` is asked. Give both functions a
//!    [`stop`](crate::stop::stop) of their own, and ask it when the work has ended: an operator can
//!    then look at handoffs that finish after the agent was asked to end, and the service manager
//!    gets signs of life until the end.
//!
//! Must not know: what the agent's work is.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Notify;

use super::control::{self, Agent, Socket};
use super::reloader::Reloader;
use crate::{Result, Stop};

/// Endpoints that are open and at which nobody serves yet.
pub struct Endpoints {
    socket: Socket,
    metrics: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    agent: Arc<dyn Agent>,
    reloader: Reloader,
    reload: Arc<Notify>,
}

impl std::fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoints")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// Opens the endpoints that the configuration names. `reload`: notified by whoever wants the
/// configuration to be loaded anew.
///
/// # Errors
/// Those of [`Socket::bind`] and [`control::serve_metrics`].
pub async fn open(
    reloader: Reloader,
    agent: Arc<dyn Agent>,
    reload: Arc<Notify>,
    stop: &Stop,
) -> Result<Endpoints> {
    let config = reloader.config.current();
    let control = &config.control;
    let socket = Socket::bind(&control.socket, control.group.as_deref()).await?;
    let metrics: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = match config.metrics.listen {
        Some(listen) => {
            let served = control::serve_metrics(listen, Arc::clone(&agent), stop.clone());
            let (at, serving) = served.await?;
            tracing::info!(%at, "metrics are served");
            Some(Box::pin(serving))
        }
        None => None,
    };
    Ok(Endpoints {
        socket,
        metrics,
        agent,
        reloader,
        reload,
    })
}

impl Endpoints {
    /// Serves until `stop` is asked, which is that of [`open`]. `is_alive`: whether the agent's work goes on; as
    /// long as it does not, the service manager gets no sign of life, and starts the agent anew.
    pub async fn run(self, stop: &Stop, is_alive: impl FnMut() -> bool) {
        let Self {
            socket,
            metrics,
            agent,
            reloader,
            reload,
        } = self;
        let served = async {
            let metrics = async {
                if let Some(metrics) = metrics {
                    metrics.await;
                }
            };
            tokio::join!(
                control::serve(socket, agent, stop),
                metrics,
                reloader.listen(&reload, stop),
            );
        };
        // Signs of life have no end of their own.
        tokio::select! {
            () = served => {}
            () = reloader.manager.keep_alive(is_alive) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::time::{Duration, UNIX_EPOCH};

    use async_trait::async_trait;

    use super::*;
    use crate::Events;
    use crate::agent::config::{Changes, Reloadable};
    use crate::agent::control::{
        Draining, Frames, Health, LogRequest, Refusal, Slot, Status, client,
    };
    use crate::agent::metrics::Metrics;
    use crate::agent::systemd::Notifier;
    use crate::status::Report;
    use crate::stop::stop;

    struct Small(Reloader);

    #[async_trait]
    impl Agent for Small {
        async fn status(&self) -> Status {
            Status {
                needs_restart: self.0.config.needs_restart(),
                ..Status::default()
            }
        }

        async fn health(&self) -> Health {
            Health::default()
        }

        async fn metrics(&self) -> String {
            self.0.metrics.page()
        }

        async fn handoffs(&self) -> Report {
            Report::default()
        }

        async fn log(&self, _: LogRequest, _: Slot) -> Result<Frames, Refusal> {
            Err(Refusal::NoSuchLog("there is none".to_owned()))
        }

        async fn drain(&self) -> Result<Draining, Refusal> {
            Ok(Draining::default())
        }

        async fn reload(&self) -> Result<Changes, Refusal> {
            let reloaded = self.0.reload().await;
            reloaded.map_err(|problems| Refusal::Wrong(problems.to_string()))
        }
    }

    #[tokio::test]
    async fn all_endpoints_are_served_and_close_with_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        let socket = folder.path().join("agent.sock");
        let text = format!("[control]\nsocket = {socket:?}\n[metrics]\nlisten = \"127.0.0.1:0\"\n");
        std::fs::write(&file, &text).unwrap();
        let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        let limit = Duration::from_secs(20);
        manager.set_read_timeout(Some(limit)).unwrap();
        let path = folder.path().join("notify");
        let variable = |name: &str| match name {
            "NOTIFY_SOCKET" => Some(path.clone().into()),
            "WATCHDOG_USEC" => Some("20000000".into()),
            _ => None,
        };
        let reloader = Reloader {
            config: Arc::new(Reloadable::open(&file).await.unwrap()),
            metrics: Arc::new(Metrics::new(UNIX_EPOCH, false).unwrap()),
            manager: Arc::new(Notifier::new(variable, 1).unwrap()),
            events: Events::ignored(),
        };
        let (request, stop) = stop();
        let agent = Arc::new(Small(reloader.clone()));
        let reload = Arc::new(Notify::new());
        let served: Arc<dyn Agent> = agent;
        let open = || {
            super::open(
                reloader.clone(),
                Arc::clone(&served),
                Arc::clone(&reload),
                &stop,
            )
        };
        let endpoints = open().await.unwrap();
        // A second agent of the same file is refused.
        assert!(
            open()
                .await
                .unwrap_err()
                .to_string()
                .starts_with("another agent")
        );
        reloader.manager.ready();
        let until = stop.clone();
        let running = tokio::spawn(async move { endpoints.run(&until, || true).await });

        std::fs::write(&file, format!("state = \"/x\"\n{text}")).unwrap();
        let changes = client::reload(&socket).await.unwrap();
        assert_eq!(changes.needs_restart, ["state"]);
        let status = client::status(&socket).await.unwrap();
        assert_eq!(status.needs_restart, ["state"]);
        reload.notify_one();
        let twice = async {
            let count = "reloads_total{result=\"success\"} 2";
            while !client::metrics(&socket).await.unwrap().contains(count) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(limit, twice).await.unwrap();
        let heard = || {
            let mut buffer = [0; 128];
            let length = manager.recv(&mut buffer).unwrap();
            let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
            said.split(['=', '\n'])
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let mut said: Vec<_> = (0..6).map(|_| heard()).collect();
        said.sort();
        let want = [
            "READY",
            "READY",
            "READY",
            "RELOADING",
            "RELOADING",
            "WATCHDOG",
        ];
        assert_eq!(said, want);
        request.ask();
        tokio::time::timeout(limit, running).await.unwrap().unwrap();
        assert!(!socket.exists());
    }
}
