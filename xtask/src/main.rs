//! `cargo xtask demo` and `cargo xtask test`: what they need is installed first,
//! so that both run on a fresh machine. With `--nova` they do so in an OpenStack. `cargo xtask docs`: the documentation. `cargo xtask plot`:
//! what was measured, as a picture.

mod demo;
mod docs;
mod in_target;
mod moto;
mod nova;
mod packages;
mod plot;
mod process;
mod progress;
mod stores;
mod suite;

use std::path::PathBuf;
use std::process::ExitCode;

use logchain_tests::LabError;

use crate::stores::Store;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo [--yes]               migrate a guest between two hypervisors on this machine, and show its log
  test [--yes]               every check: format, lints, docs, unit tests, and the tests in the lab
  test [--yes] -- ARGS       only the tests that `cargo nextest run ARGS` picks
  docs                       write the page of commands, check all links, build the book
  plot CSV SVG               draw what `cargo bench --bench window` wrote

  --yes                      install missing packages without asking
  --stores                   test: also on Azurite and Ceph, and Garage, which must be refused;
                             building Garage takes a quarter of an hour, once
  --stores=azurite,ceph      only on these
  --nova                     test: nothing else but migrations and more by an OpenStack Nova that is
                             started here, with agents and without; demo: one migration by it
  --nova=live,abort+,back-   only these rows; +: only with agents, -: only without
  --nova=live@tls,live@ssh   the agents meet over TLS or ssh instead of in a folder
";

enum Task {
    Demo,
    /// `test` of these rows in a cloud.
    Nova {
        rows: Vec<nova::Choice>,
    },
    /// `demo` in a cloud.
    NovaDemo,
    /// The demo without what needs no root; started by `demo` under sudo.
    DemoInLab,
    Test {
        args: Vec<String>,
        stores: Vec<Store>,
    },
    Docs,
    Plot {
        csv: PathBuf,
        svg: PathBuf,
    },
    Help,
}

fn main() -> ExitCode {
    let (task, yes) = match parse(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(word) => {
            eprint!("xtask: {word}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let done = match task {
        Task::Help => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Task::Demo => demo::run(yes),
        Task::DemoInLab => demo::in_lab(),
        Task::Nova { rows } => nova::run_suite(yes, &rows),
        Task::NovaDemo => nova::run_demo(yes),
        Task::Docs => docs::run_docs(),
        Task::Plot { csv, svg } => plot::run(&csv, &svg),
        Task::Test { args, stores } => suite::run_suite(yes, &args, &stores),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if process::was_interrupted(&e) => {
            eprintln!("\ninterrupted; nothing is left running");
            ExitCode::from(130)
        }
        Err(e) => {
            eprintln!("\nerror: {e:#}");
            if matches!(e.downcast_ref(), Some(LabError::NeedsRoot)) {
                eprintln!("       sudo -E env PATH=\"$PATH\" cargo xtask …");
            }
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<(Task, bool), String> {
    let mut task = match args.next().as_deref() {
        Some("demo") => Task::Demo,
        Some("demo-in-lab") => Task::DemoInLab,
        Some("docs") => Task::Docs,
        Some("test") => Task::Test {
            args: Vec::new(),
            stores: Vec::new(),
        },
        Some("plot") => {
            let mut path = |what| args.next().map(PathBuf::from).ok_or(what);
            Task::Plot {
                csv: path("which CSV file?")?,
                svg: path("which SVG file?")?,
            }
        }
        Some("help" | "--help" | "-h") => return Ok((Task::Help, false)),
        Some(other) => return Err(format!("no such command: {other}")),
        None => return Err("which command?".to_owned()),
    };
    let mut yes = false;
    while let Some(arg) = args.next() {
        match (arg.as_str(), &mut task) {
            ("--yes" | "-y", _) => yes = true,
            ("--stores", Task::Test { stores, .. }) => *stores = stores::all(),
            ("--nova", Task::Demo) => task = Task::NovaDemo,
            ("--nova", Task::Test { .. }) => task = Task::Nova { rows: nova::all() },
            ("--", Task::Test { args: filter, .. }) => filter.extend(args.by_ref()),
            (arg, Task::Test { stores, .. }) if arg.starts_with("--stores=") => {
                *stores = stores::parse(arg.trim_start_matches("--stores="))?;
            }
            (arg, Task::Test { .. }) if arg.starts_with("--nova=") => {
                let rows = nova::parse(arg.trim_start_matches("--nova="))?;
                task = Task::Nova { rows };
            }
            _ => return Err(format!("what is {arg}?")),
        }
    }
    Ok((task, yes))
}

#[cfg(test)]
mod tests {
    use super::{Task, parse};

    fn words(text: &str) -> impl Iterator<Item = String> {
        text.split_whitespace().map(str::to_owned)
    }

    #[test]
    fn arguments_are_read() {
        assert!(matches!(parse(words("demo")), Ok((Task::Demo, false))));
        assert!(matches!(parse(words("demo --yes")), Ok((Task::Demo, true))));
        let plot = parse(words("plot a.csv b.svg"));
        assert!(matches!(plot, Ok((Task::Plot { csv, .. }, false)) if csv.ends_with("a.csv")));
        let Ok((Task::Test { args, stores }, true)) = parse(words("test -y -- -p x --yes")) else {
            panic!("test");
        };
        assert_eq!((args.join(" ").as_str(), stores.len()), ("-p x --yes", 0));
        for (text, count) in [("--stores", 3), ("--stores=ceph", 1)] {
            let parsed = parse(words(&format!("test {text} -- --stores")));
            let Ok((Task::Test { args, stores }, false)) = parsed else {
                panic!("{text}");
            };
            assert_eq!((args.len(), stores.len()), (1, count), "{text}");
        }
        let nova = parse(words("test --nova=live,abort-,back@tls --yes"));
        assert!(matches!(nova, Ok((Task::Nova { rows }, true)) if rows.len() == 3));
        let nova = parse(words("test --nova"));
        assert!(matches!(nova, Ok((Task::Nova { rows }, false)) if rows.len() > 2));
        assert!(matches!(
            parse(words("demo --nova")),
            Ok((Task::NovaDemo, false))
        ));
        for wrong in [
            "",
            "test --nova=x",
            "test --nova=live@x",
            "test --nova -- x",
            "demo --nova=live",
            "dmeo",
            "plot",
            "plot x.csv",
            "plot x.csv y.svg z",
            "demo --all",
            "demo -- x",
            "test x",
            "demo --stores",
            "test --stores=x",
        ] {
            assert!(parse(words(wrong)).is_err(), "{wrong}");
        }
    }
}
