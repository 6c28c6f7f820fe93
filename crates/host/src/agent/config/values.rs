//! How the values of the file are written and read: sizes and durations as the command line
//! takes them, addresses with a port.
//!
//! Must not know: keys.

use std::fmt;
use std::net::SocketAddr;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize as _, Serializer};

/// A text, or a plain number.
struct TextOrNumber;

impl Visitor<'_> for TextOrNumber {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text with a unit, as \"30s\" or \"10MiB\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

fn read<'de, D: Deserializer<'de>, T>(
    from: D,
    read: fn(&str) -> Result<T, &'static str>,
) -> Result<T, D::Error> {
    let text = from.deserialize_any(TextOrNumber)?;
    read(&text).map_err(|why| D::Error::custom(format!("{text:?} is not understood; {why}")))
}

pub(super) mod duration {
    use std::time::Duration;

    use logchain_core::quantity;

    use super::{Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        duration: &Duration,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&quantity::duration_text(*duration))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Duration, D::Error> {
        super::read(from, quantity::duration)
    }
}

/// A duration, or the word `never`.
pub(super) mod or_never {
    use std::time::Duration;

    use logchain_core::quantity;

    use super::{Deserializer, Serializer};
    pub(in super::super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let text = duration.map_or_else(|| "never".to_owned(), quantity::duration_text);
        to.serialize_str(&text)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::read(from, |text| match text {
            "never" => Ok(None),
            text => quantity::duration(text)
                .map(Some)
                .map_err(|_| "give a duration, as 90, 90s, 5m or 1h, or \"never\""),
        })
    }
}

pub(super) mod size {
    use logchain_core::quantity;

    use super::{Deserializer, Serializer};
    pub(in super::super) fn serialize<S: Serializer>(
        bytes: &u64,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&quantity::size_text(*bytes))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<u64, D::Error> {
        super::read(from, quantity::size)
    }
}

/// A size, or the word `all`.
pub(super) mod or_all {
    use logchain_core::quantity;

    use super::{Deserializer, Serializer};
    pub(in super::super) fn serialize<S: Serializer>(
        bytes: &Option<u64>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let text = bytes.map_or_else(|| "all".to_owned(), quantity::size_text);
        to.serialize_str(&text)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<u64>, D::Error> {
        super::read(from, |text| match text {
            "all" => Ok(None),
            text => quantity::size(text)
                .map(Some)
                .map_err(|_| "give a size, as 4096, 10MiB or 1GiB, or \"all\""),
        })
    }
}

/// A size that may be missing.
pub(super) mod maybe_size {
    use logchain_core::quantity;

    use super::{Deserializer, Serializer};
    pub(in super::super) fn serialize<S: Serializer>(
        bytes: &Option<u64>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&quantity::size_text(bytes.unwrap_or_default()))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<u64>, D::Error> {
        super::read(from, quantity::size).map(Some)
    }
}

pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| {
        D::Error::custom(format!(
            "{text:?} is no address with a port; write it as 127.0.0.1:9478 or [::]:16515"
        ))
    })
}

pub(super) fn maybe_address<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<SocketAddr>, D::Error> {
    address(from).map(Some)
}
