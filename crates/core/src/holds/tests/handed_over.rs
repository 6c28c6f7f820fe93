//! A log that was handed over before it was wiped: its bytes come back with the VM.

use super::*;
use crate::chain::Ownership;
use crate::folder::Folder;
use crate::ids::HandoffId;
use crate::record::{Offered, OnDisk};

#[test]
fn what_was_handed_over_is_known_as_such_and_keeps_its_id() {
    for printed_since in ["", "more"] {
        let bed = Bed::new(AT_ONCE);
        bed.append("console.log.0", "zero ");
        bed.append("console.log", "one");
        bed.log.look();
        let (folder, base) = Folder::of_file(&bed.path).unwrap();
        let files = OnDisk::of_chain(&folder, &base, &Ownership::default()).unwrap();
        let offered = Offered {
            handoff: HandoffId::random(),
            to: "ssh://h2".to_owned(),
            bytes: 8,
            digest: blake3::hash(b"zero one").to_hex().to_string(),
            at: jiff::Timestamp::constant(1, 0),
            files: files.iter().map(|file| (file.id, file.size)).collect(),
            prints: Vec::new(),
            received: true,
        };
        let id = offered.handoff;
        let (domain, console) = (bed.log.domain(), bed.log.console());
        Record::update(&folder, &base, domain, console, |record| {
            record.offered = Some(offered);
        })
        .unwrap();
        bed.log.look();
        bed.append("console.log", printed_since);
        // The VM comes back: virtlogd wipes the log before its guest runs here.
        bed.remove("console.log");
        bed.remove("console.log.0");
        bed.append("console.log", "");
        bed.log.look();
        let earlier = bed.log.earlier();
        assert_eq!(earlier.len(), 1);
        assert_eq!(earlier[0].is_handed_over, printed_since.is_empty());
        let put = bed.log.put_down_earlier(0, None, &bed.outbox()).unwrap();
        let KeepOutcome::PutDown(entry) = put else {
            panic!("{put:?}");
        };
        let (folder, base) = Folder::of_file(&entry.path).unwrap();
        let record = Record::read_any(&folder, &base).unwrap().unwrap();
        let kept = record.offered.map(|offered| offered.handoff);
        assert_eq!(kept == Some(id), printed_since.is_empty());
    }
}
