//! Pure: what agents ask each other, as JSON.
//!
//! A message has a version, that of the oldest release which understands it. Whoever reads one
//! ignores fields that it does not know. Each may be said twice without harm.
//!
//! Must not know: who asks, or whether it is true.

use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// The newest version that is read.
const VERSION: u32 = 1;

/// A question, and the version that it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Question {
    version: u32,
    #[serde(flatten)]
    pub(super) ask: Ask,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(super) enum Ask {
    /// The domain comes to the host that asks. Does it leave the host that is asked?
    Comes {
        /// UUID of the domain.
        domain: Uuid,
        /// The port at which the asking agent listens.
        port: u16,
    },
    /// The domain leaves the host that asks, or left it. Is it coming to the host that is asked,
    /// or there?
    Leaves {
        /// UUID of the domain.
        domain: Uuid,
    },
    /// Was the domain at a certain host before it was at the host that is asked?
    CameFrom {
        /// UUID of the domain.
        domain: Uuid,
        /// The names of that host, as its certificate has them.
        names: String,
        /// The address at which the host that asks sees it.
        address: IpAddr,
        /// How many hosts before this one may be asked in turn.
        further: u8,
    },
}

/// What is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    version: u32,
    /// Whether it is so.
    pub(super) yes: bool,
}

impl Question {
    pub(super) fn new(ask: Ask) -> Self {
        let version = VERSION;
        Self { version, ask }
    }

    pub(super) fn encode(&self) -> Bytes {
        encode(self)
    }

    pub(super) fn decode(data: &[u8]) -> Result<Self, String> {
        decode(data)
    }
}

impl Answer {
    pub(super) fn new(yes: bool) -> Self {
        let version = VERSION;
        Self { version, yes }
    }

    pub(super) fn encode(self) -> Bytes {
        encode(&self)
    }

    pub(super) fn decode(data: &[u8]) -> Result<Self, String> {
        decode(data)
    }
}

fn encode(message: &impl Serialize) -> Bytes {
    // Its keys are names: writing to memory cannot fail.
    serde_json::to_vec(message).unwrap_or_default().into()
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

fn decode<T: DeserializeOwned>(data: &[u8]) -> Result<T, String> {
    let Versioned { version } = serde_json::from_slice(data)
        .map_err(|e| format!("the message of the other agent cannot be read: {e}"))?;
    if version > VERSION {
        return Err(format!(
            "the other agent speaks version {version} of the agents' messages, and this one no \
             newer than {VERSION}"
        ));
    }
    serde_json::from_slice(data)
        .map_err(|e| format!("the message of the other agent cannot be read: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_what_release_0_2_wrote() {
        let domain = Uuid::from_u128(7);
        let port = 16515;
        let comes = Question::new(Ask::Comes { domain, port });
        let text = r#"{"version":1,"ask":"comes","domain":"00000000-0000-0000-0000-000000000007","port":16515}"#;
        assert_eq!(comes.encode(), text);
        assert_eq!(Question::decode(text.as_bytes()), Ok(comes));
        let leaves = Question::new(Ask::Leaves { domain });
        let text = r#"{"version":1,"ask":"leaves","domain":"00000000-0000-0000-0000-000000000007","more":1}"#;
        assert_eq!(Question::decode(text.as_bytes()), Ok(leaves));
        let came_from = Question::new(Ask::CameFrom {
            domain,
            names: "CN=h1".to_owned(),
            address: "192.0.2.11".parse().unwrap(),
            further: 3,
        });
        let text = r#"{"version":1,"ask":"came-from","domain":"00000000-0000-0000-0000-000000000007","names":"CN=h1","address":"192.0.2.11","further":3}"#;
        assert_eq!(came_from.encode(), text);
        assert_eq!(Question::decode(text.as_bytes()), Ok(came_from));
        let yes = Answer::new(true);
        assert_eq!(yes.encode(), r#"{"version":1,"yes":true}"#);
        assert_eq!(Answer::decode(&yes.encode()), Ok(yes));
    }

    #[test]
    fn what_cannot_be_read_is_one_sentence() {
        let newer = r#"{"version":2,"ask":"dances"}"#;
        let said = Question::decode(newer.as_bytes()).unwrap_err();
        assert!(said.contains("version 2"), "{said}");
        for text in ["", "{}", "[]", r#"{"version":1,"ask":"dances"}"#] {
            let said = Question::decode(text.as_bytes()).unwrap_err();
            assert!(
                !said.contains('\n') && said.contains("cannot be read"),
                "{said}"
            );
        }
    }
}
