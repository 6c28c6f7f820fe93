//! Pure: what a host says of itself.
//!
//! Must not know: domains.

use quick_xml::events::Event;
use quick_xml::reader::Reader;
use uuid::Uuid;

/// Far above what libvirt gives.
const MAX_XML: usize = 32 << 20;

/// The UUID that a host has among all hosts: libvirt refuses to migrate between
/// two of one UUID. `None` where it is not told, or is none.
pub(crate) fn host_uuid(xml: &str) -> Option<Uuid> {
    if xml.len() > MAX_XML {
        return None;
    }
    let mut reader = Reader::from_str(xml);
    let mut path: Vec<String> = Vec::new();
    loop {
        match reader.read_event().ok()? {
            Event::Start(element) => path.push(element.name().0.to_owned()),
            Event::End(_) => {
                path.pop();
            }
            Event::Text(text) if path == ["capabilities", "host", "uuid"] => {
                return text.trim().parse().ok();
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_uuid_and_no_other() {
        let uuid = "9e2b0c39-0000-4000-8000-000000000001";
        let of = |host: &str| host_uuid(&format!("<capabilities>{host}</capabilities>"));
        let found = uuid.parse().ok();
        assert_eq!(of(&format!("<host><uuid>{uuid}</uuid></host>")), found);
        assert_eq!(
            of(&format!("<host>\n <cpu/><uuid> {uuid}\n</uuid></host>")),
            found
        );
        for other in [
            String::new(),
            "<host/>".to_owned(),
            "<host><uuid/></host>".to_owned(),
            "<host><uuid>nonsense</uuid></host>".to_owned(),
            format!("<guest><uuid>{uuid}</uuid></guest>"),
            format!("<host><cpu><uuid>{uuid}</uuid></cpu></host>"),
            format!("<host></wrong><uuid>{uuid}</uuid></host>"),
        ] {
            assert_eq!(of(&other), None, "{other}");
        }
        assert_eq!(host_uuid(""), None);
    }
}
