//! Tempest beside agents: the project's plugin, as an operator runs it, and what Tempest itself has of
//! live migrations and consoles.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Outcome;
use crate::nova::cloud::CALM;
use crate::nova::config::{FOLDER, tempest};
use crate::nova::files::{make_folder, write};
use crate::nova::install;
use crate::nova::stage::{Look, Stage};
use crate::process::run;

/// Migrations of a dozen servers, one after the other, on a machine that others use as well.
const LIMIT: Duration = Duration::from_secs(2400);
/// What is shown of a run that failed.
const LAST_LINES: usize = 60;

/// Tempest's own tests of live migrations and consoles. Those that need volumes are left out by
/// Tempest, since the cloud has none.
const OWN: &str = r"^tempest\.api\.compute\.admin\.test_live_migration\.|\.test_get_console_output";

/// The parts: what the table calls them, and which tests they are.
const PARTS: [(&str, &str); 2] = [
    ("the plugin", r"^logchain_tempest_plugin\."),
    ("its own tests of live migrations and consoles", OWN),
];

pub(super) fn run_tempest(stage: &Stage<'_>) -> Result<Vec<Outcome>> {
    install_plugin()?;
    let host = stage.cloud.lab.host(2);
    let folder = format!("{FOLDER}/tempest");
    make_folder(host, &folder)?;
    let image = stage.api().image(CALM)?;
    write(
        host,
        &format!("{folder}/tempest.conf"),
        &tempest(host.address(), &image),
    )?;
    PARTS
        .into_iter()
        .map(|(part, tests)| {
            let done = tests_of(stage, &folder, tests)?;
            let verdict = format!(
                "{} passed, {} failed, {} skipped",
                done.passed, done.failed, done.skipped
            );
            let good = done.passed > 0 && done.failed == 0;
            if !good {
                eprintln!("{}", done.last_lines);
            }
            let outcome = Outcome::new(Look::nothing(), Look::nothing(), verdict, good);
            Ok(outcome.of_part(part))
        })
        .collect()
}

/// Installs the plugin where Tempest is, from a copy: the build writes beside the sources.
fn install_plugin() -> Result<()> {
    let venv = install::place();
    let copy = venv.join("tempest_plugin");
    if copy.exists() {
        std::fs::remove_dir_all(&copy).with_context(|| copy.display().to_string())?;
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tempest_plugin");
    run(Command::new("cp").arg("-r").arg(sources).arg(&copy))?;
    let mut install = Command::new(venv.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check"]);
    install.args(["--no-deps", "--force-reinstall"]).arg(&copy);
    run(&mut install).context("cannot install the Tempest plugin")
}

struct Done {
    passed: u64,
    failed: u64,
    skipped: u64,
    last_lines: String,
}

fn tests_of(stage: &Stage<'_>, folder: &str, tests: &str) -> Result<Done> {
    let program = install::place().canonicalize()?.join("bin/tempest");
    let script = format!(
        "cd {folder} && exec {} run --config-file {folder}/tempest.conf --serial --regex '{tests}'",
        program.display()
    );
    let host = stage.cloud.lab.host(2);
    // Tempest keeps what it needs below the user's home.
    let command = host
        .command(["/bin/sh", "-c", &script])
        .env("HOME", folder)
        .limit(LIMIT);
    let output = command.run()?;
    let text = output.out() + &output.err();
    let lines: Vec<&str> = text.lines().collect();
    let last_lines = lines
        .iter()
        .skip(lines.len().saturating_sub(LAST_LINES))
        .copied()
        .collect::<Vec<_>>()
        .join("\n");
    let count = |name: &str| {
        let wanted = format!(" - {name}: ");
        let number = lines.iter().rev().find_map(|l| l.strip_prefix(&wanted));
        number.and_then(|number| number.trim().parse().ok())
    };
    match (count("Passed"), count("Failed"), count("Skipped")) {
        (Some(passed), Some(failed), Some(skipped)) => Ok(Done {
            passed,
            failed,
            skipped,
            last_lines,
        }),
        _ => bail!("Tempest ran no tests: {last_lines}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    /// The plugin compares consoles by itself, so this needs neither Tempest nor a cloud.
    #[test]
    fn the_plugin_tells_a_whole_console_from_one_that_lost_something() {
        let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tempest_plugin");
        let tests = "logchain_tempest_plugin/tests/unit/test_console.py";
        let output = Command::new("python3")
            .args(["-B", "-m", "unittest", tests])
            .current_dir(plugin)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}");
    }
}
