//! Pure: the console logs in a domain's XML.
//!
//! A console log is the file that a serial, console, parallel or channel device
//! writes (`source/@path` where its type is `file`), or the copy of its output
//! that is logged (`log/@file`, whatever its type). The live XML says where a
//! running guest's log is; the inactive one where that of its next start will be.
//!
//! Must not know: files, or whether what is named is there.

use std::fmt;
use std::path::{Path, PathBuf};

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use crate::{Error, Result};

/// Above what libvirt itself would take or give.
const MAX_XML: usize = 32 << 20;
/// As deep as libvirt's own parser goes.
const MAX_DEPTH: usize = 256;
const MAX_CONSOLES: usize = 256;

/// What kind of device writes a log. In the order in which they are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `<serial>`
    Serial,
    /// `<console>`; the first one often only mirrors the first serial.
    Console,
    /// `<parallel>`
    Parallel,
    /// `<channel>`
    Channel,
}

impl Kind {
    fn of(element: &str) -> Option<Self> {
        match element {
            "serial" => Some(Self::Serial),
            "console" => Some(Self::Console),
            "parallel" => Some(Self::Parallel),
            "channel" => Some(Self::Channel),
            _ => None,
        }
    }

    /// The element's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::Console => "console",
            Self::Parallel => "parallel",
            Self::Channel => "channel",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// By which element a log is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ManagedBy {
    /// `<source path=…>` of a device of type `file`.
    Source,
    /// `<log file=…>`.
    Log,
}

/// One console log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// Kind and number, as `serial0`; never twice in one domain, made of
    /// letters, digits and `-`, and the same on both hosts of a migration.
    pub name: String,
    /// Which kind of device writes it.
    pub kind: Kind,
    /// The file, absolute.
    pub path: PathBuf,
    /// `append` as it stands there. Where it is `None` or `Some(false)`, a start
    /// of the domain empties the log, also one by a migration that comes in.
    pub append: Option<bool>,
    /// By which element it is asked for.
    pub managed_by: ManagedBy,
}

/// What a domain's XML says of its console logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consoles {
    /// Serials first, each path once.
    pub logs: Vec<Console>,
    /// One sentence for each log that the domain has and that cannot be followed. libvirt
    /// starts and migrates such a domain; a device of it is no reason to leave out the others.
    pub left_out: Vec<String>,
}

/// The console logs of a domain: serials first, each path once, without those of
/// [`Consoles::left_out`].
///
/// # Errors
/// As [`read`].
pub fn consoles(xml: &str) -> Result<Vec<Console>> {
    Ok(read(xml)?.logs)
}

/// The console logs of a domain, and what is wrong with those that cannot be followed.
///
/// # Errors
/// [`Error::BadXml`] where the XML is broken or not a domain's, or defines entities.
pub fn read(xml: &str) -> Result<Consoles> {
    let mut devices: Vec<Device> = Vec::new();
    let mut surplus = 0_usize;
    walk(xml, |path, element| match path {
        ["domain", "devices"] => {
            if let Some(kind) = Kind::of(element.name().0) {
                if devices.len() < MAX_CONSOLES {
                    let position = devices.iter().filter(|d| d.kind == kind).count();
                    devices.push(Device::new(kind, position, attribute(element, "type")?));
                } else {
                    surplus += 1;
                }
            }
            Ok(())
        }
        ["domain", "devices", parent] if Kind::of(parent).is_some() && surplus == 0 => {
            devices.last_mut().map_or(Ok(()), |d| d.take(element))
        }
        _ => Ok(()),
    })?;
    // Stable: within a kind they stay as they stand in the XML.
    devices.sort_by_key(|device| device.kind);

    let mut found = Consoles::default();
    for device in devices {
        let base = format!("{}{}", device.kind, device.index);
        for (managed_by, file) in [
            (ManagedBy::Source, device.source),
            (ManagedBy::Log, device.log),
        ] {
            let Some(file) = file else { continue };
            if let Some(why) = why_not_followed(&file.path) {
                let sentence = format!("the log of {base}, {:?}, {why}", file.path);
                // The console that mirrors a serial says the same of the same path.
                let path = format!("{:?}", file.path);
                if !found.left_out.iter().any(|other| other.contains(&path)) {
                    found.left_out.push(sentence);
                }
                continue;
            }
            if found.logs.iter().any(|other| other.path == file.path) {
                continue;
            }
            found.logs.push(Console {
                name: free_name(&base, &found.logs),
                kind: device.kind,
                path: file.path,
                append: file.append,
                managed_by,
            });
        }
    }
    if surplus > 0 {
        found.left_out.push(format!(
            "of the domain's character devices {surplus} are more than the {MAX_CONSOLES} whose \
             logs are followed"
        ));
    }
    Ok(found)
}

/// Whoever opens a log for the domain resolves a relative path in a folder of its own.
fn why_not_followed(path: &Path) -> Option<&'static str> {
    if !path.is_absolute() {
        return Some("has no path from the root, so nobody can tell where it lies");
    }
    if path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Some("has a path that names no file");
    }
    None
}

/// Whether the domain has a device of this element's name.
pub(crate) fn has_device(xml: &str, name: &str) -> Result<bool> {
    let mut has = false;
    walk(xml, |path, element| {
        has |= path == ["domain", "devices"] && element.name().0 == name;
        Ok(())
    })?;
    Ok(has)
}

/// A device that writes a `file` and is logged besides has two logs, and broken
/// XML may name a port twice: the later one gets a number more.
fn free_name(base: &str, found: &[Console]) -> String {
    let taken = |name: &str| found.iter().any(|other| other.name == name);
    let mut name = base.to_owned();
    let mut next = 2_usize;
    while taken(&name) {
        name = format!("{base}-{next}");
        next += 1;
    }
    name
}

struct Device {
    kind: Kind,
    index: u32,
    is_file: bool,
    source: Option<LogFile>,
    log: Option<LogFile>,
}

struct LogFile {
    path: PathBuf,
    append: Option<bool>,
}

impl Device {
    fn new(kind: Kind, position: usize, backend: Option<String>) -> Self {
        Self {
            kind,
            index: u32::try_from(position).unwrap_or(u32::MAX),
            is_file: backend.as_deref() == Some("file"),
            source: None,
            log: None,
        }
    }

    fn take(&mut self, element: &BytesStart<'_>) -> Result<()> {
        match element.name().0 {
            "source" if self.is_file && self.source.is_none() => {
                self.source = log_file(element, "path")?;
            }
            "log" if self.log.is_none() => self.log = log_file(element, "file")?,
            // A channel's port, where it has one, is one in the guest's network.
            "target" if self.kind != Kind::Channel => {
                // Without one, or one that libvirt would not take, the position counts.
                let port = attribute(element, "port")?;
                self.index = port.and_then(|p| p.parse().ok()).unwrap_or(self.index);
            }
            _ => {}
        }
        Ok(())
    }
}

fn log_file(element: &BytesStart<'_>, name: &str) -> Result<Option<LogFile>> {
    let Some(path) = attribute(element, name)? else {
        return Ok(None);
    };
    let append = match attribute(element, "append")?.as_deref() {
        Some("on") => Some(true),
        Some("off") => Some(false),
        // libvirt also has "default", which is as good as none.
        None | Some(_) => None,
    };
    let path = PathBuf::from(path);
    Ok(Some(LogFile { path, append }))
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>> {
    let mut found = None;
    // To the end: an attribute that stands there twice is an error.
    for attribute in element.attributes() {
        let attribute = attribute.map_err(|e| Error::BadXml(e.to_string()))?;
        if attribute.key.0 == name {
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|e| Error::BadXml(e.to_string()))?;
            found = Some(value.into_owned());
        }
    }
    Ok(found)
}

/// Calls `visit` for each element with the names of those that it lies in.
fn walk(xml: &str, mut visit: impl FnMut(&[&str], &BytesStart<'_>) -> Result<()>) -> Result<()> {
    if xml.len() > MAX_XML {
        return bad(format!("{} bytes are too many", xml.len()));
    }
    let mut reader = Reader::from_str(xml);
    let mut path: Vec<String> = Vec::new();
    let mut roots = 0_usize;
    loop {
        let event = reader
            .read_event()
            .map_err(|e| Error::BadXml(format!("{e}, at byte {}", reader.error_position())))?;
        let (element, opens) = match &event {
            Event::Start(element) => (element, true),
            Event::Empty(element) => (element, false),
            Event::End(_) => {
                path.pop();
                continue;
            }
            // Entities of one's own, to be expanded without end.
            Event::DocType(_) => return bad("a document type has no place in it".to_owned()),
            Event::Eof => break,
            _ => continue,
        };
        if path.is_empty() {
            roots += 1;
            if roots > 1 || element.name().0 != "domain" {
                return bad(format!("{:?} is not a domain", element.name().0));
            }
        }
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        visit(&names, element)?;
        if opens {
            if path.len() >= MAX_DEPTH {
                return bad(format!("more than {MAX_DEPTH} elements in each other"));
            }
            path.push(element.name().0.to_owned());
        }
    }
    if let Some(open) = path.last() {
        return bad(format!("{open:?} does not end"));
    }
    if roots == 0 {
        return bad("there is no domain in it".to_owned());
    }
    Ok(())
}

fn bad<T>(what: String) -> Result<T> {
    Err(Error::BadXml(what))
}

#[cfg(test)]
mod tests;
