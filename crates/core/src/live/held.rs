//! A file of the chain that is held open until its last byte was given.

use std::fs::File;
use std::io::{self, Read};

use crate::chain::{self, ChainFile, decompressed};
use crate::content::Watched;
use crate::folder::FileId;
use crate::offsets::Result;
use crate::stream::StreamOffset;

#[derive(Debug)]
pub(super) struct Held {
    pub(super) id: FileId,
    pub(super) name: std::ffi::OsString,
    pub(super) source: Source,
    pub(super) at: u64,
    /// Whether a plain file still is what it was.
    pub(super) watched: Watched,
    /// The offset of the byte at which it begins to be read, where known.
    pub(super) start: Option<StreamOffset>,
}

pub(super) enum Source {
    Plain(File),
    Compressed(Box<dyn Read + Send>),
    /// What it held and was not given is gone: it was emptied from outside.
    Lost,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Compressed(_) => "Compressed",
            Self::Lost => "Lost",
        })
    }
}

impl Held {
    pub(super) fn at(id: FileId, at: u64) -> Self {
        Self {
            id,
            name: std::ffi::OsString::new(),
            source: Source::Lost,
            at,
            watched: Watched::default(),
            start: None,
        }
    }

    pub(super) fn new(file: ChainFile, at: u64) -> Result<Self> {
        let (id, name) = (file.id(), file.name().to_owned());
        let mut watched = Watched::default();
        let source = match file.compression() {
            None => {
                let file = file.into_file();
                let fail = |source| chain::Error::Read {
                    path: (&name).into(),
                    source,
                };
                watched = Watched::of(&file).map_err(fail)?;
                Source::Plain(file)
            }
            Some(_) => {
                let mut reader = decompressed(file)?;
                let skip = io::copy(&mut reader.by_ref().take(at), &mut io::sink());
                skip.map_err(|e| chain::Error::of_io(e, (&name).into()))?;
                Source::Compressed(reader)
            }
        };
        Ok(Self {
            id,
            name,
            source,
            at,
            watched,
            start: None,
        })
    }
}
