//! Logs whose names change while they are looked at.

use super::*;

#[test]
fn a_guest_that_fills_file_after_file_is_followed() {
    let bed = Bed::new(AT_ONCE);
    let mut logd = Logd::new(&bed.path, 1 << 20, 10);
    logd.open().unwrap();
    for n in 0..20 {
        logd.write(format!("{n}\n").as_bytes()).unwrap();
        logd.roll_over().unwrap();
        pause(Duration::from_millis(50));
    }
    until("the last base is held", || {
        bed.log.files().last().is_some_and(|file| file.size == 0)
    });
    let all: String = (10..20).map(|n| format!("{n}\n")).collect();
    assert_eq!(bed.taken(), all);
    assert!(bed.log.earlier().is_empty());
    assert_eq!(bed.log.generation(), 0);
}

/// Whenever a handoff begins, it has one run of the stream, and no byte of it twice. The log rolls
/// over 250 times a second, which with virtlogd's limit would be half a gigabyte a second; without
/// any pause all files of a listing would be others before it is read to its end.
#[test]
fn what_is_taken_while_names_change_all_the_time_has_no_gap() {
    let bed = Bed::new(AT_ONCE);
    let mut logd = Logd::new(&bed.path, 1 << 20, 30);
    logd.open().unwrap();
    let line = |n: usize| format!("{n:>7}\n");
    logd.write(line(0).as_bytes()).unwrap();
    let writer = thread::spawn(move || {
        for n in 1..150 {
            logd.roll_over().unwrap();
            logd.write(line(n).as_bytes()).unwrap();
            pause(Duration::from_millis(4));
        }
    });
    let mut last = 0;
    while !writer.is_finished() {
        let taken = bed.taken();
        let lines = taken.lines().map(|line| line.trim().parse().unwrap());
        let lines: Vec<usize> = lines.collect();
        let first = lines.first().copied().unwrap_or(last);
        assert_eq!(lines, (first..first + lines.len()).collect::<Vec<_>>());
        let newest = lines.last().copied().unwrap_or(last);
        assert!(newest >= last, "{newest} after {last}");
        last = newest;
    }
    writer.join().unwrap();
    assert_eq!(bed.taken().into_bytes(), read(&bed.path));
}
