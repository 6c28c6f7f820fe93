//! Writers as a test says them. Where no file has one, [`NoWriters`](crate::follow::NoWriters)
//! says so.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::folder::{FileId, stat_open};
use crate::follow::{Writer, Writers};

/// On or off, as the test says; off at first. A clone is the same switch.
#[derive(Clone, Debug, Default)]
pub struct Switch(Arc<AtomicBool>);

impl Switch {
    /// On, or off again.
    pub fn set(&self, on: bool) {
        self.0.store(on, Ordering::SeqCst);
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Who writes which file.
#[derive(Clone, Debug)]
pub enum FakeWriters {
    /// The same answer for every file.
    Always(Writer),
    /// Every file has a writer while this is on, and none while it is off.
    While(Switch),
    /// Whatever file has this name has a writer while the switch is on: virtlogd holds the base
    /// file open, and no rotated one.
    Base(PathBuf, Switch),
    /// This file has a writer, and no other.
    Only(FileId),
}

impl FakeWriters {
    /// Every file has a writer.
    pub const SOMEBODY: Self = Self::Always(Writer::Some);
}

impl Writers for FakeWriters {
    fn writer(&self, file: &File) -> Writer {
        let id = |file: &File| stat_open(file).ok().map(|stat| stat.id);
        let written = match self {
            Self::Always(writer) => return *writer,
            Self::While(here) => here.is_on(),
            Self::Base(path, here) => {
                here.is_on() && File::open(path).is_ok_and(|base| id(&base) == id(file))
            }
            Self::Only(one) => id(file) == Some(*one),
        };
        if written { Writer::Some } else { Writer::None }
    }
}
