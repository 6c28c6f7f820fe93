//! The chain on real folders.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::*;

mod bounded;
mod compressed;
mod model;
mod reading;
mod refused;
mod rollover;
mod torn;

/// A folder with a log in it.
#[derive(Debug)]
struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// A folder with these files, by what comes after `console.log`.
    fn with(files: &[(&str, &str)]) -> Self {
        let bed = Self::new();
        for (suffix, content) in files {
            bed.write(suffix, content.as_bytes());
        }
        bed
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.dir.path().join(format!("console.log{suffix}"))
    }

    fn log(&self) -> PathBuf {
        self.path("")
    }

    fn write(&self, suffix: &str, content: &[u8]) {
        fs::write(self.path(suffix), content).unwrap();
    }

    fn chain(&self) -> LogChain {
        LogChain::open(&self.log(), NumberingChoice::Auto).unwrap()
    }

    fn snapshot(&self) -> Snapshot {
        self.chain().snapshot().unwrap()
    }
}

fn bytes(reader: Result<Reader<'_>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn text(reader: Result<Reader<'_>>) -> String {
    String::from_utf8(bytes(reader)).unwrap()
}

/// The error that reading ends with.
fn error(reader: Result<Reader<'_>>) -> Error {
    match reader {
        Err(e) => e,
        Ok(mut reader) => {
            let e = reader.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(
                reader.read(&mut [0]).unwrap(),
                0,
                "a failed reader is at its end"
            );
            e.downcast().unwrap()
        }
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::encode_all(content, 1).unwrap()
}

fn xz(content: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn compress(compression: Option<Compression>, content: &[u8]) -> Vec<u8> {
    match compression {
        None => content.to_owned(),
        Some(Compression::Gzip) => gzip(content),
        Some(Compression::Zstd) => zstd(content),
        Some(Compression::Xz) => xz(content),
    }
}

/// Moves a file over whatever has its new name, as virtlogd does.
fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    Ok(rustix::fs::rename(from, to)?)
}
