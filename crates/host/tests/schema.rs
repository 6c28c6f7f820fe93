//! The schema and the page of events say what the type says, and what every release wrote is
//! as the schema says.

use logchain_host::Event;
use logchain_host::event::schema;
use serde_json::Value;

/// `cargo xtask docs` writes both.
const PAGE: &str = include_str!("../../../docs/src/reference/events.md");
const SCHEMA: &str = include_str!("../../../docs/src/reference/events.schema.json");

/// Every line of release 0.1.
const OF_0_1: &str = include_str!("wire/0.1.jsonl");

#[test]
fn the_page_is_of_this_type() {
    let page = schema::page(PAGE).expect("the page has a place for the kinds");
    assert_eq!(PAGE, page, "run `cargo xtask docs`");
}

#[test]
fn the_schema_is_of_this_type() {
    let schema = format!("{:#}\n", schema::schema());
    assert_eq!(SCHEMA, schema, "run `cargo xtask docs`");
}

#[test]
fn what_releases_wrote_and_this_one_writes_is_as_the_schema_says() {
    let schema = schema::schema();
    for line in OF_0_1.lines() {
        let old: Value = serde_json::from_str(line).unwrap();
        check(&schema, &old).unwrap_or_else(|e| panic!("{line}: {e}"));
        let event = Event::from_json(line.as_bytes()).unwrap().to_json();
        let new: Value = serde_json::from_str(&event).unwrap();
        check(&schema, &new).unwrap_or_else(|e| panic!("{event}: {e}"));
    }
}

#[test]
fn the_check_finds_what_is_wrong() {
    let schema = schema::schema();
    for (line, wrong) in [
        (r#"{"event":"sang"}"#, "no kind"),
        (r#"{"event":"ready"}"#, "console is missing"),
        (r#"{"event":"ready","console":7}"#, "console"),
        (
            r#"{"event":"ready","console":"serial0","colour":"blue"}"#,
            "colour",
        ),
        (r#"{"event":"phase","phase":"nap"}"#, "phase"),
        (
            r#"{"event":"staged","console":"serial0","bytes":-1}"#,
            "bytes",
        ),
        (
            r#"{"event":"placed","console":"serial0","dropped":0,"files":[["a"]]}"#,
            "files",
        ),
    ] {
        let error = check(&schema, &serde_json::from_str(line).unwrap()).unwrap_err();
        assert!(error.contains(wrong), "{line}: {error}");
    }
}

/// The words of JSON Schema that this test understands.
const KNOWN: [&str; 15] = [
    "type",
    "const",
    "oneOf",
    "anyOf",
    "enum",
    "description",
    "default",
    "format",
    "minimum",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "properties",
    "required",
];

/// That the event is as its kind's schema says. A field that the schema does not have is wrong
/// here, although the schema itself leaves room for those of later releases.
fn check(schema: &Value, event: &Value) -> Result<(), String> {
    let name = at(event, "event");
    let is_it = |kind: &&Value| kind.pointer("/properties/event/const") == Some(name);
    let kind = list(schema, "oneOf").iter().find(is_it);
    object(kind.ok_or_else(|| format!("no kind {name}"))?, event)
}

fn object(schema: &Value, value: &Value) -> Result<(), String> {
    let given = value.as_object().ok_or("not an object")?;
    for name in list(schema, "required") {
        let name = name.as_str().unwrap_or_default();
        if !given.contains_key(name) {
            return Err(format!("{name} is missing"));
        }
    }
    for (name, value) in given {
        let field = at(schema, "properties").get(name);
        let field = field.ok_or_else(|| format!("{name} is unknown"))?;
        fits(field, value).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

fn fits(schema: &Value, value: &Value) -> Result<(), String> {
    let words = schema.as_object().ok_or("its schema is not an object")?;
    if let Some(word) = words.keys().find(|word| !KNOWN.contains(&word.as_str())) {
        return Err(format!("this test does not check {word}"));
    }
    for choices in ["oneOf", "anyOf"] {
        let choices = list(schema, choices);
        if !choices.is_empty() && !choices.iter().any(|c| fits(c, value).is_ok()) {
            return Err(format!("{value} is none of what it may be"));
        }
    }
    let values = list(schema, "enum");
    let is_a_value = values.is_empty() || values.contains(value);
    let is_the_value = schema.get("const").is_none_or(|c| c == value);
    if !is_a_value || !is_the_value {
        return Err(format!("{value} is none of its values"));
    }
    let is_a = |name: &Value| match name.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("string") => value.is_string(),
        Some("integer") if at(schema, "minimum") == 0 => value.is_u64(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => false,
    };
    let has_its_type = match at(schema, "type") {
        Value::Null => true,
        Value::Array(names) => names.iter().any(is_a),
        name => is_a(name),
    };
    if !has_its_type {
        return Err(format!("{value} is not of its type"));
    }
    if let Some(items) = value.as_array() {
        let each = list(schema, "prefixItems");
        if !each.is_empty() && each.len() != items.len() {
            return Err(format!("{value} has the wrong length"));
        }
        for (index, item) in items.iter().enumerate() {
            let of = each.get(index).unwrap_or(at(schema, "items"));
            fits(of, item)?;
        }
    }
    let is_object = value.is_object() && schema.get("properties").is_some();
    if is_object {
        object(schema, value)
    } else {
        Ok(())
    }
}

fn at<'a>(of: &'a Value, name: &str) -> &'a Value {
    of.get(name).unwrap_or(&Value::Null)
}

fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    at(of, name).as_array().map_or(&[], Vec::as_slice)
}
