//! What the documentation shows is true: a session marked as `console run` is run and prints
//! what is shown, and every other command has the options and operands that its help names.
//!
//! A session runs in a shell, in a folder of its own that it calls `/srv`. A log of three files
//! lies there in `logs`, and `spool` is empty. The sessions of one page share the folder.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const LOGCHAIN: &str = env!("CARGO_BIN_EXE_logchain");

/// What a session calls its folder.
const SRV: &str = "/srv";

/// The page that is made of what `--help` prints.
const HELP_PAGE: &str = "commands.md";

#[test]
fn sessions_print_what_is_shown() -> Outcome {
    let mut count = 0;
    for page in pages()? {
        let text = fs::read_to_string(&page)?;
        let folder = tempfile::tempdir()?;
        samples(folder.path())?;
        for block in blocks(&text).filter(|block| block.info == "console run") {
            let shown = block.lines.join("\n");
            let printed = run(&block, folder.path())?;
            let place = format!("{}, line {}", page.display(), block.line);
            assert_eq!(steady(&shown), steady(printed.trim_end()), "{place}");
            count += 1;
        }
    }
    assert!(count >= 5, "only {count} sessions were found");
    Ok(())
}

#[test]
fn commands_have_the_options_that_are_shown() -> Outcome {
    let mut helps = BTreeMap::new();
    let mut count = 0;
    for page in pages()? {
        if page.ends_with(HELP_PAGE) {
            continue;
        }
        let text = fs::read_to_string(&page)?;
        let mut shown = Vec::new();
        for block in blocks(&text).filter(Block::is_shell) {
            let lines = (block.line + 1..).zip(&block.lines);
            shown.extend(lines.map(|(line, text)| (line, text.to_string(), true)));
        }
        let spans = spans(&text);
        shown.extend(spans.map(|(line, span)| (line, span.to_owned(), false)));
        for (line, text, is_whole) in shown {
            let Some(words) = of_logchain(&text) else {
                continue;
            };
            let place = format!("{}, line {line}: {text}", page.display());
            let checked = check(&words, is_whole, &mut helps);
            checked.map_err(|e| format!("{place}: {e}"))?;
            count += 1;
        }
    }
    assert!(count >= 60, "only {count} commands were found");
    Ok(())
}

#[test]
fn the_check_finds_what_is_wrong() -> Outcome {
    let mut helps = BTreeMap::new();
    for (text, wrong) in [
        ("logchain shew vm1", "no command"),
        ("logchain show --sideways vm1", "--sideways"),
        ("logchain show -x vm1", "-x"),
        ("logchain show -n 5", "0 operands"),
        ("logchain show vm1 --lines", "--lines needs a value"),
        ("logchain reap vm1", "1 operands"),
        ("logchain transport chuck URL", "no command"),
    ] {
        let words = of_logchain(text).ok_or("no command line")?;
        let error = check(&words, true, &mut helps).err().unwrap_or_default();
        assert!(error.contains(wrong), "{text}: {error}");
    }
    assert_eq!(
        of_logchain("x | xargs logchain show 'a b' > c # d"),
        Some(vec!["show".to_owned(), "a b".to_owned()])
    );
    assert_eq!(of_logchain("cargo build -p logchain # logchain show"), None);
    Ok(())
}

/// README and every page of the book.
fn pages() -> Outcome<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![root.join("README.md")];
    let mut folders = vec![root.join("docs/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    Ok(pages)
}

/// A fenced block.
struct Block<'a> {
    /// What is behind the fence.
    info: &'a str,
    /// The line of the fence, from one on.
    line: usize,
    lines: Vec<&'a str>,
}

impl Block<'_> {
    fn is_shell(&self) -> bool {
        let language = self.info.split(' ').next().unwrap_or_default();
        ["", "sh", "console"].contains(&language)
    }
}

fn blocks(text: &str) -> impl Iterator<Item = Block<'_>> {
    let mut lines = (1..).zip(text.lines());
    std::iter::from_fn(move || {
        let (line, info) = lines.find_map(|(n, l)| Some((n, l.strip_prefix("```")?)))?;
        let inside = lines.by_ref().map(|(_, l)| l);
        let lines = inside.take_while(|l| *l != "```").collect();
        Some(Block { info, line, lines })
    })
}

/// What stands in backticks outside of blocks, with its line.
fn spans(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    (1..).zip(text.lines()).flat_map(move |(n, line)| {
        is_code ^= line.starts_with("```");
        let line = if is_code { "" } else { line };
        line.split('`')
            .skip(1)
            .step_by(2)
            .map(move |span| (n, span))
    })
}

/// The log of the sessions, last written when its names say.
fn samples(folder: &Path) -> Outcome {
    fs::create_dir(folder.join("logs"))?;
    fs::create_dir(folder.join("spool"))?;
    let now = SystemTime::now();
    for (name, events, age) in [
        ("vm1.console.log.1", 1..40, 7200),
        ("vm1.console.log.0", 40..80, 3600),
        ("vm1.console.log", 80..83, 0),
    ] {
        let line = |n| format!("[{n:5}.000000] usb 1-1: event {n}\n");
        let path = folder.join("logs").join(name);
        fs::write(&path, events.map(line).collect::<String>())?;
        let written = now - Duration::from_secs(age);
        File::options()
            .write(true)
            .open(path)?
            .set_modified(written)?;
    }
    Ok(())
}

/// What the session looks like when it is run.
fn run(block: &Block<'_>, folder: &Path) -> Outcome<String> {
    let here = folder.to_str().ok_or("not a text")?;
    let mut script = "exec 2>&1\n".to_owned();
    for command in block.lines.iter().filter_map(|l| l.strip_prefix("$ ")) {
        let shown = command.replace('\'', r"'\''");
        let command = command.replace(SRV, here);
        // The next command may ask for this one's status.
        script.push_str(&format!("s=$?; echo '$ {shown}'; (exit $s)\n{command}\n"));
    }
    let programs = Path::new(LOGCHAIN).parent().ok_or("no folder")?;
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder)
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
        .env("LC_ALL", "C")
        .output()?;
    Ok(String::from_utf8(output.stdout)?.replace(here, SRV))
}

/// How long something took, and how fast it was, differs from run to run.
fn steady(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_inclusive([' ', '\n']) {
        let is_unit = ["ms)", "ms,", "MiB/s)"].contains(&word.trim_end());
        if let (true, Some(figure)) = (is_unit, words.last_mut()) {
            let is_open = figure.starts_with('(');
            *figure = if is_open { "(N " } else { "N " }.to_owned();
        }
        words.push(word.to_owned());
    }
    words.concat()
}

/// The words behind `logchain` on a command line, if one runs it.
fn of_logchain(line: &str) -> Option<Vec<String>> {
    let words = words(line);
    let at = words.iter().position(|w| w == "logchain")?;
    let before = at.checked_sub(1).and_then(|at| words.get(at));
    // A package, for cargo.
    if before.is_some_and(|word| word == "-p") {
        return None;
    }
    let rest = words.into_iter().skip(at + 1);
    let ends = |word: &String| [">", "|", "&&", ";"].contains(&word.as_str());
    let rest: Vec<_> = rest.take_while(|word| !ends(word)).collect();
    // A script that hands its own words on.
    (rest != ["$@"]).then_some(rest)
}

/// A command line's words, without its comment and quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in line.chars().chain([' ']) {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            (c, Some(_)) => word.push(c),
            ('\'' | '"', None) => quote = Some(c),
            ('#', None) if word.is_empty() => break,
            (c, None) if c.is_whitespace() => words.push(std::mem::take(&mut word)),
            (c, None) => word.push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What `--help` says of a command.
#[derive(Debug, Default)]
struct Help {
    /// Names of the options, and whether one takes a value.
    options: BTreeMap<String, bool>,
    commands: Vec<String>,
    /// How many operands it needs, and takes.
    operands: (usize, usize),
}

impl Help {
    fn of(command: &[String]) -> Result<Self, String> {
        let output = Command::new(LOGCHAIN)
            .args(command)
            .arg("--help")
            .env_clear()
            .output();
        let output = output.map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(format!("no command {}", command.join(" ")));
        }
        Ok(Self::read(&String::from_utf8_lossy(&output.stdout)))
    }

    fn read(text: &str) -> Self {
        let mut help = Self::default();
        let mut is_commands = false;
        for line in text.lines() {
            if !line.starts_with(' ') {
                is_commands = line == "Commands:";
            }
            if let Some(usage) = line.strip_prefix("Usage: ") {
                help.operands = operands(usage);
            }
            // What an option means is indented further.
            let is_name = line.starts_with("  ") && !line.starts_with("       ");
            let mut words = line.split_whitespace().peekable();
            if is_commands && is_name && !line.starts_with("   ") {
                help.commands.extend(words.next().map(str::to_owned));
                continue;
            }
            if !line.trim_start().starts_with('-') {
                continue;
            }
            let mut names = Vec::new();
            while let Some(name) = words.next_if(|w| w.starts_with('-')) {
                // The value of some may be left out: it is behind a `=` then.
                let name = name.split_once('[').map_or(name, |(name, _)| name);
                names.push(name.trim_end_matches(','));
            }
            let takes = words.peek().is_some_and(|w| w.starts_with('<'));
            for name in names {
                help.options.insert(name.to_owned(), takes);
            }
        }
        help
    }
}

/// How many operands a line of usage has: needed, and taken.
fn operands(usage: &str) -> (usize, usize) {
    let (mut needed, mut taken) = (0, 0);
    let mut is_value = false;
    for word in usage.split_whitespace() {
        match word {
            "[OPTIONS]" => {}
            // Of the option before it.
            _ if is_value => {}
            _ if word.starts_with('<') => (needed, taken) = (needed + 1, taken + 1),
            _ if word.starts_with('[') => taken += 1,
            _ => {}
        }
        is_value = word.starts_with("--");
    }
    (needed, taken)
}

/// `is_whole`: it has its operands too.
fn check(
    words: &[String],
    is_whole: bool,
    helps: &mut BTreeMap<Vec<String>, Help>,
) -> Result<(), String> {
    let mut command = Vec::new();
    let mut rest = words.iter();
    let help = loop {
        if !helps.contains_key(&command) {
            helps.insert(command.clone(), Help::of(&command)?);
        }
        let help = helps.get(&command).ok_or("no help")?;
        if help.commands.is_empty() {
            break help;
        }
        match rest.next() {
            Some(word) if help.commands.contains(word) => command.push(word.clone()),
            Some(word) if help.options.contains_key(word) => return Ok(()),
            Some(word) => return Err(format!("no command {word}")),
            None => return Ok(()),
        }
    };
    let mut operands = 0;
    while let Some(word) = rest.next() {
        if !word.starts_with('-') {
            operands += usize::from(word != "…");
            continue;
        }
        let name = word.split('=').next().unwrap_or_default();
        let takes = help
            .options
            .get(name)
            .ok_or_else(|| format!("no option {name}"))?;
        if *takes && !word.contains('=') && rest.next().is_none() && is_whole {
            return Err(format!("{name} needs a value"));
        }
    }
    let (needed, taken) = help.operands;
    let needed = if is_whole { needed } else { 0 };
    if !(needed..=taken).contains(&operands) {
        return Err(format!("{operands} operands, not {needed} to {taken}"));
    }
    Ok(())
}
