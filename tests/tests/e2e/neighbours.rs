//! Two guests in one folder, whose logs are called `web` and `web.1`: a name that looks
//! like a rotated file's is no reason to take another guest's console for one's own.

use std::fs;

use crate::common::{MIGRATION, Outcome};
use logchain_tests::{Guest, Host, Lab};

const FOLDER: &str = "/var/log/lab/con";

/// Defines a guest with the log `name` in the folder that all share.
fn define(host: &Host, guest: &Guest, name: &str) -> Outcome {
    let own = host.log_path(guest.name()).display().to_string();
    let xml = guest.xml().replace(&own, &format!("{FOLDER}/{name}"));
    let define = host.command(["virsh", "--quiet", "define", "/dev/stdin"]);
    define.input(xml).run()?.checked()?;
    Ok(())
}

fn log(host: &Host, name: &str) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    Ok(fs::read(host.path(format!("{FOLDER}/{name}")))?)
}

/// Waits until a log has so many lines.
fn wait_for_lines(host: &Host, name: &str, lines: usize) -> Outcome {
    let what = format!("{lines} lines in {name}");
    host.until(&what, MIGRATION, || {
        let bytes = fs::read(host.path(format!("{FOLDER}/{name}"))).unwrap_or_default();
        let there = bytes.iter().filter(|b| **b == b'\n').count();
        Ok((there >= lines).then_some(()))
    })?;
    Ok(())
}

/// Shows the log `web` in every way, and checks that it is all that is shown, and that
/// the other one is named with `why`.
fn only_web_is_shown(host: &Host, why: &str) -> Outcome {
    let path = format!("{FOLDER}/web");
    for args in [
        &["show", "-n", "all", &path][..],
        &["show", "-n", "all", "vm1"],
        &["show", "--from", "0", "-n", "all", &path],
        &["show", "--from", "0", "-n", "all", "vm1"],
        &["show", "--lines", "100000", &path],
    ] {
        let output = host.command(["logchain"]).args(args).run()?.checked()?;
        println!(
            "{args:?}: {} bytes; {}",
            output.stdout.len(),
            output.err().trim()
        );
        assert!(!output.stdout.is_empty());
        assert!(log(host, "web")?.starts_with(&output.stdout), "{args:?}");
        assert!(
            output
                .err()
                .contains("web.1 is not read as part of this log")
        );
        assert!(output.err().contains(why), "{args:?}: {}", output.err());
    }
    for what in [&path[..], "vm1"] {
        let output = host.run(["logchain", "verify", what])?;
        println!("{}", output.out().trim());
        assert_eq!(output.code(), Some(1), "{}", output.out());
        assert!(output.out().contains(why), "{}", output.out());
    }
    Ok(())
}

#[test]
fn a_neighbour_whose_log_looks_rotated_is_never_shown_moved_or_carried() -> Outcome {
    let lab = Lab::start(2)?;
    let (h1, h2) = (lab.host(0), lab.host(1));
    for host in [h1, h2] {
        fs::create_dir_all(host.path(FOLDER))?;
    }
    // With append='off' virtlogd itself would remove web.1 as web is begun.
    define(h1, &Guest::new("vm1").append(true), "web")?;
    define(h1, &Guest::new("vm2").append(true).lines(300), "web.1")?;
    h1.start("vm2")?;
    wait_for_lines(h1, "web.1", 300)?;
    h1.start("vm1")?;
    wait_for_lines(h1, "web", 300)?;
    // It was written before the other one was begun, as a rotated file was, and is
    // silent now: its times say nothing.
    only_web_is_shown(h1, "it is the log of another guest")?;
    // Neither does it run.
    h1.guest("vm2").destroy()?;
    // Only now: the kernel may print on that console at any time.
    let others = log(h1, "web.1")?;
    only_web_is_shown(h1, "it is the log of another guest")?;

    let output = h1.run(["logchain", "rotate", "vm1"])?;
    println!("{}", output.err().trim());
    assert_eq!(output.code(), Some(1), "{}", output.out());
    assert!(
        output.err().contains("nothing was rotated"),
        "{}",
        output.err()
    );
    let output = h1.run(["logchain", "status"])?;
    let warned = format!("{}{}", output.out(), output.err());
    assert!(
        warned.contains("web.1 is not read as part of this log"),
        "{warned}"
    );

    // Only its own log goes with it.
    let migrate = h1.command(["logchain", "migrate", "vm1"]).args([h2.uri()]);
    let output = migrate.limit(MIGRATION).run()?;
    println!("{}{}", output.out(), output.err());
    assert_eq!(output.code(), Some(0), "{}", output.err());
    assert!(
        output
            .err()
            .contains("web.1 is not read as part of this log")
    );
    let carried = log(h1, "web")?;
    let there = h2
        .run(["logchain", "show", "-n", "all", "vm1"])?
        .checked()?;
    assert!(
        there.stdout.starts_with(&carried),
        "{} bytes",
        carried.len()
    );
    assert_eq!(log(h1, "web.1")?, others);

    // At the destination such a log stays where it is, too: the history that comes back
    // is put around it.
    define(h1, &Guest::new("vm3").append(true), "web.0")?;
    fs::remove_file(h1.path(format!("{FOLDER}/web.1")))?;
    h1.start("vm3")?;
    wait_for_lines(h1, "web.0", 300)?;
    let before = log(h1, "web.0")?;
    let migrate = h2.command(["logchain", "migrate", "vm1"]).args([h1.uri()]);
    let output = migrate.limit(MIGRATION).run()?;
    println!("{}{}", output.out(), output.err());
    assert_eq!(output.code(), Some(0), "{}", output.err());
    let back = h1
        .run(["logchain", "show", "-n", "all", "vm1"])?
        .checked()?;
    println!("{}", back.err());
    assert!(back.stdout.starts_with(&carried), "{}", back.err());
    assert!(
        back.err()
            .contains("web.0 is not read as part of this log: it is the log of another")
    );
    let placed = log(h1, "web.1")?;
    assert!(placed.starts_with(&carried), "{} bytes", placed.len());
    // And goes on.
    wait_for_lines(h1, "web.0", 2000)?;
    assert!(log(h1, "web.0")?.starts_with(&before));
    let own = h1
        .run(["logchain", "show", "-n", "all", "vm3"])?
        .checked()?;
    assert!(own.stdout.starts_with(&before));
    Ok(())
}
