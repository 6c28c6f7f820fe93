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
    domains: HashMap<Uuid, (Stay, Vm)>,
    /// The number of each one's stay here, and how many stays there have been.
    stays: HashMap<Uuid, u64>,
    count: u64,
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
        self.lock().domains.get(&domain).cloned()
    }

    /// The number of the domain's stay here: another one where it left and came back. `None` where
    /// it is not here.
    pub(super) fn number_of_stay(&self, domain: Uuid) -> Option<u64> {
        self.lock().stays.get(&domain).copied()
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
        if !here.domains.contains_key(&vm.uuid) {
            here.count = here.count.wrapping_add(1);
            let number = here.count;
            here.stays.insert(vm.uuid, number);
        }
        here.domains.insert(vm.uuid, (stay, vm));
    }

    /// A domain is not here any more.
    pub(super) fn leaves(&self, domain: Uuid) {
        let mut here = self.lock();
        here.unseen.remove(&domain);
        here.domains.remove(&domain);
        here.stays.remove(&domain);
    }

    fn lock(&self) -> MutexGuard<'_, HereNow> {
        // Each change is one step, so a panic leaves no half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
