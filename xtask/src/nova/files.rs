//! Files and folders on a host, and what is kept of them.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use logchain_tests::Host;

use crate::process::run;

/// Makes a folder on the host, with all above it.
pub(crate) fn make_folder(host: &Host, folder: &str) -> Result<()> {
    let path = host.path(folder);
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))
}

/// Writes a file on the host.
pub(crate) fn write(host: &Host, file: &str, text: &str) -> Result<()> {
    let path = host.path(file);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes behind what is in a file on the host.
pub(crate) fn append(host: &Host, file: &str, text: &str) -> Result<()> {
    let path = host.path(file);
    let file = fs::OpenOptions::new().append(true).open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Copies a folder with owners and modes, under a name that is there only once it is whole.
#[expect(clippy::disallowed_methods, reason = "whoever was first made the same")]
pub(crate) fn keep_folder(from: &Path, to: &Path) -> Result<()> {
    let part = to.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
    }
    run(Command::new("cp").arg("-a").arg(from).arg(&part))?;
    fs::rename(&part, to).with_context(|| format!("cannot name {}", to.display()))
}
