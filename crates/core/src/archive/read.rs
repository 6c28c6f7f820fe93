//! Reads a stream from a transport, by offsets.

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::{Archive, Error, Result, offset_of};
use crate::transport::{Key, LogTransportExt};

/// Batches fetched side by side: bounds the memory.
const AHEAD: usize = 4;

/// Batches that one read goes over at the most.
const MOST: usize = 4_000_000;

/// What lies at an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Bytes.
    Bytes {
        /// The offset of the first one.
        offset: u64,
        /// They.
        bytes: Bytes,
    },
    /// Bytes are missing here.
    Missing {
        /// The offset of the next one that is there.
        next: u64,
        /// How many, where that is known.
        size: Option<u64>,
    },
}

impl Archive {
    /// The offset of the first byte that is there; `None` where nothing is.
    pub async fn first(&self) -> Result<Option<u64>> {
        Ok(self.offsets_down_to(0).await?.last().copied())
    }

    /// The bytes from `offset` on, at most `most`, that are there now. Parts follow
    /// each other without overlap; an offset that is not there any more begins
    /// with [`Part::Missing`].
    ///
    /// # Errors
    /// The transport's, here or in the stream; [`Error::Damaged`] in the stream.
    pub async fn read(&self, offset: u64, most: u64) -> Result<BoxStream<'static, Result<Part>>> {
        Ok(self.read_in(&self.map(offset).await?, offset, most))
    }

    /// Which batches are there from `offset` on: for who reads more than once.
    pub async fn map(&self, offset: u64) -> Result<Map> {
        let mut offsets = self.offsets_down_to(offset).await?;
        offsets.reverse();
        Ok(Map(offsets))
    }

    /// As [`Archive::read`], of the batches of `map` alone.
    pub fn read_in(&self, map: &Map, offset: u64, most: u64) -> BoxStream<'static, Result<Part>> {
        let batches = map.holding(offset, offset.saturating_add(most)).to_vec();
        let archive = self.clone();
        let batches = stream::iter(batches)
            .map(move |at| {
                let archive = archive.clone();
                async move { archive.batch(at).await }
            })
            .buffered(AHEAD);
        let end = offset.saturating_add(most);
        let parts = batches.scan(Some(offset), move |at, batch| {
            let parts = match (*at, batch) {
                (None, _) => return std::future::ready(None),
                (Some(from), Ok(batch)) => {
                    // Deleted since it was listed: a gap, if any, shows at the next one.
                    let parts = batch.map_or_else(Vec::new, |batch| parts(from, end, &batch));
                    let next = parts.last().map_or(from, Part::next);
                    *at = (next < end).then_some(next);
                    parts.into_iter().map(Ok).collect()
                }
                (Some(_), Err(e)) => {
                    *at = None;
                    vec![Err(e)]
                }
            };
            std::future::ready(Some(stream::iter(parts)))
        });
        parts.flatten().boxed()
    }

    /// The offsets of batches, the newest first, down to the one that holds `offset`.
    async fn offsets_down_to(&self, offset: u64) -> Result<Vec<u64>> {
        let mut found: Vec<u64> = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let page = self
                .transport
                .list_page(&self.prefix(), after.as_ref())
                .await?;
            let Some(last) = page.last() else {
                return Ok(found);
            };
            after = Some(last.key.clone());
            for at in page.iter().filter_map(|e| offset_of(&e.key)) {
                found.push(at);
                if at <= offset {
                    return Ok(found);
                }
            }
            if found.len() > MOST {
                return Err(Error::Transport(crate::transport::Error::Corrupt {
                    transport: self.transport.to_string(),
                    reason: format!("more than {MOST} batches in a stream"),
                }));
            }
        }
    }
}

/// The offsets of batches, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map(Vec<u64>);

impl Map {
    /// The batches that hold what lies from `offset` on, up to `end`, as far as
    /// their offsets tell.
    #[must_use]
    pub fn holding(&self, offset: u64, end: u64) -> &[u64] {
        let first = self.0.partition_point(|at| *at <= offset).saturating_sub(1);
        let last = self.0.partition_point(|at| *at < end);
        self.0.get(first..last).unwrap_or_default()
    }
}

impl Part {
    /// Where the next part begins.
    #[must_use]
    pub fn next(&self) -> u64 {
        match self {
            Self::Bytes { offset, bytes } => offset.saturating_add(bytes.len() as u64),
            Self::Missing { next, .. } => *next,
        }
    }
}

/// What a batch adds for who has all before `from` and wants all before `end`.
fn parts(from: u64, end: u64, batch: &super::Batch) -> Vec<Part> {
    let mut parts = Vec::new();
    if batch.end() <= from || batch.offset >= end {
        return parts;
    }
    let size = batch.offset.checked_sub(from).filter(|size| *size > 0);
    if size.is_some() || (batch.after_gap && batch.offset == from) {
        let next = batch.offset;
        parts.push(Part::Missing { next, size });
    }
    let within = |offset: u64| {
        let into = offset.saturating_sub(batch.offset);
        usize::try_from(into).map_or(batch.bytes.len(), |into| into.min(batch.bytes.len()))
    };
    let bytes = batch.bytes.slice(within(from)..within(end));
    parts.push(Part::Bytes {
        offset: from.max(batch.offset),
        bytes,
    });
    parts
}
