use super::*;
use std::process::{Child, Command, Stdio};

#[test]
fn descriptors_and_signals_are_read() {
    assert!(is_writable("pos:\t0\nflags:\t0100001\nmnt_id:\t9\n"));
    assert!(is_writable("pos:\t0\nflags:\t02102002\n"));
    assert!(!is_writable("pos:\t0\nflags:\t0100000\n"));
    assert!(!is_writable("") && !is_writable("flags:\tx\n"));
    let status = "Name:\tx\nState:\tS (sleeping)\nSigCgt:\t0000000000000200\n";
    assert!(catches(status, Signal::USR1) && !catches(status, Signal::USR2));
    assert!(!catches("", Signal::USR1));
    assert_eq!((state(status), state("")), (Some('S'), None));
}

/// A process of that name that appends to the file until it is killed.
fn stand_in(folder: &Path, log: &Path, script: &str) -> Child {
    let program = folder.join(NAME);
    if !program.exists() {
        fs::copy("/bin/bash", &program).unwrap();
    }
    let append = fs::OpenOptions::new().append(true).open(log).unwrap();
    let mut command = Command::new(program);
    command.args(["--norc", "-c", script]);
    let child = command.stdin(Stdio::piped()).stdout(append).spawn();
    child.unwrap()
}

fn wait(mut done: impl FnMut() -> bool) {
    for _ in 0..400 {
        if done() {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "no runtime is here")]
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("it did not come to that");
}

#[test]
fn the_one_that_writes_is_found_and_asked() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("console.log");
    fs::write(&log, "").unwrap();
    let file = File::open(&log).unwrap();
    assert!(matches!(writer_of(&file).unwrap(), Writer::Nobody));

    let script = "trap 'echo asked' USR1; while read -r -t 0.05 x || [ $? -gt 128 ]; do :; done";
    let mut child = stand_in(folder.path(), &log, script);
    let Writer::Virtlogd(found) = ({
        wait(|| matches!(writer_of(&file), Ok(Writer::Virtlogd(_))));
        writer_of(&file).unwrap()
    }) else {
        panic!("not found")
    };
    assert_eq!(found.number(), i32::try_from(child.id()).unwrap());
    wait(|| found.writes(&file) == Ok(true));
    found.reopen_logs(&log, &[]).unwrap();
    wait(|| fs::read(&log).unwrap() == b"asked\n");
    // Its program is gone: it could not start itself anew.
    let program = folder.path().join(NAME);
    fs::remove_file(&program).unwrap();
    let error = found.reopen_logs(&log, &[]).unwrap_err();
    assert!(matches!(error, NotAsked::NoProgram { .. }), "{error}");
    fs::copy("/bin/bash", &program).unwrap();
    found.could_reopen(&log, &[]).unwrap();
    // Another one writes too: nobody is asked.
    let other = fs::OpenOptions::new().append(true).open(&log).unwrap();
    let Writer::Others(who) = writer_of(&file).unwrap() else {
        panic!("two write")
    };
    assert_eq!(who.len(), 2, "{who:?}");
    drop(other);
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(
        found.writes(&file),
        Err(NotAsked::Gone {
            pid: found.number()
        })
    );
    assert!(matches!(writer_of(&file).unwrap(), Writer::Nobody));
}

#[test]
fn one_that_could_not_open_its_log_again_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("console.log");
    fs::write(&log, "").unwrap();
    let file = File::open(&log).unwrap();
    let script = "exec 3>&1 1>/dev/null; trap : USR1; read -r x";
    let mut child = stand_in(folder.path(), &log, script);
    wait(|| matches!(writer_of(&file), Ok(Writer::Virtlogd(_))));
    let Writer::Virtlogd(found) = writer_of(&file).unwrap() else {
        panic!("not found")
    };
    wait(|| found.writes(&file) == Ok(true));
    found.could_reopen(&log, &[]).unwrap();
    fs::remove_file(&log).unwrap();
    // It would make a new one.
    found.could_reopen(&log, &[]).unwrap();
    drop(logs);
    let error = found.could_reopen(&log, &[]).unwrap_err();
    assert!(matches!(error, NotAsked::NoFolder { .. }), "{error}");
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn one_that_the_signal_would_end_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("console.log");
    fs::write(&log, "").unwrap();
    let file = File::open(&log).unwrap();
    let mut child = stand_in(folder.path(), &log, "read -r x");
    wait(|| matches!(writer_of(&file), Ok(Writer::Virtlogd(_))));
    let Writer::Virtlogd(found) = writer_of(&file).unwrap() else {
        panic!("not found")
    };
    assert_eq!(found.writes(&file), Ok(false));
    let error = found.reopen_logs(&log, &[]).unwrap_err();
    assert!(matches!(error, NotAsked::Deaf { .. }), "{error}");
    let elsewhere = found.sees(Path::new("/no/such/folder/x"));
    assert!(matches!(elsewhere, Err(NotAsked::Elsewhere { .. })));
    assert!(child.try_wait().unwrap().is_none());
    drop(child.stdin.take());
    child.wait().unwrap();
}
