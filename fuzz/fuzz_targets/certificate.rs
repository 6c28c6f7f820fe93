#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(names) = logchain_transport_tls::PeerNames::of_der(data) {
        assert!(!names.to_string().chars().any(char::is_control));
    }
});
