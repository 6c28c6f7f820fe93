#![no_main]

use logchain_libvirt::virtlogd_conf::{cleaner, limits, stdio_handler};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let found = limits(&text).value;
    assert!(cleaner(&text).is_none_or(|c| c.max_backups == found.max_backups));
    drop(stdio_handler(&text));
});
