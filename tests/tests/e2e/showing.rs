//! `logchain show`: the ways to ask, and what a terminal gets.

use std::fs;

use crate::common::{Outcome, show};
use logchain_tests::{Guest, Lab, Ticks};
use serde_json::Value;

#[test]
fn a_domain_is_shown_by_name_uuid_and_path() -> Outcome {
    let lab = Lab::start(1)?;
    let host = lab.host(0);
    let uuid = "6a1f8f5e-3c1d-4f55-9e0f-2b9d1c7a4e10";
    let vm = host.define(&Guest::new("vm").uuid(uuid).lines(400))?;
    vm.start()?;
    vm.wait_for_tick(400)?;
    let path = vm.log_path();
    let path = path.to_str().ok_or("a path")?;

    let all = show(host, &["-n", "all", "vm"])?;
    assert_eq!(Ticks::check_from_boot(&all)?.count, 400);
    for what in [uuid, path] {
        assert!(show(host, &["-n", "all", what])? == all, "{what}");
    }
    let end = |n: usize| all[all.len() - n..].to_vec();
    assert_eq!(show(host, &["-n", "1000", "vm"])?, end(1000));
    assert_eq!(show(host, &["-n", "1K", "vm"])?, end(1024));
    assert_eq!(show(host, &["vm"])?, end(all.len().min(100 * 1024)));
    let lines = show(host, &["--lines", "3", "vm"])?;
    assert_eq!(
        lines,
        [Ticks::line(398), Ticks::line(399), Ticks::line(400)].concat()
    );

    let json: Value =
        serde_json::from_slice(&show(host, &["--format", "json", "-n", "100", "vm"])?)?;
    assert_eq!(json["domain"], "vm");
    assert_eq!(json["uuid"], uuid);
    assert_eq!(json["console"], "serial0");
    assert_eq!(json["path"], path);
    assert_eq!(json["numbering"], "from-zero");
    assert_eq!(json["bytes"], 100);
    assert_eq!(json["encoding"], "utf-8");
    assert_eq!(
        json["content"].as_str().map(str::as_bytes),
        Some(&end(100)[..])
    );

    // By path alone it needs no libvirt.
    host.stop_libvirtd()?;
    assert!(show(host, &["-n", "all", path])? == all);
    Ok(())
}

#[test]
fn files_of_any_bytes_are_exact_in_a_pipe_and_escaped_on_a_terminal() -> Outcome {
    let lab = Lab::start(1)?;
    let host = lab.host(0);
    let folder = host.path("/tmp/logs");
    fs::create_dir(&folder)?;
    let old = b"first \xff\0\x1b]0;owned\x07".to_vec();
    let new = b"\x1b[31mred\x1b[0m\x1b[2J caf\xc3\xa9\r\nlast\r\n".to_vec();
    fs::write(folder.join("c.log.1"), &old)?;
    fs::write(folder.join("c.log"), &new)?;
    let all = [old, new].concat();
    assert_eq!(show(host, &["/tmp/logs/c.log"])?, all);

    let terminal = |args: &str| -> Result<String, Box<dyn std::error::Error>> {
        let command = format!("logchain show {args} /tmp/logs/c.log");
        let output = host
            .run(["script", "-qec", &command, "/dev/null"])?
            .checked()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let shown = terminal("")?;
    assert!(
        shown.contains("first \\xff\\x00\\x1b]0;owned\\x07"),
        "{shown:?}"
    );
    assert!(
        shown.contains("\x1b[31mred\x1b[0m\\x1b[2J café"),
        "{shown:?}"
    );
    assert!(shown.trim_end().ends_with("\x1b[0m"), "{shown:?}");
    assert!(terminal("--raw")?.contains("\x1b]0;owned\x07"));

    let json: Value =
        serde_json::from_slice(&show(host, &["--format", "json", "/tmp/logs/c.log"])?)?;
    assert_eq!(json["numbering"], "from-one");
    assert_eq!(json["encoding"], "base64");
    assert_eq!(json["bytes"], all.len());
    let decode = ["sh", "-c", "base64 -d"];
    let content = json["content"].as_str().ok_or("no content")?;
    assert_eq!(
        host.command(decode).input(content).run()?.checked()?.stdout,
        all
    );

    // A gap is said, and what is older is shown all the same.
    fs::write(folder.join("c.log.4"), "oldest ")?;
    let output = host
        .run(["logchain", "show", "-n", "all", "/tmp/logs/c.log"])?
        .checked()?;
    assert!(
        output.err().contains("c.log.2 to .3 missing"),
        "{}",
        output.err()
    );
    assert!(output.stdout.starts_with(b"oldest first"));

    // A reader that has seen enough is no failure.
    fs::write(folder.join("c.log"), vec![b'x'; 1 << 20])?;
    let piped = "set -o pipefail; logchain show -n all /tmp/logs/c.log | head -c 10 >/dev/null";
    host.run(["bash", "-c", piped])?.checked()?;
    Ok(())
}

/// What Nova's own reader is tested with.
#[test]
fn peers_reading_cases() -> Outcome {
    let lab = Lab::start(1)?;
    let host = lab.host(0);
    let folder = host.path("/tmp/logs");
    fs::create_dir(&folder)?;
    for (name, content) in [
        ("console.log", "uvwxyz"),
        ("console.log.0", "klmnopqrst"),
        ("console.log.1", "abcdefghij"),
    ] {
        fs::write(folder.join(name), content)?;
    }
    for (budget, expected) in [
        ("4", "wxyz"),
        ("6", "uvwxyz"),
        ("12", "opqrstuvwxyz"),
        ("26", "abcdefghijklmnopqrstuvwxyz"),
        ("30", "abcdefghijklmnopqrstuvwxyz"),
    ] {
        let shown = show(host, &["-n", budget, "/tmp/logs/console.log"])?;
        assert_eq!(String::from_utf8(shown)?, expected);
    }
    Ok(())
}
