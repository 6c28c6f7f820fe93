//! `logchain transport serve`: the far side of the ssh transport.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net;
use std::path::Path;
use std::sync::Arc;

use logchain_core::transport::DirectoryTransport;
use tokio::io::{AsyncRead, AsyncWrite, stdin, stdout};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::exit::Exit;

pub async fn run(spool: &Path) -> anyhow::Result<Exit> {
    // The source has all of it until the destination here has made it durable.
    let folder = DirectoryTransport::create(spool)?.lazy();
    let folder = Arc::new(folder);
    let swept = Arc::clone(&folder);
    // Beside what is asked for; what cannot be swept is no failure of that.
    tokio::spawn(async move { swept.sweep().await });
    let (input, output) = (input()?, output()?);
    logchain_transport_ssh::serve(folder, input, output).await?;
    Ok(Exit::Done)
}

/// What sshd gives is a socket or a pipe: read as such it needs no thread that waits
/// for it, and no copy between that and us.
fn input() -> io::Result<Box<dyn AsyncRead + Send + Unpin>> {
    let (fd, kind) = opened(io::stdin().as_fd().try_clone_to_owned()?)?;
    Ok(match kind {
        Kind::Socket => Box::new(socket(fd)?),
        Kind::Pipe => Box::new(Receiver::from_owned_fd(fd)?),
        Kind::Other => Box::new(stdin()),
    })
}

fn output() -> io::Result<Box<dyn AsyncWrite + Send + Unpin>> {
    let (fd, kind) = opened(io::stdout().as_fd().try_clone_to_owned()?)?;
    Ok(match kind {
        Kind::Socket => Box::new(socket(fd)?),
        Kind::Pipe => Box::new(Sender::from_owned_fd(fd)?),
        Kind::Other => Box::new(stdout()),
    })
}

enum Kind {
    Socket,
    Pipe,
    Other,
}

fn opened(fd: OwnedFd) -> io::Result<(OwnedFd, Kind)> {
    let file = File::from(fd);
    let kind = file.metadata()?.file_type();
    let kind = match kind {
        kind if kind.is_socket() => Kind::Socket,
        kind if kind.is_fifo() => Kind::Pipe,
        _ => Kind::Other,
    };
    Ok((file.into(), kind))
}

fn socket(fd: OwnedFd) -> io::Result<UnixStream> {
    let stream = net::UnixStream::from(fd);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
