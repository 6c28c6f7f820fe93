//! `logchain show --transport`: a log from where `logchain stream` put it.
//!
//! Fetching is asynchronous, printing is not: a thread of its own prints, and
//! where it is slow no more is fetched.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use logchain::args::{Amount, DEFAULT_BYTES, Show};
use logchain::exit::{Exit, Usage};
use logchain::show::is_broken_pipe;
use logchain::show::out::Out;
use logchain::show::remote::{self, Piece};
use logchain_core::archive::{self, Archive, Head, Part, heads};
use logchain_core::backoff::Backoff;
use logchain_core::ids::ConsoleName;
use logchain_core::sentence;
use logchain_core::transport::{Advice, LogTransport, Prefix};
use logchain_host::consoles;
use logchain_host::transports::{TransportChoice, ssh_options};
use tokio::sync::mpsc;
use tokio::time::sleep;
use uuid::Uuid;

/// How long a transport may take for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at a stream that is followed.
const LOOK: Duration = Duration::from_secs(1);

/// Between two tries to reach a transport that is away, each of which has its own patience.
const AWAY: Backoff = Backoff::doubling(LOOK, Duration::from_secs(30));

/// Parts that wait to be printed.
const AHEAD: usize = 4;

/// Where the last lines are looked for first, in bytes from the end; then four
/// times as far, and so on.
const LINES: u64 = 64 * 1024;

pub(super) async fn run(args: Show) -> anyhow::Result<Exit> {
    let choice = TransportChoice::of(args.transport.as_deref(), None)?;
    let ssh = ssh_options(None, PATIENCE);
    let transport = choice.open_existing(&ssh, PATIENCE).await?;
    let archive = find(&args, &transport).await?;
    let Some(end) = archive.end().await? else {
        let (console, domain) = (archive.console(), archive.domain());
        anyhow::bail!("{transport} has no stream of {console} of domain {domain}");
    };
    let first = archive.first().await?.unwrap_or(end.offset);
    let (from, most) = match (args.from, args.lines, args.bytes) {
        (Some(from), _, _) if from > end.offset => {
            let end = end.offset;
            eprintln!("logchain: offset {from} is not there yet: the stream ends at {end}");
            return Ok(Exit::Failed);
        }
        (Some(from), _, _) if from < first => {
            eprintln!("logchain: offset {from} has expired: the first one still there is {first}");
            return Ok(Exit::Failed);
        }
        (Some(from), _, _) => (from, remote::budget(&args).unwrap_or(u64::MAX)),
        (None, Some(lines), _) => (
            last_lines(&archive, first, end.offset, lines).await?,
            u64::MAX,
        ),
        (None, None, Some(Amount::All)) => (first, u64::MAX),
        (None, None, Some(Amount::Bytes(n))) => (end.offset.saturating_sub(n).max(first), u64::MAX),
        (None, None, None) => (
            end.offset.saturating_sub(DEFAULT_BYTES).max(first),
            u64::MAX,
        ),
    };
    let (parts, printed) = mpsc::channel(AHEAD);
    let follow = args.follow;
    let said = args.from.is_some() && !follow;
    let printer = tokio::task::spawn_blocking(move || print(&args, printed));
    // Where the printer ended, it says why.
    let fetched = fetch(&archive, from, most, follow, parts).await;
    let closed = printer.await??;
    let next = fetched?;
    if said && !closed {
        let rest = if next < end.offset {
            "more follows"
        } else {
            "that is all so far"
        };
        eprintln!("logchain: offsets {from} to {next}; {rest}");
    }
    Ok(Exit::Done)
}

/// Gives the offset after the last byte fetched. Whoever follows waits for a transport that is
/// away, as for a log that is silent.
async fn fetch(
    archive: &Archive,
    from: u64,
    most: u64,
    follow: bool,
    out: mpsc::Sender<Piece>,
) -> anyhow::Result<u64> {
    let mut next = from;
    let mut most = most;
    let mut failures = 0;
    loop {
        match pass_on(archive, &mut next, most, &out).await {
            Ok(true) => failures = 0,
            Ok(false) => return Ok(next),
            Err(archive::Error::Transport(e)) if follow && e.advice() == Advice::Retry => {
                if failures == 0 {
                    eprintln!("logchain: {}; it is tried again", sentence(&e));
                }
                failures += 1;
            }
            Err(e) => return Err(e.into()),
        }
        if !follow || out.send(Piece::CaughtUp).await.is_err() {
            return Ok(next);
        }
        most = u64::MAX;
        let wait = if failures == 0 {
            LOOK
        } else {
            AWAY.after(failures)
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = out.closed() => return Ok(next),
        }
    }
}

/// Passes on what is there from `next` on, which follows. Says whether somebody takes it.
async fn pass_on(
    archive: &Archive,
    next: &mut u64,
    most: u64,
    out: &mpsc::Sender<Piece>,
) -> archive::Result<bool> {
    let mut parts = archive.read(*next, most).await?;
    while let Some(part) = parts.try_next().await? {
        *next = part.next();
        let printed = match part {
            Part::Bytes { offset, bytes } => Piece::Bytes { offset, bytes },
            Part::Missing { next, size } => Piece::Missing { next, size },
        };
        if out.send(printed).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The offset at which the last `lines` lines begin.
async fn last_lines(archive: &Archive, first: u64, end: u64, lines: u64) -> anyhow::Result<u64> {
    let mut back = LINES;
    loop {
        let from = end.saturating_sub(back).max(first);
        // Where the lines begin, the last ones last; no more than are asked for.
        let mut begins = std::collections::VecDeque::new();
        let keep = usize::try_from(lines).unwrap_or(usize::MAX);
        let mut parts = archive.read(from, end.saturating_sub(from)).await?;
        while let Some(part) = parts.try_next().await? {
            let Part::Bytes { offset, bytes } = part else {
                continue;
            };
            for (at, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'\n') {
                let begin = offset.saturating_add(at as u64).saturating_add(1);
                if begin < end {
                    begins.push_back(begin);
                }
                if begins.len() > keep {
                    begins.pop_front();
                }
            }
        }
        if lines == 0 {
            return Ok(end);
        }
        // The line before the first newline may begin further back.
        match begins.front() {
            Some(begin) if begins.len() >= keep => return Ok(*begin),
            _ if from <= first => return Ok(first),
            _ => back = back.saturating_mul(4),
        }
    }
}

/// The stream that is asked for: by UUID, by a name that libvirt here knows, or by
/// one that the streams themselves have.
async fn find(args: &Show, transport: &Arc<dyn LogTransport>) -> anyhow::Result<Archive> {
    let what = &args.log.what;
    if what.contains('/') {
        return Err(Usage("--transport goes with a domain, not with a path".to_owned()).into());
    }
    let console = args.log.console.as_deref().map(str::parse::<ConsoleName>);
    let console = console.transpose().map_err(|e| Usage(e.to_string()))?;
    let uuid = match what.parse::<Uuid>() {
        Ok(uuid) => Some(uuid),
        Err(_) => known_here(args).await,
    };
    if let (Some(uuid), Some(console)) = (uuid, &console) {
        return Ok(Archive::new(Arc::clone(transport), uuid, console.clone()));
    }
    let prefix = uuid.map_or(Prefix::All, Prefix::Domain);
    let found = heads(transport, &prefix).await?;
    let fits = |head: &&Head| {
        uuid.map_or(head.name == *what, |uuid| head.domain == uuid)
            && console
                .as_ref()
                .is_none_or(|console| head.console == *console)
    };
    let mut fitting = found.iter().filter(fits);
    let Some(head) = fitting.next() else {
        anyhow::bail!("{transport} has no stream of a domain {what}");
    };
    if let Some(other) = fitting.find(|h| h.domain != head.domain) {
        anyhow::bail!(
            "{transport} has streams of more than one domain {what}; give a UUID: {} or {}",
            head.domain,
            other.domain
        );
    }
    Ok(Archive::new(
        Arc::clone(transport),
        head.domain,
        head.console.clone(),
    ))
}

async fn known_here(args: &Show) -> Option<Uuid> {
    let uri = args.log.connect.uri.as_deref();
    let connection = consoles::connect_local(uri).await.ok()?;
    Some(connection.lookup(&args.log.what).await.ok()?.uuid())
}

/// Prints parts as they come, until there are no more. Says whether nobody reads
/// any further. Blocks.
fn print(args: &Show, mut parts: mpsc::Receiver<Piece>) -> anyhow::Result<bool> {
    let parts = std::iter::from_fn(|| parts.blocking_recv().map(Ok));
    match remote::print(&mut Out::new(args)?, parts) {
        Err(e) if is_broken_pipe(&e) => Ok(true),
        printed => Ok(printed?.is_none()),
    }
}
