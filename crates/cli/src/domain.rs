//! Which log `logchain show DOMAIN` shows.

use std::path::Path;

use logchain_core::chain::NumberingChoice;

use crate::args::Show;
use crate::host;
use crate::show::Subject;

/// By path, or as libvirt here knows it.
pub(crate) async fn subject(args: &Show) -> anyhow::Result<Subject> {
    if let Some(subject) = Subject::of_path(args)? {
        return Ok(subject);
    }
    let (domain, console) = match host::console(
        args.connect.uri.as_deref(),
        &args.what,
        args.console.as_deref(),
    )
    .await
    {
        Err(e) if Path::new(&args.what).exists() => {
            let what = &args.what;
            return Err(e.context(format!(
                "{what} is taken for a domain; a file is shown as ./{what}"
            )));
        }
        found => found?,
    };
    let numbering = match args.numbering {
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
