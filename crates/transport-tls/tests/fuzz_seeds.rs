//! The seeds of the fuzz targets, and for a moment what changes make of them.

#[path = "../../../fuzz/replay.rs"]
mod replay;

use std::time::Duration;

use logchain_transport_tls::PeerNames;

#[test]
fn nothing_in_a_certificate_breaks_it() {
    fn certificate(data: &[u8]) {
        if let Ok(names) = PeerNames::of_der(data) {
            assert!(!names.to_string().chars().any(char::is_control));
        }
    }
    replay::replay("certificate", certificate, Duration::from_millis(500));
}
