//! What each release has written is read by this one, and this one's events keep their
//! fields: the two halves of a handoff may be of different releases.

use logchain_host::Event;
use logchain_host::event::PROTOCOL;
use serde_json::Value;

/// Every line of release 0.1.
const OF_0_1: &str = include_str!("wire/0.1.jsonl");

#[test]
fn lines_of_0_1_are_read() {
    for line in OF_0_1.lines() {
        let event = Event::from_json(line.as_bytes());
        let event = event.unwrap_or_else(|| panic!("{line}"));
        let old: Value = serde_json::from_str(line).unwrap();
        let new: Value = serde_json::from_str(&event.to_json()).unwrap();
        // Release 0.1 looks at these fields: this one writes all of them, in the same form.
        for (name, value) in old.as_object().unwrap() {
            assert_eq!(new.get(name).unwrap_or(&Value::Null), value, "{line}");
        }
    }
}

#[test]
fn every_kind_of_0_1_has_a_line() {
    let kind = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["event"].as_str().unwrap().to_owned()
    };
    let mut kinds: Vec<_> = OF_0_1.lines().map(kind).collect();
    kinds.sort();
    kinds.dedup();
    assert_eq!(kinds.len(), 37, "{kinds:?}");
}

#[test]
fn what_a_later_release_adds_is_passed_over() {
    let line = br#"{"event":"ready","console":"serial0","colour":"blue"}"#;
    assert!(matches!(Event::from_json(line), Some(Event::Ready { .. })));
    assert_eq!(Event::from_json(br#"{"event":"sang","song":"x"}"#), None);
    for line in ["", "motd: welcome", "{}", "[1]", "{\"event\":7}"] {
        assert_eq!(Event::from_json(line.as_bytes()), None, "{line}");
    }
}

#[test]
fn the_first_event_says_what_is_understood() {
    let hello: Value = serde_json::from_str(&Event::hello().to_json()).unwrap();
    assert_eq!(hello["event"], "hello");
    assert_eq!(hello["protocol"], PROTOCOL);
    assert_eq!(hello["release"], env!("CARGO_PKG_VERSION"));
}
