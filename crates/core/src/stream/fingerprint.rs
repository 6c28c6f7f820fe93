//! Tells growth from replacement: what a run of bytes begins and ends with.
//!
//! A file keeps its inode when `copytruncate` or a reboot empties it, and may have
//! outgrown its old length when somebody looks again. Then only the bytes tell.
//!
//! Must not know: files, I/O.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A digest of the first bytes of a run and of its last ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    length: u64,
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    digest: [u8; 16],
}

impl Fingerprint {
    /// So many bytes at each end are looked at, at most.
    pub const WINDOW: u64 = 256;

    /// Fewer bytes than these are found by accident in another file: they show that
    /// a file was replaced, but not that another one holds the same bytes.
    const TELLING: u64 = 32;

    /// That of a run of `length` bytes, of which `first` are the first and `last` the
    /// last ones, as many as [`Fingerprint::WINDOW`] or the length allow.
    ///
    /// `None` where they tell nothing: there are none, or all of them are the same
    /// byte, as in a hole.
    #[must_use]
    pub fn of(length: u64, first: &[u8], last: &[u8]) -> Option<Self> {
        let mut bytes = first.iter().chain(last);
        let one = bytes.next()?;
        if bytes.all(|byte| byte == one) {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&length.to_le_bytes());
        hasher.update(first);
        hasher.update(last);
        let mut digest = [0; 16];
        hasher.finalize_xof().fill(&mut digest);
        Some(Self { length, digest })
    }

    /// The length of the run when it was taken. A file that only grew has the same
    /// bytes there.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether another file with this fingerprint may be taken to hold the same bytes.
    #[must_use]
    pub fn is_telling(&self) -> bool {
        Self::tells(self.length)
    }

    /// Whether that of so many bytes is telling.
    pub(super) fn tells(length: u64) -> bool {
        length >= Self::TELLING
    }
}

fn to_hex<S: Serializer>(digest: &[u8; 16], to: S) -> Result<S::Ok, S::Error> {
    let hex = format!("{:032x}", u128::from_be_bytes(*digest));
    to.serialize_str(&hex)
}

fn from_hex<'a, D: Deserializer<'a>>(from: D) -> Result<[u8; 16], D::Error> {
    let hex = String::deserialize(from)?;
    let is_hex = hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u128::from_str_radix(&hex, 16).ok().filter(|_| is_hex);
    let number = number.ok_or_else(|| de::Error::custom("a fingerprint is 32 hex digits"))?;
    Ok(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_runs_apart() {
        let of = |length, first: &[u8], last: &[u8]| Fingerprint::of(length, first, last);
        let one = of(40, b"first", b"last").unwrap();
        assert!(one.is_telling());
        assert_eq!(one, of(40, b"first", b"last").unwrap());
        assert_ne!(one, of(41, b"first", b"last").unwrap());
        assert_ne!(one, of(40, b"firsT", b"last").unwrap());
        assert_ne!(one, of(40, b"first", b"lasT").unwrap());
        assert!(!of(3, b"abc", b"abc").unwrap().is_telling());
        // Nothing, and a hole.
        assert_eq!(of(0, b"", b""), None);
        assert_eq!(of(5000, &[0; 256], &[0; 256]), None);
    }

    #[test]
    fn it_is_written_in_hex_and_read_again() {
        let one = Fingerprint::of(2, b"\x01a", b"\x01a").unwrap();
        let json = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Fingerprint>(&json).unwrap(), one);
        for bad in ["", "+1", "0x0", "00112233445566778899aabbccddeef", "ü"] {
            let json = format!(r#"{{"length":2,"digest":"{bad}"}}"#);
            assert!(serde_json::from_str::<Fingerprint>(&json).is_err(), "{bad}");
        }
    }
}
