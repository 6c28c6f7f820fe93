//! Bad input: one plain sentence that names the thing and what to do, status 1
//! or 2, nothing changed anywhere.

use crate::common::{MIGRATION, Outcome, sorted_names, spool_is_empty};
use std::time::Duration;

use logchain_tests::{Guest, Lab};

#[test]
fn bad_input_gets_a_plain_sentence_and_changes_nothing() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    let vm = h1.define(&Guest::new("vm"))?;
    let mute = h1.define(&Guest::new("mute").without_log())?;
    let off = h1.define(&Guest::new("off"))?;
    vm.start()?;
    mute.start()?;
    vm.wait_for_tick(10)?;
    let uri = h2.uri();
    h1.run(["sh", "-c", "mkdir /tmp/t && cd /tmp/t && echo x >real && ln -s real link && mkdir folder && mkfifo fifo"])?
        .checked()?;
    h1.run([
        "sh",
        "-c",
        "ln -s /tmp/t/real /tmp/t/chain.log.0; echo x >/tmp/t/chain.log",
    ])?
    .checked()?;
    let before = (sorted_names(h1, "vm")?, sorted_names(h2, "vm")?);
    let itself = h1.uri();

    let live = ["--live", "--p2p", "--persistent"];
    let cases: &[(&[&str], i32, &str)] = &[
        (
            &["migrate", "nobody", &uri],
            1,
            "there is no domain nobody at qemu:///system",
        ),
        (&["migrate", "off", &uri], 1, "domain off does not run here"),
        (
            &["migrate", "--live", "vm", "qemu+tcp://10.99.0.99/system"],
            1,
            "10.99.0.99",
        ),
        (
            &["migrate", "--live", "vm", "qemu+tcp://nowhere/system"],
            1,
            "nowhere",
        ),
        (
            &["migrate", "--transport", "ftp://h2/x", "vm", &uri],
            2,
            "there is no transport ftp://",
        ),
        (
            &["migrate", "--transport", "h2", "vm", &uri],
            2,
            "\"h2\" is not the URL of a transport",
        ),
        (
            &["migrate", "--transport", "s3://b:9000/p", "vm", &uri],
            2,
            "AWS_ENDPOINT",
        ),
        (
            &["migrate", "--transport", "ssh://-oX@h2", "vm", &uri],
            2,
            "is no ssh target",
        ),
        (&["migrate", "vm", "qemu:///system"], 1, "is this very host"),
        (
            &["migrate", "--tunnelled", "vm", &uri],
            2,
            "--tunnelled needs --p2p",
        ),
        (
            &["migrate", "--xml", "/nowhere.xml", "vm", &uri],
            1,
            "/nowhere.xml",
        ),
        (&["migrate", "vm"], 2, "DESTURI"),
        (&["migrate", "", &uri], 2, "the name is empty"),
        (&["migrate", "vm", &itself], 1, "is this very host"),
        (
            &["migrate", "--live", "vm", &itself],
            1,
            "is this very host",
        ),
        (
            &["migrate", "--transport", "file:///tmp/t/../x", "vm", &uri],
            2,
            "has .. in it",
        ),
        (&["migrate", "-c", &uri, "vm", &uri], 2, "is another host"),
        (&["show", "nobody"], 1, "there is no domain nobody"),
        (&["show", "mute"], 1, "domain mute has no console log"),
        (&["show", "vm", "--console", "serial7"], 1, "it has serial0"),
        (&["show", "/tmp/t/link"], 1, "/tmp/t/link is a link"),
        (&["show", "/tmp/t/folder"], 1, "/tmp/t/folder is a folder"),
        (&["show", "/tmp/t/fifo"], 1, "/tmp/t/fifo is a FIFO"),
        (
            &["show", "/tmp/t/chain.log"],
            1,
            "/tmp/t/chain.log.0 is a link",
        ),
        (&["show", "/tmp/t/nothing"], 1, "/tmp/t/nothing"),
        (
            &["show", "/nowhere/at/all"],
            1,
            "/nowhere/at does not exist",
        ),
        (&["show", "-n", "many", "vm"], 2, "give a number of bytes"),
        (
            &["show", "-c", "qemu+tcp://nowhere/system", "vm"],
            1,
            "nowhere",
        ),
        (&["show", "--numbering", "odd", "vm"], 2, "odd"),
        (&["offer", "vm"], 2, "--transport"),
        (
            &["offer", "--transport", "ssh://h2", "vm"],
            2,
            "domain vm runs here",
        ),
        (
            &["offer", "--transport", "ssh://h2", "nobody"],
            1,
            "there is no domain nobody",
        ),
        (
            &[
                "adopt",
                "--transport",
                "file:///tmp/t",
                "--patience",
                "1",
                "vm",
            ],
            1,
            "nothing is offered for domain",
        ),
        (
            &["adopt", "--transport", "file:///tmp/none", "vm"],
            1,
            "/tmp/none does not exist",
        ),
        (
            &["adopt", "--transport", "file://tmp", "vm"],
            2,
            "names no folder from the root",
        ),
    ];
    for (args, code, sentence) in cases {
        let way: &[&str] = if args[0] == "migrate" && *code == 1 {
            &live
        } else {
            &[]
        };
        let way = if args.contains(&"--live") { &[] } else { way };
        let command = h1.command(["logchain", args[0]]).args(way).args(&args[1..]);
        let output = command.limit(MIGRATION).run()?;
        let said = output.err();
        println!("{} → {}", args.join(" "), said.trim());
        assert_eq!(output.code(), Some(*code), "{args:?}: {said}");
        assert!(said.contains(sentence), "{args:?}: {said}");
        assert!(!said.contains("panicked"), "{args:?}: {said}");
        assert!(output.took < Duration::from_secs(30), "{args:?}");
    }
    assert_eq!(before, (sorted_names(h1, "vm")?, sorted_names(h2, "vm")?));
    assert!(!h1.path("/tmp/none").exists());
    assert!(spool_is_empty(h1)? && spool_is_empty(h2)?);
    for (guest, state) in [(&vm, "running"), (&mute, "running"), (&off, "shut off")] {
        assert_eq!(guest.state()?.as_deref(), Some(state));
    }
    Ok(())
}
