//! `logchain show` of a domain's log, and of a log in a folder on a host that has libvirt.

use logchain::args::Show;
use logchain::exit::{Exit, Usage};
use logchain::show::{self, Subject};
use logchain_core::offsets::Offsets;
use logchain_host::neighbours;

use super::show_agent;
use crate::{access, subject};

pub(super) async fn run(args: Show) -> anyhow::Result<Exit> {
    if let Some(named) = &args.agent {
        if args.log.what.contains('/') {
            let sentence = "--agent goes with a domain, not with a path";
            return Err(Usage(sentence.to_owned()).into());
        }
        let socket = access::socket(named.clone()).await?;
        return show_agent::run(args, socket).await;
    }
    let may_ask = access::may_ask_for_log(&args);
    let subject = match subject::subject(&args.log).await {
        Err(e) if may_ask && access::is_unknown_here(&e) => return instead(args, e).await,
        found => found?,
    };
    // Root may read whatever is there, and opens nothing twice.
    if may_ask
        && subject.domain.is_some()
        && let Err(e) = open(&args, &subject).await
        && access::is_refused(&e)
    {
        return instead(args, e).await;
    }
    subject::warn_if_hidden(&args.log, &subject).await;
    let work = move || {
        let chain = neighbours::chain(&subject.path, subject.numbering)?;
        show::run(&args, &subject, chain)
    };
    tokio::task::spawn_blocking(work).await?
}

/// Opens all that showing it opens, before anything is printed.
async fn open(args: &Show, subject: &Subject) -> anyhow::Result<()> {
    let by_boot = args.list_boots || args.boot.is_some();
    let by_offset = by_boot || args.follow || args.hops || args.from.is_some();
    let (path, numbering) = (subject.path.clone(), subject.numbering);
    let work = move || {
        let chain = neighbours::chain(&path, numbering)?;
        if by_offset {
            Offsets::of(&chain)?;
        } else {
            chain.snapshot()?;
        }
        Ok(())
    };
    tokio::task::spawn_blocking(work).await?
}

async fn instead(args: Show, refused: anyhow::Error) -> anyhow::Result<Exit> {
    let socket = access::instead(refused).await?;
    show_agent::run(args, socket).await
}
