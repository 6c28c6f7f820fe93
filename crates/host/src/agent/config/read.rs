//! Reads a configuration from text. Pure.
//!
//! The text is looked at twice: first for keys that do not exist, of which all are told with
//! their lines, and then for the values.
//!
//! Must not know: files; what a value means.

use std::ops::Range;
use std::path::Path;

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, sections};
use super::problem::{Problem, Problems};
use super::{Config, check};

/// Reads `text`, which was in `file`.
pub(super) fn read(file: &Path, text: &str) -> Result<Config, Problems> {
    let table = DeTable::parse(text)
        .map_err(|e| Problems(vec![problem(file, text, e.span(), None, e.message())]))?;
    let mut found = Vec::new();
    collect("", table.get_ref(), &mut found);
    // As people read the file, not by name.
    found.sort_by_key(|place| place.key.start);
    let unknown: Vec<_> = found
        .iter()
        .filter_map(|place| Some((place, unknown(&place.name)?)))
        .map(|(place, what)| {
            problem(
                file,
                text,
                Some(place.key.clone()),
                Some(&place.name),
                &what,
            )
        })
        .collect();
    if !unknown.is_empty() {
        return Err(Problems(unknown));
    }
    let config = toml::Deserializer::parse(text)
        .and_then(Config::deserialize)
        .map_err(|e| {
            let at = e.span().map_or(0, |span| span.start);
            let place = found.iter().rfind(|place| place.whole().contains(&at));
            let key = place.map(|place| place.name.as_str());
            Problems(vec![problem(file, text, e.span(), key, e.message())])
        })?;
    let wrong: Vec<_> = check::check(&config)
        .into_iter()
        .map(|(key, what)| {
            let place = found.iter().find(|place| place.name == key);
            problem(file, text, place.map(|p| p.key.clone()), Some(key), &what)
        })
        .collect();
    if wrong.is_empty() {
        Ok(config)
    } else {
        Err(Problems(wrong))
    }
}

/// Where a key stands in the text.
struct KeySpan {
    /// With its sections.
    name: String,
    key: Range<usize>,
    value: Range<usize>,
}

impl KeySpan {
    /// From the key to the end of its value.
    fn whole(&self) -> Range<usize> {
        self.key.start..self.value.end.max(self.key.end)
    }
}

fn collect(section: &str, table: &DeTable<'_>, found: &mut Vec<KeySpan>) {
    for (key, value) in table {
        let name = match section {
            "" => key.get_ref().to_string(),
            section => format!("{section}.{}", key.get_ref()),
        };
        found.push(KeySpan {
            name: name.clone(),
            key: key.span(),
            value: Spanned::span(value),
        });
        if let DeValue::Table(table) = value.get_ref() {
            collect(&name, table, found);
        }
    }
}

/// What to say of a key or section that does not exist.
fn unknown(name: &str) -> Option<String> {
    let is_key = |name: &str| KEYS.iter().any(|key| key.name == name);
    if is_key(name) || sections().any(|section| section == name) {
        return None;
    }
    // What is in a section that does not exist is told of with it.
    let section = name.rsplit_once('.').map(|(section, _)| section);
    if section.is_some_and(|s| unknown(s).is_some() || is_key(s)) {
        return None;
    }
    Some(match nearest(name) {
        Some(meant) => format!("there is no such key; did you mean {meant}?"),
        None => {
            "there is no such key; remove the line, or look the key up in the reference".to_owned()
        }
    })
}

/// The key that was meant: one that is spelt nearly so, or one of that name in another section.
fn nearest(name: &str) -> Option<&'static str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let all = || KEYS.iter().map(|key| key.name).chain(sections());
    let distance = |known: &&'static str| strsim::damerau_levenshtein(name, known);
    let close = all().min_by_key(distance).filter(|k| distance(k) <= 2);
    close.or_else(|| all().find(|known| last(known) == last(name)))
}

fn problem(
    file: &Path,
    text: &str,
    span: Option<Range<usize>>,
    key: Option<&str>,
    what: &str,
) -> Problem {
    let before = span.and_then(|span| text.get(..span.start));
    Problem {
        file: file.to_owned(),
        line: before.map(|before| before.matches('\n').count().saturating_add(1)),
        key: key.map(str::to_owned),
        what: what.trim().replace('\n', ", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let error = read(Path::new("agent.toml"), text).unwrap_err();
        let all: Vec<_> = error.0.iter().map(ToString::to_string).collect();
        all.join("\n")
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let config = read(Path::new("agent.toml"), "").unwrap();
        assert_eq!(config, Config::default());
    }

    #[test]
    fn values_are_read_as_the_command_line_takes_them() {
        let text = "[meet]\npatience = \"5m\"\n[outbox]\nmax_bytes = 4096\ngive_up_after = \"7d\"\n\
                    [metrics]\nlisten = \"[::1]:9478\"\n[reap]\npolicy = \"when-carried\"\n";
        let config = read(Path::new("agent.toml"), text).unwrap();
        assert_eq!(config.meet.patience.as_secs(), 300);
        assert_eq!(config.outbox.max_bytes, Some(4096));
        assert_eq!(config.outbox.give_up_after.unwrap().as_secs(), 7 * 86400);
        assert_eq!(config.metrics.listen.unwrap().port(), 9478);
        assert_eq!(config.reap.policy, super::super::ReapPolicy::WhenCarried);
    }

    /// Whatever stands there, it is read or refused with a sentence.
    #[test]
    fn no_text_is_too_strange() {
        let file = Path::new("agent.toml");
        let text = "# ä\nconnect = \"é\"\n[meet]\npeers = ['h1', \"h2:1\"]\npatience = '5m'\n\
                    tls.listen = '[::1]:1'\n[outbox]\nmax_bytes = 7\n[[x]]\n";
        let ends = |at: &usize| text.is_char_boundary(*at);
        for at in (0..text.len()).filter(ends) {
            let (before, after) = text.split_at(at);
            for strange in [
                "",
                "\"",
                "]",
                "=",
                ".",
                "\n",
                "ß",
                "1e999",
                "[",
                "[[meet]]\n",
                "\0",
            ] {
                let mut after = after.chars();
                after.next();
                for text in [
                    format!("{before}{strange}"),
                    format!("{before}{strange}{}", after.as_str()),
                ] {
                    if let Err(problems) = read(file, &text) {
                        let said = problems.to_string();
                        assert!(!said.contains('\n') && said.len() > 12, "{said:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_mistake_is_told_with_its_line_and_what_would_be_right() {
        for (text, want) in [
            (
                "\n\n[meet]\npeer = []\n",
                "agent.toml:4: meet.peer: there is no such key; did you mean meet.peers?",
            ),
            (
                "peers = []\n",
                "agent.toml:1: peers: there is no such key; did you mean meet.peers?",
            ),
            (
                "[met]\nway = \"ssh\"\n",
                "agent.toml:1: met: there is no such key; did you mean meet?",
            ),
            (
                "[meet]\npatience = \"soon\"\n",
                "agent.toml:2: meet.patience: \"soon\" is not understood; give a duration, as \
                 90, 90s, 5m or 1h",
            ),
            (
                "[meet.tls]\nlisten = \"h1\"\n",
                "agent.toml:2: meet.tls.listen: \"h1\" is no address with a port; write it as \
                 127.0.0.1:9478 or [::]:16515",
            ),
            (
                "[meet]\nway = \"pigeon\"\n",
                "agent.toml:2: meet.way: unknown variant `pigeon`, expected one of `tls`, `ssh`, \
                 `store`",
            ),
            (
                "meet = 5\n",
                "agent.toml:1: meet: invalid type: integer `5`, expected struct Meet",
            ),
            (
                "[meet]\nway = \"store\"\n",
                "agent.toml: meet.store: way = \"store\" needs the URL of the store; write store \
                 = \"s3://bucket/prefix\" or \"file:///folder\" under [meet]",
            ),
            (
                "[limits]\nhandoffs = -1\n",
                "agent.toml:2: limits.handoffs: invalid value: integer `-1`, expected u32",
            ),
        ] {
            assert_eq!(said(text), want);
        }
        let two = said("peers = []\n[outbox]\nmaxbytes = 1\n");
        assert_eq!(two.lines().count(), 2, "{two}");
        assert!(said("[meet\n").starts_with("agent.toml:1: "));
    }
}
