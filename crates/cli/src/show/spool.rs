//! Bytes that have to be read twice, and come only once: a few in memory, many in a file that has
//! no name.
//!
//! Must not know: what the bytes are.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use uuid::Uuid;

/// Bytes that are kept in memory.
const MEMORY: usize = 1 << 20;

/// Bytes that were written, to be read as often as needed.
#[derive(Debug)]
pub(super) struct Spool {
    memory: Vec<u8>,
    /// What did not fit.
    file: Option<File>,
}

impl Spool {
    pub(super) fn new() -> Self {
        Self {
            memory: Vec::new(),
            file: None,
        }
    }

    /// All bytes, from the first one on.
    pub(super) fn reader(&self) -> impl Read + '_ {
        let rest = self.file.as_ref().map(|file| Rest { file, at: 0 });
        let rest: Box<dyn Read + '_> = match rest {
            Some(rest) => Box::new(rest),
            None => Box::new(io::empty()),
        };
        self.memory.as_slice().chain(rest)
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = self.file.is_none() && self.memory.len().saturating_add(bytes.len()) <= MEMORY;
        if fits {
            self.memory.extend_from_slice(bytes);
        } else {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(unnamed()?),
            };
            file.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file for this process alone, which goes with it.
fn unnamed() -> io::Result<File> {
    let name = format!(".logchain-{}", Uuid::new_v4().simple());
    let path = std::env::temp_dir().join(name);
    let mut options = File::options();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// The file from its beginning on, wherever writing stands.
struct Rest<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Rest<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at = self.at.saturating_add(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_bytes_and_many_are_read_as_often_as_needed() {
        for blocks in [0_u8, 1, 40] {
            let mut spool = Spool::new();
            let mut want = Vec::new();
            for block in 0..blocks {
                let bytes = vec![block; 100_000];
                spool.write_all(&bytes).unwrap();
                want.extend(bytes);
            }
            assert_eq!(spool.file.is_some(), blocks == 40);
            for _ in 0..2 {
                let mut found = Vec::new();
                spool.reader().read_to_end(&mut found).unwrap();
                assert!(found == want, "{blocks} blocks");
            }
        }
    }
}
