#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logchain_core::fuzzing::xz(data));
