//! Whether a log on this host is whole, and what mends it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logchain_core::OkLogged as _;
use logchain_core::chain::{self, LogChain, Numbering, NumberingChoice};
use logchain_core::folder::Folder;
use logchain_core::offsets::Offsets;
use logchain_core::placement::{ChainWorkspace, Rules};
use logchain_core::record::Record;
use logchain_core::verify::{self as core, Finding, Repair, Verdict};

use crate::leases::Leases;
use crate::limits::{self, Limits};
use crate::{Error, Events, Result, neighbours};

/// Which log is looked at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Its base file.
    pub path: PathBuf,
    /// How its rotated files are numbered.
    pub numbering: NumberingChoice,
    /// Mend what can be mended.
    pub repair: bool,
    /// Why what the guest prints is not in the file at the path, where that is known:
    /// [`astray::sentence`](crate::astray::sentence).
    pub not_written_here: Option<String>,
}

impl Options {
    /// Looks, and changes nothing.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            numbering: NumberingChoice::Auto,
            repair: false,
            not_written_here: None,
        }
    }
}

/// What was found, and what was mended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// What is so now.
    pub verdict: Verdict,
    /// What was mended, a sentence each.
    pub repaired: Vec<String>,
}

/// Looks at a log, and mends it where [`Options::repair`] says so. Blocks on files.
///
/// # Errors
/// [`Error::Chain`] where the log cannot be opened; [`Error::Placement`] where it cannot be
/// mended.
pub fn verify(options: &Options, events: &Events) -> Result<Report> {
    let elsewhere = options.not_written_here.as_ref();
    let chain = neighbours::chain(&options.path, options.numbering).map_err(Error::from);
    let chain = match elsewhere {
        // Its folder was removed or renamed under it, maybe.
        Some(elsewhere) => chain.map_err(|e| e.meaning(elsewhere.clone()))?,
        None => chain?,
    };
    let numbering = chain.numbering();
    let limits = limits::limits();
    limits.warn(events);
    let rules = Rules {
        numbering,
        ..limits.rules(&options.path)
    };
    // What is numbered from one is not virtlogd's.
    let limit = rules.retention.max_backups;
    let limit = limit.filter(|_| numbering == Numbering::FromZero);
    let look = || -> Result<Verdict> {
        let mut verdict = match core::verify(&chain, limit) {
            // Of a removed log there may be no file left.
            Err(chain::Error::NotFound { .. }) if elsewhere.is_some() => Verdict::default(),
            verdict => verdict?,
        };
        add_cleaned(&mut verdict, &chain, &limits)?;
        Ok(verdict)
    };
    let mut verdict = look()?;
    let mut repaired = Vec::new();
    if options.repair {
        // Finishing what was begun changes what else there is to mend.
        for repair in [Repair::Recover, Repair::SetRecordAside, Repair::CloseGaps] {
            if verdict.findings.iter().any(|f| f.repair() == Some(repair)) {
                repaired.push(mend(repair, &options.path, rules)?);
                verdict = look()?;
            }
        }
    }
    let elsewhere = elsewhere.map(|reason| Finding::NotWrittenHere {
        reason: reason.clone(),
    });
    verdict.findings.extend(elsewhere);
    Ok(Report { verdict, repaired })
}

/// What lies beyond the rotation stays, but where virtlogd clears up there.
fn add_cleaned(verdict: &mut Verdict, chain: &LogChain, limits: &Limits) -> Result<()> {
    let cleaned = limits.cleaned(&chain.path())?;
    verdict.findings.retain(|finding| {
        let Finding::OutOfReach { name, .. } = finding else {
            return true;
        };
        !cleaned
            .iter()
            .any(|c| matches!(c, Finding::Cleaned { name: cleaned, .. } if cleaned == name))
    });
    verdict.findings.extend(cleaned);
    Ok(())
}

fn mend(repair: Repair, path: &Path, rules: Rules) -> Result<String> {
    let writers = Arc::new(Leases::default());
    Ok(match repair {
        Repair::Recover => {
            ChainWorkspace::recover_all(path, rules, writers)?;
            "what was begun is finished or undone".to_owned()
        }
        Repair::CloseGaps => {
            // Afterwards no name tells that bytes are missing there. Where it cannot be put
            // down, a file is damaged or the record is, which is told by itself.
            let chain = neighbours::chain(path, rules.numbering.into())?;
            if let Ok(offsets) = Offsets::of(&chain) {
                let kept = offsets.remember(&chain);
                kept.ok_logged("nothing tells any more that bytes are missing in this gap");
            }
            let moved = ChainWorkspace::close_gaps(path, rules, writers)?;
            format!("{moved} rotated files were renamed")
        }
        Repair::SetRecordAside => {
            let (folder, base) = Folder::of_file(path)?;
            let name = Record::name(&base);
            let mut aside: OsString = name.clone();
            aside.push(".damaged");
            folder.rename_over(&name, &aside)?;
            format!("the damaged record is now {}", aside.display())
        }
    })
}
