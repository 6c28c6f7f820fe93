//! What happens to a log between two looks at it, by the programs that operators use. What
//! was printed is read once, in order, or the gap is told.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Output};

type Outcome = Result<(), Box<dyn Error>>;

/// `l A B`: lines A to B. `look`: all of the log by offset. `put`, `got`: into a store, and
/// back from there. `follow S`: a follower for S seconds, in the background.
const WORDS: &str = r#"
    l() { seq -f 'line %06.0f of a guest that prints a lot' "$1" "$2"; }
    look() { logchain show -n all --from 0 ./c.log; }
    id=00000000-0000-0000-0000-000000000001
    put() { logchain stream --once --uuid $id --transport "file://$PWD/store" ./c.log; }
    got() { logchain show -n all --transport "file://$PWD/store" $id; }
    follow() { timeout "$1" logchain show -n all -f ./c.log >followed 2>said & sleep 1; }
    logchain() { "$LOGCHAIN" "$@"; }
"#;

fn run(folder: &Path, script: &str) -> Result<Output, Box<dyn Error>> {
    // A function has no meaning to `timeout`.
    let words = WORDS.replace("timeout \"$1\" logchain", "timeout \"$1\" \"$LOGCHAIN\"");
    Ok(Command::new("sh")
        .args(["-c", &format!("{words}\n{script}")])
        .env("LOGCHAIN", env!("CARGO_BIN_EXE_logchain"))
        .current_dir(folder)
        .output()?)
}

/// Runs a script in a new folder; what it gives are the lines of 1 to `last` but for those
/// that are `missing`, and if any are, that is said.
fn gives(script: &str, last: u64, missing: std::ops::Range<u64>) -> Outcome {
    let folder = tempfile::tempdir()?;
    let output = run(folder.path(), script)?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let line = |n| format!("line {n:06} of a guest that prints a lot");
    let want = (1..=last).filter(|n| !missing.contains(n)).map(line);
    let want: Vec<String> = want.collect();
    let got: Vec<&str> = out.lines().collect();
    assert_eq!(got, want, "{script}: {err}");
    let told = err.contains("bytes are missing");
    assert_eq!(told, !missing.is_empty(), "{script}: {err}");
    Ok(())
}

#[test]
fn a_log_that_grew_is_rotated_and_compressed() -> Outcome {
    for compress in ["gzip c.log.1", ":"] {
        let rotate = format!("l 101 200 >>c.log; mv c.log c.log.1; l 201 210 >c.log; {compress}");
        let look = format!("l 1 100 >c.log; look >/dev/null 2>&1; {rotate}; look");
        gives(&look, 210, 0..0)?;
        let put = format!("l 1 100 >c.log; put >/dev/null; {rotate}; put >/dev/null; got");
        gives(&put, 210, 0..0)?;
    }
    Ok(())
}

#[test]
fn an_empty_log_is_filled_copied_and_emptied() -> Outcome {
    let script = ": >c.log; look >/dev/null 2>&1; l 1 100 >>c.log; cp c.log c.log.1; : >c.log; \
                  look >/dev/null 2>&1; l 101 110 >>c.log; look";
    gives(script, 110, 0..0)
}

#[test]
fn a_follower_goes_on_over_what_happens_while_there_is_no_base() -> Outcome {
    let script = "l 1 100 >c.log; follow 6; l 101 200 >>c.log; sleep 1; mv c.log c.log.1; \
                  gzip c.log.1; sleep 1; l 201 210 >c.log; wait; cat said >&2; cat followed";
    gives(script, 210, 0..0)
}

#[test]
fn the_first_rotated_file_tells_a_follower_where_numbers_begin() -> Outcome {
    let script = "l 1 100 >c.log; follow 4; mv c.log c.log.1; l 101 110 >c.log; wait; \
                  cat said >&2; logchain verify ./c.log >&2 || exit 1; cat followed";
    gives(script, 110, 0..0)
}

#[test]
fn a_stream_that_is_begun_again_marks_the_gap() -> Outcome {
    let script = "l 1 100 >c.log; put >/dev/null; l 101 200 >>c.log; rm c.log; \
                  l 201 300 >c.log; put >/dev/null; got";
    gives(script, 300, 101..201)
}

#[test]
fn what_a_stream_does_not_put_is_told() -> Outcome {
    let folder = tempfile::tempdir()?;
    let output = run(folder.path(), "l 1 9 >c.log; l 1 9 >c.log.1.bz2; put")?;
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(
        err.contains("c.log.1.bz2 looks like a rotated file"),
        "{err}"
    );
    Ok(())
}

/// Another log's file under a name of the chain, in a place that is taken.
#[test]
fn a_file_without_a_place_in_the_stream_is_named_and_not_read_by_offset() -> Outcome {
    let chain = "l 1 100 >c.log.2; sleep 0.05; l 101 200 >c.log.1; sleep 0.05; l 201 300 >c.log; \
                 look >/dev/null 2>&1; mv c.log.2 c.log.3; l 901 950 >c.log.2; \
                 touch -r c.log.3 c.log.2";
    gives(&format!("{chain}; look"), 300, 0..0)?;
    let folder = tempfile::tempdir()?;
    let output = run(folder.path(), &format!("{chain}; logchain verify ./c.log"))?;
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(
        out.contains("c.log.2 has no place in the VM's stream"),
        "{out}"
    );
    Ok(())
}
