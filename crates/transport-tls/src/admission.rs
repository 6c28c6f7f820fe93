//! How many may come at once.
//!
//! Must not know: who is allowed.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts by key what is there, in all and of each.
pub(crate) struct Admission<K: Eq + Hash + Clone> {
    most: usize,
    most_of_one: usize,
    counts: Mutex<Counts<K>>,
}

struct Counts<K> {
    all: usize,
    of_one: HashMap<K, usize>,
}

/// Which bound was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooMany {
    OfOne(usize),
    InAll(usize),
}

/// One that is there, until it is dropped.
pub(crate) struct Place<K: Eq + Hash + Clone> {
    of: Arc<Admission<K>>,
    key: K,
}

impl<K: Eq + Hash + Clone> Admission<K> {
    pub(crate) fn new(most: usize, most_of_one: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_of_one,
            counts: Mutex::new(Counts {
                all: 0,
                of_one: HashMap::new(),
            }),
        })
    }

    pub(crate) fn enter(self: &Arc<Self>, key: K) -> Result<Place<K>, TooMany> {
        let mut counts = self.counts();
        if counts.all >= self.most {
            return Err(TooMany::InAll(self.most));
        }
        let of_one = counts.of_one.get(&key).copied().unwrap_or_default();
        if of_one >= self.most_of_one {
            return Err(TooMany::OfOne(self.most_of_one));
        }
        counts.all = counts.all.saturating_add(1);
        counts.of_one.insert(key.clone(), of_one.saturating_add(1));
        let of = Arc::clone(self);
        Ok(Place { of, key })
    }

    /// A panic elsewhere leaves at worst a count too high.
    fn counts(&self) -> MutexGuard<'_, Counts<K>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Drop for Place<K> {
    fn drop(&mut self) {
        let mut counts = self.of.counts();
        counts.all = counts.all.saturating_sub(1);
        if let Some(of_one) = counts.of_one.get_mut(&self.key) {
            *of_one = of_one.saturating_sub(1);
            if *of_one == 0 {
                counts.of_one.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_bound_and_all_have_theirs() {
        let admission = Admission::new(3, 2);
        let first = admission.enter("a").ok().unwrap();
        let _second = admission.enter("a").ok().unwrap();
        assert_eq!(admission.enter("a").err(), Some(TooMany::OfOne(2)));
        let _other = admission.enter("b").ok().unwrap();
        assert_eq!(admission.enter("c").err(), Some(TooMany::InAll(3)));
        drop(first);
        let again = admission.enter("a");
        assert!(again.is_ok());
        drop((again, _second, _other));
        assert!(
            admission.counts().of_one.is_empty(),
            "nothing is kept of who is gone"
        );
    }
}
