//! `logchain show` of a domain's log, and of a log in a folder on a host that has libvirt.

use logchain::args::Show;
use logchain::exit::Exit;
use logchain::show;
use logchain_host::neighbours;

use crate::subject;

pub(super) async fn run(args: Show) -> anyhow::Result<Exit> {
    let subject = subject::subject(&args.log).await?;
    subject::warn_if_hidden(&args.log, &subject).await;
    let work = move || {
        let chain = neighbours::chain(&subject.path, subject.numbering)?;
        show::run(&args, &subject, chain)
    };
    tokio::task::spawn_blocking(work).await?
}
