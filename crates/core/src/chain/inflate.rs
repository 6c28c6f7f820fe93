//! Decompresses a rotated file in one pass and bounded memory (zstd refuses
//! windows over 128 MiB by itself, xz is told to). What the file holds is not trusted.

use std::borrow::Borrow;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use super::file::{BLOCK, ChainFile, Raw};
use super::{Compression, Error, Result};

/// How much is read from one compressed file at most: a file of some megabytes
/// can promise a stream that never ends.
pub const INFLATED_MAX: u64 = 64 << 30;

/// The most memory that an xz stream may ask for, in KiB: `xz -9` takes 65 MiB.
const XZ_MEMORY: u32 = 128 << 10;

/// The stream in a compressed file.
pub(super) struct Inflated<F: Borrow<ChainFile>> {
    decoder: Decoder<BufReader<Raw<F>>>,
    path: PathBuf,
    compression: Compression,
    /// How many bytes a pass before this one gave.
    length: Option<u64>,
    given: u64,
    limit: u64,
}

enum Decoder<R: io::BufRead> {
    // Other gzip readers stop at the end of the first member without a word.
    Gzip(MultiGzDecoder<R>),
    Zstd(zstd::stream::read::Decoder<'static, R>),
    // Several streams in one file are one, as for `xz` itself.
    Xz(Box<XzReader<R>>),
}

impl<F: Borrow<ChainFile>> Inflated<F> {
    pub(super) fn new(file: F, compression: Compression) -> Result<Self> {
        Self::with_limit(file, compression, INFLATED_MAX)
    }

    pub(super) fn with_limit(file: F, compression: Compression, limit: u64) -> Result<Self> {
        let held: &ChainFile = file.borrow();
        let (path, length) = (held.path().to_owned(), held.known_length());
        if held.size() == 0 {
            // Even nothing, compressed, takes some bytes; a decoder may not mind.
            let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty");
            return Err(Error::Damaged {
                path,
                compression,
                source,
            });
        }
        let raw = BufReader::with_capacity(BLOCK, Raw::new(file, 0));
        let decoder = match compression {
            Compression::Gzip => Decoder::Gzip(MultiGzDecoder::new(raw)),
            Compression::Zstd => Decoder::Zstd(
                zstd::stream::read::Decoder::with_buffer(raw).map_err(|source| Error::Read {
                    path: path.clone(),
                    source,
                })?,
            ),
            Compression::Xz => Decoder::Xz(Box::new(XzReader::new_mem_limit(raw, true, XZ_MEMORY))),
        };
        Ok(Self {
            decoder,
            path,
            compression,
            length,
            given: 0,
            limit,
        })
    }

    /// Leaves out the next `count` bytes.
    pub(super) fn skip(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.take(count), &mut io::sink())?;
        if skipped < count {
            return Err(self.shrunk());
        }
        Ok(())
    }

    fn shrunk(&self) -> io::Error {
        Error::Shrunk {
            path: self.path.clone(),
        }
        .into()
    }

    fn failed(&self, error: io::Error) -> io::Error {
        let ours = error.get_ref().is_some_and(|inner| inner.is::<Error>());
        if ours || error.kind() == io::ErrorKind::Interrupted {
            return error;
        }
        let (path, compression) = (self.path.clone(), self.compression);
        Error::Damaged {
            path,
            compression,
            source: error,
        }
        .into()
    }
}

impl<F: Borrow<ChainFile>> Read for Inflated<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let got = match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
            Decoder::Xz(decoder) => decoder.read(buffer),
        };
        let got = got.map_err(|e| self.failed(e))?;
        self.given = self.given.saturating_add(got as u64);
        if self.given > self.limit {
            let (path, limit) = (self.path.clone(), self.limit);
            return Err(Error::TooLarge { path, limit }.into());
        }
        // Overwritten in place since it was counted: the plan does not hold.
        if got == 0 && self.length.is_some_and(|length| length != self.given) {
            return Err(self.shrunk());
        }
        Ok(got)
    }
}
