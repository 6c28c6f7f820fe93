//! What both ends of a connection agree on besides the frames: the port, the name in TLS, and
//! how a server says why it does not serve.
//!
//! Must not know: sockets, certificates.

use logchain_transport_wire::{Outcome, Protocol};

/// The port that agents listen on unless told otherwise: next to libvirt's own for TLS, 16514.
pub const DEFAULT_PORT: u16 = 16515;

/// What both sides greet with.
pub(crate) const PROTOCOL: Protocol = Protocol::new("logchain-agent", 1, 1);

/// The protocol's name in the handshake. A client or server of something else that has a
/// certificate of the same CA is turned away by it before a byte is exchanged.
pub(crate) const ALPN: &[u8] = b"logchain-agent";

/// What a refusal begins with, where a greeting would stand.
const REFUSED: &str = "logchain-agent-refused ";

/// A server's last words.
pub(crate) fn refusal(outcome: Outcome, sentence: &str) -> Vec<u8> {
    let kind = match outcome {
        Outcome::Unreachable => "busy",
        _ => "denied",
    };
    let sentence: String = sentence.chars().filter(|c| !c.is_control()).collect();
    format!("{REFUSED}{kind} {sentence}\n").into_bytes()
}

/// A refusal in what came from the server, and what it means.
pub(crate) fn read_refusal(seen: &[u8]) -> Option<(Outcome, String)> {
    let seen = String::from_utf8_lossy(seen);
    let said = seen.lines().find_map(|line| line.strip_prefix(REFUSED))?;
    let (kind, sentence) = said.split_once(' ')?;
    let outcome = match kind {
        "busy" => Outcome::Unreachable,
        _ => Outcome::Denied,
    };
    let sentence = sentence.chars().filter(|c| !c.is_control()).take(300);
    Some((outcome, sentence.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_as_it_was_said() {
        for outcome in [Outcome::Denied, Outcome::Unreachable] {
            let said = refusal(outcome, "there are\n too many");
            let read = read_refusal(&said);
            assert_eq!(read, Some((outcome, "there are too many".to_owned())));
        }
        assert_eq!(read_refusal(&PROTOCOL.greeting()), None);
    }
}
