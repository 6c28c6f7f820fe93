//! The far side: does what requests ask on a transport of its own, usually a folder.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use logchain_core::transport::{Collection, Error, Key, LogTransport, ObjectName, Prefix};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinError;
use tokio::time::timeout;
use tracing::Instrument as _;

use crate::greeting::{greeting, read_greeting};
use crate::wire::{
    Answer, IN_FLIGHT, Outcome, PART, Request, Response, Verb, WirePrefix, read_frame, write_frame,
};

/// Bytes of objects that are being put at once, in units of [`UNIT`].
const BUDGET: usize = 32 << 10;

/// Small enough that a request without a body costs next to nothing.
const UNIT: usize = 1 << 10;

/// How long the other side may take to greet.
const GREET: Duration = Duration::from_secs(60);

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The connection broke, or the other side does not speak as logchain does.
    #[error("the connection to the other side: {0}")]
    Io(#[from] io::Error),
}

/// Serves requests until `input` ends.
///
/// # Errors
/// [`ServeError::Io`] where the connection breaks or carries nonsense.
pub async fn serve(
    transport: Arc<dyn LogTransport>,
    input: impl AsyncRead + Send + Unpin,
    output: impl AsyncWrite + Send + Unpin + 'static,
) -> Result<(), ServeError> {
    let mut input = BufReader::new(input);
    let mut output = BufWriter::new(output);
    output.write_all(&greeting()).await?;
    output.flush().await?;
    match timeout(GREET, read_greeting(&mut input, &mut Vec::new())).await {
        // There is one version so far, so nothing depends on which one it is.
        Ok(version) => drop(version?),
        Err(_) => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }

    let (answers, queue) = mpsc::channel(IN_FLIGHT);
    let mut writer = tokio::spawn(write_answers(queue, output));
    tokio::select! {
        read = read_requests(&transport, &mut input, answers) => read?,
        // Without a way out there is nothing to serve.
        written = &mut writer => return ended(written),
    }
    // What is under way is done and answered, and then the writer ends.
    ended(writer.await)
}

fn ended(written: Result<io::Result<()>, JoinError>) -> Result<(), ServeError> {
    match written {
        Ok(written) => Ok(written?),
        Err(e) => Err(io::Error::other(e).into()),
    }
}

async fn read_requests(
    transport: &Arc<dyn LogTransport>,
    input: &mut (impl AsyncRead + Unpin),
    answers: Answers,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let budget = Arc::new(Semaphore::new(BUDGET));
    while let Some((request, body)) = read_frame::<Request>(input).await? {
        // Not read further before there is room for it.
        let units = u32::try_from(body.len() / UNIT + 1).unwrap_or(u32::MAX);
        let room = (
            Arc::clone(&places).acquire_owned().await,
            Arc::clone(&budget).acquire_many_owned(units).await,
        );
        let (transport, answers) = (Arc::clone(transport), answers.clone());
        let serve = async move {
            answer(&*transport, request, body, &answers).await;
            drop(room);
        };
        tokio::spawn(serve.in_current_span());
    }
    Ok(())
}

async fn write_answers(
    mut queue: mpsc::Receiver<(Response, Bytes)>,
    mut output: BufWriter<impl AsyncWrite + Unpin>,
) -> io::Result<()> {
    while let Some((response, body)) = queue.recv().await {
        write_frame(&mut output, &response, &body).await?;
        if queue.is_empty() {
            output.flush().await?;
        }
    }
    output.flush().await
}

type Answers = mpsc::Sender<(Response, Bytes)>;

async fn answer(transport: &dyn LogTransport, request: Request, body: Bytes, answers: &Answers) {
    let id = request.id;
    let (answer, rest) = match act(transport, request, body, answers).await {
        Ok(answer) => answer,
        Err(e) => {
            let (outcome, reason) = Outcome::of(&e);
            (Answer::Failed { outcome, reason }, Bytes::new())
        }
    };
    // Fails only where the connection is gone.
    let _ = answers.send((Response { id, answer }, rest)).await;
}

/// The last answer and its body; earlier ones are sent on the way.
async fn act(
    transport: &dyn LogTransport,
    request: Request,
    body: Bytes,
    answers: &Answers,
) -> Result<(Answer, Bytes), Error> {
    let id = request.id;
    match request.verb {
        Verb::Put { key } => {
            transport.put(&key.parse::<Key>()?, body).await?;
            Ok((Answer::Done, Bytes::new()))
        }
        Verb::Get { key, range } => {
            let range = range.map(|(start, end)| start..end);
            let mut parts = transport.get(&key.parse::<Key>()?, range).await?;
            // Full parts, whatever the transport gives: the other side counts on it.
            let mut full = BytesMut::new();
            while let Some(part) = parts.next().await {
                let mut part = part?;
                while !part.is_empty() {
                    let room = PART.saturating_sub(full.len());
                    full.extend_from_slice(&part.split_to(part.len().min(room)));
                    if full.len() < PART {
                        continue;
                    }
                    let answer = Answer::Part { last: false };
                    let sent = (Response { id, answer }, full.split().freeze());
                    if answers.send(sent).await.is_err() {
                        break;
                    }
                }
            }
            Ok((Answer::Part { last: true }, full.freeze()))
        }
        Verb::List { prefix, after } => {
            let after = after.map(|a| a.parse::<Key>()).transpose()?;
            let entries = transport.list(&prefix_of(prefix)?, after.as_ref()).await?;
            let entries = entries.into_iter().map(|e| (e.key.to_string(), e.size));
            Ok((Answer::Entries(entries.collect()), Bytes::new()))
        }
        Verb::Delete { key } => {
            transport.delete(&key.parse::<Key>()?).await?;
            Ok((Answer::Done, Bytes::new()))
        }
    }
}

fn prefix_of(wire: WirePrefix) -> Result<Prefix, Error> {
    let Some(domain) = wire.domain else {
        return Ok(Prefix::All);
    };
    let object = match wire.handoff.as_deref().map(str::parse) {
        Some(Ok(Collection::Stream)) => ObjectName::Batch { offset: 0 },
        _ => ObjectName::Begin,
    };
    // A domain's UUID is checked as part of a key.
    let probe: Key = format!(
        "v1/{domain}/{}/{}/{}",
        wire.console.as_deref().unwrap_or("none"),
        wire.handoff
            .as_deref()
            .unwrap_or("00000000-0000-0000-0000-000000000000"),
        object,
    )
    .parse()?;
    Ok(match (wire.console, wire.handoff) {
        (None, _) => Prefix::Domain(probe.domain),
        (Some(_), None) => Prefix::Console(probe.domain, probe.console),
        (Some(_), Some(_)) => Prefix::Collection(probe.domain, probe.console, probe.collection),
    })
}
