//! The first line that both sides say: which versions of the frames each of them speaks.
//!
//! `logchain-transport 1`, or `logchain-transport 1-2` for a range. Both sides then speak the
//! newest version that both know. A release that knows one version says it alone, since release
//! 0.1 reads nothing else.
//!
//! Must not know: frames.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of noise (a banner, a profile that prints) before the greeting.
const NOISE: usize = 64 * 1024;

/// A protocol by its name, and the versions of it that this release speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    name: &'static str,
    versions: Versions,
}

impl Protocol {
    /// What a logchain over ssh and the one behind it speak.
    pub const TRANSPORT: Self = Self::new("logchain-transport", 1, 1);

    /// The protocol of this name, one word, and the versions from `oldest` to `newest`.
    #[must_use]
    pub const fn new(name: &'static str, oldest: u32, newest: u32) -> Self {
        let versions = Versions { oldest, newest };
        Self { name, versions }
    }

    /// The line that either side begins with, with its newline.
    #[must_use]
    pub fn greeting(self) -> Vec<u8> {
        format!("{} {}\n", self.name, self.versions).into_bytes()
    }

    /// Reads up to the other side's greeting, over noise before it, and gives the version that
    /// both speak. `seen`: all that was read.
    ///
    /// # Errors
    /// `Unsupported`, with a sentence, where no version is common to both; `InvalidData` where
    /// only noise comes.
    pub async fn read_greeting(
        self,
        input: &mut (impl AsyncRead + Unpin),
        seen: &mut Vec<u8>,
    ) -> io::Result<u32> {
        loop {
            let byte = input.read_u8().await?;
            seen.push(byte);
            if byte == b'\n' {
                let line = seen.rsplit(|b| *b == b'\n').nth(1).unwrap_or_default();
                let said = line.strip_prefix(self.name.as_bytes());
                if let Some(said) = said.and_then(|said| said.strip_prefix(b" ")) {
                    let theirs = Versions::read(said);
                    let common = theirs.and_then(|theirs| self.versions.common(theirs));
                    return common.ok_or_else(|| self.nothing_in_common(said));
                }
            }
            if seen.len() > NOISE {
                let what = "what answers is not logchain";
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
    }

    fn nothing_in_common(self, said: &[u8]) -> io::Error {
        let said = String::from_utf8_lossy(said);
        let said: String = said.chars().filter(|c| !c.is_control()).take(20).collect();
        let what = format!(
            "the other logchain speaks version {said}, this one version {}",
            self.versions.newest
        );
        io::Error::new(io::ErrorKind::Unsupported, what)
    }
}

/// A range of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Versions {
    oldest: u32,
    newest: u32,
}

impl Versions {
    fn read(said: &[u8]) -> Option<Self> {
        let said = std::str::from_utf8(said).ok()?;
        let (oldest, newest) = said.split_once('-').unwrap_or((said, said));
        let versions = Self {
            oldest: oldest.parse().ok()?,
            newest: newest.parse().ok()?,
        };
        (versions.oldest <= versions.newest).then_some(versions)
    }

    /// The newest version that is in both.
    fn common(self, other: Self) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { oldest, newest } = self;
        match oldest == newest {
            true => write!(f, "{newest}"),
            false => write!(f, "{oldest}-{newest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(oldest: u32, newest: u32) -> Versions {
        Versions { oldest, newest }
    }

    #[test]
    fn both_speak_the_newest_version_that_both_know() {
        for (one, other, common) in [
            ((1, 1), (1, 1), Some(1)),
            ((1, 1), (1, 2), Some(1)),
            ((1, 2), (2, 3), Some(2)),
            ((1, 4), (2, 3), Some(3)),
            ((1, 1), (2, 2), None),
        ] {
            let (one, other) = (versions(one.0, one.1), versions(other.0, other.1));
            assert_eq!(one.common(other), common, "{one:?} {other:?}");
            assert_eq!(other.common(one), common, "{other:?} {one:?}");
        }
    }

    #[test]
    fn one_version_is_said_as_release_0_1_reads_it() {
        let greeting = Protocol::TRANSPORT.greeting();
        assert_eq!(greeting, b"logchain-transport 1\n");
        let range = Protocol::new("logchain-transport", 1, 2).greeting();
        assert_eq!(range, b"logchain-transport 1-2\n");
    }

    #[tokio::test]
    async fn a_range_is_read_and_nonsense_is_refused() {
        let version = async |said: &str| {
            let said = format!("motd\nlogchain-transport {said}\n");
            let (mut said, mut seen) = (said.as_bytes(), Vec::new());
            Protocol::TRANSPORT
                .read_greeting(&mut said, &mut seen)
                .await
        };
        for said in ["1", "1-1", "1-7"] {
            assert_eq!(version(said).await.unwrap(), 1, "{said}");
        }
        for said in [
            "2",
            "2-3",
            "",
            "x",
            "1-",
            "-1",
            "3-1",
            "1-2-3",
            "4294967296",
        ] {
            let error = version(said).await.unwrap_err();
            let sentence = format!("the other logchain speaks version {said}, this one version 1");
            assert_eq!(error.to_string(), sentence);
        }
    }
}
