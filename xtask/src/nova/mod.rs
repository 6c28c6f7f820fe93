//! `cargo xtask test --nova`: an OpenStack of two hypervisors on this machine, and what its users
//! read of a console log while Nova moves, reboots and removes servers, with agents and without.

mod agents;
mod api;
mod cloud;
mod compute;
mod config;
mod controller;
mod daemon;
mod demo;
mod files;
mod http;
mod install;
mod lines;
mod poller;
mod rows;
mod stage;
mod wait;

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use logchain_tests::LabError;

use crate::process::{cargo, run as run_child, was_interrupted};
use agents::{Agents, Meet};
use cloud::Cloud;
use rows::{Outcome, ROWS, Row};
use stage::Stage;

/// A row to be run, with agents, without, or both.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    row: &'static Row,
    with: bool,
    without: bool,
    meet: Meet,
}

/// All rows, with agents and without; and the row of three migrations once more for each other way
/// in which agents meet.
pub(crate) fn all() -> Vec<Choice> {
    let both = |row| Choice {
        row,
        with: true,
        without: true,
        meet: Meet::Store,
    };
    let mut all: Vec<_> = ROWS.iter().map(both).collect();
    for meet in [Meet::Tls, Meet::Ssh] {
        let rows = ROWS.iter().filter(|row| row.name == "back");
        all.extend(rows.map(|row| Choice {
            meet,
            without: false,
            ..both(row)
        }));
    }
    all
}

/// Which rows: `live,abort+,back-,live@tls`, where `+` is only with agents, and `-` only without;
/// `@tls` and `@ssh` are with agents that meet in that way instead of in a folder.
pub(crate) fn parse(list: &str) -> Result<Vec<Choice>, String> {
    let one = |word: &str| {
        let (word, way) = word.split_once('@').unwrap_or((word, Meet::Store.name()));
        let meet = Meet::ALL.into_iter().find(|meet| meet.name() == way);
        let meet = meet.ok_or_else(|| format!("agents do not meet by {way:?}"))?;
        let name = word.trim_end_matches(['+', '-']);
        let row = ROWS.iter().find(|row| row.name == name);
        let row = row.ok_or_else(|| format!("there is no row {name:?} for Nova"))?;
        Ok(Choice {
            row,
            with: !word.ends_with('-'),
            without: !word.ends_with('+') && meet == Meet::Store,
            meet,
        })
    };
    list.split(',').map(one).collect()
}

/// Installs and starts the cloud, and runs these rows.
pub(crate) fn run_suite(yes: bool, choices: &[Choice]) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(LabError::NeedsRoot.into());
    }
    let cloud = prepare(yes)?;
    println!(
        "\n| what Nova does | agents | console before | files before | console after | files after | reads meanwhile | outcome |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut bad = Vec::new();
    for choice in choices {
        let Choice { row, meet, .. } = choice;
        if choice.with {
            let agents = Agents::start(&cloud.lab, *meet)?;
            let stage = Stage {
                cloud: &cloud,
                agents: Some(&agents),
            };
            if !run_row(row, meet.name(), &stage)? {
                bad.push(row.name);
                eprintln!("{}", agents.last_lines());
            }
        }
        if choice.without {
            let stage = Stage {
                cloud: &cloud,
                agents: None,
            };
            run_row(row, "none", &stage)?;
        }
    }
    if !bad.is_empty() {
        bail!("not as promised with agents: {}", bad.join(", "));
    }
    Ok(())
}

/// Installs and starts the cloud, and shows one migration by it.
pub(crate) fn run_demo(yes: bool) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(LabError::NeedsRoot.into());
    }
    demo::show(&prepare(yes)?)
}

/// Installs, builds, and starts the cloud.
fn prepare(yes: bool) -> Result<Cloud> {
    let venv = install::ensure(yes)?;
    run_child(Command::new(cargo()).args(["build", "--package", "logchain", "--bins"]))?;
    let started = Instant::now();
    let cloud = Cloud::start(&venv)?;
    println!(
        "the cloud was up in {:.0} s",
        started.elapsed().as_secs_f32()
    );
    Ok(cloud)
}

/// Runs a row and prints what came of it; gives whether it is as promised with agents. One that
/// cannot be run to its end is no reason to leave out the others.
fn run_row(row: &Row, agents: &str, stage: &Stage<'_>) -> Result<bool> {
    let outcomes = match (row.run)(stage) {
        Ok(outcomes) => outcomes,
        Err(e) if was_interrupted(&e) => return Err(e),
        Err(e) => {
            println!(
                "| {} | {agents} | | | | | | could not be run: {} |",
                row.what,
                one_line(&e)
            );
            stage.clear()?;
            return Ok(false);
        }
    };
    for outcome in &outcomes {
        print_outcome(row, agents, outcome);
        if stage.agents.is_some() && !outcome.good {
            keep_logs(row, outcome)?;
        }
    }
    Ok(outcomes.iter().all(|outcome| outcome.good))
}

fn print_outcome(row: &Row, agents: &str, outcome: &Outcome) {
    let what = match outcome.part.as_str() {
        "" => row.what.to_owned(),
        part => format!("{}: {part}", row.what),
    };
    let Outcome { before, after, .. } = outcome;
    println!(
        "| {what} | {agents} | {} | {} | {} | {} | {} | {} |",
        before.console, before.files, after.console, after.files, outcome.reads, outcome.verdict
    );
}

/// Puts down both logs of a row that is not as promised.
fn keep_logs(row: &Row, outcome: &Outcome) -> Result<()> {
    let folder = install::place().join("logs");
    std::fs::create_dir_all(&folder).context("cannot keep the logs")?;
    let (console, files) = &outcome.after.raw;
    for (kind, bytes) in [("console", console), ("files", files)] {
        let path = folder.join(format!("{}-{}.{kind}", row.name, outcome.part));
        std::fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        eprintln!("kept: {}", path.display());
    }
    Ok(())
}

fn one_line(error: &anyhow::Error) -> String {
    let text = format!("{:#}", anyhow!("{error:#}"));
    text.lines().collect::<Vec<_>>().join(" / ")
}
