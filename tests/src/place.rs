//! Where things lie around the running binary: the build's folder, the lab's
//! cache, the `logchain` binary.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::{LabError, Result, io_error};

/// The folder of the running binary's profile: `target/debug`, for example.
fn profile_folder() -> Result<PathBuf> {
    let exe = env::current_exe().map_err(io_error("find", "the running binary"))?;
    let mut folder = exe.parent().unwrap_or(Path::new("/"));
    // Test binaries lie one deeper, doc tests and examples likewise.
    if let Some(name) = folder.file_name()
        && (name == OsStr::new("deps") || name == OsStr::new("examples"))
    {
        folder = folder.parent().unwrap_or(folder);
    }
    Ok(folder.to_owned())
}

/// What outlives a lab: the guest's kernel and initramfs.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let profile = profile_folder()?;
    Ok(profile.parent().unwrap_or(&profile).join("lab-cache"))
}

/// The `logchain` binary of this build: `LOGCHAIN_BIN`, or the one beside the
/// running test. `logchain-libvirt` lies beside it: links are followed to find it.
///
/// # Errors
/// [`LabError::Missing`] where there is none, with how to build it.
pub fn logchain_bin() -> Result<PathBuf> {
    if let Some(path) = env::var_os("LOGCHAIN_BIN") {
        let path = PathBuf::from(path);
        return match path.canonicalize() {
            Ok(path) if path.is_file() => Ok(path),
            _ => Err(LabError::Missing {
                what: format!("LOGCHAIN_BIN={}", path.display()),
                hint: "name a file that is there, or unset it".to_owned(),
            }),
        };
    }
    let folder = profile_folder()?;
    for name in ["logchain", "logchain-libvirt"] {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(LabError::Missing {
                what: path.display().to_string(),
                hint: "run `cargo build -p logchain` first, as `cargo xtask test` does".to_owned(),
            });
        }
    }
    Ok(folder.join("logchain"))
}
