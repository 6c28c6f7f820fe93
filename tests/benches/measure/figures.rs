//! Figures of several runs, one machine-readable line each: its name, then `median`, `least` and
//! `most`, and how many there were.

use super::Fallible;

#[derive(Default)]
pub(crate) struct Figures(Vec<(&'static str, Vec<u64>)>);

impl Figures {
    /// One more value of this figure.
    pub(crate) fn add(&mut self, name: &'static str, value: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name, vec![value])),
        }
    }

    /// All of them, in the order of their first values.
    pub(crate) fn print(&self) {
        for (name, values) in &self.0 {
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
            println!(
                "{name} median={} least={} most={} count={}",
                at(sorted.len() / 2),
                at(0),
                at(sorted.len().saturating_sub(1)),
                sorted.len()
            );
        }
    }
}

/// The value behind `name` on the command line, if it is there.
pub(crate) fn option(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1)
}

/// The same as a number.
pub(crate) fn number(name: &str, default: u64) -> Fallible<u64> {
    match option(name) {
        Some(text) => Ok(text.parse().map_err(|e| format!("{name} {text}: {e}"))?),
        None => Ok(default),
    }
}
