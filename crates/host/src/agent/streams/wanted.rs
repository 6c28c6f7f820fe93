//! Pure: which logs the operator wants in the store.
//!
//! Must not know: stores, how a log is read.

use crate::agent::Vm;
use crate::agent::config;

/// Patterns of domains and of consoles.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    domains: Vec<String>,
    consoles: Vec<String>,
}

impl Wanted {
    pub(super) fn of(config: &config::Stream) -> Self {
        Self {
            domains: config.domains.clone(),
            consoles: config.consoles.clone(),
        }
    }

    /// Whether this console of this domain is wanted: the domain by its name or its UUID.
    pub(super) fn has(&self, vm: &Vm, console: &str) -> bool {
        let uuid = vm.uuid.to_string();
        let is_its = |pattern: &String| {
            matches(pattern, &vm.name) || matches(&pattern.to_ascii_lowercase(), &uuid)
        };
        self.domains.iter().any(is_its) && self.consoles.iter().any(|p| matches(p, console))
    }
}

/// `*` stands for any characters, `?` for one. Takes time that grows with the product of both
/// lengths at the most.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0_usize, 0_usize);
    // Behind the last star, and where in the name what follows it was tried last.
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = name.get(n) {
        match pattern.get(p) {
            Some('*') => {
                p = p.saturating_add(1);
                star = Some((p, n));
            }
            Some(wanted) if wanted == c || *wanted == '?' => {
                p = p.saturating_add(1);
                n = n.saturating_add(1);
            }
            _ => match star {
                Some((behind, tried)) => {
                    let next = tried.saturating_add(1);
                    star = Some((behind, next));
                    (p, n) = (behind, next);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_a_part_of_it() {
        for (pattern, name) in [
            ("*", ""),
            ("vm1", "vm1"),
            ("vm?", "vm1"),
            ("vm*", "vm"),
            ("*-web-*", "a-web-1"),
            ("a*b*c", "aXbXbc"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("", "a"), ("vm1", "vm12"), ("vm?", "vm"), ("a*b", "abc")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_domain_is_chosen_by_name_or_uuid_and_its_consoles_by_name() {
        let vm = Vm {
            uuid: Uuid::from_u128(0xABC),
            name: "web-1".to_owned(),
        };
        let has = |domains: &[&str], consoles: &[&str], console: &str| {
            let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            let wanted = Wanted {
                domains: texts(domains),
                consoles: texts(consoles),
            };
            wanted.has(&vm, console)
        };
        assert!(has(&["db-*", "web-*"], &["*"], "serial0"));
        assert!(has(&["*ABC"], &["serial*"], "serial0"));
        assert!(!has(&["db-*"], &["*"], "serial0"));
        assert!(!has(&["*"], &["serial*"], "console0"));
        assert!(!has(&[], &["*"], "serial0"));
    }
}
