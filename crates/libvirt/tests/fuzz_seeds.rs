//! The seeds of the fuzz targets, and for a moment what changes make of them.

#[path = "../../../fuzz/replay.rs"]
mod replay;

use std::time::Duration;

use logchain_libvirt::consoles::consoles;
use logchain_libvirt::virtlogd_conf::{cleaner, limits, stdio_handler};

const EACH: Duration = Duration::from_millis(200);

#[test]
fn nothing_from_outside_breaks_it() {
    let xml = |data: &[u8]| drop(consoles(&String::from_utf8_lossy(data)));
    let conf = |data: &[u8]| {
        let text = String::from_utf8_lossy(data);
        let found = limits(&text).value;
        // What goes by the number of files and what clears up after it agree.
        assert!(cleaner(&text).is_none_or(|c| c.max_backups == found.max_backups));
        drop(stdio_handler(&text));
    };
    replay::replay("domain_xml", xml, EACH);
    replay::replay("virtlogd_conf", conf, EACH);
}
