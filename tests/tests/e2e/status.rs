//! What an operator is told of the handoffs on a host.

use crate::common::{MIGRATION, Outcome, migrate, migrate_json};
use logchain_tests::{Guest, Host, Lab};
use serde_json::Value;

fn status(host: &Host) -> Result<(String, Value), Box<dyn std::error::Error>> {
    let said = host.run(["logchain", "status"])?.checked()?;
    let json = host
        .run(["logchain", "status", "--format", "json"])?
        .checked()?;
    println!("{}:\n{}{}", host.name(), said.out(), said.err());
    let json: Value = serde_json::from_str(&json.out())?;
    assert_eq!(json["warnings"], Value::Array(Vec::new()));
    Ok((said.out(), json))
}

/// The states that are told of, in order.
fn states(status: &Value) -> Vec<String> {
    let all = status["handoffs"].as_array().into_iter().flatten();
    let states = all.filter_map(|h| h["state"].as_str());
    states.map(str::to_owned).collect()
}

#[test]
fn every_handoff_is_told_of_with_what_to_do() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let nothing = "nothing is under way on this host\n";
    assert_eq!(status(h1)?.0, nothing);
    let vm = h1.define(&Guest::new("vm"))?;
    vm.start()?;
    vm.wait_for_tick(200)?;
    assert_eq!(status(h1)?.0, nothing);

    // Its log stays behind, and how to bring it over is told.
    h2.stop_sshd()?;
    assert_eq!(
        migrate(&vm, h2, &["--live", "--p2p", "--persistent"])?.code(),
        Some(3)
    );
    h2.start_sshd()?;
    let (said, json) = status(h1)?;
    assert_eq!(
        (states(&json), &json["under_way"]),
        (vec!["left-behind".to_owned(), "left".to_owned()], &2.into())
    );
    assert!(
        said.contains("serial0 of vm: the log stayed behind"),
        "{said}"
    );
    let log = json["handoffs"][0]["help"].as_str().ok_or("no help")?;
    let command = log.strip_prefix("run: ").ok_or("no command")?;

    // Offered to a folder that nobody adopts from: what the spool of a host tells.
    let offer = ["logchain", "offer", "--patience", "1", "vm", "--transport"];
    let to = |url: &str| h1.command(offer).args([url]).limit(MIGRATION).run();
    assert_eq!(to("file:///var/lib/logchain/spool")?.code(), Some(1));
    let (said, json) = status(h1)?;
    assert_eq!(states(&json), ["offered", "left", "waiting"]);
    assert!(
        said.contains("no receipt yet") && said.contains("run: logchain adopt"),
        "{said}"
    );
    // Long ago, and never finished.
    let folder = h1.path("/var/lib/logchain/spool");
    let old = ["find", "/var/lib/logchain/spool", "-type", "f"];
    h1.run([&old[..], &["-name", "commit", "-delete"]].concat())?
        .checked()?;
    h1.run([&old[..], &["-exec", "touch", "-d", "1 hour ago", "{}", ";"]].concat())?
        .checked()?;
    assert_eq!(states(&status(h1)?.1), ["offered", "left", "abandoned"]);
    std::fs::remove_dir_all(folder)?;

    // The command that was told brings it over.
    h1.command(["sh", "-c", command])
        .limit(MIGRATION)
        .run()?
        .checked()?;
    let (said, json) = status(h1)?;
    assert_eq!(states(&json), ["handed-over", "left"]);
    assert!(said.contains("run: logchain reap"), "{said}");
    let (said, json) = status(h2)?;
    assert_eq!(states(&json), ["adopted"]);
    assert!(
        said.contains("bytes of history from h1") && said.ends_with(nothing),
        "{said}"
    );

    // It comes back before anybody reaped it, and is undefined at once where it was:
    // nothing is left to tell of but that it is here.
    let way = ["--live", "--p2p", "--persistent", "--undefinesource"];
    migrate_json(&h2.guest("vm"), h1, &way)?;
    assert_eq!(states(&status(h1)?.1), ["adopted"]);
    assert_eq!(status(h2)?.0, nothing);
    for host in lab.hosts() {
        let notes = host
            .run(["ls", "-A", "/var/lib/logchain/left"])?
            .checked()?;
        assert_eq!(notes.out(), "", "{}", host.name());
    }
    Ok(())
}
