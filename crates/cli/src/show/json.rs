//! A chain as one JSON object, streamed: a large log needs no memory.

use std::cell::RefCell;
use std::fmt::{self, Display};
use std::io::{Read, Write};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use logchain_core::chain::{LogChain, Snapshot};
use serde::{Serialize, Serializer};

use super::remote::RemoteLog;
use super::{Subject, each_block};

/// What is said of a chain. `content` is text where it is UTF-8, else Base64.
#[derive(Serialize)]
pub(super) struct Shown {
    domain: Option<String>,
    uuid: Option<String>,
    console: Option<String>,
    path: String,
    numbering: String,
    files: Vec<File>,
    gaps: Vec<Gap>,
    #[serde(flatten)]
    place: Option<Place>,
}

/// Where in the VM's stream the content lies.
#[derive(Serialize)]
pub(super) struct Place {
    /// The offset of its first byte.
    pub(super) offset: u64,
    /// The offset that follows its last byte.
    pub(super) next: u64,
    /// Whether more is there, behind a gap perhaps.
    pub(super) more: bool,
    /// Where nothing is there any more: the first offset that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expired: Option<u64>,
}

#[derive(Serialize)]
struct File {
    name: String,
    size: u64,
}

#[derive(Serialize)]
struct Gap {
    first: u32,
    last: u32,
}

#[derive(Serialize)]
struct WithContent<'a, C> {
    #[serde(flatten)]
    shown: &'a Shown,
    bytes: u64,
    encoding: &'static str,
    content: &'a C,
}

impl Shown {
    pub(super) fn of(subject: &Subject, chain: &LogChain, snapshot: &Snapshot) -> Self {
        let files = snapshot.files().iter();
        let gaps = snapshot.gaps().iter();
        Self {
            domain: subject.domain.as_ref().map(|d| d.0.clone()),
            uuid: subject.domain.as_ref().map(|d| d.1.clone()),
            console: subject.console.clone(),
            path: subject.path.to_string_lossy().into_owned(),
            numbering: chain.numbering().to_string(),
            files: files
                .map(|f| File {
                    name: f.name().to_string_lossy().into_owned(),
                    size: f.size(),
                })
                .collect(),
            gaps: gaps
                .map(|g| Gap {
                    first: g.first,
                    last: g.last,
                })
                .collect(),
            place: None,
        }
    }

    /// The same of a log that lies elsewhere.
    pub(super) fn of_remote(log: &RemoteLog) -> Self {
        let (name, uuid) = log.domain.clone();
        Self {
            domain: Some(name),
            uuid: Some(uuid),
            console: Some(log.console.clone()),
            path: log.path.to_string_lossy().into_owned(),
            numbering: log.numbering.clone(),
            files: log
                .files
                .iter()
                .map(|(name, size)| File {
                    name: name.clone(),
                    size: *size,
                })
                .collect(),
            gaps: log
                .gaps
                .iter()
                .map(|(first, last)| Gap {
                    first: *first,
                    last: *last,
                })
                .collect(),
            place: None,
        }
    }

    /// With where it lies.
    pub(super) fn at(self, place: Place) -> Self {
        Self {
            place: Some(place),
            ..self
        }
    }

    /// Reads twice: to see how the content is written, and to write it.
    pub(super) fn write<R: Read>(
        &self,
        reader: impl Fn() -> anyhow::Result<R>,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let mut utf8 = Utf8::default();
        let mut bytes: u64 = 0;
        each_block(reader()?, |block| {
            utf8.push(block);
            bytes = bytes.saturating_add(block.len() as u64);
            Ok(())
        })?;
        let text = utf8.is_valid();
        let content = Content {
            reader: RefCell::new(Some(reader()?)),
            text,
            failed: RefCell::default(),
        };
        let encoding = if text { "utf-8" } else { "base64" };
        let all = WithContent {
            shown: self,
            bytes,
            encoding,
            content: &content,
        };
        let written = serde_json::to_writer(&mut *out, &all);
        if let Some(error) = content.failed.take() {
            return Err(error);
        }
        // As the plain error, so that a closed pipe is recognised.
        written.map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
        out.flush().context("cannot write")
    }
}

/// The log's bytes, written as they are read.
struct Content<R> {
    reader: RefCell<Option<R>>,
    text: bool,
    failed: RefCell<Option<anyhow::Error>>,
}

impl<R: Read> Serialize for Content<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<R: Read> Display for Content<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(reader) = self.reader.take() else {
            return Err(fmt::Error);
        };
        let mut rest = Vec::new();
        let mut broken = false;
        let read = each_block(reader, |block| {
            rest.extend_from_slice(block);
            let whole = match (self.text, std::str::from_utf8(&rest)) {
                (true, Err(e)) => e.valid_up_to(),
                (true, Ok(_)) => rest.len(),
                (false, _) => rest.len() / 3 * 3,
            };
            let later = rest.split_off(whole);
            broken = self.put(f, &rest).is_err();
            rest = later;
            anyhow::ensure!(!broken, "cannot write");
            Ok(())
        });
        if broken {
            return Err(fmt::Error);
        }
        if let Err(e) = read {
            self.failed.replace(Some(e));
            return Err(fmt::Error);
        }
        self.put(f, &rest)
    }
}

impl<R> Content<R> {
    fn put(&self, f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
        if self.text {
            f.write_str(&String::from_utf8_lossy(bytes))
        } else {
            f.write_str(&STANDARD.encode(bytes))
        }
    }
}

/// Some bytes, as text where they are UTF-8, else Base64.
pub(super) fn text(bytes: &[u8]) -> (&'static str, String) {
    match std::str::from_utf8(bytes) {
        Ok(text) => ("utf-8", text.to_owned()),
        Err(_) => ("base64", STANDARD.encode(bytes)),
    }
}

/// Whether bytes that come in blocks are UTF-8.
#[derive(Default)]
struct Utf8 {
    rest: Vec<u8>,
    broken: bool,
}

impl Utf8 {
    fn push(&mut self, block: &[u8]) {
        if self.broken {
            return;
        }
        self.rest.extend_from_slice(block);
        match std::str::from_utf8(&self.rest) {
            Ok(_) => self.rest.clear(),
            Err(e) if e.error_len().is_some() => self.broken = true,
            Err(e) => {
                self.rest.drain(..e.valid_up_to());
            }
        }
    }

    fn is_valid(&self) -> bool {
        !self.broken && self.rest.is_empty()
    }
}
