#![no_main]

use logchain_libvirt::virtlogd_conf::{limits, stdio_handler};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    assert!(limits(&text).value.max_backups <= 32);
    drop(stdio_handler(&text));
});
