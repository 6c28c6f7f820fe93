#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    drop(logchain_libvirt::consoles::consoles(
        &String::from_utf8_lossy(data),
    ));
});
