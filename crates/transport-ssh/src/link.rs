//! One connection: an ssh process (or any two streams), the requests that go in
//! and the answers that come out.
//!
//! A task owns the process and both pipes. When either breaks, it finds out why,
//! and everybody who waits learns it. Dropped, it takes the process with it; the
//! far side sees its input end.

use std::collections::HashMap;
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

use crate::failure::Failure;
use crate::greeting::{greeting, read_greeting};
use crate::line::Connection;
use crate::meter::{Meter, Metered};
use crate::process::{Asks, LAST_WORDS, Process};
use crate::wire::{Answer, IN_FLIGHT, PART, Request, Response, Verb, read_frame, write_frame};
use crate::{SshOptions, SshTarget, command};

/// Answers that one request can get: a large object in parts, and its end. The
/// reader never waits for a request that does not take its answers.
const ANSWERS: usize = MAX_OBJECT / PART + 2;

/// A connection that has shaken hands.
pub(crate) struct Link {
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

impl Link {
    /// Starts `logchain transport serve` on the far side and shakes hands with it.
    pub(crate) async fn open(target: &SshTarget, options: &SshOptions) -> Result<Self, Failure> {
        let words = [
            options.remote_logchain.clone(),
            "transport".into(),
            "serve".into(),
            target.spool().as_os_str().to_owned(),
        ];
        let command = command(target, options, &words);
        let (mut process, output, input) =
            Process::start(command, target, options, Asks::Logchain)?;
        let mut answered = Vec::new();
        // ssh has its own, shorter bound on connecting; this one holds for the rest too.
        let limit = options.connect_timeout.saturating_add(LAST_WORDS);
        let host = target.host();
        match timeout(limit, shake_hands(output, input, &mut answered)).await {
            Ok(Ok(streams)) => Ok(Self::start(streams, Some(process))),
            Ok(Err(e)) if e.kind() == io::ErrorKind::Unsupported => Err(Failure::denied(format!(
                "at {host}: {e}; bring both to one release"
            ))),
            Ok(Err(e)) if e.kind() == io::ErrorKind::InvalidData => {
                Err(Failure::denied(format!("at {host}: {e}")))
            }
            Ok(Err(error)) => {
                debug!(host, %error, "no greeting came");
                Err(process.failure(&answered).await)
            }
            Err(_) => {
                let secs = limit.as_secs_f64();
                Err(Failure::unreachable(format!(
                    "{host} did not answer within {secs:.0} s"
                )))
            }
        }
    }

    /// Over any two streams, in place of ssh.
    #[cfg(test)]
    pub(crate) async fn over_streams(
        output: impl AsyncRead + Send + Unpin + 'static,
        input: impl AsyncWrite + Send + Unpin + 'static,
    ) -> io::Result<Self> {
        let streams = shake_hands(output, input, &mut Vec::new()).await?;
        Ok(Self::start(streams, None))
    }

    fn start(
        streams: (
            BufReader<impl AsyncRead + Send + Unpin + 'static>,
            BufWriter<impl AsyncWrite + Send + Unpin + 'static>,
        ),
        process: Option<Process>,
    ) -> Self {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            meter: Meter::new(),
            stalled: Notify::new(),
            ended: OnceLock::new(),
        });
        let (requests, queue) = mpsc::channel(IN_FLIGHT);
        let (output, input) = streams;
        let run = run(output, input, queue, Arc::clone(&shared), process);
        let task = tokio::spawn(run.in_current_span());
        Self {
            requests,
            shared,
            task,
        }
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
pub(crate) struct LinkEntry {
    requests: mpsc::Sender<(Request, Bytes)>,
    shared: Arc<Shared>,
}

impl LinkEntry {
    pub(crate) async fn ask(
        self,
        id: u64,
        verb: Verb,
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
        let asked = PendingRequest {
            id,
            shared: self.shared,
            answers,
            quiet,
        };
        // There is room for as many as have a place; requests that were given up
        // may still stand before this one.
        match timeout(quiet, self.requests.send((Request { id, verb }, body))).await {
            Ok(Ok(())) => Ok(asked),
            Ok(Err(_)) => Err(Lost::Broken("the connection broke".to_owned())),
            Err(_) => {
                asked.shared.stalled.notify_one();
                Err(Lost::Quiet(quiet))
            }
        }
    }
}

async fn shake_hands<R, W>(
    output: R,
    input: W,
    answered: &mut Vec<u8>,
) -> io::Result<(BufReader<R>, BufWriter<W>)>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut output = BufReader::new(output);
    let mut input = BufWriter::new(input);
    let write = async {
        input.write_all(&greeting()).await?;
        input.flush().await
    };
    // What the other side says counts, also where it no longer listens.
    let written = write.await;
    read_greeting(&mut output, answered).await?;
    written?;
    Ok((output, input))
}

/// Until either way breaks.
async fn run(
    output: BufReader<impl AsyncRead + Unpin>,
    input: BufWriter<impl AsyncWrite + Unpin>,
    queue: mpsc::Receiver<(Request, Bytes)>,
    shared: Arc<Shared>,
    process: Option<Process>,
) {
    let output = BufReader::new(Metered::new(output, &shared.meter));
    let input = BufWriter::new(Metered::new(input, &shared.meter));
    let ended = tokio::select! {
        () = read_answers(output, &shared) => "no more answers come",
        () = write_requests(queue, input) => "no more requests go out",
        () = shared.stalled.notified() => "nothing moves on it",
    };
    debug!("the connection is over: {ended}");
    // The pipes are closed by now, and the queue: nobody begins to wait any more.
    // Who waits already learns that nothing comes, and why.
    let why = match process {
        Some(mut process) => process.failure(b"").await.sentence,
        None => "the connection broke".to_owned(),
    };
    let _ = shared.ended.set(why);
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
