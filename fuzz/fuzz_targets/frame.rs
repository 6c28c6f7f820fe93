#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logchain_transport_wire::fuzzing::frame(data));
