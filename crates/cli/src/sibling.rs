//! Becomes `logchain-libvirt`.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// What this program becomes, in its own folder: never one from the PATH, which
/// may be of another version, or anybody's.
const NAME: &str = "logchain-libvirt";

/// Replaces this process, arguments and all. Returns only where that fails.
/// `domain`: what was taken for the name of one, and may have been meant as a file.
pub(crate) fn become_it(domain: Option<&str>) -> anyhow::Error {
    // Links are resolved: a link to `logchain` in another folder finds it too.
    let path = match env::current_exe() {
        Ok(own) => own.with_file_name(NAME),
        Err(e) => return anyhow::anyhow!("cannot find out where logchain lies: {e}"),
    };
    let mut given = env::args_os();
    let mut command = Command::new(&path);
    // Whoever looks for `logchain migrate` among the processes finds it.
    command.arg0(given.next().unwrap_or_else(|| "logchain".into()));
    let error = command.args(given).exec();
    let hint = domain.filter(|what| Path::new(what).exists());
    let hint = hint.map_or_else(String::new, |what| {
        format!(" ({what} is taken for a domain; a file is shown as ./{what})")
    });
    if error.kind() == io::ErrorKind::NotFound {
        anyhow::anyhow!(
            "this needs libvirt, and so the program {}, which is not there: \
             install it beside logchain{hint}",
            path.display()
        )
    } else {
        anyhow::anyhow!("cannot start {}: {error}{hint}", path.display())
    }
}
