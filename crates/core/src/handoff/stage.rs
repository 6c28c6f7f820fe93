//! How far a handoff is, told from the names of its objects alone.
//!
//! This is the one place that knows what a set of objects means; everyone else asks for
//! the [`Stage`].
//!
//! Must not know: what the objects hold, where they lie, how old they are.
//!
//! ```text
//!           + commit              + claim            + receipt
//! Begun ──────────────► Committed ──────► Claimed ─────────────► Received
//!   │ + abort
//!   └─────────► Withdrawn
//! ```
//!
//! Objects are deleted one by one and may arrive late over a line that broke. What such
//! accidents leave is [`Stage::Remains`], [`Stage::HalfCleared`] or [`Stage::Headless`].

use std::collections::BTreeMap;

use super::Handoff;
use crate::transport::{Entry, ObjectName};

/// How far a handoff is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The source began it and has not committed it. Pieces may be there.
    Begun,
    /// The source has put all of it; no destination has claimed it.
    Committed,
    /// A destination is placing it, or was when it was killed.
    Claimed,
    /// The destination has all of it in place. What is left can be cleared.
    Received,
    /// The source gave it up. What is left can be cleared.
    Withdrawn,
    /// It has a claim and no commit: somebody was clearing it and was killed.
    HalfCleared,
    /// A commit and pieces without a `begin`. They may be all that is left of a log, so
    /// they are kept, but nobody is expected to adopt them.
    Headless,
    /// Single objects without a `begin`: the end of a clearing that was interrupted, or
    /// what arrived after it.
    Remains,
}

impl Stage {
    /// The stage of the handoff that has these objects; `None` if there are none. Batches
    /// belong to streams and are passed over.
    pub fn of(objects: impl IntoIterator<Item = ObjectName>) -> Option<Self> {
        let mut seen = Seen::default();
        objects.into_iter().for_each(|object| seen.add(object));
        seen.stage()
    }

    /// Whether a destination can adopt it: now, or once the source has put the rest.
    #[must_use]
    pub fn can_be_adopted(self) -> bool {
        match self {
            Self::Begun | Self::Committed | Self::Claimed | Self::HalfCleared => true,
            Self::Received | Self::Withdrawn | Self::Headless | Self::Remains => false,
        }
    }

    /// Whether the source has committed it, and no receipt says that it arrived.
    #[must_use]
    pub fn awaits_receipt(self) -> bool {
        matches!(self, Self::Committed | Self::Claimed | Self::Headless)
    }

    /// Whether it has to be cleared before the same handoff can begin again.
    #[must_use]
    pub fn is_in_the_way(self) -> bool {
        matches!(self, Self::Withdrawn | Self::HalfCleared | Self::Remains)
    }
}

/// The stage of every handoff in a listing.
pub fn stages<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> BTreeMap<Handoff, Stage> {
    let mut seen = BTreeMap::<Handoff, Seen>::new();
    for Entry { key, .. } in entries {
        if let Some(handoff) = Handoff::of(key) {
            seen.entry(handoff).or_default().add(key.object);
        }
    }
    let staged = seen.into_iter();
    staged
        .filter_map(|(handoff, seen)| Some((handoff, seen.stage()?)))
        .collect()
}

/// In which order the objects of a handoff are deleted. With `abort` or `receipt` there, what
/// is left after a kill keeps that stage; without either it may still look as if it could be
/// adopted, with pieces missing, and the destination then waits in vain. Pieces of equal rank
/// may go side by side.
pub(crate) fn deletion_rank(object: ObjectName) -> u8 {
    match object {
        ObjectName::Chunk { .. } | ObjectName::Batch { .. } => 0,
        // Before `abort`, which says that the commit is void.
        ObjectName::Commit => 1,
        ObjectName::Begin => 2,
        // After the commit: a destination that now finds room for its own claim looks for
        // the commit next, and gives up.
        ObjectName::Claim => 3,
        ObjectName::Abort => 4,
        // Last: as long as anything is left, it says that all is well.
        ObjectName::Receipt => 5,
    }
}

/// Which objects a handoff has.
#[derive(Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one for each kind of object: they come in any combination"
)]
struct Seen {
    begin: bool,
    chunk: bool,
    claim: bool,
    commit: bool,
    abort: bool,
    receipt: bool,
}

impl Seen {
    fn add(&mut self, object: ObjectName) {
        match object {
            ObjectName::Begin => self.begin = true,
            ObjectName::Chunk { .. } => self.chunk = true,
            ObjectName::Claim => self.claim = true,
            ObjectName::Commit => self.commit = true,
            ObjectName::Abort => self.abort = true,
            ObjectName::Receipt => self.receipt = true,
            ObjectName::Batch { .. } => {}
        }
    }

    fn stage(self) -> Option<Stage> {
        Some(match self {
            Self { receipt: true, .. } => Stage::Received,
            // A commit beside it arrived late: the destination that saw the abort first
            // has undone what it staged.
            Self { abort: true, .. } => Stage::Withdrawn,
            Self {
                begin: true,
                commit: true,
                claim,
                ..
            } => match claim {
                true => Stage::Claimed,
                false => Stage::Committed,
            },
            Self {
                begin: true,
                claim: true,
                ..
            } => Stage::HalfCleared,
            Self { begin: true, .. } => Stage::Begun,
            Self {
                commit: true,
                chunk: true,
                ..
            } => Stage::Headless,
            Self {
                chunk: false,
                claim: false,
                commit: false,
                ..
            } => return None,
            _ => Stage::Remains,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::ids::HandoffId;
    use crate::transport::{Collection, Key};

    const CHUNK: ObjectName = ObjectName::Chunk { offset: 0, len: 1 };
    const ALL: [ObjectName; 6] = [
        ObjectName::Begin,
        CHUNK,
        ObjectName::Claim,
        ObjectName::Commit,
        ObjectName::Abort,
        ObjectName::Receipt,
    ];

    /// Every set of objects that a handoff can have.
    fn sets() -> impl Iterator<Item = Vec<ObjectName>> {
        (0..1_usize << ALL.len()).map(|bits| {
            let is_in = |at: usize| bits & (1 << at) != 0;
            (0..ALL.len())
                .filter(|at| is_in(*at))
                .map(|at| ALL[at])
                .collect()
        })
    }

    #[test]
    fn each_set_of_objects_has_its_stage() {
        use ObjectName::{Abort, Begin, Claim, Commit, Receipt};
        for (objects, expected) in [
            (&[][..], None),
            (&[Begin], Some(Stage::Begun)),
            (&[Begin, CHUNK], Some(Stage::Begun)),
            (&[Begin, CHUNK, Commit], Some(Stage::Committed)),
            // An empty log has no pieces.
            (&[Begin, Commit], Some(Stage::Committed)),
            (&[Begin, CHUNK, Claim, Commit], Some(Stage::Claimed)),
            (&[Begin, Claim, Commit, Receipt], Some(Stage::Received)),
            (&[Receipt], Some(Stage::Received)),
            (&[Abort, Begin, CHUNK], Some(Stage::Withdrawn)),
            (&[Abort, Begin, CHUNK, Commit], Some(Stage::Withdrawn)),
            (&[Begin, CHUNK, Claim], Some(Stage::HalfCleared)),
            (&[CHUNK, Commit], Some(Stage::Headless)),
            (&[CHUNK], Some(Stage::Remains)),
            (&[Commit], Some(Stage::Remains)),
            (&[Claim], Some(Stage::Remains)),
        ] {
            assert_eq!(Stage::of(objects.iter().copied()), expected, "{objects:?}");
        }
    }

    #[test]
    fn what_must_hold_of_every_set() {
        for objects in sets() {
            let has = |object| objects.contains(&object);
            let stage = Stage::of(objects.iter().copied());
            assert_eq!(stage.is_none(), objects.is_empty());
            let is_over = has(ObjectName::Abort) || has(ObjectName::Receipt);
            let waits = stage.is_some_and(Stage::can_be_adopted);
            assert_eq!(waits, has(ObjectName::Begin) && !is_over, "{objects:?}");
            if stage.is_some_and(Stage::awaits_receipt) {
                assert!(has(ObjectName::Commit) && !is_over, "{objects:?}");
            }
        }
    }

    #[test]
    fn a_deletion_that_is_cut_short_leaves_nothing_to_wait_for() {
        for mut objects in sets() {
            let before = Stage::of(objects.iter().copied());
            objects.sort_by_key(|o| deletion_rank(*o));
            for gone in 0..objects.len() {
                let left = Stage::of(objects[gone..].iter().copied());
                match before {
                    Some(stage @ (Stage::Received | Stage::Withdrawn)) => {
                        assert_eq!(left, Some(stage), "{objects:?} without the first {gone}");
                    }
                    before if !before.is_some_and(Stage::awaits_receipt) => {
                        assert!(!left.is_some_and(Stage::awaits_receipt), "{objects:?}");
                    }
                    _ => {}
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_listing_has_the_stage_of_each_handoff(
            objects in proptest::collection::vec((0_u128..3, 0_u128..2, 0..ALL.len()), 0..40),
        ) {
            let console: crate::ids::ConsoleName = "serial0".parse().unwrap();
            let handoff = |domain: u128, id: u128| Handoff {
                domain: Uuid::from_u128(domain),
                console: console.clone(),
                id: Uuid::from_u128(id).to_string().parse::<HandoffId>().unwrap(),
            };
            let mut entries: Vec<Entry> = Vec::new();
            let mut model = BTreeMap::<Handoff, Vec<ObjectName>>::new();
            for (domain, id, at) in objects {
                let handoff = handoff(domain, id);
                entries.push(Entry { key: handoff.key(ALL[at]), size: 1 });
                model.entry(handoff).or_default().push(ALL[at]);
            }
            // A stream beside them is no handoff.
            entries.push(Entry {
                key: Key {
                    collection: Collection::Stream,
                    ..handoff(0, 0).key(ObjectName::Batch { offset: 0 })
                },
                size: 1,
            });
            let expected: BTreeMap<_, _> = model
                .into_iter()
                .map(|(handoff, objects)| (handoff, Stage::of(objects).unwrap()))
                .collect();
            prop_assert_eq!(stages(&entries), expected);
        }
    }
}
