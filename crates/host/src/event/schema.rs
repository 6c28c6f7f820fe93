//! A JSON schema of [`Event`], and the part of its reference page that lists kinds and fields.
//!
//! Both describe what a reader may meet: a field that any release leaves out is optional.
//!
//! Must not know: where the page lies, and what is written on it by hand.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Event;

/// The line before the part of the page that is written here.
const BEGIN: &str = "<!-- Written from the type by `cargo xtask docs`. -->";

/// The line after it.
const END: &str = "<!-- The end of what `cargo xtask docs` writes. -->";

/// The schema of one line that `--format json` prints.
#[must_use]
pub fn schema() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    // Whoever looks up a kind finds all of it in one place.
    settings.inline_subschemas = true;
    settings
        .into_generator()
        .into_root_schema_for::<Event>()
        .to_value()
}

/// The page with the kinds and fields as they are now. `None`: it lacks the two marked lines
/// between which they stand.
#[must_use]
pub fn page(page: &str) -> Option<String> {
    let (head, rest) = page.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n\n{}{END}{tail}", kinds(&schema())))
}

/// Pure: a section for each kind, with a table of its fields.
fn kinds(schema: &Value) -> String {
    let mut sections = String::new();
    for kind in array(schema, "oneOf") {
        let name = kind.pointer("/properties/event/const");
        let name = name.and_then(Value::as_str).unwrap_or_default();
        sections.push_str(&format!("### `{name}`\n\n{}\n\n", words(kind)));
        let fields: Vec<_> = fields(kind).filter(|(name, ..)| *name != "event").collect();
        if fields.is_empty() {
            continue;
        }
        sections.push_str("| field | type | meaning |\n| --- | --- | --- |\n");
        for (name, field, is_required) in fields {
            let optional = if is_required { "" } else { ", optional" };
            sections.push_str(&format!(
                "| `{name}` | {}{optional} | {} |\n",
                type_of(field),
                meaning(field)
            ));
        }
        sections.push('\n');
    }
    sections
}

/// Name and schema of each field, and whether it is always there.
fn fields(object: &Value) -> impl Iterator<Item = (&str, &Value, bool)> {
    let required = array(object, "required");
    let properties = object.get("properties").and_then(Value::as_object);
    properties.into_iter().flatten().map(move |(name, field)| {
        let is_required = required.iter().any(|r| r == name.as_str());
        (name.as_str(), field, is_required)
    })
}

/// `string`, `integer or null`, `array of string`.
fn type_of(field: &Value) -> String {
    let mut names = Vec::new();
    match field.get("type") {
        Some(Value::String(name)) => names.push(named(name, field)),
        Some(Value::Array(all)) => {
            names.extend(
                all.iter()
                    .filter_map(Value::as_str)
                    .map(|n| named(n, field)),
            );
        }
        _ => {
            names.extend(choices(field).iter().map(type_of));
            names.dedup();
        }
    }
    names.join(" or ")
}

fn named(name: &str, field: &Value) -> String {
    let tuple = array(field, "prefixItems");
    match (name, field.get("items")) {
        ("array", _) if !tuple.is_empty() => {
            let items: Vec<_> = tuple.iter().map(type_of).collect();
            format!("[{}]", items.join(", "))
        }
        ("array", Some(items)) => format!("array of {}", type_of(items)),
        ("object", _) => {
            let fields = fields(field).map(|(name, of, _)| format!("`{name}`: {}", type_of(of)));
            format!("object of {}", fields.collect::<Vec<_>>().join(", "))
        }
        (name, _) => name.to_owned(),
    }
}

/// What is said of a field, and of each value where it has one of a few.
fn meaning(field: &Value) -> String {
    let mut meaning = words(field);
    let mut values = Vec::new();
    let mut left = vec![field];
    while let Some(next) = left.pop() {
        left.extend(choices(next).iter().rev());
        if let Some(value) = next.get("const").and_then(Value::as_str) {
            let said = words(next);
            values.push(format!("`{value}`: {}", said.trim_end_matches('.')));
        }
    }
    if !values.is_empty() {
        meaning.push_str(&format!(" One of these. {}.", values.join(". ")));
    }
    meaning
}

/// The schemas of which one applies.
fn choices(of: &Value) -> &[Value] {
    match array(of, "oneOf") {
        [] => array(of, "anyOf"),
        choices => choices,
    }
}

/// A doc comment, on one line.
fn words(of: &Value) -> String {
    let text = of.get("description").and_then(Value::as_str);
    let words = text.unwrap_or_default().split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

fn array<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    let array = of.get(name).and_then(Value::as_array);
    array.map_or(&[], Vec::as_slice)
}
