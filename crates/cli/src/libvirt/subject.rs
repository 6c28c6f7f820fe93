//! Which log a domain's name stands for.

use std::io::Write;

use logchain::args::Which;
use logchain::show::Subject;
use logchain_core::chain::NumberingChoice;
use logchain_host::{astray, consoles, limits, neighbours};

/// By path, or as libvirt here knows it. A file in the current folder is meant where no such
/// domain is known.
pub(crate) async fn subject(log: &Which) -> anyhow::Result<Subject> {
    if let Some(subject) = Subject::of_path(log)? {
        neighbours::learn_of_path(&subject.path).await;
        return Ok(subject);
    }
    let uri = log.connect.uri.as_deref();
    let found = consoles::console(uri, &log.what, log.console.as_deref()).await;
    let (domain, console) = match (found, Subject::of_file(log)) {
        (Ok(found), _) => found,
        (Err(e), Some(file)) if e.is_no_domain() => return Ok(file),
        (Err(e), Some(file)) if e.is_no_libvirt() => {
            eprintln!(
                "logchain: the file {} is meant, since libvirt could not be asked for a domain of \
                 that name: {}",
                file.path.display(),
                e.sentence()
            );
            return Ok(file);
        }
        (Err(e), Some(file)) => {
            return Err(anyhow::Error::new(e).context(format!(
                "{} is the name of a domain; the file is {}",
                log.what,
                file.path.display()
            )));
        }
        (Err(e), None) => return Err(e.into()),
    };
    let numbering = match log.numbering {
        // virtlogd writes it.
        NumberingChoice::Auto => self::numbering(),
        choice => choice,
    };
    Ok(Subject {
        path: console.path.clone(),
        numbering,
        domain: Some((domain.name().to_owned(), domain.uuid().to_string())),
        console: Some(console.name.clone()),
    })
}

/// How logs on this host are numbered. What an operator should know of that is said.
fn numbering() -> NumberingChoice {
    let (numbering, note) = limits::numbering();
    if let Some(note) = note {
        say(&note);
    }
    numbering
}

/// Says where a running guest's log is, where nobody writes the file at its path. Looked
/// for only then: showing a log is to take no longer for it.
pub(crate) async fn warn_if_hidden(log: &Which, subject: &Subject) {
    if astray::has_writer(&subject.path).await {
        return;
    }
    if let Some(sentence) = not_written_here(log, subject).await {
        say(&sentence);
    }
}

/// What is wrong with where a running domain's log is written; `None` also for a path.
pub(crate) async fn not_written_here(log: &Which, subject: &Subject) -> Option<String> {
    let (_, uuid) = subject.domain.as_ref()?;
    let (connect, uuid) = (log.connect.uri.as_deref(), uuid.parse().ok()?);
    astray::not_written_here(connect, uuid, &subject.path).await
}

fn say(sentence: &str) {
    // Nobody may be there to read it any more.
    let _ = writeln!(std::io::stderr(), "logchain: {sentence}");
}
