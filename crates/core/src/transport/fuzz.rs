//! Names from any bytes.

use std::ffi::OsStr;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use super::{Key, ObjectName, Prefix};
use crate::chain::{MAX_NUMBER, NumberingChoice, RotatedName, rotated_name};
use crate::ids::{ConsoleName, HandoffId};

/// Whatever is read of a name is written as it was; two keys, a line each, come
/// in the order of their texts.
pub fn name(data: &[u8]) {
    rotated(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    same::<ConsoleName>(text);
    same::<HandoffId>(text);
    same::<ObjectName>(text);
    let _ = text.parse::<NumberingChoice>();
    let key = same::<Key>(text);
    if let Some(Key {
        domain,
        console,
        collection,
        ..
    }) = key.clone()
    {
        let prefix = Prefix::Collection(domain, console, collection);
        assert!(key.as_ref().is_some_and(|key| prefix.matches(key)));
        assert!(text.starts_with(&prefix.to_string()));
    }
    if let Some((one, other)) = text.split_once('\n')
        && let (Some(first), Some(second)) = (same::<Key>(one), same::<Key>(other))
    {
        assert_eq!(first.cmp(&second), one.cmp(other));
    }
}

fn same<T: FromStr + Display>(text: &str) -> Option<T> {
    let name = text.parse::<T>().ok()?;
    assert_eq!(name.to_string(), text);
    Some(name)
}

fn rotated(data: &[u8]) {
    let base = OsStr::new("console.log");
    let Some(name) = RotatedName::parse(base, OsStr::from_bytes(data)) else {
        return;
    };
    assert!(name.number <= MAX_NUMBER);
    if name.compression.is_none() {
        assert_eq!(rotated_name(base, name.number).as_bytes(), data);
    }
}
