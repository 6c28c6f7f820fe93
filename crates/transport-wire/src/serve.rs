//! The far side: does what requests ask on a transport of its own, usually a folder.
//!
//! Must not know: who asks, and whether that is allowed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use logchain_core::transport::{Collection, Error, Key, ObjectName, Prefix};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tracing::Instrument as _;

use crate::Protocol;
use crate::frame::{
    Answer, IN_FLIGHT, MAX_FRAME, MAX_MESSAGE, MAX_REQUEST_HEADER, Operation, Outcome, PART,
    Request, Response, WirePrefix, read_length, read_rest, write_frame,
};
use crate::handler::{Access, Handler};

/// Memory is counted in units so small that a request without a body costs next to nothing.
const UNIT: usize = 1 << 10;

/// The bounds of one connection.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ServeOptions {
    /// How long the other side may take to greet.
    pub greet: Duration,
    /// Bytes of objects that are being put at once; room for one of the largest is always there.
    pub memory: usize,
    /// How long one frame may take, from its first byte to its last, in either direction; `None`
    /// where the other side may be as slow as it likes. How long no frame comes is not bounded.
    pub frame: Option<Duration>,
    /// How long the answer to a message may take.
    pub message: Duration,
}

impl Default for ServeOptions {
    /// A patient server, for another side that started it.
    fn default() -> Self {
        Self {
            greet: Duration::from_secs(60),
            memory: 32 << 20,
            frame: None,
            message: Duration::from_secs(30),
        }
    }
}

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
/// [`ServeError::Io`] where the connection breaks, is too slow or carries nonsense.
pub async fn serve(
    handler: Arc<dyn Handler>,
    input: impl AsyncRead + Send + Unpin,
    output: impl AsyncWrite + Send + Unpin + 'static,
    protocol: Protocol,
    options: ServeOptions,
) -> Result<(), ServeError> {
    let mut input = BufReader::new(input);
    let mut output = BufWriter::new(output);
    let greet = async {
        output.write_all(&protocol.greeting()).await?;
        output.flush().await?;
        protocol.read_greeting(&mut input, &mut Vec::new()).await
    };
    // There is one version so far, so nothing depends on which one it is.
    in_time(Some(options.greet), "the other side did not greet", greet).await?;

    let (answers, queue) = mpsc::channel(IN_FLIGHT);
    let mut writer = Writer(tokio::spawn(write_answers(queue, output, options.frame)));
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let read = tokio::select! {
        read = read_requests(&handler, &mut input, answers, &places, options) => read,
        // Without a way out there is nothing to serve.
        written = &mut writer.0 => {
            all_done(&places).await;
            return ended(written);
        }
    };
    match read {
        // What is under way is done and answered, and then the writer ends.
        Ok(()) => ended((&mut writer.0).await),
        Err(broken) => {
            // Nobody takes answers any more, so none is waited for.
            drop(writer);
            all_done(&places).await;
            Err(broken.into())
        }
    }
}

/// Waits for the requests under way. Whoever bounds connections so bounds requests as well, also
/// those of a peer that asks and hangs up.
async fn all_done(places: &Semaphore) {
    let all = u32::try_from(IN_FLIGHT).unwrap_or(u32::MAX);
    // Fails never: nobody closes it.
    let _ = places.acquire_many(all).await;
}

/// Ended with the connection: nobody waits for its answers then.
struct Writer(JoinHandle<io::Result<()>>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn in_time<T>(
    limit: Option<Duration>,
    late: &str,
    future: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let Some(limit) = limit else {
        return future.await;
    };
    match timeout(limit, future).await {
        Ok(done) => done,
        Err(_) => {
            let secs = limit.as_secs_f64();
            let what = format!("{late} within {secs} s");
            Err(io::Error::new(io::ErrorKind::TimedOut, what))
        }
    }
}

fn ended(written: Result<io::Result<()>, JoinError>) -> Result<(), ServeError> {
    match written {
        Ok(written) => Ok(written?),
        Err(e) => Err(io::Error::other(e).into()),
    }
}

async fn read_requests(
    handler: &Arc<dyn Handler>,
    input: &mut (impl AsyncBufRead + Unpin),
    answers: Answers,
    places: &Arc<Semaphore>,
    options: ServeOptions,
) -> io::Result<()> {
    const LATE: &str = "a request did not come to its end";
    let memory = options.memory.max(MAX_FRAME) / UNIT + 1;
    let budget = Arc::new(Semaphore::new(memory));
    // However long the other side has nothing to ask, it may take.
    while !input.fill_buf().await?.is_empty() {
        let length = in_time(options.frame, LATE, read_length(input)).await?;
        let Some(length) = length else { break };
        // Not read further before there is room for it.
        let units = u32::try_from(length / UNIT + 1).unwrap_or(u32::MAX);
        let room = (
            Arc::clone(places).acquire_owned().await,
            Arc::clone(&budget).acquire_many_owned(units).await,
        );
        let rest = read_rest::<Request>(input, length, MAX_REQUEST_HEADER);
        let (request, body) = in_time(options.frame, LATE, rest).await?;
        let (handler, answers) = (Arc::clone(handler), answers.clone());
        let serve = async move {
            answer(&*handler, request, body, &answers, options.message).await;
            drop(room);
        };
        tokio::spawn(serve.in_current_span());
    }
    Ok(())
}

async fn write_answers(
    mut queue: mpsc::Receiver<(Response, Bytes)>,
    mut output: BufWriter<impl AsyncWrite + Unpin>,
    limit: Option<Duration>,
) -> io::Result<()> {
    const LATE: &str = "an answer was not taken";
    while let Some((response, body)) = queue.recv().await {
        let write = async {
            write_frame(&mut output, &response, &body).await?;
            match queue.is_empty() {
                true => output.flush().await,
                false => Ok(()),
            }
        };
        in_time(limit, LATE, write).await?;
    }
    in_time(limit, LATE, output.flush()).await
}

type Answers = mpsc::Sender<(Response, Bytes)>;

async fn answer(
    handler: &dyn Handler,
    request: Request,
    body: Bytes,
    answers: &Answers,
    limit: Duration,
) {
    let id = request.id;
    let (answer, rest) = match act(handler, request, body, answers, limit).await {
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
    handler: &dyn Handler,
    request: Request,
    body: Bytes,
    answers: &Answers,
    limit: Duration,
) -> Result<(Answer, Bytes), Error> {
    let id = request.id;
    let transport = handler.transport();
    match request.operation {
        Operation::Put { key } => {
            let key = key.parse::<Key>()?;
            let size = body.len();
            handler.authorise(&Access::Put { key: &key, size })?;
            transport.put(&key, body).await?;
            handler.stored(&key);
            Ok((Answer::Done, Bytes::new()))
        }
        Operation::Get { key, range } => {
            let range = range.map(|(start, end)| start..end);
            let key = key.parse::<Key>()?;
            handler.authorise(&Access::Get { key: &key })?;
            let mut parts = transport.get(&key, range).await?;
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
        Operation::List { prefix, after } => {
            let after = after.map(|a| a.parse::<Key>()).transpose()?;
            let prefix = &prefix_of(prefix)?;
            handler.authorise(&Access::List { prefix })?;
            let entries = transport.list(prefix, after.as_ref()).await?;
            let entries = entries.into_iter().map(|e| (e.key.to_string(), e.size));
            Ok((Answer::Entries(entries.collect()), Bytes::new()))
        }
        Operation::Delete { key } => {
            let key = key.parse::<Key>()?;
            handler.authorise(&Access::Delete { key: &key })?;
            transport.delete(&key).await?;
            Ok((Answer::Done, Bytes::new()))
        }
        Operation::Message => {
            let name = || handler.transport().to_string();
            if body.len() > MAX_MESSAGE {
                return Err(Error::Denied {
                    transport: name(),
                    reason: format!("a message has at most {MAX_MESSAGE} bytes"),
                });
            }
            let answer = timeout(limit, handler.message(body)).await;
            let answer = answer.map_err(|_| Error::Timeout {
                transport: name(),
                reason: format!(
                    "a message was not answered within {} s",
                    limit.as_secs_f64()
                ),
            })??;
            Ok((Answer::Part { last: true }, answer))
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
