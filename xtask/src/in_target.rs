//! What is installed in the build's folder, once.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::progress::begin;

/// The last step of an installation: one that was cut off is begun anew.
const WHOLE: &str = "installed";

/// Something that tests find in a folder of its own there.
pub(crate) struct Installation {
    pub(crate) folder: &'static str,
    /// In that folder.
    pub(crate) program: &'static str,
    /// It is installed again when this changes.
    pub(crate) version: &'static str,
    /// For people.
    pub(crate) doing: &'static str,
}

impl Installation {
    /// Has `install` put it into the folder where it is not there yet.
    pub(crate) fn ensure(&self, install: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let folder = self.place();
        let mark = folder.join(WHOLE);
        let there = std::fs::read_to_string(&mark).unwrap_or_default();
        if there == self.version && folder.join(self.program).is_file() {
            return Ok(());
        }
        let step = begin(self.doing);
        install(&folder)?;
        let written = std::fs::write(&mark, self.version);
        written.with_context(|| format!("cannot write {}", mark.display()))?;
        step.done();
        Ok(())
    }

    /// The folder that it is in, or will be.
    pub(crate) fn place(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../target")
            .join(self.folder)
    }
}
