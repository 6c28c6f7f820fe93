//! One connection: two streams, the requests that go in and the answers that come
//! out.
//!
//! A task owns both streams. When either breaks, it finds out why, and everybody
//! who waits learns it. Dropped, it closes them; the far side sees its input end.
//!
//! Must not know: what carries the streams.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use logchain_core::transport::MAX_OBJECT;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{Instrument as _, debug};

use crate::Protocol;
use crate::frame::{
    Answer, IN_FLIGHT, Operation, PART, Request, Response, read_frame, write_frame,
};
use crate::line::Connection;
use crate::meter::{Meter, Metered};

/// Answers that one request can get: a large object in parts, and its end. The
/// reader never waits for a request that does not take its answers.
const ANSWERS: usize = MAX_OBJECT / PART + 2;

/// A connection that has shaken hands. Dropped, it is closed.
pub struct Link {
    requests: mpsc::Sender<(Request, Bytes)>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    waiting: Mutex<HashMap<u64, Pending>>,
    meter: Arc<Meter>,
    /// Tells the task that the other side is as good as gone.
    stalled: Notify,
    /// Why it broke; known once nobody waits any more.
    ended: OnceLock<String>,
}

/// A request under way. Its place in the queue is free once it is answered,
/// whether or not anybody has taken the answer.
struct Pending {
    answers: mpsc::Sender<(Answer, Bytes)>,
    _place: OwnedSemaphorePermit,
}

/// Why an answer does not come.
pub(crate) enum Lost {
    Broken(String),
    Quiet(Duration),
}

/// A request under way, from the side of who asks.
pub(crate) struct PendingRequest {
    id: u64,
    shared: Arc<Shared>,
    answers: mpsc::Receiver<(Answer, Bytes)>,
    quiet: Duration,
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        lock(&self.shared.waiting).remove(&self.id);
    }
}

impl PendingRequest {
    pub(crate) async fn answer(&mut self) -> Result<(Answer, Bytes), Lost> {
        let answer = self.answers.recv();
        match self.shared.meter.patient(self.quiet, answer).await {
            Some(Some(answer)) => Ok(answer),
            Some(None) => {
                let why = self.shared.ended.get().map(String::as_str);
                Err(Lost::Broken(
                    why.unwrap_or("the answer broke off").to_owned(),
                ))
            }
            None => {
                self.shared.stalled.notify_one();
                Err(Lost::Quiet(self.quiet))
            }
        }
    }
}

/// Two streams on which both sides have greeted.
#[derive(Debug)]
pub struct Streams<R, W> {
    output: BufReader<R>,
    input: BufWriter<W>,
    version: u32,
}

impl<R, W> Streams<R, W> {
    /// The version that both sides speak.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }
}

/// Greets over these streams, the other side's `output` and its `input`, and reads its greeting.
/// `seen`: all that came up to that.
///
/// # Errors
/// As [`Protocol::read_greeting`], and where the streams break.
pub async fn shake_hands<R, W>(
    output: R,
    input: W,
    protocol: Protocol,
    seen: &mut Vec<u8>,
) -> io::Result<Streams<R, W>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut output = BufReader::new(output);
    let mut input = BufWriter::new(input);
    let write = async {
        input.write_all(&protocol.greeting()).await?;
        input.flush().await
    };
    // What the other side says counts, also where it no longer listens.
    let written = write.await;
    let version = protocol.read_greeting(&mut output, seen).await?;
    written?;
    Ok(Streams {
        output,
        input,
        version,
    })
}

impl Link {
    /// Takes requests from now on. `why` runs once the connection is over, and says why that is.
    pub fn start<R, W>(
        streams: Streams<R, W>,
        why: impl Future<Output = String> + Send + 'static,
    ) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            meter: Meter::new(),
            stalled: Notify::new(),
            ended: OnceLock::new(),
        });
        let (requests, queue) = mpsc::channel(IN_FLIGHT);
        let Streams { output, input, .. } = streams;
        let run = run(output, input, queue, Arc::clone(&shared), why);
        let task = tokio::spawn(run.in_current_span());
        Self {
            requests,
            shared,
            task,
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link(broken: {})", self.requests.is_closed())
    }
}

impl Connection for Link {
    type LinkEntry = LinkEntry;

    fn is_broken(&self) -> bool {
        self.requests.is_closed()
    }

    fn way(&self) -> LinkEntry {
        LinkEntry {
            requests: self.requests.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

/// The way into a [`Link`].
pub struct LinkEntry {
    requests: mpsc::Sender<(Request, Bytes)>,
    shared: Arc<Shared>,
}

impl fmt::Debug for LinkEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkEntry")
    }
}

impl LinkEntry {
    pub(crate) async fn ask(
        self,
        id: u64,
        operation: Operation,
        body: Bytes,
        place: OwnedSemaphorePermit,
        quiet: Duration,
    ) -> Result<PendingRequest, Lost> {
        let (sender, answers) = mpsc::channel(ANSWERS);
        let pending = Pending {
            answers: sender,
            _place: place,
        };
        self.shared.meter.note();
        lock(&self.shared.waiting).insert(id, pending);
        let pending = PendingRequest {
            id,
            shared: self.shared,
            answers,
            quiet,
        };
        // There is room for as many as have a place; requests that were given up
        // may still stand before this one.
        match timeout(quiet, self.requests.send((Request { id, operation }, body))).await {
            Ok(Ok(())) => Ok(pending),
            Ok(Err(_)) => Err(Lost::Broken("the connection broke".to_owned())),
            Err(_) => {
                pending.shared.stalled.notify_one();
                Err(Lost::Quiet(quiet))
            }
        }
    }
}

/// Until either way breaks.
async fn run(
    output: BufReader<impl AsyncRead + Unpin>,
    input: BufWriter<impl AsyncWrite + Unpin>,
    queue: mpsc::Receiver<(Request, Bytes)>,
    shared: Arc<Shared>,
    why: impl Future<Output = String>,
) {
    let output = BufReader::new(Metered::new(output, &shared.meter));
    let input = BufWriter::new(Metered::new(input, &shared.meter));
    let ended = tokio::select! {
        () = read_answers(output, &shared) => "no more answers come",
        () = write_requests(queue, input) => "no more requests go out",
        () = shared.stalled.notified() => "nothing moves on it",
    };
    debug!("the connection is over: {ended}");
    // The streams are closed by now, and the queue: nobody begins to wait any more.
    // Who waits already learns that nothing comes, and why.
    let _ = shared.ended.set(why.await);
    lock(&shared.waiting).clear();
}

async fn write_requests(
    mut queue: mpsc::Receiver<(Request, Bytes)>,
    mut input: BufWriter<impl AsyncWrite + Unpin>,
) {
    while let Some((request, body)) = queue.recv().await {
        let mut written = write_frame(&mut input, &request, &body).await;
        if written.is_ok() && queue.is_empty() {
            written = input.flush().await;
        }
        if let Err(error) = written {
            debug!(%error, "a request did not go out: who asked learns that the connection broke");
            break;
        }
    }
}

async fn read_answers(mut output: BufReader<impl AsyncRead + Unpin>, shared: &Shared) {
    loop {
        let (Response { id, answer }, body) = match read_frame(&mut output).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error) => {
                debug!(%error, "no answer can be read: who asked learns that the connection broke");
                break;
            }
        };
        let last = !matches!(answer, Answer::Part { last: false });
        let mut waiting = lock(&shared.waiting);
        // One that is not there was given up by who asked.
        let Some(pending) = waiting.get(&id) else {
            continue;
        };
        // Without room there are more answers than an object has: what waits
        // learns that it broke off, and takes no half for the whole.
        let kept = pending.answers.try_send((answer, body)).is_ok();
        if last || !kept {
            waiting.remove(&id);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one call: a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
