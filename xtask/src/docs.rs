//! `cargo xtask docs`: the page of commands, written from the program; the page and schema of
//! events, written from their type; every link in the documentation, checked; and the book,
//! built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::in_target::Installation;
use crate::process::{self, run};

/// What builds the book.
const MDBOOK: Installation = Installation {
    folder: "mdbook",
    program: "bin/mdbook",
    version: "0.4.52",
    doing: "installing mdbook, which builds the book",
};

/// Every command, each with its words.
const COMMANDS: [&[&str]; 17] = [
    &[],
    &["migrate"],
    &["show"],
    &["verify"],
    &["stream"],
    &["offer"],
    &["adopt"],
    &["reap"],
    &["rotate"],
    &["status"],
    &["agent"],
    &["agent", "status"],
    &["agent", "drain"],
    &["agent", "reload"],
    &["transport"],
    &["transport", "check"],
    &["transport", "serve"],
];

pub(crate) fn run_docs() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    run(Command::new(process::cargo()).args(["build", "-p", "logchain", "--bin", "logchain"]))?;
    let page = root.join("docs/src/reference/commands.md");
    fs::write(&page, commands(&root.join("target/debug/logchain"))?)?;
    println!("{} is written", page.display());
    let reference = root.join("docs/src/reference");
    let mut events = Command::new(process::cargo());
    events.args(["run", "--quiet", "-p", "logchain-host"]);
    events.args(["--features", "schema", "--example", "events", "--"]);
    run(events.arg(&reference))?;
    println!("the events in {} are written", reference.display());
    check_links(&root)?;
    MDBOOK.ensure(|folder| {
        let mut install = Command::new(process::cargo());
        install.args(["install", "--locked", "mdbook", "--version", MDBOOK.version]);
        install
            .args(["--no-default-features", "--root"])
            .arg(folder);
        run(&mut install)
    })?;
    let program = root.join("target").join(MDBOOK.folder).join(MDBOOK.program);
    run(Command::new(program).arg("build").arg(root.join("docs")))
}

/// The page: what `--help` prints of each command.
fn commands(program: &Path) -> Result<String> {
    let mut page = String::from(
        "# Commands\n\nWhat `--help` prints. `cargo xtask docs` writes this page, and a test compares it with \
         the program.\n",
    );
    for words in COMMANDS {
        let output = Command::new(program)
            .args(words)
            .arg("--help")
            .env_clear()
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        if !output.status.success() {
            bail!(
                "{} {words:?} --help ended with {}",
                program.display(),
                output.status
            );
        }
        let name = ["logchain"].iter().chain(words).copied();
        let name = name.collect::<Vec<_>>().join(" ");
        let help = String::from_utf8(output.stdout)?;
        page.push_str(&format!(
            "\n## {name}\n\n```text\n{}\n```\n",
            help.trim_end()
        ));
    }
    Ok(page)
}

/// Every relative link in the documentation leads to a file.
fn check_links(root: &Path) -> Result<()> {
    let mut broken = Vec::new();
    let mut count = 0_usize;
    for page in pages(root)? {
        let text = fs::read_to_string(&page)?;
        let folder = page.parent().unwrap_or(root);
        for link in links(&text) {
            count = count.saturating_add(1);
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !folder.join(target).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    if !broken.is_empty() {
        bail!("links that lead nowhere:\n  {}", broken.join("\n  "));
    }
    println!("{count} links lead to what they name");
    Ok(())
}

fn pages(root: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = vec![root.to_owned(), root.join("docs/src")];
    for kind in ["guide", "operating", "reference", "design"] {
        folders.push(root.join("docs/src").join(kind));
    }
    let mut pages = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    Ok(pages)
}

/// Pure: the links of a page to other files, outside of its code.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        let parts = line.split("](").skip(1);
        let targets = parts.filter_map(|part| part.split(')').next());
        let to_files = targets.filter(|t| !t.contains("://") && !t.starts_with("mailto:"));
        links.extend(to_files.map(str::to_owned));
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_are_found() {
        let text = "[a](b.md) and ![c](d/e.svg), [f](https://g)\n```\n[h](i)\n```\n[j](#k)\n";
        assert_eq!(links(text), ["b.md", "d/e.svg", "#k"]);
    }

    #[test]
    fn every_link_leads_somewhere() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        check_links(&root).unwrap();
    }
}
