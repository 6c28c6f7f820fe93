//! Which domains are here and where each stands: what `host` finds out, for all other rooms.
//!
//! Must not know: how that is found out, logs.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use logchain_libvirt::Connection;
use uuid::Uuid;

use super::Vm;
use super::stay::Stay;

/// How an incoming migration goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The guest does not run here yet.
    Coming,
    /// It runs here, from this moment on.
    Came(std::time::Instant),
    /// It will not come.
    Never,
}

/// What others may know of the domains here.
#[derive(Clone, Default)]
pub(super) struct Here(Arc<Mutex<HereNow>>);

#[derive(Default)]
struct HereNow {
    connection: Option<Connection>,
    /// Where each domain stands, and the number of its stay.
    domains: HashMap<Uuid, (Stay, Vm, u64)>,
    /// How many stays there have been.
    stays: u64,
    /// Domains that came by migration before anybody here saw them come.
    unseen: HashSet<Uuid>,
}

impl Here {
    /// The connection to libvirt, while there is one.
    pub(super) fn connection(&self) -> Option<Connection> {
        self.lock().connection.clone()
    }

    /// Where a domain stands; `None` where it is not here.
    pub(super) fn stay(&self, domain: Uuid) -> Option<(Stay, Vm)> {
        let here = self.lock();
        let (stay, vm, _) = here.domains.get(&domain)?;
        Some((*stay, vm.clone()))
    }

    /// The number of the domain's stay here: another one where it left and came back. `None` where
    /// it is not here.
    pub(super) fn number_of_stay(&self, domain: Uuid) -> Option<u64> {
        self.lock()
            .domains
            .get(&domain)
            .map(|(_, _, number)| *number)
    }

    /// Whether the domain came by migration, and nobody here saw from where.
    pub(super) fn came_unseen(&self, domain: Uuid) -> bool {
        self.lock().unseen.contains(&domain)
    }

    /// For tests: a domain that is here, and whether it came before anybody saw it come.
    #[cfg(test)]
    pub(super) fn put(&self, vm: Vm, stay: Stay, is_unseen: bool) {
        if is_unseen {
            self.comes_unseen(vm.uuid);
        }
        self.enters(vm, stay);
    }

    /// libvirt is connected, or not any more.
    pub(super) fn connected(&self, connection: Option<Connection>) {
        self.lock().connection = connection;
    }

    /// A domain came by migration before anybody here saw it come.
    pub(super) fn comes_unseen(&self, domain: Uuid) {
        self.lock().unseen.insert(domain);
    }

    /// Where a domain stands from now on.
    pub(super) fn enters(&self, vm: Vm, stay: Stay) {
        let mut here = self.lock();
        let number = match here.domains.get(&vm.uuid) {
            Some((_, _, number)) => *number,
            None => {
                here.stays = here.stays.wrapping_add(1);
                here.stays
            }
        };
        here.domains.insert(vm.uuid, (stay, vm, number));
    }

    /// A domain is not here any more.
    pub(super) fn leaves(&self, domain: Uuid) {
        let mut here = self.lock();
        here.unseen.remove(&domain);
        here.domains.remove(&domain);
    }

    fn lock(&self) -> MutexGuard<'_, HereNow> {
        // Each change is one step, so a panic leaves no half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
