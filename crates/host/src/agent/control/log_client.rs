//! A client that reads a log from the agent.
//!
//! The agent cuts off a client that leaves its answer unread, as one does whose pager waits for a
//! key; and an agent may be started anew while a log is followed. So a connection that breaks off
//! is no end: the client connects again and asks for what follows the last byte that it has. No
//! byte comes twice, and what the rotation dropped meanwhile is a [`Frame::Missing`].
//!
//! Must not know: how a log is shown.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::{Method, StatusCode};
use logchain_core::backoff::{Backoff, Waits};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::client::{self, Answer, PATIENCE, broken, collected, not_connected, silent};
use super::frame::Decoder;
use super::{Frame, Head, LogRequest, Part, Start};
use crate::{Error, Result};

/// Between two tries to connect again.
const AGAIN: Backoff = Backoff::doubling(Duration::from_millis(50), Duration::from_secs(2));

/// How long an agent that is gone is waited for: one that is updated is back by then.
const RETURN: Duration = Duration::from_secs(120);

/// A log that is read from an agent.
pub struct LogReader {
    socket: PathBuf,
    request: LogRequest,
    head: Head,
    /// The offset of the next byte.
    at: u64,
    /// Where the answer ends, unless the log is followed.
    end: Option<u64>,
    /// `None`: the connection broke off.
    frames: Option<Connected>,
    /// Since when it did, and how long to wait before the next try.
    broken: Option<(Instant, Waits)>,
    is_over: bool,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader")
            .field("request", &self.request)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// A connection on which frames come.
struct Connected {
    answer: Answer,
    decoder: Decoder,
}

/// Why no further frame comes.
enum Failure {
    /// The same may succeed over another connection.
    Connection(Error),
    /// It would not.
    Final(Error),
}

impl Failure {
    fn into_error(self) -> Error {
        match self {
            Self::Connection(e) | Self::Final(e) => e,
        }
    }
}

impl LogReader {
    /// Asks the agent at `socket` for a log.
    ///
    /// # Errors
    /// [`Error::Refused`] where no agent answers there, or it has no such log; the sentence says
    /// why.
    pub async fn open(socket: PathBuf, mut request: LogRequest) -> Result<Self> {
        request.framed = true;
        let mut reader = Self {
            socket,
            request,
            head: Head::default(),
            at: 0,
            end: None,
            frames: None,
            broken: None,
            is_over: false,
        };
        let head = reader.connect().await.map_err(Failure::into_error)?;
        let begin = match head.start {
            Start::At(offset) => offset,
            _ => head.end,
        };
        reader.at = begin;
        reader.end = (!reader.request.follow).then_some(head.stop);
        // Another connection gets the very log of this one.
        (reader.request.boot, reader.request.list_boots) = (None, false);
        reader.request.domain = head.uuid.to_string();
        reader.request.console = head.console.parse().ok();
        reader.head = head;
        Ok(reader)
    }

    /// Which log it is.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The next frame, which is never a [`Frame::Head`] or a [`Frame::Failed`]; `None` after the
    /// last one. It may be dropped and called again.
    ///
    /// # Errors
    /// [`Error::Refused`] where the log cannot be read any further.
    pub async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            let found = match &mut self.frames {
                Some(frames) => frames.next(&self.socket).await,
                None => match self.again().await? {
                    Some(frame) => Ok(frame),
                    None => continue,
                },
            };
            match found {
                Ok(frame) => return self.given(frame),
                Err(Failure::Final(e)) => return Err(e),
                Err(Failure::Connection(e)) if self.is_given_up() => return Err(e),
                Err(Failure::Connection(e)) => {
                    tracing::info!(error = %e.sentence(), at = self.at, "the agent is asked again");
                    self.frames = None;
                    self.broken
                        .get_or_insert_with(|| (Instant::now(), AGAIN.start()));
                }
            }
        }
    }

    fn is_given_up(&self) -> bool {
        let since = self.broken.as_ref().map(|(since, _)| since.elapsed());
        since.is_some_and(|gone| gone >= RETURN)
    }

    fn given(&mut self, frame: Frame) -> Result<Option<Frame>> {
        self.broken = None;
        match &frame {
            Frame::Bytes { offset, bytes } => self.at = offset.saturating_add(bytes.len() as u64),
            Frame::Missing { next, .. } => self.at = *next,
            Frame::End { .. } => {
                self.is_over = true;
                self.frames = None;
            }
            Frame::Failed(why) => return Err(Error::Refused(why.clone())),
            Frame::Head(_) | Frame::CaughtUp => {}
        }
        Ok(Some(frame))
    }

    /// Connects again after a while. A frame where the log is not as it was; `None`: it is.
    async fn again(&mut self) -> Result<Option<Frame>> {
        if self.end.is_some_and(|end| self.at >= end) {
            let (next, more) = (self.at, self.at < self.head.end);
            return Ok(Some(Frame::End { next, more }));
        }
        let now = Instant::now();
        let (since, waits) = self.broken.get_or_insert_with(|| (now, AGAIN.start()));
        let gone = since.elapsed();
        sleep(waits.next(gone).unwrap_or_default()).await;
        self.request.part = Part::From {
            offset: self.at,
            most: self.end.map(|end| end.saturating_sub(self.at)),
        };
        let found = match self.connect().await {
            Ok(head) => head.start,
            Err(Failure::Connection(_)) if gone < RETURN => return Ok(None),
            Err(failure) => return Err(failure.into_error()),
        };
        match found {
            Start::At(_) => Ok(None),
            Start::Arriving(_) if gone < RETURN => {
                self.frames = None;
                Ok(None)
            }
            Start::Expired(next) | Start::Arriving(next) => {
                // What follows is asked for next.
                self.frames = None;
                let size = next.checked_sub(self.at);
                Ok(Some(Frame::Missing { next, size }))
            }
            Start::Beyond | Start::NoSuchBoot => Err(Error::Refused(format!(
                "the log ends before offset {}, up to which it was read: it is another log now",
                self.at
            ))),
        }
    }

    /// Sends the request; gives the head of the answer.
    async fn connect(&mut self) -> Result<Head, Failure> {
        let connected = timeout(PATIENCE, self.connected()).await;
        let mut frames =
            connected.unwrap_or_else(|_| Err(Failure::Connection(silent(&self.socket))))?;
        match frames.next(&self.socket).await? {
            Frame::Head(head) => {
                self.frames = Some(frames);
                Ok(*head)
            }
            _ => Err(Failure::Final(Error::Refused(format!(
                "what listens at {} does not answer as an agent does: no head came first",
                self.socket.display()
            )))),
        }
    }

    async fn connected(&self) -> Result<Connected, Failure> {
        let cut = |e| Failure::Connection(broken(&self.socket, &e));
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|e| Failure::Connection(not_connected(&self.socket, e)))?;
        let path = self.request.path();
        let answer = client::send(stream, Method::GET, &path).await;
        let answer = answer.map_err(cut)?;
        let status = answer.response.status();
        if status == StatusCode::OK {
            return Ok(Connected {
                answer,
                decoder: Decoder::default(),
            });
        }
        let text = collected(answer.response).await.map_err(cut)?;
        let Err(refused) = client::ok(text) else {
            return Err(Failure::Final(silent(&self.socket)));
        };
        Err(match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                Failure::Connection(refused)
            }
            _ => Failure::Final(refused),
        })
    }
}

impl Connected {
    /// The next frame. A log that is followed and silent has one each second.
    async fn next(&mut self, socket: &std::path::Path) -> Result<Frame, Failure> {
        let came = timeout(PATIENCE, self.read(socket)).await;
        came.unwrap_or_else(|_| Err(Failure::Connection(silent(socket))))
    }

    async fn read(&mut self, socket: &std::path::Path) -> Result<Frame, Failure> {
        let wrong = |e: super::frame::BadFrame| {
            Failure::Final(Error::Refused(format!(
                "what listens at {} does not answer as an agent does: {e}",
                socket.display()
            )))
        };
        loop {
            if let Some(frame) = self.decoder.next().map_err(wrong)? {
                return Ok(frame);
            }
            match self.answer.response.body_mut().frame().await {
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.decoder.push(bytes);
                    }
                }
                Some(Err(e)) => return Err(Failure::Connection(broken(socket, &e))),
                None => return Err(Failure::Connection(broken(socket, &"it ended too early"))),
            }
        }
    }
}
