//! Which log a domain's name stands for.

use std::path::Path;

use logchain_core::chain::NumberingChoice;

use crate::host;
use crate::show::Subject;

/// A log that was asked for.
pub(crate) struct Asked<'a> {
    pub(crate) uri: Option<&'a str>,
    pub(crate) what: &'a str,
    pub(crate) console: Option<&'a str>,
    pub(crate) numbering: NumberingChoice,
}

/// By path, or as libvirt here knows it.
pub(crate) async fn subject(asked: &Asked<'_>) -> anyhow::Result<Subject> {
    if let Some(subject) = Subject::of_path(asked.what, asked.console, asked.numbering)? {
        return Ok(subject);
    }
    let found = host::console(asked.uri, asked.what, asked.console).await;
    let (domain, console) = match found {
        Err(e) if Path::new(asked.what).exists() => {
            let what = asked.what;
            return Err(e.context(format!(
                "{what} is taken for a domain; a file is shown as ./{what}"
            )));
        }
        found => found?,
    };
    let numbering = match asked.numbering {
        // virtlogd writes it.
        NumberingChoice::Auto => host::limits().numbering(),
        choice => choice,
    };
    Ok(Subject {
        path: console.path.clone(),
        numbering,
        domain: Some((domain.name().to_owned(), domain.uuid().to_string())),
        console: Some(console.name.clone()),
    })
}
