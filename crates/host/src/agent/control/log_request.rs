//! Which bytes of which log a client asks for, and how that is written in a request. Pure.
//!
//! Must not know: connections, files.

use logchain_core::ids::ConsoleName;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What need not be encoded in a part of a path.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Which bytes of which log. The client names a domain and a console of it; which files these
/// are, libvirt says to the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// Name or UUID of the domain.
    pub domain: String,
    /// Its console; the first one without it.
    pub console: Option<ConsoleName>,
    /// What of the log.
    pub part: Part,
    /// Only what this boot printed: 0 is the present one, -1 the one before it.
    pub boot: Option<i64>,
    /// Whether the head names the boots whose logs are there.
    pub list_boots: bool,
    /// Whether to go on as the log grows.
    pub follow: bool,
    /// Whether the answer is [frames](super::Frame) instead of plain bytes.
    pub framed: bool,
}

/// What of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All that is there.
    All,
    /// So many bytes at its end.
    LastBytes(u64),
    /// So many lines at its end.
    LastLines(u64),
    /// From an offset in the VM's stream on.
    From {
        /// The offset.
        offset: u64,
        /// At most so many bytes, where there is a bound.
        most: Option<u64>,
    },
}

impl LogRequest {
    /// What the segments of a path and its query ask for.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn read(
        domain: &str,
        console: Option<&str>,
        query: Option<&str>,
    ) -> Result<Self, String> {
        let decode = |text| percent_decode_str(text).decode_utf8();
        let name = decode(domain).map_err(|_| format!("{domain:?} is no name of a domain"))?;
        if name.is_empty() || name.contains('\0') {
            return Err(format!(
                "{domain:?} is no name of a domain; give its name or UUID"
            ));
        }
        let console = console.map(|console| {
            let name = percent_decode_str(console).decode_utf8_lossy();
            let read = name.parse::<ConsoleName>();
            read.map_err(|e| format!("{name:?} is no console: {e}"))
        });
        let mut request = Self {
            domain: name.into_owned(),
            console: console.transpose()?,
            part: Part::All,
            boot: None,
            list_boots: false,
            follow: false,
            framed: false,
        };
        let (mut from, mut bytes, mut lines) = (None, None, None);
        let pairs = query.unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = || {
                let number = value.parse::<u64>();
                number.map_err(|_| format!("{name}={value:?} is no number"))
            };
            match (name, value) {
                ("from", _) => from = Some(number()?),
                ("bytes", _) => bytes = Some(number()?),
                ("lines", _) => lines = Some(number()?),
                ("boot", _) => match value.parse::<i64>() {
                    Ok(boot @ ..=0) => request.boot = Some(boot),
                    _ => return Err(format!("boot={value:?} is no boot; give 0, -1 and so on")),
                },
                ("boots", "true" | "1" | "") => request.list_boots = true,
                ("boots", "false" | "0") => request.list_boots = false,
                ("follow", "true" | "1" | "") => request.follow = true,
                ("follow", "false" | "0") => request.follow = false,
                ("frames", "true" | "1" | "") => request.framed = true,
                ("frames", "false" | "0") => request.framed = false,
                _ => {
                    return Err(format!(
                        "{pair:?} is not known; give from=OFFSET, bytes=N, lines=N, boot=N, \
                         boots=true, follow=true and frames=true"
                    ));
                }
            }
        }
        request.part = match (from, bytes, lines) {
            (Some(offset), most, None) => Part::From { offset, most },
            (None, Some(bytes), None) => Part::LastBytes(bytes),
            (None, None, Some(lines)) => Part::LastLines(lines),
            (None, None, None) => Part::All,
            _ => return Err("lines goes with neither from nor bytes".to_owned()),
        };
        if request.boot.is_some() && from.is_some() {
            return Err("boot does not go with from".to_owned());
        }
        Ok(request)
    }

    /// The path and query that ask for this.
    pub(super) fn path(&self) -> String {
        let domain = utf8_percent_encode(&self.domain, IN_PATH);
        let mut path = format!("/v1/log/{domain}");
        if let Some(console) = &self.console {
            let console = utf8_percent_encode(console.as_str(), IN_PATH);
            path.push_str(&format!("/{console}"));
        }
        let mut query = match self.part {
            Part::All => Vec::new(),
            Part::LastBytes(bytes) => vec![format!("bytes={bytes}")],
            Part::LastLines(lines) => vec![format!("lines={lines}")],
            Part::From { offset, most: None } => vec![format!("from={offset}")],
            Part::From {
                offset,
                most: Some(most),
            } => vec![format!("from={offset}"), format!("bytes={most}")],
        };
        query.extend(self.boot.map(|boot| format!("boot={boot}")));
        query.extend(self.list_boots.then(|| "boots=true".to_owned()));
        query.extend(self.follow.then(|| "follow=true".to_owned()));
        query.extend(self.framed.then(|| "frames=true".to_owned()));
        if !query.is_empty() {
            path.push('?');
            path.push_str(&query.join("&"));
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> Result<LogRequest, String> {
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        let mut parts = path.strip_prefix("/v1/log/").unwrap().split('/');
        LogRequest::read(parts.next().unwrap(), parts.next(), query)
    }

    #[test]
    fn what_a_client_writes_is_what_the_agent_reads() {
        let parts = [
            Part::All,
            Part::LastBytes(0),
            Part::LastLines(7),
            Part::From {
                offset: u64::MAX,
                most: None,
            },
            Part::From {
                offset: 0,
                most: Some(9),
            },
        ];
        for part in parts {
            for (domain, console) in [
                ("vm1", Some("serial0")),
                ("../etc/a b?c=d&e#%2F", None),
                ("größe", Some("console1")),
            ] {
                for follow in [false, true] {
                    let request = LogRequest {
                        domain: domain.to_owned(),
                        console: console.map(|c| c.parse().unwrap()),
                        part,
                        boot: (part == Part::All).then_some(-3),
                        list_boots: follow,
                        follow,
                        framed: !follow,
                    };
                    let path = request.path();
                    assert!(path.parse::<hyper::Uri>().is_ok(), "{path}");
                    assert_eq!(read(&path), Ok(request), "{path}");
                }
            }
        }
    }

    #[test]
    fn a_wrong_request_is_told_of() {
        for (path, why) in [
            ("/v1/log/vm1/..%2F..", "is no console"),
            ("/v1/log/vm1/", "is no console"),
            ("/v1/log/", "is no name of a domain"),
            ("/v1/log/%00", "is no name of a domain"),
            ("/v1/log/%ff", "is no name of a domain"),
            ("/v1/log/vm1?from=-1", "is no number"),
            ("/v1/log/vm1?from=", "is no number"),
            ("/v1/log/vm1?bytes=99999999999999999999", "is no number"),
            ("/v1/log/vm1?to=2", "is not known"),
            ("/v1/log/vm1?path=/etc/shadow", "is not known"),
            ("/v1/log/vm1?follow=maybe", "is not known"),
            ("/v1/log/vm1?boot=1", "is no boot"),
            ("/v1/log/vm1?boot=0&from=2", "boot does not go with from"),
            ("/v1/log/vm1?lines=1&from=2", "lines goes with neither"),
        ] {
            let error = read(path).unwrap_err();
            assert!(error.contains(why), "{path}: {error}");
        }
    }
}
