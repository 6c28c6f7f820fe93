//! Which log a domain's name stands for.

use std::path::Path;

use logchain_core::chain::NumberingChoice;

use crate::args::Which;
use crate::host;
use crate::neighbours;
use crate::show::Subject;

/// By path, or as libvirt here knows it.
pub(crate) async fn subject(log: &Which) -> anyhow::Result<Subject> {
    if let Some(subject) = Subject::of_path(log)? {
        neighbours::learn_of_path(&subject.path).await;
        return Ok(subject);
    }
    let uri = log.connect.uri.as_deref();
    let (domain, console) = match host::console(uri, &log.what, log.console.as_deref()).await {
        Err(e) if Path::new(&log.what).exists() => {
            let what = &log.what;
            return Err(e.context(format!(
                "{what} is taken for a domain; a file is shown as ./{what}"
            )));
        }
        found => found?,
    };
    let numbering = match log.numbering {
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
