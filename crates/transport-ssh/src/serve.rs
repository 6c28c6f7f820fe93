//! The far side: does what requests ask on a transport of its own, usually a folder.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use logchain_core::transport::{Error, Key, LogTransport, Prefix};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::{Semaphore, mpsc};

use crate::wire::{
    Answer, GREETING, IN_FLIGHT, Outcome, PART, Request, Response, Verb, WirePrefix, read_frame,
    read_greeting, write_frame,
};

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
    output.write_all(GREETING).await?;
    output.flush().await?;
    read_greeting(&mut input).await?;

    let (answers, queue) = mpsc::channel(IN_FLIGHT);
    let writer = tokio::spawn(write_answers(queue, output));
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    while let Some((request, body)) = read_frame::<Request>(&mut input).await? {
        // Not read further before one of the requests under way is done.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            break;
        };
        let (transport, answers) = (Arc::clone(&transport), answers.clone());
        tokio::spawn(async move {
            answer(&*transport, request, body, &answers).await;
            drop(place);
        });
    }
    drop(answers);
    match writer.await {
        Ok(written) => Ok(written?),
        Err(e) => Err(io::Error::other(e).into()),
    }
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
    let answer = match act(transport, request, body, answers).await {
        Ok(answer) => answer,
        Err(e) => {
            let (outcome, reason) = Outcome::of(&e);
            Answer::Failed { outcome, reason }
        }
    };
    // Fails only where the connection is gone.
    let _ = answers.send((Response { id, answer }, Bytes::new())).await;
}

/// The last answer; earlier ones are sent on the way.
async fn act(
    transport: &dyn LogTransport,
    request: Request,
    body: Bytes,
    answers: &Answers,
) -> Result<Answer, Error> {
    let id = request.id;
    match request.verb {
        Verb::Put { key } => {
            transport.put(&key.parse::<Key>()?, body).await?;
            Ok(Answer::Done)
        }
        Verb::Get { key, range } => {
            let range = range.map(|(start, end)| start..end);
            let mut parts = transport.get(&key.parse::<Key>()?, range).await?;
            while let Some(part) = parts.next().await {
                let mut part = part?;
                while !part.is_empty() {
                    let now = part.split_to(part.len().min(PART));
                    let answer = Answer::Part { last: false };
                    if answers.send((Response { id, answer }, now)).await.is_err() {
                        break;
                    }
                }
            }
            Ok(Answer::Part { last: true })
        }
        Verb::List { prefix, after } => {
            let after = after.map(|a| a.parse::<Key>()).transpose()?;
            let entries = transport.list(&prefix_of(prefix)?, after.as_ref()).await?;
            Ok(Answer::Entries(
                entries
                    .into_iter()
                    .map(|e| (e.key.to_string(), e.size))
                    .collect(),
            ))
        }
        Verb::Delete { key } => {
            transport.delete(&key.parse::<Key>()?).await?;
            Ok(Answer::Done)
        }
    }
}

fn prefix_of(wire: WirePrefix) -> Result<Prefix, Error> {
    let Some(domain) = wire.domain else {
        return Ok(Prefix::All);
    };
    // A domain's UUID is checked as part of a key.
    let probe: Key = format!(
        "v1/{domain}/{}/{}/begin",
        wire.console.as_deref().unwrap_or("none"),
        wire.handoff
            .as_deref()
            .unwrap_or("00000000-0000-0000-0000-000000000000"),
    )
    .parse()?;
    Ok(match (wire.console, wire.handoff) {
        (None, _) => Prefix::Domain(probe.domain),
        (Some(_), None) => Prefix::Console(probe.domain, probe.console),
        (Some(_), Some(_)) => Prefix::Handoff(probe.domain, probe.console, probe.handoff),
    })
}
