//! What tells one console, and one handoff, from every other: typed, and checked
//! where it comes from outside.
//!
//! All of these become names of files and of objects, so each has only one way to
//! be written.
//!
//! Must not know: where such a name is used.
//!
//! ```
//! use logchain_core::ids::{ConsoleId, ConsoleName};
//! use uuid::Uuid;
//!
//! let console: ConsoleName = "serial0".parse()?;
//! let id = ConsoleId::new(Uuid::nil(), console);
//! assert_eq!(id.to_string(), "00000000-0000-0000-0000-000000000000/serial0");
//! assert!("../serial0".parse::<ConsoleName>().is_err());
//! # Ok::<(), logchain_core::ids::InvalidId>(())
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest name of a console.
const LONGEST_CONSOLE: usize = 64;

/// A text that is not the name or the id that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct InvalidId {
    pub(crate) text: String,
    pub(crate) what: &'static str,
}

impl InvalidId {
    fn new(text: &str, what: &'static str) -> Self {
        // It comes from outside, and may be of any length.
        let text = text.chars().take(200).collect();
        Self { text, what }
    }
}

/// The name of a domain's console, such as `serial0`: 1 to 64 of `A-Z a-z 0-9 . _ -`,
/// and no dot first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConsoleName(String);

impl ConsoleName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// One of our own, known to be good.
    pub(crate) fn ours(name: &'static str) -> Self {
        Self(name.to_owned())
    }
}

impl FromStr for ConsoleName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let good_length = (1..=LONGEST_CONSOLE).contains(&text.len());
        if !good_length || text.starts_with('.') || !text.bytes().all(fits) {
            return Err(InvalidId::new(text, "the name of a console"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ConsoleName {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<ConsoleName> for String {
    fn from(name: ConsoleName) -> Self {
        name.0
    }
}

impl fmt::Display for ConsoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One console of one domain: what a log belongs to, wherever its VM runs.
///
/// Serialized as the pair of both, which is how records have it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(Uuid, ConsoleName)", into = "(Uuid, ConsoleName)")]
pub struct ConsoleId {
    /// UUID of the domain, which stays the same when it migrates.
    pub domain: Uuid,
    /// The console.
    pub console: ConsoleName,
}

impl ConsoleId {
    /// That console of that domain.
    #[must_use]
    pub fn new(domain: Uuid, console: ConsoleName) -> Self {
        Self { domain, console }
    }
}

impl From<(Uuid, ConsoleName)> for ConsoleId {
    fn from((domain, console): (Uuid, ConsoleName)) -> Self {
        Self { domain, console }
    }
}

impl From<ConsoleId> for (Uuid, ConsoleName) {
    fn from(id: ConsoleId) -> Self {
        (id.domain, id.console)
    }
}

impl fmt::Display for ConsoleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain.hyphenated(), self.console)
    }
}

/// One handoff of one console's log from a host to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HandoffId(Uuid);

impl HandoffId {
    /// One that nobody has.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl FromStr for HandoffId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let id = uuid_as_written(text).map(Self);
        id.ok_or_else(|| InvalidId::new(text, "the id of a handoff"))
    }
}

impl fmt::Display for HandoffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Reads a UUID only in the form in which it is written, so that no two names mean the same.
pub(crate) fn uuid_as_written(text: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(text).ok()?;
    (uuid.hyphenated().to_string() == text).then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_console_is_the_name_of_a_file_too() {
        let longest = "x".repeat(LONGEST_CONSOLE);
        for good in ["serial0", "a", "0.b_c-D", &longest] {
            assert_eq!(good.parse::<ConsoleName>().unwrap().as_str(), good);
        }
        let longer = "x".repeat(LONGEST_CONSOLE + 1);
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "\u{e9}", &longer] {
            assert!(bad.parse::<ConsoleName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_handoff_is_read_only_as_it_is_written() {
        let id = HandoffId(Uuid::from_u128(0xabc));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().to_uppercase().parse::<HandoffId>().is_err());
        assert!(id.0.simple().to_string().parse::<HandoffId>().is_err());
    }

    #[test]
    fn a_console_is_stored_as_a_pair() {
        let id = ConsoleId::new(Uuid::from_u128(7), "serial0".parse().unwrap());
        let stored = r#"["00000000-0000-0000-0000-000000000007","serial0"]"#;
        assert_eq!(serde_json::to_string(&id).unwrap(), stored);
        assert_eq!(serde_json::from_str::<ConsoleId>(stored).unwrap(), id);
        let bad = r#"["00000000-0000-0000-0000-000000000007","a/b"]"#;
        assert!(serde_json::from_str::<ConsoleId>(bad).is_err());
    }
}
