//! A log in a folder, and an agent that serves it over a real socket.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use logchain_core::chain::NumberingChoice;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::*;
use super::LONG;
use crate::agent::config::Changes;
use crate::agent::control::{
    Agent, Draining, Frames, Health, LogReader, Slot, Socket, Status, serve,
};
use crate::status::Report;
use crate::stop::{StopRequest, stop};

/// An agent that has one log, of every domain that is asked for.
struct OneLog {
    path: PathBuf,
    /// Answers that have ended.
    ended: Arc<AtomicUsize>,
}

#[async_trait]
impl Agent for OneLog {
    async fn status(&self) -> Status {
        Status::default()
    }

    async fn health(&self) -> Health {
        Health::default()
    }

    async fn metrics(&self) -> String {
        String::new()
    }

    async fn handoffs(&self) -> Report {
        Report::default()
    }

    async fn log(&self, request: LogRequest, slot: Slot) -> Result<Frames, Refusal> {
        let (put, frames) = mpsc::channel(AHEAD);
        let (begun, begins) = oneshot::channel();
        let (path, ended) = (self.path.clone(), Arc::clone(&self.ended));
        let head = Head {
            console: "serial0".to_owned(),
            ..Head::default()
        };
        tokio::task::spawn_blocking(move || {
            let chain = LogChain::open(&path, NumberingChoice::FromZero);
            read(chain, head, &request, begun, &put);
            drop(slot);
            ended.fetch_add(1, Ordering::Relaxed);
        });
        begins.await.unwrap()?;
        let frames = stream::unfold(frames, |mut frames| async move {
            Some((frames.recv().await?, frames))
        });
        Ok(frames.boxed())
    }

    async fn drain(&self) -> Result<Draining, Refusal> {
        Ok(Draining::default())
    }

    async fn reload(&self) -> Result<Changes, Refusal> {
        Ok(Changes::default())
    }
}

/// A log, and an agent that serves it.
pub(super) struct Bed {
    pub(super) folder: tempfile::TempDir,
    pub(super) ended: Arc<AtomicUsize>,
    serving: Option<(StopRequest, JoinHandle<()>)>,
}

impl Bed {
    /// `files`: what each has, the oldest first.
    pub(super) async fn of(files: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut bed = Self {
            folder,
            ended: Arc::default(),
            serving: None,
        };
        for (index, text) in files.iter().rev().enumerate() {
            let name = match index {
                0 => bed.log(),
                older => bed.rotated(older - 1),
            };
            fs::write(name, text).unwrap();
        }
        bed.start().await;
        bed
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.path().join("console.log")
    }

    pub(super) fn rotated(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("console.log.{number}"))
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    pub(super) async fn start(&mut self) {
        let socket = Socket::bind(&self.socket(), None).await.unwrap();
        let agent = Arc::new(OneLog {
            path: self.log(),
            ended: Arc::clone(&self.ended),
        });
        let (request, stop) = stop();
        let serving = tokio::spawn(async move { serve(socket, agent, &stop).await });
        self.serving = Some((request, serving));
    }

    /// Cuts off whoever reads.
    pub(super) async fn stop(&mut self) {
        let (request, serving) = self.serving.take().unwrap();
        request.ask();
        timeout(LONG, serving).await.unwrap().unwrap();
    }

    pub(super) fn print(&self, text: &str) {
        let mut log = File::options().append(true).open(self.log()).unwrap();
        log.write_all(text.as_bytes()).unwrap();
    }

    pub(super) async fn open(&self, part: Part, follow: bool) -> crate::Result<LogReader> {
        LogReader::open(self.socket(), request(part, follow)).await
    }

    /// All of a log, with what is missing in brackets, and where it ends.
    pub(super) async fn all(&self, part: Part) -> String {
        text_of(self.open(part, false).await.unwrap()).await
    }
}

pub(super) async fn text_of(mut reader: LogReader) -> String {
    let mut text = String::new();
    while let Some(frame) = next(&mut reader).await {
        text.push_str(&shown(&frame));
    }
    text
}

pub(super) fn request(part: Part, follow: bool) -> LogRequest {
    LogRequest {
        domain: "vm1".to_owned(),
        console: None,
        part,
        boot: None,
        list_boots: false,
        follow,
        framed: true,
    }
}

pub(super) async fn next(reader: &mut LogReader) -> Option<Frame> {
    timeout(LONG, reader.next()).await.unwrap().unwrap()
}

pub(super) fn shown(frame: &Frame) -> String {
    match frame {
        Frame::Bytes { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
        Frame::Missing { next, size } => format!("[{size:?} before {next}]"),
        Frame::End { next, more } => format!("[end {next} {more}]"),
        other => format!("[{other:?}]"),
    }
}

/// Reads until this is all that came.
pub(super) async fn until(reader: &mut LogReader, want: &str) {
    let mut text = String::new();
    while text != want {
        assert!(want.starts_with(&text), "{text:?} is not {want:?}");
        let frame = next(reader).await.unwrap();
        if frame != Frame::CaughtUp {
            text.push_str(&shown(&frame));
        }
    }
}

pub(super) fn from(offset: u64) -> Part {
    Part::From { offset, most: None }
}
