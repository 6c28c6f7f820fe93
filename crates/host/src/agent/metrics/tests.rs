//! The page as Prometheus sees it: its own tools judge the names, the alert rules and what the
//! dashboard asks for.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::*;

const PACKAGING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging");
const PREFIX: &str = "logchain_agent_";

fn filled(per_vm: bool) -> Metrics {
    let start = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let metrics = Metrics::new(start, per_vm).unwrap();
    metrics.handoff_ended(Role::Source, Outcome::Carried, Uuid::nil(), 5000);
    metrics.handoff_ended(Role::Destination, Outcome::Failed, Uuid::nil(), 7);
    metrics.window(Duration::from_millis(300));
    metrics.outbox(2, 1000, Some(Duration::from_secs(60)));
    metrics.held(3, 4);
    metrics.streams(6, 1);
    metrics.streamed(700);
    metrics.libvirt_connected(true);
    metrics.libvirt_reconnected();
    metrics.events_missed(2);
    metrics.peers_connected(5);
    metrics.reloaded(true, start + Duration::from_secs(50));
    metrics.reloaded(false, start + Duration::from_secs(60));
    metrics
}

/// Its output if it succeeds; Debian's package `prometheus` has it.
fn promtool(arguments: &[&str], input: &str) -> String {
    let tool = Command::new("promtool")
        .args(arguments)
        .current_dir(format!("{PACKAGING}/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut tool = tool.expect("promtool is missing: apt-get install prometheus");
    let mut to = tool.stdin.take().unwrap();
    to.write_all(input.as_bytes()).unwrap();
    drop(to);
    let output = tool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// The names of all series on a page.
fn series(page: &str) -> BTreeSet<&str> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split([' ', '{']).next())
        .collect()
}

/// The names of this agent in a query.
fn asked(query: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    query
        .split(move |c| !is_name(c))
        .filter(|word| word.starts_with(PREFIX))
}

#[test]
fn prometheus_finds_nothing_wrong_with_the_page() {
    for per_vm in [false, true] {
        let page = filled(per_vm).page();
        assert_eq!(promtool(&["check", "metrics"], &page), "", "{page}");
        assert_eq!(page.contains("uuid="), per_vm);
    }
}

#[test]
fn the_page_has_what_was_counted() {
    let metrics = filled(false);
    let begun = metrics.handoff_begins(Role::Source);
    let page = metrics.page();
    for line in [
        "handoffs_total{outcome=\"carried\",role=\"source\"} 1",
        "handoffs_total{outcome=\"failed\",role=\"destination\"} 1",
        "handoffs_total{outcome=\"lost\",role=\"source\"} 0",
        "handed_over_bytes_total{role=\"source\"} 5000",
        "handed_over_bytes_total{role=\"destination\"} 0",
        "handoffs_under_way{role=\"source\"} 1",
        "window_seconds_bucket{le=\"0.25\"} 0",
        "window_seconds_bucket{le=\"0.5\"} 1",
        "pending_handoffs 2",
        "outbox_bytes 1000",
        "outbox_oldest_seconds 60",
        "held_logs 3",
        "held_unlinked_bytes 4",
        "streams 6",
        "streams_waiting 1",
        "streamed_bytes_total 700",
        "libvirt_connected 1",
        "libvirt_reconnects_total 1",
        "events_missed_total 2",
        "peers_connected 5",
        "reloads_total{result=\"success\"} 1",
        "reloads_total{result=\"failure\"} 1",
        "config_last_reload_successful 0",
        "config_last_reload_success_timestamp_seconds 1700000050",
        "start_time_seconds 1700000000",
    ] {
        let line = format!("\n{PREFIX}{line}\n");
        assert!(page.contains(&line), "{line:?} in {page}");
    }
    let build = format!("build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    assert!(page.contains(&build));
    drop(begun);
    let over = "handoffs_under_way{role=\"source\"} 0";
    assert!(metrics.page().contains(over));
}

#[test]
fn the_number_of_vms_with_a_series_is_limited() {
    let metrics = Metrics::new(UNIX_EPOCH, true).unwrap();
    let carried = |n: u128| {
        let vm = Uuid::from_u128(n);
        metrics.handoff_ended(Role::Source, Outcome::Carried, vm, 1);
    };
    let most = u128::try_from(MOST_VMS).unwrap();
    (0..most + 5).for_each(carried);
    let count = || metrics.page().matches("{uuid=").count();
    assert_eq!(count(), MOST_VMS + 1);
    assert!(metrics.page().contains("{uuid=\"other\"} 5"));
    metrics.forget_vm(Uuid::nil());
    assert_eq!(count(), MOST_VMS);
    carried(most);
    assert_eq!(count(), MOST_VMS + 1);
}

#[test]
fn the_alert_rules_work() {
    promtool(&["check", "rules", "logchain.rules.yml"], "");
    promtool(&["test", "rules", "logchain.test.yml"], "");
    let rules = std::fs::read_to_string(format!("{PACKAGING}/prometheus/logchain.rules.yml"));
    let rules = rules.unwrap();
    let page = filled(false).page();
    let known = series(&page);
    let mut count = 0;
    for name in asked(&rules) {
        assert!(known.contains(name), "{name} is not on the page");
        count += 1;
    }
    assert!(count >= 8, "{count}");
    // Every rule is tried.
    let tests = std::fs::read_to_string(format!("{PACKAGING}/prometheus/logchain.test.yml"));
    let tests = tests.unwrap();
    for alert in rules
        .lines()
        .filter_map(|l| l.trim().strip_prefix("- alert: "))
    {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert}");
    }
}

#[test]
fn the_dashboard_asks_for_what_is_on_the_page() {
    let text = std::fs::read_to_string(format!("{PACKAGING}/grafana/logchain.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let page = filled(false).page();
    let known = series(&page);
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    assert!(queries.len() >= 12, "{}", queries.len());
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (n, query) in queries.iter().enumerate() {
        let names: Vec<_> = asked(query).collect();
        assert!(!names.is_empty(), "{query} asks for nothing of ours");
        for name in names {
            assert!(known.contains(name), "{name} is not on the page: {query}");
        }
        // Grafana fills these in.
        let query = query
            .replace("$__rate_interval", "5m")
            .replace("$instance", ".*");
        let query = serde_json::to_string(&query).unwrap();
        rules.push_str(&format!("  - record: query{n}\n    expr: {query}\n"));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queries.yml");
    std::fs::write(&file, rules).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "");
}

fn collect<'a>(value: &'a Value, queries: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            queries.extend(fields.get("expr").and_then(Value::as_str));
            fields.values().for_each(|value| collect(value, queries));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, queries)),
        _ => {}
    }
}

#[test]
fn the_guide_names_every_metric() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/src/guide/agent.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let page = filled(true).page();
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let known: BTreeSet<_> = types.filter_map(|line| line.split(' ').next()).collect();
    let named: BTreeSet<_> = guide
        .split('`')
        .filter(|word| word.starts_with(PREFIX))
        .collect();
    assert_eq!(named, known);
}
