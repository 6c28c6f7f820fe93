//! The rest of a batch that another streamer put, as far as the log here was not read to its end
//! yet. Pure.
//!
//! What is read here is compared with it by a digest, so nothing of either is kept in memory
//! while the log comes to the end of that batch: of a thousand streams each could wait so.
//!
//! Must not know: how bytes are read and put.

/// What is still to be compared.
#[derive(Debug)]
pub(super) struct Rest {
    /// The offset of the batch.
    batch: u64,
    left: usize,
    theirs: blake3::Hash,
    ours: blake3::Hasher,
}

/// The log here has other bytes than the batch at this offset.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Differs {
    pub(super) batch: u64,
}

impl Rest {
    /// `bytes` follow in the batch at offset `batch`.
    pub(super) fn of(batch: u64, bytes: &[u8]) -> Self {
        Self {
            batch,
            left: bytes.len(),
            theirs: blake3::hash(bytes),
            ours: blake3::Hasher::new(),
        }
    }

    /// `bytes` were read here. Says how many of them belong to the batch.
    ///
    /// # Errors
    /// [`Differs`] once the end of the batch is reached.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<usize, Differs> {
        let count = self.left.min(bytes.len());
        self.ours.update(bytes.get(..count).unwrap_or_default());
        self.left = self.left.saturating_sub(count);
        if self.left == 0 && self.ours.finalize() != self.theirs {
            return Err(Differs { batch: self.batch });
        }
        Ok(count)
    }

    /// Whether all of the batch was compared.
    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_bit_by_bit_is_compared_as_a_whole() {
        let mut rest = Rest::of(7, b"abcdef");
        assert_eq!(rest.read(b"abc"), Ok(3));
        assert!(!rest.is_over());
        assert_eq!(rest.read(b"defghi"), Ok(3));
        assert!(rest.is_over());

        let mut rest = Rest::of(7, b"abcdef");
        assert_eq!(rest.read(b"abX"), Ok(3));
        assert_eq!(rest.read(b"def"), Err(Differs { batch: 7 }));
    }
}
