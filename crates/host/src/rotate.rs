//! Rotates the log of a running domain now, as virtlogd itself rolls logs over: the files get
//! their next names, and virtlogd is asked to open its logs anew.

use std::fs::{DirBuilder, File};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use logchain_core::BoxError;
use logchain_core::chain::Numbering;
use logchain_core::departure::DEFAULT_STATE;
use logchain_core::folder::{self, Folder};
use logchain_core::placement::Rules;
use logchain_core::placement::roll::{Reopen, Rolled, roll};
use logchain_core::rotation::Retention;
use logchain_libvirt::Connection;
use logchain_libvirt::consoles::consoles;
use logchain_libvirt::virtlogd::{Virtlogd, Writer, writer_of};
use logchain_libvirt::virtlogd_conf::{LogLimits, MAX_BACKUPS, cleaner, limits};

use crate::blocking::blocking;
use crate::event::Rotation;
use crate::leases::Leases;
use crate::limits::{cleaned_by, doubt_of};
use crate::stop::Stop;
use crate::{Error, Event, Events, Result, consoles};

/// Which log is rotated.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Name or UUID of the domain.
    pub domain: String,
    /// Which console, as libvirt names it; the first one without it.
    pub console: Option<String>,
    /// URI of the hypervisor here; libvirt's default without it.
    pub connect: Option<String>,
    /// Folder of what logchain remembers of this host.
    pub state: PathBuf,
}

impl Options {
    /// `logchain rotate` with its defaults.
    #[must_use]
    pub fn new(domain: impl Into<String>) -> Self {
        Self {
            domain: domain.into(),
            console: None,
            connect: None,
            state: DEFAULT_STATE.into(),
        }
    }
}

/// virtlogd is back within a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long another rotation on this host is waited for.
const TURN: Duration = Duration::from_secs(60);

/// Rotates one log; tells [`Event::Rotated`] or [`Event::Empty`].
///
/// # Errors
/// [`Error::Refused`] and [`Error::Virtlogd`] before anything is moved; [`Error::Roll`] says
/// how far it came.
pub async fn rotate(options: Options, events: &Events, stop: &Stop) -> Result<()> {
    let uri = options.connect.as_deref();
    let prepare = async {
        let found = consoles::console(uri, &options.domain, options.console.as_deref()).await?;
        if !found.0.state().await?.is_active() {
            let name = found.0.name();
            return Err(Error::Refused(format!(
                "domain {name} does not run here; only a log that is written is rotated"
            )));
        }
        let others = others_are_safe(found.0.connection()).await?;
        let state = options.state.clone();
        let turn = blocking(move || take_turn(&state)).await?;
        Ok((found, others, turn))
    };
    let ((domain, console), others, turn) = stop.or(prepare).await?;
    let name = domain.name();
    let path = console.path.clone();
    let told = events.clone();
    // It cannot be stopped from here on, and is over soon.
    let rolled = blocking(move || rotate_file(&path, others, &told)).await?;
    drop(turn);
    let (by, bytes) = match rolled {
        Rolled::Asked(bytes) => (Some("logchain"), Some(bytes)),
        Rolled::ByItself => (Some("virtlogd"), None),
        Rolled::Empty => (None, None),
    };
    let rotation = Rotation {
        domain: name.to_owned(),
        uuid: domain.uuid(),
        console: console.name.clone(),
        path: console.path.display().to_string(),
        bytes,
        by: by.map(str::to_owned),
    };
    events.tell(match by {
        Some(_) => Event::Rotated(rotation),
        None => Event::Empty(rotation),
    });
    Ok(())
}

/// Checks that virtlogd can open every log anew, and gives the logs of all running domains.
/// virtlogd ends at the first log that it cannot open, and every guest loses its log.
async fn others_are_safe(connection: &Connection) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for domain in connection.domains().await? {
        if !domain.state().await?.is_active() {
            continue;
        }
        let xml = match domain.live_xml().await {
            Err(logchain_libvirt::Error::NoDomain { .. }) => continue,
            xml => xml?,
        };
        let found = consoles(&xml)?;
        let name = domain.name().to_owned();
        paths.extend(found.iter().map(|console| console.path.clone()));
        let look = move || {
            for console in found {
                let folder = console.path.parent().unwrap_or(Path::new("/"));
                if !folder.is_dir() {
                    return Err(Error::Refused(format!(
                        "the folder of the log of domain {name}, {}, is gone: virtlogd would end \
                         if it were asked to open its logs anew; make it again",
                        folder.display()
                    )));
                }
            }
            Ok(())
        };
        blocking(look).await?;
    }
    Ok(paths)
}

/// virtlogd, and the log that it is asked to open anew.
struct VirtlogdReopen {
    virtlogd: Virtlogd,
    path: PathBuf,
    /// Every guest's log.
    others: Vec<PathBuf>,
}

impl Reopen for VirtlogdReopen {
    fn ask(&self) -> std::result::Result<(), BoxError> {
        Ok(self.virtlogd.reopen_logs(&self.path, &self.others)?)
    }

    fn writes(&self, file: &File) -> std::result::Result<bool, BoxError> {
        Ok(self.virtlogd.writes(file)?)
    }
}

/// Waits for other rotations on this host: virtlogd must not be asked again while it executes
/// itself anew.
fn take_turn(state: &Path) -> Result<OwnedFd> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(state);
    created.map_err(|source| Error::Io {
        action: format!("cannot create {}", state.display()),
        source,
    })?;
    let turn = Folder::open(state)?.lock(TURN)?;
    turn.ok_or_else(|| {
        let busy = "another rotation is under way on this host; try again when it is done";
        Error::Refused(busy.to_owned())
    })
}

fn rotate_file(path: &Path, others: Vec<PathBuf>, events: &Events) -> Result<Rolled> {
    let asked = VirtlogdReopen {
        virtlogd: who_writes(path)?,
        path: path.to_owned(),
        others,
    };
    // Whatever would end virtlogd is refused before any file is moved.
    let virtlogd = &asked.virtlogd;
    virtlogd.sees(path)?;
    virtlogd.could_reopen(path, &asked.others)?;
    let pid = virtlogd.number();
    let found = virtlogd.configuration();
    let found = found.map_err(|source| Error::Io {
        action: format!("cannot see what virtlogd (process {pid}) keeps"),
        source,
    })?;
    let text = found.text.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let limits = limits(&text).value;
    let rules = rules(limits, found.in_doubt).ok_or_else(|| {
        Error::Refused(format!(
            "{} keeps no rotated file (max_backups = 0): rotating {} would drop it",
            found.path.display(),
            path.display()
        ))
    })?;
    virtlogd.try_start()?;
    if found.in_doubt {
        let doubt = doubt_of(&found.path, pid);
        events.warn(format!(
            "{doubt}, which rotating does; no rotated file is dropped for now"
        ));
    }
    let writers = Arc::new(Leases::default());
    let rolled = roll(path, rules, writers, &asked, PATIENCE)?;
    // virtlogd has loaded its configuration now.
    let cleaner = cleaner(&text);
    match cleaner.map(|cleaner| cleaned_by(&cleaner, path)) {
        Some(Ok(findings)) => findings.iter().for_each(|f| events.warn(f.to_string())),
        // The log is rotated; only this look at it failed.
        Some(Err(e)) => events.warn(format!("{e:#}")),
        None => {}
    }
    Ok(rolled)
}

/// How many rotated files may be there afterwards: as many as virtlogd keeps, also where it
/// never rolls over by itself, since at the next start of the domain it clears these numbers and
/// no others. `in_doubt`: which configuration it has loaded is not known, so nothing is dropped
/// that the largest one would keep.
fn rules(limits: LogLimits, in_doubt: bool) -> Option<Rules> {
    let max_backups = NonZeroU32::new(limits.max_backups)?;
    let most = NonZeroU32::new(MAX_BACKUPS).filter(|_| in_doubt);
    let retention = Retention {
        max_size: limits.max_size.filter(|_| !in_doubt),
        max_backups: Some(most.unwrap_or(max_backups)),
        only_when_full: !in_doubt,
    };
    Some(Rules {
        numbering: Numbering::FromZero,
        retention,
    })
}

/// How often the writer is looked for: a flood of output rolls a log over every few seconds.
const LOOKS: usize = 10;

/// The virtlogd that has the log open.
fn who_writes(path: &Path) -> Result<Virtlogd> {
    let (folder, base) = Folder::of_file(path)?;
    let mut names = vec![base.clone()];
    // A rotation that was killed in the middle left no base.
    let mut first = base;
    first.push(".0");
    names.push(first);
    let mut others = Vec::new();
    // The log may be rolled over between its opening and the look at who has it open.
    let tries = std::iter::repeat_n(names, LOOKS).flatten();
    for name in tries {
        let file = match folder.open_file(&name) {
            Ok((file, _)) => file,
            Err(folder::Error::NotFound { .. }) => continue,
            Err(e) => return Err(e.into()),
        };
        let writer = writer_of(&file).map_err(|source| Error::Io {
            action: "cannot see who writes the log".to_owned(),
            source,
        })?;
        match writer {
            Writer::Virtlogd(found) => return Ok(found),
            Writer::Others(found) => others = found,
            Writer::Nobody => {}
        }
    }
    let path = path.display();
    Err(Error::Refused(match others.is_empty() {
        true => format!(
            "nobody who can be seen writes {path}: run this as root on the host itself, while \
             virtlogd runs"
        ),
        false => format!(
            "{path} is written by {}, not by virtlogd alone, which could be asked to open it anew \
             (stdio_handler in qemu.conf says who writes logs)",
            others.join(" and ")
        ),
    }))
}
