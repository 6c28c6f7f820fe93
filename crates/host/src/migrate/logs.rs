//! Which logs a domain has, and where each will lie at the destination.
//!
//! Nothing here is a reason not to migrate: what cannot be found out of a log is said,
//! and the log stays behind.

use std::path::PathBuf;

use logchain_core::OkLogged as _;
use logchain_libvirt::Domain;
use logchain_libvirt::consoles::{Console, Consoles, read};
use logchain_libvirt::migrate::MigrateRequest;

use crate::log::ConsoleLog;
use crate::{consoles, neighbours};

/// What a domain has of logs.
#[derive(Debug, Default)]
pub(super) struct Logs {
    /// Each with its path at the destination, where that is known beforehand.
    pub(super) found: Vec<(ConsoleLog, Option<PathBuf>)>,
    /// One sentence for each log that cannot be carried.
    pub(super) left_out: Vec<String>,
}

impl Logs {
    pub(super) async fn of(domain: &Domain, request: &MigrateRequest) -> Self {
        let xml = domain.live_xml().await;
        match xml.and_then(|xml| read(&xml)) {
            Ok(here) => {
                let paths = here.logs.iter().map(|console| console.path.clone());
                neighbours::learn(domain.connection(), paths.collect()).await;
                Self::at(here, request.params.dest_xml.as_deref())
            }
            Err(e) => Self {
                found: Vec::new(),
                left_out: vec![format!(
                    "nobody can tell which logs domain {} has: {e}",
                    domain.name()
                )],
            },
        }
    }

    /// Pure. `dest_xml`: the domain's definition for the destination.
    fn at(here: Consoles, dest_xml: Option<&str>) -> Self {
        // libvirt reads what this cannot: then the destination's half learns the path when
        // the domain is there.
        let there =
            dest_xml.map(|xml| read(xml).ok_logged("the path is known once the domain is there"));
        let expected = |console: &Console| match &there {
            None => Some(console.path.clone()),
            Some(None) => None,
            Some(Some(there)) => {
                let moved = there.logs.iter().find(|c| c.name == console.name);
                Some(moved.unwrap_or(console).path.clone())
            }
        };
        let mut logs = Self {
            found: Vec::new(),
            left_out: here.left_out,
        };
        for console in here.logs {
            let expected = expected(&console);
            match consoles::key_name(&console) {
                Ok(name) => {
                    let path = console.path;
                    logs.found.push((
                        ConsoleLog {
                            console: name,
                            path,
                        },
                        expected,
                    ));
                }
                Err(e) => logs.left_out.push(format!("{}: {e}", console.name)),
            }
        }
        logs
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const HERE: &str = "<domain><devices>\
        <serial type='pty'><log file='/l/zero'/><target port='0'/></serial>\
        <serial type='pty'><log file='one'/><target port='1'/></serial>\
        </devices></domain>";

    fn expected(dest_xml: Option<&str>) -> Option<PathBuf> {
        let logs = Logs::at(read(HERE).unwrap(), dest_xml);
        assert_eq!(logs.left_out.len(), 1, "{:?}", logs.left_out);
        let [(log, expected)] = logs.found.as_slice() else {
            panic!("{:?}", logs.found);
        };
        assert_eq!(log.path, Path::new("/l/zero"));
        expected.clone()
    }

    #[test]
    fn a_log_lies_where_the_definition_for_the_destination_has_it() {
        assert_eq!(expected(None), Some("/l/zero".into()));
        let moved = HERE.replace("/l/zero", "/there/tty");
        assert_eq!(expected(Some(&moved)), Some("/there/tty".into()));
        let without = HERE.replace("port='0'", "port='5'");
        assert_eq!(expected(Some(&without)), Some("/l/zero".into()));
    }

    #[test]
    fn a_definition_that_only_libvirt_reads_costs_no_log() {
        let entity = format!("<!DOCTYPE domain [<!ENTITY a 'x'>]>{HERE}");
        assert_eq!(expected(Some(&entity)), None);
        assert_eq!(expected(Some("")), None);
    }
}
