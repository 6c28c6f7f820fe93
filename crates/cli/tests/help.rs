//! What `--help` prints changes only when somebody means it to, and the page of commands says
//! the same.
//!
//! After a change of a help text, `INSTA_UPDATE=always cargo test -p logchain --test help`
//! writes the snapshots and `cargo xtask docs` the page.

use std::error::Error;
use std::process::Command;

/// `cargo xtask docs` writes it.
const PAGE: &str = include_str!("../../../docs/src/reference/commands.md");

#[test]
fn the_page_of_commands_is_what_help_prints() -> Result<(), Box<dyn Error>> {
    let mut sections = PAGE.split("\n## ");
    let head = sections.next().unwrap_or_default();
    assert!(head.starts_with("# Commands"), "{head}");
    let mut count = 0;
    for section in sections {
        let (name, rest) = section.split_once('\n').ok_or("no command")?;
        let help = help(name)?;
        let want = format!("\n```text\n{}\n```\n", help.trim_end());
        assert_eq!(rest, want, "{name}: run `cargo xtask docs`");
        count += 1;
    }
    assert_eq!(count, 17, "every command has its section");
    Ok(())
}

#[test]
fn help_says_what_it_said() -> Result<(), Box<dyn Error>> {
    let sections = PAGE.split("\n## ").skip(1);
    for name in sections.filter_map(|section| section.lines().next()) {
        insta::assert_snapshot!(name.replace(' ', "-"), help(name)?);
    }
    Ok(())
}

/// What `NAME --help` prints.
fn help(name: &str) -> Result<String, Box<dyn Error>> {
    let output = Command::new(env!("CARGO_BIN_EXE_logchain"))
        .args(name.split_whitespace().skip(1))
        .arg("--help")
        .env_clear()
        .output()?;
    Ok(String::from_utf8(output.stdout)?)
}
