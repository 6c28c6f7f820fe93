//! Becomes `logchain-libvirt`.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// What this program becomes, in its own folder: never one from the PATH, which
/// may be of another version, or anybody's.
const NAME: &str = "logchain-libvirt";

/// Links are resolved: a link to `logchain` in another folder finds it too.
fn path() -> io::Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name(NAME))
}

/// Whether it is not installed. Then no domain is known here.
pub(crate) fn is_missing() -> bool {
    path().is_ok_and(|path| !path.exists())
}

/// Replaces this process, arguments and all. Returns only where that fails.
pub(crate) fn become_it() -> anyhow::Error {
    let path = match path() {
        Ok(path) => path,
        Err(e) => return anyhow::anyhow!("cannot find out where logchain lies: {e}"),
    };
    let mut given = env::args_os();
    let mut command = Command::new(&path);
    // Whoever looks for `logchain migrate` among the processes finds it.
    command.arg0(given.next().unwrap_or_else(|| "logchain".into()));
    let error = command.args(given).exec();
    if error.kind() == io::ErrorKind::NotFound {
        anyhow::anyhow!(
            "this needs libvirt, and so the program {}, which is not there: install it beside \
             logchain",
            path.display()
        )
    } else {
        anyhow::anyhow!("cannot start {}: {error}", path.display())
    }
}
