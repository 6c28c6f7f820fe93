//! Which log a domain's name stands for.

use std::io::Write;

use logchain::args::Which;
use logchain::show::Subject;
use logchain_core::chain::NumberingChoice;
use logchain_core::folder::Folder;
use logchain_host::astray;
use logchain_host::consoles;
use logchain_host::limits;
use logchain_host::neighbours;
use logchain_libvirt::Error;
use logchain_libvirt::drain::{Writer, has_writer};

/// By path, or as libvirt here knows it. A file in the current folder is meant where no such
/// domain is known.
pub(crate) async fn subject(log: &Which) -> anyhow::Result<Subject> {
    if let Some(subject) = Subject::of_path(log)? {
        neighbours::learn_of_path(&subject.path).await;
        return Ok(subject);
    }
    let uri = log.connect.uri.as_deref();
    let found = consoles::console(uri, &log.what, log.console.as_deref()).await;
    let (domain, console) = match found {
        Ok(found) => found,
        Err(e) => match (Subject::of_file(log), &e) {
            (Some(file), logchain_host::Error::Libvirt(Error::NoDomain { .. })) => return Ok(file),
            (
                Some(file),
                logchain_host::Error::Libvirt(Error::Connect { .. } | Error::NoAnswer { .. }),
            ) => {
                let sentence = e.sentence();
                eprintln!(
                    "logchain: the file {} is meant, since libvirt could not be asked for a \
                     domain of that name: {sentence}",
                    file.path.display()
                );
                return Ok(file);
            }
            (Some(file), _) => {
                return Err(anyhow::Error::new(e).context(format!(
                    "{} is the name of a domain; the file is {}",
                    log.what,
                    file.path.display()
                )));
            }
            (None, _) => return Err(e.into()),
        },
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
pub(crate) fn numbering() -> NumberingChoice {
    let (numbering, note) = limits::numbering();
    if let Some(note) = note {
        // Nobody may be there to read it any more.
        let _ = writeln!(std::io::stderr(), "logchain: {note}");
    }
    numbering
}

/// Says where a running guest's log is, where nobody writes the file at its path. Looked
/// for only then: showing a log is to take no longer for it.
pub(crate) async fn warn_if_hidden(log: &Which, subject: &Subject) {
    let path = subject.path.clone();
    let look = move || {
        let (folder, base) = Folder::of_file(&path).ok()?;
        let (file, _) = folder.open_file(&base).ok()?;
        Some(has_writer(&file) != Writer::None)
    };
    let written = tokio::task::spawn_blocking(look).await;
    if written.ok().flatten().unwrap_or(false) {
        return;
    }
    if let Some(sentence) = not_written_here(log, subject).await {
        let _ = writeln!(std::io::stderr(), "logchain: {sentence}");
    }
}

/// What is wrong with where a running domain's log is written; `None` also for a path,
/// and where nobody can tell.
pub(crate) async fn not_written_here(log: &Which, subject: &Subject) -> Option<String> {
    let (_, uuid) = subject.domain.as_ref()?;
    let connection = consoles::connect_local(log.connect.uri.as_deref())
        .await
        .ok()?;
    let domain = connection.lookup_uuid(uuid.parse().ok()?).await.ok()?;
    if !domain.state().await.ok()?.is_active() {
        return None;
    }
    let mut look = astray::Look::new().await?;
    let found = look.at(&domain, &subject.path).await?;
    astray::sentence(&subject.path, &found)
}
