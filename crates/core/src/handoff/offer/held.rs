//! The chain at the source: held open from before the migration, and what its record
//! tells the next host.
//!
//! Must not know: the transport.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use uuid::Uuid;

use crate::OkLogged as _;
use crate::chain::{LogChain, Remark};
use crate::clock::millisecond;
use crate::folder::Folder;
use crate::follow::{Follower, Writers};
use crate::handoff::pump::Drained;
use crate::handoff::{Error, Handoff};
use crate::ids::{ConsoleName, HandoffId};
use crate::outbox::Keeper;
use crate::record::{Offered, Record};
use crate::stream::{History, Ledger, Seen, StreamOffset};

/// A chain held open from before the migration.
pub struct Held {
    follower: Follower,
    folder: Folder,
    base: OsString,
    /// As it was then: the folder, and the record in it, may go.
    record: Record,
    known: Arc<Known>,
    /// What was committed of it, once it is.
    committed: Arc<OnceLock<Offered>>,
}

impl Held {
    /// Opens every file of the chain, and puts down beside it whose log it is:
    /// should it stay here, it is recognised when the VM comes back.
    pub fn open(
        chain: &LogChain,
        domain: Uuid,
        console: &ConsoleName,
    ) -> Result<Self, crate::follow::Error> {
        Self::open_with(chain, None, domain, console)
    }

    /// As [`Held::open`], where the log is written to a file that has lost its name: see
    /// [`Follower::begin_with`].
    pub fn open_with(
        chain: &LogChain,
        newest: Option<File>,
        domain: Uuid,
        console: &ConsoleName,
    ) -> Result<Self, crate::follow::Error> {
        let follower = match newest {
            None => Follower::begin(chain)?,
            Some(newest) => Follower::begin_with(chain, newest)?,
        };
        Self::of_follower(chain, follower, None, domain, console)
    }

    /// As [`Held::open`], of files that somebody holds already. `remembered` is the record
    /// as it was when it could last be read: the folder may be gone, and the record with it.
    pub(crate) fn of_follower(
        chain: &LogChain,
        follower: Follower,
        remembered: Option<Record>,
        domain: Uuid,
        console: &ConsoleName,
    ) -> Result<Self, crate::follow::Error> {
        let (folder, base) = (chain.folder(), chain.base_name());
        // Where nothing can be written, or what is there is damaged, the log
        // goes all the same.
        let record = Record::update(folder, base, domain, console, |record| record.clone());
        let record = record.or_else(|e| {
            let there = Record::read(folder, base, domain, console)?;
            there.ok_or(e)
        });
        let record = record.ok_logged("the log goes with what was remembered of it before, if any");
        let record = record.or(remembered);
        let mut record = record.unwrap_or_else(|| Record::new(domain, console.clone()));
        let recorded = record.ledger.clone();
        record.ledger = follower.recognise(&recorded)?;
        let here = record.offered.as_ref().filter(|o| follower.has_offered(o));
        let known = Known {
            recorded,
            recognised: record.ledger.clone(),
            offered: here.map(|o| o.handoff),
        };
        Ok(Self {
            follower,
            folder: folder.try_clone()?,
            base: base.to_owned(),
            record,
            known: Arc::new(known),
            committed: Arc::default(),
        })
    }

    /// Puts down beside the chain that this handoff of it begins. A destination that
    /// finds that beside its own log has the same folder.
    pub fn announce(&self, handoff: &Handoff) -> Result<(), crate::record::Error> {
        announce(&self.folder, &self.base, handoff)
    }

    /// A second hold, for as long as it is not known to have arrived.
    ///
    /// # Errors
    /// [`Error::Follow`] or [`Error::Thread`], where descriptors or threads are wanting.
    pub fn keep(&self, writers: Arc<dyn Writers>) -> Result<Keeper, Error> {
        let follower = self.follower.try_clone()?;
        let (record, committed) = (self.record.clone(), Arc::clone(&self.committed));
        let keeper = Keeper::start(follower, record, committed, writers);
        keeper.map_err(Error::Thread)
    }

    /// What is committed of it, once it is.
    pub(crate) fn committed(&self) -> Arc<OnceLock<Offered>> {
        Arc::clone(&self.committed)
    }

    /// What of the chain is not carried, and where its order is in doubt.
    #[must_use]
    pub fn remarks(&self) -> &[Remark] {
        self.follower.remarks()
    }

    pub(super) fn apart(self) -> (Follower, Chain) {
        let Self {
            follower,
            folder,
            base,
            record,
            known,
            committed,
        } = self;
        let chain = Chain {
            folder,
            base,
            record,
            known,
            committed,
            may_be_committed: Arc::default(),
        };
        (follower, chain)
    }

    /// What is held, and what was remembered of it.
    #[cfg(test)]
    pub(crate) fn into_parts(self) -> (Follower, Record) {
        (self.follower, self.record)
    }

    /// How many bytes there were when it was opened, as they lie on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.follower.bytes()
    }
}

/// As [`Held::announce`].
pub(super) fn announce(
    folder: &Folder,
    base: &OsStr,
    handoff: &Handoff,
) -> Result<(), crate::record::Error> {
    Record::update(folder, base, handoff.domain, &handoff.console, |record| {
        record.begun = Some(handoff.id);
    })
}

/// What was known of the files when they were opened.
pub(super) struct Known {
    /// As the record had it.
    recorded: Ledger,
    /// By the files that held it.
    recognised: Ledger,
    /// The last handoff from here, where all that it held was in them.
    offered: Option<HandoffId>,
}

/// Where a chain is, and what was remembered of it when it was opened.
pub(super) struct Chain {
    pub(super) folder: Folder,
    pub(super) base: OsString,
    pub(super) record: Record,
    pub(super) known: Arc<Known>,
    pub(super) committed: Arc<OnceLock<Offered>>,
    /// What an earlier run committed as this handoff may be on its way still, and may be
    /// all that there is of it some day: it is not withdrawn, unless it can never be whole.
    pub(super) may_be_committed: Arc<AtomicBool>,
}

impl Chain {
    /// Whether an earlier run committed it as this, or tried to.
    pub(super) fn was_offered_as(&self, id: HandoffId) -> bool {
        let offered = self.record.offered.as_ref();
        offered.is_some_and(|o| o.handoff == id)
    }
}

/// What the next host is told of a history.
pub(super) type CommittedHistory = (History, Vec<HandoffId>);

/// Where what is there before the migration lies in the stream.
pub(super) fn so_far(record: &Record, follower: &Follower, host: &str) -> Option<History> {
    let layout = record
        .ledger
        .lay(&follower.lengths(), StreamOffset::START)
        .ok_logged("pieces that are streamed already are put again")?;
    Some(record.ledger.history(&layout, host, &[]))
}

/// What the next host is told in the handoff `own`; this one remembers where its files
/// lay. Said again in the same handoff, it is the same.
pub(super) fn history(
    record: &mut Record,
    known: &Known,
    drained: &Drained,
    host: &str,
    own: HandoffId,
) -> CommittedHistory {
    // An earlier handoff of the same files, which nobody confirmed: whoever
    // adopts both must not have it twice.
    let earlier = record.offered.as_ref().filter(|o| o.handoff != own);
    let earlier = earlier.filter(|o| known.offered == Some(o.handoff));
    let moved = |id| drained.moved.iter().find(|(was, _)| *was == id);
    let now = |id| moved(id).map_or(id, |(_, now)| *now);
    let here = |id| drained.files.iter().any(|f| f.id == now(id));
    let earlier = earlier.filter(|o| o.lies_in(here));
    let earlier = earlier.map(|o| o.handoff);
    record.contain(earlier.as_slice());
    let contains = record.contains.clone();

    // What anybody wrote down meanwhile he saw in the files themselves.
    if record.ledger == known.recorded {
        record.ledger = known.recognised.clone();
    }
    for (was, now) in &drained.moved {
        // Else it is known by what it holds since it was emptied.
        if record.ledger.agrees_on(&known.recognised, *was) {
            record.ledger.moved_to(*was, *now);
        }
    }
    let seen = drained.files.iter().map(|f| Seen::plain(f.id, f.given));
    let Ok(layout) = record
        .ledger
        .lay(&seen.collect::<Vec<_>>(), StreamOffset::START)
    else {
        // Only a length could be wanting, and all are known.
        return (History::of(drained.bytes), contains);
    };
    let missed: Vec<u64> = drained.missed.iter().map(|m| m.offset).collect();
    let last = drained.files.iter().rfind(|file| file.given > 0);
    let at = last.and_then(|file| file.written).and_then(millisecond);
    record.ledger.end_segment(own, layout.end(), at);
    let history = record.ledger.history(&layout, host, &missed);
    record.ledger.remember(&layout);
    for file in drained.files.iter().filter(|f| !f.compressed) {
        if let Some(print) = file.print {
            record.ledger.held(file.id, print);
        }
    }
    (history, contains)
}
