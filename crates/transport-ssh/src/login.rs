//! How ssh gets into one host, where the user's own configuration does not say it.
//!
//! libvirt's ssh URIs have parameters for that. They are taken by the same names and
//! meanings, so that the log takes the way that libvirt takes.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use tokio::process::Command;

/// What a value keeps as it is.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'.')
    .remove(b'_')
    .remove(b'-')
    .remove(b'~');

/// What is done with a host key that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownHostKey {
    /// As the user's configuration says; since nobody can be asked, it is refused by default.
    #[default]
    AsConfigured,
    /// It is accepted and remembered; one that changed is refused (`known_hosts_verify=auto`).
    Accepted,
    /// As ssh's own `StrictHostKeyChecking=no` (`no_verify=1`).
    Unverified,
    /// No known key is looked at (`known_hosts_verify=ignore`).
    Ignored,
}

/// How ssh gets into one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshLogin {
    /// The ssh program (`command`).
    pub program: Option<OsString>,
    /// A file with a private key (`keyfile`).
    pub key_file: Option<OsString>,
    /// The file of known host keys (`known_hosts`).
    pub known_hosts: Option<OsString>,
    /// What is done with a host key that is not known.
    pub unknown_host_key: UnknownHostKey,
}

impl SshLogin {
    /// Sets what a parameter says. `false` where it is none that ssh has to know.
    ///
    /// # Errors
    /// What is wrong with its value.
    pub fn set(&mut self, name: &str, value: &OsStr) -> Result<bool, &'static str> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let file = |value: &OsStr| match value.as_bytes() {
            [] => Err("a file's name is empty"),
            bytes if bytes.iter().any(u8::is_ascii_control) => {
                Err("a file's name has control characters")
            }
            _ => Ok(Some(value.to_owned())),
        };
        if is("command") {
            self.program = file(value)?;
        } else if is("keyfile") {
            self.key_file = file(value)?;
        } else if is("known_hosts") {
            if value.as_bytes().contains(&b'"') {
                return Err("ssh takes no known_hosts file with a \" in its name");
            }
            self.known_hosts = file(value)?;
        } else if is("no_verify") {
            let number = value.to_str().and_then(|v| v.trim().parse::<i64>().ok());
            if number.ok_or("no_verify is not a number")? != 0 {
                self.unknown_host_key = UnknownHostKey::Unverified;
            }
        } else if is("known_hosts_verify") {
            self.unknown_host_key = match value.as_bytes() {
                b"normal" => UnknownHostKey::AsConfigured,
                b"auto" => UnknownHostKey::Accepted,
                b"ignore" => UnknownHostKey::Ignored,
                _ => return Err("known_hosts_verify is neither normal nor auto nor ignore"),
            };
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// From the query of a URL.
    pub(crate) fn parse(query: &str) -> Result<Self, &'static str> {
        let mut login = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = OsString::from_vec(percent_decode(value.as_bytes()).collect());
            if !login.set(name, &value)? {
                return Err(
                    "it knows no parameters but keyfile, known_hosts, known_hosts_verify, \
                     no_verify and command",
                );
            }
        }
        Ok(login)
    }

    /// Before the host stands on the command line.
    pub(crate) fn add_to(&self, command: &mut Command) {
        if let Some(file) = &self.key_file {
            command.arg("-i").arg(file);
        }
        if let Some(file) = &self.known_hosts {
            // In quotes a blank is one; % begins a token of ssh's.
            let mut option = b"-oUserKnownHostsFile=\"".to_vec();
            for byte in file.as_bytes() {
                if *byte == b'%' || *byte == b'\\' {
                    option.push(*byte);
                }
                option.push(*byte);
            }
            option.push(b'"');
            command.arg(OsString::from_vec(option));
        }
        match self.unknown_host_key {
            UnknownHostKey::AsConfigured => {}
            UnknownHostKey::Accepted => {
                command.arg("-oStrictHostKeyChecking=accept-new");
            }
            UnknownHostKey::Unverified => {
                command.arg("-oStrictHostKeyChecking=no");
            }
            UnknownHostKey::Ignored => {
                command.args([
                    "-oStrictHostKeyChecking=no",
                    "-oUserKnownHostsFile=/dev/null",
                    "-oGlobalKnownHostsFile=/dev/null",
                ]);
            }
        }
    }
}

impl fmt::Display for SshLogin {
    /// As the query of a URL, with its `?`; nothing where there is nothing to say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sign = '?';
        let files = [
            ("command", &self.program),
            ("keyfile", &self.key_file),
            ("known_hosts", &self.known_hosts),
        ];
        for (name, file) in files {
            if let Some(file) = file {
                let value = percent_encode(file.as_bytes(), VALUE);
                write!(f, "{sign}{name}={value}")?;
                sign = '&';
            }
        }
        match self.unknown_host_key {
            UnknownHostKey::AsConfigured => Ok(()),
            UnknownHostKey::Accepted => write!(f, "{sign}known_hosts_verify=auto"),
            UnknownHostKey::Unverified => write!(f, "{sign}no_verify=1"),
            UnknownHostKey::Ignored => write!(f, "{sign}known_hosts_verify=ignore"),
        }
    }
}
