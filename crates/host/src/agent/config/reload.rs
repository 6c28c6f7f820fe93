//! The configuration in force, and how a new file replaces it.
//!
//! A file is read and checked as a whole before anything of it is used. One that is wrong leaves
//! everything as it is. Keys that need a restart keep their value until then.
//!
//! Must not know: what follows from a change: whoever cares subscribes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use super::changes::{Changes, applicable, changes};
use super::problem::{Problem, Problems};
use super::{Config, DEFAULT_PATH, read};

/// A file that is larger is no configuration.
const MAX_FILE: u64 = 1 << 20;

/// The configuration in force, and the file that it came from.
#[derive(Debug)]
pub struct Reloadable {
    file: PathBuf,
    in_force: watch::Sender<Arc<Config>>,
    /// Keys whose new value waits for a restart.
    waiting: watch::Sender<Vec<String>>,
    /// One reload at a time: none is lost while another is under way.
    reloading: Mutex<()>,
}

impl Reloadable {
    /// Reads the file. Where it is [`DEFAULT_PATH`] and does not exist, the defaults hold.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub async fn open(file: &Path) -> Result<Self, Problems> {
        let config = load(file).await?;
        Ok(Self {
            file: file.to_owned(),
            in_force: watch::Sender::new(Arc::new(config)),
            waiting: watch::Sender::default(),
            reloading: Mutex::new(()),
        })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What is in force now. A key that needs a restart has the value of the start.
    #[must_use]
    pub fn current(&self) -> Arc<Config> {
        Arc::clone(&self.in_force.borrow())
    }

    /// What is in force, and a notice of each reload that succeeded: also of one that changed no
    /// key, because a file that a key names, as a certificate, may be another one now.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Config>> {
        self.in_force.subscribe()
    }

    /// Reads the file again, and puts it in force as far as that needs no restart.
    ///
    /// # Errors
    /// Everything that is wrong with the file. Nothing has changed then.
    pub async fn reload(&self) -> Result<Changes, Problems> {
        let _one = self.reloading.lock().await;
        let new = load(&self.file).await?;
        let before = self.current();
        let found = changes(&before, &new);
        let config = Arc::new(applicable(&before, &new));
        self.in_force.send_replace(config);
        self.waiting.send_replace(found.needs_restart.clone());
        Ok(found)
    }

    /// Keys whose value in the file that was loaded last is in force after the next start.
    #[must_use]
    pub fn needs_restart(&self) -> Vec<String> {
        self.waiting.borrow().clone()
    }
}

async fn load(file: &Path) -> Result<Config, Problems> {
    let path = file.to_owned();
    let text = tokio::task::spawn_blocking(move || text_of(&path)).await;
    let text = text.unwrap_or_else(|e| Err(format!("a task failed: {e}")));
    let text = text.map_err(|what| {
        let file = file.to_owned();
        Problems(vec![Problem {
            file,
            line: None,
            key: None,
            what,
        }])
    })?;
    read::read(file, &text)
}

fn text_of(file: &Path) -> Result<String, String> {
    let found = match std::fs::metadata(file) {
        Ok(found) => found,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && file == Path::new(DEFAULT_PATH) => {
            return Ok(String::new());
        }
        Err(e) => return Err(format!("cannot be read: {e}")),
    };
    if !found.is_file() || found.len() > MAX_FILE {
        return Err("is no configuration file: give a text file of at most 1 MiB".to_owned());
    }
    std::fs::read_to_string(file).map_err(|e| format!("cannot be read: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bad_file_keeps_the_old_one_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        std::fs::write(&file, "[meet]\npeers = ['h1']\n").unwrap();
        let config = Reloadable::open(&file).await.unwrap();
        let mut told = config.subscribe();
        std::fs::write(&file, "[meet]\npeer = ['h2']\n").unwrap();
        let error = config.reload().await.unwrap_err();
        assert!(error.to_string().contains("agent.toml:2: meet.peer: "));
        assert_eq!(config.current().meet.peers, ["h1"]);
        assert!(!told.has_changed().unwrap());
        std::fs::write(
            &file,
            "connect = 'test:///default'\n[meet]\npeers = ['h2']\n",
        )
        .unwrap();
        for applied in [&["meet.peers"][..], &[]] {
            let changes = config.reload().await.unwrap();
            assert_eq!(changes.applied, applied);
            assert_eq!(changes.needs_restart, ["connect"]);
            assert_eq!(config.needs_restart(), ["connect"]);
        }
        assert_eq!(told.borrow_and_update().meet.peers, ["h2"]);
        config.reload().await.unwrap();
        assert!(told.has_changed().unwrap(), "certificates may have changed");
        assert_eq!(config.current().connect, "qemu:///system");
        std::fs::remove_file(&file).unwrap();
        assert!(config.reload().await.is_err());
        assert_eq!(config.current().meet.peers, ["h2"]);
    }
}
