//! `logchain transport check`: what an operator learns before a migration.

use crate::common::{Outcome, spool_is_empty};
use logchain_tests::Lab;
use serde_json::Value;

#[test]
fn a_transport_is_checked_from_here() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let check = |args: &[&str]| {
        let command = h1.command(["logchain", "transport", "check"]);
        command.args(args).run()
    };
    for url in ["ssh://h2", "ssh://h2/tmp/another/spool"] {
        let output = check(&[url])?.checked()?;
        println!("{}", output.out());
        for step in [
            "put",
            "create-only",
            "get",
            "list",
            "upload",
            "download",
            "delete",
        ] {
            let works = format!("{step}: works");
            assert!(output.out().contains(&works), "{step}: {}", output.out());
        }
        assert!(output.out().contains("works from here"), "{}", output.out());
    }
    assert!(spool_is_empty(h2)?);
    h1.run(["mkdir", "/tmp/folder"])?.checked()?;
    let output = check(&["--format", "json", "file:///tmp/folder"])?.checked()?;
    let events: Vec<Value> = output
        .out()
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert_eq!(events.len(), 8);
    assert!(events.iter().all(|e| e["works"] == true), "{events:?}");

    let failing: &[(&[&str], i32, &str)] = &[
        (&["ftp://h2"], 2, "there is no transport ftp://"),
        (&["file:///tmp/nowhere"], 1, "/tmp/nowhere"),
        (&["ssh://nowhere"], 1, "finds no address for nowhere"),
        (
            &["--remote-logchain", "/no/logchain", "ssh://h2"],
            1,
            "/no/logchain is not installed at h2",
        ),
        (&["ssh://h2/proc/spool"], 1, "/proc/spool"),
    ];
    for (args, code, sentence) in failing {
        let output = check(args)?;
        println!("{args:?}: {}", output.err().trim());
        assert_eq!(output.code(), Some(*code), "{args:?}: {}", output.err());
        assert!(
            output.err().contains(sentence),
            "{args:?}: {}",
            output.err()
        );
    }
    // A disk that is full there.
    h2.run(["mkdir", "/tmp/small"])?.checked()?;
    h2.run([
        "mount",
        "-t",
        "tmpfs",
        "-o",
        "size=1m",
        "small",
        "/tmp/small",
    ])?
    .checked()?;
    let output = check(&["ssh://h2/tmp/small/spool"])?;
    assert_eq!(output.code(), Some(1), "{}", output.out());
    assert!(output.out().contains("is full"), "{}", output.out());
    assert!(
        output.out().contains("cannot be relied on"),
        "{}",
        output.out()
    );

    h2.stop_sshd()?;
    let output = check(&["ssh://h2"])?;
    assert_eq!(output.code(), Some(1));
    assert!(
        output.err().contains("h2 refuses the connection"),
        "{}",
        output.err()
    );
    Ok(())
}
