//! The one place that loads the configuration anew, whoever asks: a signal, or a call to the
//! control socket. It counts it, logs it, and tells the service manager when it begins and ends.
//!
//! Must not know: what follows from a change: whoever cares subscribes to the configuration.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Notify;

use super::config::{Changes, Problems, Reloadable};
use super::metrics::Metrics;
use super::systemd::Notifier;
use crate::{Events, Stop};

/// Loads the configuration anew.
#[derive(Clone, Debug)]
pub struct Reloader {
    /// The configuration in force.
    pub config: Arc<Reloadable>,
    /// What counts it.
    pub metrics: Arc<Metrics>,
    /// The service manager.
    pub manager: Arc<Notifier>,
    /// Who hears of a file that is wrong.
    pub events: Events,
}

impl Reloader {
    /// Loads it once.
    ///
    /// # Errors
    /// Everything that is wrong with the file: the old one is in force then, and the listener of
    /// the events was warned.
    pub async fn reload(&self) -> Result<Changes, Problems> {
        self.manager.reloading();
        let result = self.config.reload().await;
        self.metrics.reloaded(result.is_ok(), SystemTime::now());
        match &result {
            Ok(changes) => tracing::info!(
                applied = %changes.applied.join(", "),
                needs_restart = %changes.needs_restart.join(", "),
                "the configuration was loaded anew"
            ),
            Err(problems) => self.events.warn(format!(
                "the old configuration stays in force, because the new one is wrong: {problems}"
            )),
        }
        // It ends the reload for the manager, whatever came of it.
        self.manager.ready();
        result
    }

    /// Loads it each time that `asked` is notified, until the agent is asked to end. Whoever asks
    /// during a reload causes another one after it.
    pub async fn listen(&self, asked: &Notify, stop: &Stop) {
        loop {
            tokio::select! {
                () = stop.asked() => return,
                () = asked.notified() => {}
            }
            // The listener was warned of a failure.
            let _ = self.reload().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::Event;
    use crate::stop::stop;

    #[tokio::test]
    async fn a_reload_is_counted_and_a_wrong_file_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        std::fs::write(&file, "").unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let reloader = Reloader {
            config: Arc::new(Reloadable::open(&file).await.unwrap()),
            metrics: Arc::new(Metrics::new(UNIX_EPOCH, false).unwrap()),
            manager: Arc::default(),
            events: Events::to(move |event: &Event| heard.lock().unwrap().push(event.to_json())),
        };
        assert!(reloader.reload().await.unwrap().is_empty());
        std::fs::write(&file, "nonsense = 1\n").unwrap();
        let (asked, (request, stop)) = (Arc::new(Notify::new()), stop());
        let (listener, until) = (reloader.clone(), stop.clone());
        let notified = Arc::clone(&asked);
        let listening = tokio::spawn(async move { listener.listen(&notified, &until).await });
        asked.notify_one();
        let heard = async {
            while told.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let limit = Duration::from_secs(20);
        tokio::time::timeout(limit, heard).await.unwrap();
        let told = told.lock().unwrap().concat();
        assert!(
            told.contains("agent.toml:1: nonsense: there is no such key"),
            "{told}"
        );
        request.ask();
        tokio::time::timeout(limit, listening)
            .await
            .unwrap()
            .unwrap();
        let page = reloader.metrics.page();
        for line in ["{result=\"success\"} 1", "{result=\"failure\"} 1"] {
            assert!(page.contains(line), "{page}");
        }
    }
}
