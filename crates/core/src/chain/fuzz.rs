//! Compressed rotated files from any bytes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use rustix::fs::{MemfdFlags, memfd_create};

use super::file::{ChainFile, Part};
use super::inflate::Inflated;
use super::merge::{Counted, Start};
use super::{Compression, Reader};
use crate::folder::stat_open;

/// Bounds what one try takes.
const MOST: u64 = 1 << 20;

/// A `.gz`.
pub fn gzip(data: &[u8]) {
    compressed(data, Compression::Gzip);
}

/// A `.zst`.
pub fn zstd(data: &[u8]) {
    compressed(data, Compression::Zstd);
}

/// A `.xz`.
pub fn xz(data: &[u8]) {
    compressed(data, Compression::Xz);
}

fn compressed(data: &[u8], compression: Compression) {
    let name = OsStr::new("console.log.0");
    let (Ok(file), Ok(base)) = (
        held(name, data, Some(compression)),
        held(OsStr::new("console.log"), b"base", None),
    ) else {
        return;
    };
    let (bytes, whole) = inflated(&file, compression, 64 * 1024);
    let odd = data.len() % 37 + 1;
    let (again, again_whole) = inflated(&file, compression, odd);
    assert!(bytes.len() as u64 <= MOST && again.len() as u64 <= MOST);
    // Before an error the one gives more than the other, but nothing else.
    assert!(bytes.iter().zip(&again).all(|(one, other)| one == other));
    // zstd minds a frame that ends before the size it names only where the whole
    // of it fits into the reader's buffer.
    assert!(again_whole || !whole);
    if !whole {
        return;
    }
    assert_eq!(bytes, again);

    let mut counted = Counted::default();
    counted.add(&bytes);
    assert_eq!(file.count().ok(), Some(counted));
    let files = [file, base];
    let all = [&bytes[..], b"base"].concat();
    for skip in [0, bytes.len() / 2, bytes.len()] {
        let start = Start {
            file: 0,
            skip: skip as u64,
        };
        let mut read = Vec::new();
        let end = Reader::new(&files, start).read_to_end(&mut read);
        assert!(end.is_ok(), "{end:?}");
        assert_eq!(all.get(skip..), Some(&read[..]));
    }
}

fn held(name: &OsStr, data: &[u8], compression: Option<Compression>) -> io::Result<ChainFile> {
    let mut file = File::from(memfd_create(c"fuzzed", MemfdFlags::CLOEXEC)?);
    file.write_all(data)?;
    let stat = stat_open(&file)?;
    let part = compression.map_or(Part::Base, |_| Part::Number(0));
    let folder = Path::new("/");
    Ok(ChainFile::new(
        (file, stat),
        folder,
        name,
        part,
        compression,
    ))
}

/// What comes out, block by block, and whether it came to a good end.
fn inflated(file: &ChainFile, compression: Compression, block: usize) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let Ok(mut reader) = Inflated::with_limit(file, compression, MOST) else {
        return (bytes, false);
    };
    let mut block = vec![0; block];
    loop {
        match reader.read(&mut block) {
            Ok(0) => return (bytes, true),
            Ok(n) => bytes.extend_from_slice(block.get(..n).unwrap_or_default()),
            Err(_) => return (bytes, false),
        }
    }
}
