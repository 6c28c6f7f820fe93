//! Pure: the URL that is asked for a domain's new place.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{Error, Result};

/// All that may mean something in a URL (RFC 3986, 2.3 has the rest).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A URL with places to fill in: `{uuid}`, `{name}`, `{host}`.
#[derive(Clone, Debug)]
pub(super) struct Template(String);

impl Template {
    /// Checks it: what is asked is known to be a URL before any domain is looked at.
    pub(super) fn new(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::Usage(format!("--placement-url {text}: {why}"));
        let example = Self(text.to_owned()).fill("uuid", "name", "host");
        if example.contains(['{', '}']) {
            return Err(bad("only {uuid}, {name} and {host} are replaced"));
        }
        let url = reqwest::Url::parse(&example).map_err(|e| bad(&e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("write http:// or https://"));
        }
        // An answer that is the same for every domain confirms none.
        if !text.contains("{uuid}") && !text.contains("{name}") {
            return Err(bad("it must name the domain, with {uuid} or {name}"));
        }
        Ok(Self(text.to_owned()))
    }

    pub(super) fn fill(&self, uuid: &str, name: &str, host: &str) -> String {
        let mut filled = String::new();
        let mut rest = self.0.as_str();
        // In one go: a name with {host} in it is only a name.
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            filled.push_str(before);
            let known = [("{uuid}", uuid), ("{name}", name), ("{host}", host)];
            let known = known
                .iter()
                .find_map(|(place, value)| Some((from.strip_prefix(place)?, *value)));
            match known {
                Some((after, value)) => {
                    filled.extend(utf8_percent_encode(value, ENCODED));
                    rest = after;
                }
                None => {
                    filled.push_str(from.get(..1).unwrap_or_default());
                    rest = from.get(1..).unwrap_or_default();
                }
            }
        }
        filled.push_str(rest);
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_in_once() {
        let template = Template::new("https://db/v1/{name}?at={host}&id={uuid}&id={uuid}").unwrap();
        assert_eq!(
            template.fill("1-2", "a/b {host}ä", "h1"),
            "https://db/v1/a%2Fb%20%7Bhost%7D%C3%A4?at=h1&id=1-2&id=1-2"
        );
    }

    #[test]
    fn a_url_that_cannot_confirm_is_refused() {
        for (text, why) in [
            ("https://db/{vm}", "only {uuid}"),
            ("https://db/all", "must name the domain"),
            ("https://db/{host}", "must name the domain"),
            ("ftp://db/{uuid}", "http://"),
            ("{uuid}", "--placement-url"),
        ] {
            let error = Template::new(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
