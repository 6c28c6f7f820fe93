//! Pieces whose bytes lie in the transport already, in the VM's stream
//! ([`crate::archive`]): only where they lie is put.
//!
//! Must not know: how pieces are cut or staged.

use std::sync::Arc;

use futures_util::TryStreamExt;

use super::Handoff;
use crate::archive::{self, Archive, Map, Part};
use crate::stream::History;
use crate::transport::LogTransport;

/// Batches that may hold a piece. Where they are smaller, fetching them takes
/// longer than putting the piece and fetching that.
const BATCHES: usize = 8;

/// What of a history lies in the stream, as the source knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Streamed {
    history: History,
    map: Map,
    end: u64,
}

impl Streamed {
    /// What of `history`, the handoff's from its first byte on, lies in the stream
    /// now. Nothing where there is no stream.
    pub(super) async fn find(
        transport: &Arc<dyn LogTransport>,
        handoff: &Handoff,
        history: History,
    ) -> archive::Result<Self> {
        let archive = of(transport, handoff);
        let Some(end) = archive.end().await? else {
            return Ok(Self::default());
        };
        let first = history.start().get();
        Ok(Self {
            history,
            map: archive.map(first).await?,
            end: end.offset,
        })
    }

    /// The offset in the stream of the piece that begins at byte `at` of the
    /// handoff, if all of it lies there in few enough batches.
    pub(super) fn piece(&self, at: u64, len: u64) -> Option<u64> {
        let mut before = 0_u64;
        for (start, length) in &self.history.runs {
            let into = at.checked_sub(before)?;
            if into < *length {
                let offset = start.get().checked_add(into)?;
                let end = offset.checked_add(len)?;
                let fits = into.checked_add(len)? <= *length && end <= self.end;
                let batches = self.map.holding(offset, end);
                let held = batches.first().is_some_and(|first| *first <= offset);
                return (fits && held && batches.len() <= BATCHES).then_some(offset);
            }
            before = before.checked_add(*length)?;
        }
        None
    }
}

/// Reads pieces in the stream, for the destination.
pub(super) struct Reader {
    archive: Archive,
    map: Map,
}

impl Reader {
    /// From `offset` on.
    pub(super) async fn open(
        transport: &Arc<dyn LogTransport>,
        handoff: &Handoff,
        offset: u64,
    ) -> archive::Result<Self> {
        let archive = of(transport, handoff);
        let map = archive.map(offset).await?;
        Ok(Self { archive, map })
    }

    /// The bytes from `offset` on, `len` or fewer: up to a gap.
    pub(super) async fn read(&self, offset: u64, len: u64) -> archive::Result<Vec<u8>> {
        let mut parts = self.archive.read_in(&self.map, offset, len);
        let mut all = Vec::new();
        while let Some(Part::Bytes { bytes, .. }) = parts.try_next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }
}

fn of(transport: &Arc<dyn LogTransport>, handoff: &Handoff) -> Archive {
    Archive::new(
        Arc::clone(transport),
        handoff.domain,
        handoff.console.clone(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::HandoffId;
    use crate::stream::StreamOffset;
    use crate::transport::MemoryTransport;

    fn handoff() -> Handoff {
        Handoff {
            domain: uuid::Uuid::nil(),
            console: "serial0".parse().unwrap(),
            id: HandoffId::random(),
        }
    }

    async fn put(transport: &Arc<dyn LogTransport>, offset: u64, bytes: &'static [u8]) {
        let archive = of(transport, &handoff());
        archive.put_for_test(offset, bytes).await;
    }

    #[tokio::test]
    async fn only_what_lies_there_whole_is_taken_from_there() {
        let transport: Arc<dyn LogTransport> = Arc::new(MemoryTransport::new());
        let history = History {
            runs: vec![(StreamOffset::new(100), 10), (StreamOffset::new(120), 40)],
            ..History::default()
        };
        let ours = handoff();
        let find = || Streamed::find(&transport, &ours, history.clone());
        assert_eq!(find().await.unwrap().piece(0, 5), None);
        put(&transport, 95, b"abcdeABCDE").await;
        put(&transport, 105, b"FGHIJ.........").await;
        let streamed = find().await.unwrap();
        assert_eq!(streamed.piece(0, 10), Some(100));
        assert_eq!(streamed.piece(3, 7), Some(103));
        // Over a gap of the history, behind the stream's end, behind the history's.
        assert_eq!(streamed.piece(5, 6), None);
        assert_eq!(streamed.piece(10, 5), None);
        assert_eq!(streamed.piece(60, 1), None);
        let reader = Reader::open(&transport, &handoff(), 100).await.unwrap();
        assert_eq!(reader.read(103, 7).await.unwrap(), b"DEFGHIJ");
        // Many small batches are not worth it.
        for at in 0..20 {
            put(&transport, 119 + at, b"x").await;
        }
        let streamed = find().await.unwrap();
        assert_eq!(streamed.piece(10, 8), Some(120));
        assert_eq!(streamed.piece(10, 9), None);
        // Gone since: nothing that is not there is given.
        let archive = of(&transport, &handoff());
        archive.forget_before(105).await.unwrap();
        assert_eq!(reader.read(103, 7).await.unwrap(), b"");
    }
}
