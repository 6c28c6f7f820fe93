//! `cargo xtask test`: every check, in the order in which they fail soonest.

use std::io::IsTerminal as _;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use logchain_tests::LabError;

use crate::process::{answers, run};
use crate::stores::Store;
use crate::{moto, packages, process, stores};

/// Runs everything, or, with `args`, only what `cargo nextest run ARGS` picks; and
/// what is for `stores` alone.
pub(crate) fn run_suite(yes: bool, args: &[String], stores: &[Store]) -> Result<()> {
    let whole = args.is_empty();
    if whole && !rustix::process::geteuid().is_root() {
        return Err(LabError::NeedsRoot.into());
    }
    let mut headings = Headings::default();
    headings.step("packages", || {
        packages::ensure(yes, &stores::needs(stores))?;
        packages::guest()?;
        moto::ensure()?;
        stores::ensure(stores)
    })?;
    if whole {
        headings.step("format", || run(cargo().args(["fmt", "--all", "--check"])))?;
        headings.step("lints", || {
            let args = ["clippy", "--workspace", "--all-targets", "--all-features"];
            run(cargo().args(args).args(["--", "-D", "warnings"]))
        })?;
        headings.step("documentation", || {
            let args = ["doc", "--workspace", "--all-features", "--no-deps"];
            run(cargo().args(args).env("RUSTDOCFLAGS", "-D warnings"))
        })?;
        headings.step("examples in the documentation", || {
            run(cargo().args(["test", "--doc", "--workspace", "--all-features"]))
        })?;
        headings.step("what may be depended on", || {
            if !answers(process::cargo(), &["deny", "--version"]) {
                println!("not checked: cargo-deny is not installed");
                return Ok(());
            }
            run(cargo().args(["deny", "check", "bans", "licenses", "sources"]))
        })?;
    }
    headings.step("the logchain binaries", || {
        // With the features that the tests are built with, or it is built twice.
        let args = [
            "build",
            "--workspace",
            "--all-features",
            "--bin",
            "logchain",
            "--bin",
            "logchain-libvirt",
        ];
        run(cargo().args(args))
    })?;
    headings.step("tests", || tests(args))?;
    if stores.is_empty() {
        return Ok(());
    }
    headings.step("tests on real object stores", || {
        let mut args: Vec<_> = ["--test", "store"].map(str::to_owned).into();
        if answers(process::cargo(), &["nextest", "--version"]) {
            args.extend(["--run-ignored", "only", "--"].map(str::to_owned));
        } else {
            args.extend(["--", "--ignored"].map(str::to_owned));
        }
        args.extend(stores::tests(stores));
        tests(&args)
    })
}

fn tests(args: &[String]) -> Result<()> {
    if answers(process::cargo(), &["nextest", "--version"]) {
        let nextest = ["nextest", "run", "--workspace", "--all-features"];
        return run(cargo().args(nextest).args(args));
    }
    println!("cargo-nextest is not installed: using cargo test");
    let test = ["test", "--workspace", "--all-features", "--all-targets"];
    run(cargo().args(test).args(args))
}

fn cargo() -> Command {
    let mut command = Command::new(process::cargo());
    if !std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_PROGRESS_WHEN", "never");
    }
    command
}

#[derive(Default)]
struct Headings {
    steps: usize,
    started: Option<Instant>,
}

impl Headings {
    /// The last step's last words are the last words of all: nothing follows them.
    fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.steps += 1;
        let started = *self.started.get_or_insert_with(Instant::now);
        let seconds = started.elapsed().as_secs_f32();
        println!("\n== {}. {name} (after {seconds:.1} s)", self.steps);
        work().with_context(|| format!("step {}, {name}, failed", self.steps))
    }
}
