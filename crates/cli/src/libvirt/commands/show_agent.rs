//! `logchain show` through the agent: it reads, and this process prints.
//!
//! A thread of its own prints. Where it is slow, nothing more is taken from the agent.

use std::path::PathBuf;

use jiff::Timestamp;
use logchain::args::{Amount, DEFAULT_BYTES, Show};
use logchain::exit::{Exit, Usage};
use logchain::show::remote::{self, Piece, RemoteLog, Start};
use logchain_core::stream::{BootRun, StreamOffset};
use logchain_host::agent::control::{
    Boot, Frame, Head, LogReader, LogRequest, Part, Start as Begins,
};
use tokio::sync::mpsc;

/// Pieces that wait to be printed.
const AHEAD: usize = 4;

pub(super) async fn run(args: Show, socket: PathBuf) -> anyhow::Result<Exit> {
    remote::check(&args)?;
    let mut reader = LogReader::open(socket, request(&args)?).await?;
    if let Some(sentence) = &reader.head().not_written {
        eprintln!("logchain: {sentence}");
    }
    let log = described(reader.head());
    let (put, mut pieces) = mpsc::channel(AHEAD);
    let printer = tokio::task::spawn_blocking(move || {
        let pieces = std::iter::from_fn(|| pieces.blocking_recv());
        remote::show(&args, &log, pieces)
    });
    fetch(&mut reader, put).await;
    printer.await?
}

fn request(args: &Show) -> Result<LogRequest, Usage> {
    let console = args.log.console.as_deref().map(str::parse);
    let console = console.transpose();
    let part = match (args.from, args.lines, args.bytes) {
        // These are printed from the head of the answer.
        _ if args.hops || args.list_boots => Part::LastBytes(0),
        (Some(offset), _, _) => Part::From {
            offset,
            most: remote::budget(args),
        },
        (None, Some(lines), _) => Part::LastLines(lines),
        (None, None, Some(Amount::All)) => Part::All,
        (None, None, Some(Amount::Bytes(bytes))) => Part::LastBytes(bytes),
        (None, None, None) => Part::LastBytes(DEFAULT_BYTES),
    };
    Ok(LogRequest {
        domain: args.log.what.clone(),
        console: console.map_err(|e: logchain_core::InvalidId| Usage(e.to_string()))?,
        part,
        boot: args.boot,
        list_boots: args.list_boots,
        follow: args.follow,
        framed: true,
    })
}

fn described(head: &Head) -> RemoteLog {
    let files = head.files.iter();
    RemoteLog {
        domain: (head.domain.clone(), head.uuid.to_string()),
        console: head.console.clone(),
        path: head.path.clone().into(),
        numbering: head.numbering.clone(),
        files: files.map(|file| (file.name.clone(), file.size)).collect(),
        gaps: head.gaps.iter().map(|gap| (gap.first, gap.last)).collect(),
        remarks: head.remarks.clone(),
        hops: head.hops.clone(),
        boots: head.boots.iter().map(boot).collect(),
        start: match head.start {
            Begins::At(offset) => Start::At(offset),
            Begins::Expired(next) => Start::Gone {
                next,
                arriving: false,
            },
            Begins::Arriving(next) => Start::Gone {
                next,
                arriving: true,
            },
            Begins::Beyond => Start::Beyond,
            Begins::NoSuchBoot => Start::NoSuchBoot,
        },
        end: head.end,
    }
}

fn boot(boot: &Boot) -> BootRun {
    BootRun {
        since: boot.since.and_then(|s| Timestamp::from_second(s).ok()),
        start: StreamOffset::new(boot.start),
        end: StreamOffset::new(boot.end),
    }
}

/// Hands on what the agent sends, until its end or until nobody wants more.
async fn fetch(reader: &mut LogReader, out: mpsc::Sender<anyhow::Result<Piece>>) {
    loop {
        let frame = tokio::select! {
            frame = reader.next() => frame,
            () = out.closed() => return,
        };
        let piece = match frame {
            Ok(None) => return,
            Ok(Some(Frame::Bytes { offset, bytes })) => Ok(Piece::Bytes { offset, bytes }),
            Ok(Some(Frame::Missing { next, size })) => Ok(Piece::Missing { next, size }),
            Ok(Some(Frame::CaughtUp)) => Ok(Piece::CaughtUp),
            Ok(Some(Frame::End { next, more })) => Ok(Piece::End { next, more }),
            // The reader has dealt with these.
            Ok(Some(Frame::Head(_) | Frame::Failed(_))) => continue,
            Err(e) => Err(e.into()),
        };
        if out.send(piece).await.is_err() {
            return;
        }
    }
}
