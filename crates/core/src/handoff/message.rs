//! What the objects of a handoff hold but for its pieces ([`super::chunk`]). All of it comes from another host:
//! checked before use, refused when newer than what this program knows.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::ids::HandoffId;
use crate::stream::History;

/// The version written, and the newest read.
const VERSION: u32 = 1;

/// What any of them but a chunk may hold: they are small.
pub(super) const MAX_MESSAGE: u64 = 1 << 20;

/// An object that cannot be what its writer put there, or is too new.
#[derive(Debug, thiserror::Error)]
#[error("the handoff's {object} cannot be used: {what}")]
pub struct Damaged {
    object: &'static str,
    what: String,
}

impl Damaged {
    pub(super) fn new(object: &'static str, what: impl Into<String>) -> Self {
        Self {
            object,
            what: what.into(),
        }
    }
}

/// The source's first word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    version: u32,
    /// The domain's name at the source, for people.
    pub domain_name: String,
    /// The source's host name, for people.
    pub host: String,
    /// When it began, by the source's clock.
    #[serde(with = "jiff::fmt::serde::timestamp::second::required")]
    pub at: Timestamp,
    /// Where what is there now lies in the VM's stream, if that is known so early:
    /// what comes goes on behind it.
    #[serde(default)]
    pub history: Option<History>,
}

/// The source is over and its log drained: this is all there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    version: u32,
    /// Length of the history in bytes.
    pub bytes: u64,
    /// BLAKE3 of the history, in hex.
    pub digest: String,
    /// Why bytes were missed while it was followed, for people.
    pub missed: Vec<String>,
    /// Where it lies in the VM's stream.
    pub history: History,
    /// Other handoffs whose bytes it holds.
    pub contains: Vec<HandoffId>,
}

/// The one destination that takes it in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    version: u32,
    /// Its host name, for people.
    pub host: String,
    /// Where it puts the history: the folder, so that hosts of one name differ,
    /// and a further run at the same place does not.
    pub place: String,
}

/// The migration failed: nothing more comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    version: u32,
    /// Why, for people.
    pub reason: String,
}

/// The destination's word that all is in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    version: u32,
    /// As in [`Commit`].
    pub bytes: u64,
    /// As in [`Commit`].
    pub digest: String,
    /// The destination's host name, for people.
    pub host: String,
    /// How many of the oldest bytes the rotation there does not keep.
    pub dropped: u64,
    /// The names given there and their sizes, newest first.
    pub placed: Vec<(String, u64)>,
    /// What the reader of these files should know, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Begin {
    pub(super) fn new(domain_name: String, host: String, history: Option<History>) -> Self {
        Self {
            version: VERSION,
            domain_name,
            host,
            at: super::now(),
            history,
        }
    }
}

impl Commit {
    pub(super) fn new(
        bytes: u64,
        digest: String,
        missed: Vec<String>,
        (history, contains): (History, Vec<HandoffId>),
    ) -> Self {
        Self {
            version: VERSION,
            bytes,
            digest,
            missed,
            history,
            contains,
        }
    }

    /// Where it lies in the VM's stream. A source whose runs make no sense lost
    /// count, not bytes: then all that is known is how many there are.
    pub(super) fn history(&self) -> History {
        if self.history.bytes() == Some(self.bytes) {
            self.history.clone()
        } else {
            History::of(self.bytes)
        }
    }
}

impl Claim {
    pub(super) fn new(host: String, place: String) -> Self {
        Self {
            version: VERSION,
            host,
            place,
        }
    }
}

impl Abort {
    pub(super) fn new(reason: String) -> Self {
        Self {
            version: VERSION,
            reason,
        }
    }
}

impl Receipt {
    pub(super) fn new(
        commit: (u64, String),
        host: String,
        dropped: u64,
        placed: Vec<(String, u64)>,
    ) -> Self {
        Self {
            version: VERSION,
            bytes: commit.0,
            digest: commit.1,
            host,
            dropped,
            placed,
            notes: Vec::new(),
        }
    }

    /// With what the reader of the files should know.
    pub(super) fn noting(self, notes: Vec<String>) -> Self {
        Self { notes, ..self }
    }
}

/// Messages that are JSON with a version.
pub(super) trait Message: Serialize + DeserializeOwned {
    const OBJECT: &'static str;
    fn version(&self) -> u32;

    fn encode(&self) -> Result<Bytes, Damaged> {
        let json = serde_json::to_vec(self);
        json.map(Bytes::from)
            .map_err(|e| Damaged::new(Self::OBJECT, e.to_string()))
    }

    fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let message: Self =
            serde_json::from_slice(bytes).map_err(|e| Damaged::new(Self::OBJECT, e.to_string()))?;
        if message.version() > VERSION {
            let what = format!("a newer logchain wrote it (version {})", message.version());
            return Err(Damaged::new(Self::OBJECT, what));
        }
        Ok(message)
    }
}

macro_rules! message {
    ($($name:ident = $object:literal),*) => {$(
        impl Message for $name {
            const OBJECT: &'static str = $object;
            fn version(&self) -> u32 {
                self.version
            }
        }
    )*};
}
message!(
    Begin = "begin",
    Claim = "claim",
    Commit = "commit",
    Abort = "abort",
    Receipt = "receipt"
);

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// What release 0.1 puts. Each release adds a file of its own, and reads those before it.
    const OF_0_1: &str = include_str!("../../tests/wire/0.1.jsonl");

    /// Reads a message of this object, and gives it as this release writes it.
    fn read(object: &str, message: &Value) -> Result<Value, Damaged> {
        fn again<M: Message>(bytes: &[u8]) -> Result<Value, Damaged> {
            let bytes = M::decode(bytes)?.encode()?;
            Ok(serde_json::from_slice(&bytes).unwrap())
        }
        let bytes = message.to_string().into_bytes();
        match object {
            "begin" => again::<Begin>(&bytes),
            "commit" => again::<Commit>(&bytes),
            "claim" => again::<Claim>(&bytes),
            "abort" => again::<Abort>(&bytes),
            "receipt" => again::<Receipt>(&bytes),
            other => panic!("{other}"),
        }
    }

    fn of_0_1() -> impl Iterator<Item = (String, Value)> {
        OF_0_1.lines().map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let object = line["object"].as_str().unwrap().to_owned();
            (object, line["message"].take())
        })
    }

    #[test]
    fn messages_of_release_0_1_are_read_and_nothing_of_them_is_lost() {
        for (object, message) in of_0_1() {
            assert_eq!(read(&object, &message).unwrap(), message);
        }
        let mut objects: Vec<String> = of_0_1().map(|(object, _)| object).collect();
        objects.dedup();
        assert_eq!(objects, ["begin", "commit", "claim", "abort", "receipt"]);
    }

    #[test]
    fn a_field_that_a_later_release_adds_is_no_damage_but_a_later_version_is() {
        for (object, mut message) in of_0_1() {
            message["colour"] = "green".into();
            read(&object, &message).unwrap();
            message["version"] = 2.into();
            let refused = read(&object, &message).unwrap_err().to_string();
            assert!(
                refused.contains("a newer logchain wrote it (version 2)"),
                "{refused}"
            );
        }
    }
}
