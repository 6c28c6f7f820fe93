//! What is sent.

use std::io::Write;

/// Console text as a Linux guest prints it: it shrinks to a third or a fourth.
pub(super) fn text(mib: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity((mib << 20) + 200);
    let mut seed = 7_u64;
    let mut dice = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed >> 33
    };
    let words = [
        "systemd[1]: Started session",
        "kernel: EXT4-fs (vda1): mounted filesystem",
        "sshd: Accepted key for root",
        "audit: type=1400 apparmor",
        "docker0: port 3 entered blocking state",
        "nfs: server not responding",
        "Out of memory: killed process",
        "virtio_net eth0: link becomes ready",
    ];
    let mut time = 0;
    while text.len() < mib << 20 {
        time += dice() % 100_000;
        let word = usize::try_from(dice() % 8).unwrap_or_default();
        let word = words.get(word).copied().unwrap_or_default();
        let (a, b) = (dice(), dice() % 65_536);
        let _ = writeln!(
            text,
            "[{:5}.{:06}] {word} {a:x} {b}",
            time / 1_000_000,
            time % 1_000_000
        );
    }
    text.truncate(mib << 20);
    text
}
