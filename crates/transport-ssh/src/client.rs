//! The near side: one ssh, many requests under way in it, made anew when it breaks.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use logchain_core::transport::{
    ByteStream, Entry, Error, Key, LogTransport, MAX_OBJECT, Prefix, Result,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::process::Child;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::wire::{
    Answer, GREETING, IN_FLIGHT, PART, Request, Response, Verb, WirePrefix, read_frame,
    read_greeting, write_frame,
};
use crate::{SshOptions, SshTarget, command, explain};

/// Answers that one request can get: a large object in parts, and its end. The
/// reader never waits for a request that does not take its answers.
const ANSWERS: usize = MAX_OBJECT / PART + 2;

/// A request that gets no answer for so long is lost: keep-alives of ssh itself
/// end a dead connection sooner.
const ANSWER: Duration = Duration::from_secs(60);

/// How soon after a failed connection another is tried.
const BACKOFF: Duration = Duration::from_millis(500);

/// What is kept of ssh's own words.
const MAX_STDERR: u64 = 16 * 1024;

/// A spool on another host, over ssh.
pub struct SshTransport {
    name: String,
    target: SshTarget,
    options: SshOptions,
    link: Mutex<Link>,
    next: AtomicU64,
    places: Semaphore,
}

enum Link {
    Up(Connection),
    /// Since when, and why.
    Down(Option<(Instant, String)>),
}

type Waiting = Arc<StdMutex<HashMap<u64, mpsc::Sender<(Answer, Bytes)>>>>;

struct Connection {
    requests: mpsc::Sender<(Request, Bytes)>,
    waiting: Waiting,
    task: JoinHandle<()>,
    /// Ends when dropped.
    _child: Option<Child>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SshTransport {
    /// Connects to the spool and shakes hands.
    ///
    /// # Errors
    /// [`Error::Unreachable`] or [`Error::Denied`] with a sentence that an
    /// operator can act on.
    pub async fn connect(target: SshTarget, options: SshOptions) -> Result<Self> {
        let transport = Self {
            name: target.to_string(),
            target,
            options,
            link: Mutex::new(Link::Down(None)),
            next: AtomicU64::new(0),
            places: Semaphore::new(IN_FLIGHT),
        };
        transport.requests().await?;
        Ok(transport)
    }

    fn unreachable(&self, reason: impl Into<String>) -> Error {
        Error::Unreachable {
            transport: self.name.clone(),
            reason: reason.into(),
        }
    }

    /// The way into the connection, made where there is none.
    async fn requests(&self) -> Result<(mpsc::Sender<(Request, Bytes)>, Waiting)> {
        let mut link = self.link.lock().await;
        match &*link {
            Link::Up(up) if !up.requests.is_closed() => {
                return Ok((up.requests.clone(), Arc::clone(&up.waiting)));
            }
            // Many requests at once try once.
            Link::Down(Some((since, why))) if since.elapsed() < BACKOFF => {
                return Err(self.unreachable(why.clone()));
            }
            _ => {}
        }
        match self.open().await {
            Ok(up) => {
                let way = (up.requests.clone(), Arc::clone(&up.waiting));
                *link = Link::Up(up);
                Ok(way)
            }
            Err(why) => {
                *link = Link::Down(Some((Instant::now(), why.clone())));
                let denied = why.contains("host key")
                    || why.contains("refuses the login")
                    || why.contains("is not installed")
                    || why.contains("speaks version");
                if denied {
                    return Err(Error::Denied {
                        transport: self.name.clone(),
                        reason: why,
                    });
                }
                Err(self.unreachable(why))
            }
        }
    }

    async fn open(&self) -> std::result::Result<Connection, String> {
        let words = [
            self.options.remote_logchain.clone(),
            OsString::from("transport"),
            OsString::from("serve"),
            self.target.spool().as_os_str().to_owned(),
        ];
        let mut child = command(&self.target, &self.options, &words)
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", self.options.program.display()))?;
        let (Some(input), Some(output), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err("ssh has no pipes".to_owned());
        };
        // Drained to its end, so that ssh never waits for us; only the beginning is kept.
        let said = tokio::spawn(async move {
            let mut stderr = stderr;
            let mut text = Vec::new();
            let _ = (&mut stderr).take(MAX_STDERR).read_to_end(&mut text).await;
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
            String::from_utf8_lossy(&text).into_owned()
        });
        // ssh has its own, shorter bound on connecting; this one holds for the rest too.
        let limit = self.options.connect_timeout + Duration::from_secs(5);
        let mut up = match timeout(limit, shake_hands(output, input)).await {
            Ok(Ok(up)) => up,
            Ok(Err(e)) if e.kind() == io::ErrorKind::Unsupported => return Err(e.to_string()),
            Ok(Err(_)) => {
                let status = timeout(Duration::from_secs(2), child.wait()).await;
                // Only a child that is gone has said all it will say.
                let status = status.ok().and_then(io::Result::ok);
                if status.is_none() {
                    let _ = child.kill().await;
                }
                let said = timeout(Duration::from_secs(2), said).await;
                let said = said
                    .ok()
                    .and_then(std::result::Result::ok)
                    .unwrap_or_default();
                return Err(explain(&self.target, &self.options, status, &said));
            }
            Err(_) => {
                let (host, secs) = (self.target.host(), limit.as_secs());
                return Err(format!("{host} did not answer within {secs} s"));
            }
        };
        up._child = Some(child);
        Ok(up)
    }

    async fn ask(&self, verb: Verb, body: Bytes) -> Result<mpsc::Receiver<(Answer, Bytes)>> {
        let (requests, waiting) = self.requests().await?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = mpsc::channel(ANSWERS);
        lock(&waiting).insert(id, sender);
        if requests.send((Request { id, verb }, body)).await.is_err() {
            lock(&waiting).remove(&id);
            return Err(self.unreachable("the connection broke"));
        }
        Ok(answers)
    }

    async fn one(&self, verb: Verb, body: Bytes, key: &str) -> Result<(Answer, Bytes)> {
        let _place = self.places.acquire().await;
        let mut answers = self.ask(verb, body).await?;
        self.answer(&mut answers, key).await
    }

    async fn answer(
        &self,
        answers: &mut mpsc::Receiver<(Answer, Bytes)>,
        key: &str,
    ) -> Result<(Answer, Bytes)> {
        match timeout(ANSWER, answers.recv()).await {
            Ok(Some((Answer::Failed { outcome, reason }, _))) => {
                Err(outcome.into_error(self.name.clone(), key, reason))
            }
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(self.unreachable("the connection broke")),
            Err(_) => Err(self.unreachable(format!("no answer for {} s", ANSWER.as_secs()))),
        }
    }

    fn odd(&self) -> Error {
        let reason = "an answer that does not fit the request".to_owned();
        Error::Corrupt {
            transport: self.name.clone(),
            reason,
        }
    }
}

async fn shake_hands(
    output: impl AsyncRead + Send + Unpin + 'static,
    input: impl AsyncWrite + Send + Unpin + 'static,
) -> io::Result<Connection> {
    let mut output = BufReader::new(output);
    let mut input = BufWriter::new(input);
    input.write_all(GREETING).await?;
    input.flush().await?;
    read_greeting(&mut output).await?;
    let waiting = Waiting::default();
    let (requests, queue) = mpsc::channel(IN_FLIGHT);
    let task = tokio::spawn(run(output, input, queue, Arc::clone(&waiting)));
    Ok(Connection {
        requests,
        waiting,
        task,
        _child: None,
    })
}

/// Until either way breaks.
async fn run(
    output: BufReader<impl AsyncRead + Unpin>,
    input: BufWriter<impl AsyncWrite + Unpin>,
    queue: mpsc::Receiver<(Request, Bytes)>,
    waiting: Waiting,
) {
    tokio::select! {
        () = read_answers(output, &waiting) => {}
        () = write_requests(queue, input) => {}
    }
    // The queue is closed by now, so nobody waits anew; who waits learns that
    // nothing comes.
    lock(&waiting).clear();
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
        if written.is_err() {
            break;
        }
    }
}

async fn read_answers(mut output: BufReader<impl AsyncRead + Unpin>, waiting: &Waiting) {
    while let Ok(Some((Response { id, answer }, body))) = read_frame::<Response>(&mut output).await
    {
        let last = !matches!(answer, Answer::Part { last: false });
        let sender = {
            let mut waiting = lock(waiting);
            if last {
                waiting.remove(&id)
            } else {
                waiting.get(&id).cloned()
            }
        };
        // A request that was given up, or more answers than there can be.
        if let Some(sender) = sender {
            let _ = sender.try_send((answer, body));
        }
    }
}

fn lock<T>(mutex: &StdMutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Every change to the map is one call: a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Display for SshTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for SshTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SshTransport({})", self.name)
    }
}

#[async_trait]
impl LogTransport for SshTransport {
    async fn put(&self, key: &Key, data: Bytes) -> Result<()> {
        let key = key.to_string();
        if data.len() > MAX_OBJECT {
            return Err(Error::TooLarge { key });
        }
        match self.one(Verb::Put { key: key.clone() }, data, &key).await? {
            (Answer::Done, _) => Ok(()),
            _ => Err(self.odd()),
        }
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> Result<ByteStream> {
        let key = key.to_string();
        let verb = Verb::Get {
            key: key.clone(),
            range: range.map(|r| (r.start, r.end)),
        };
        // The parts wait in the request's own queue, which holds an object whole.
        let _place = self.places.acquire().await;
        let mut answers = self.ask(verb, Bytes::new()).await?;
        let mut parts = Vec::new();
        loop {
            match self.answer(&mut answers, &key).await? {
                (Answer::Part { last: false }, part) => parts.push(Ok(part)),
                (Answer::Part { last: true }, _) => return Ok(stream::iter(parts).boxed()),
                _ => return Err(self.odd()),
            }
            if parts.len() > ANSWERS {
                return Err(self.odd());
            }
        }
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Vec<Entry>> {
        let prefix = match prefix {
            Prefix::All => WirePrefix::default(),
            Prefix::Domain(d) => WirePrefix {
                domain: Some(d.to_string()),
                ..WirePrefix::default()
            },
            Prefix::Console(d, c) => WirePrefix {
                domain: Some(d.to_string()),
                console: Some(c.to_string()),
                handoff: None,
            },
            Prefix::Handoff(d, c, h) => WirePrefix {
                domain: Some(d.to_string()),
                console: Some(c.to_string()),
                handoff: Some(h.to_string()),
            },
        };
        let verb = Verb::List {
            prefix,
            after: after.map(ToString::to_string),
        };
        let (Answer::Entries(entries), _) = self.one(verb, Bytes::new(), "").await? else {
            return Err(self.odd());
        };
        entries
            .into_iter()
            .map(|(key, size)| {
                Ok(Entry {
                    key: key.parse()?,
                    size,
                })
            })
            .collect()
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let key = key.to_string();
        match self
            .one(Verb::Delete { key: key.clone() }, Bytes::new(), &key)
            .await?
        {
            (Answer::Done, _) => Ok(()),
            _ => Err(self.odd()),
        }
    }
}

#[cfg(test)]
impl SshTransport {
    /// Over any two streams, in place of ssh.
    pub(crate) async fn over(
        output: impl AsyncRead + Send + Unpin + 'static,
        input: impl AsyncWrite + Send + Unpin + 'static,
    ) -> io::Result<Self> {
        let up = shake_hands(output, input).await?;
        let target = SshTarget::on("test").map_err(io::Error::other)?;
        Ok(Self {
            name: target.to_string(),
            target,
            options: SshOptions {
                program: OsString::from("/bin/false"),
                ..SshOptions::default()
            },
            link: Mutex::new(Link::Up(up)),
            next: AtomicU64::new(0),
            places: Semaphore::new(IN_FLIGHT),
        })
    }
}
