//! Programs of this machine, outside every host: run to their end, in bounds.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::command::Gathered;
use crate::error::{LabError, Result, io_error};
use crate::wait::until;

/// What a tool printed. `what` it does is for the error that says it took too long.
pub(crate) fn tool(what: &str, args: &[&str], folder: &Path, limit: Duration) -> Result<Vec<u8>> {
    let [program, rest @ ..] = args else {
        return Ok(Vec::new());
    };
    let mut child = Command::new(program)
        .args(rest)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io_error("run", program))?;
    let mut stdout = Gathered::of(child.stdout.take());
    let mut stderr = Gathered::of(child.stderr.take());
    let ended = until(&format!("{what} (`{}`)", args.join(" ")), limit, || {
        child.try_wait().map_err(io_error("wait for", program))
    });
    let status = match ended {
        Ok(status) => status,
        Err(e) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(e);
        }
    };
    stdout.finish();
    stderr.finish();
    if status.success() {
        return Ok(stdout.bytes());
    }
    Err(LabError::Failed {
        host: "this machine".to_owned(),
        command: args.join(" "),
        status,
        stderr: String::from_utf8_lossy(&stderr.bytes()).into_owned(),
    })
}
