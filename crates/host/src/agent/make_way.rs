//! A guest has left. Where its next start goes on behind what is in its log (`append='on'`), the
//! base file gets the name of a rotated one, handed over or not: what the guest prints here later
//! is another part of its log, and history may belong between the two.
//!
//! Must not know: whether the log was carried, and where to.

use std::path::PathBuf;
use std::sync::Arc;

use crate::leases::Leases;
use logchain_core::chain::{Numbering, NumberingChoice};
use logchain_core::placement::ChainWorkspace;

use super::known::KnownLog;
use crate::blocking::blocking;

/// Has the log make way, if it has to.
pub(super) async fn make_way(known: &KnownLog, numbering: NumberingChoice) {
    if known.appends {
        rotate_away(known.log.path.clone(), numbering).await;
    }
}

/// Has the log at this path make way, whether its next start appends or not.
pub(super) async fn rotate_away(path: PathBuf, numbering: NumberingChoice) {
    let numbering = match numbering {
        NumberingChoice::FromOne => Numbering::FromOne,
        _ => Numbering::FromZero,
    };
    let rotate = blocking(move || {
        let writers = Arc::new(Leases::default());
        Ok(ChainWorkspace::rotate_away(&path, numbering, writers)?)
    });
    match rotate.await {
        Ok(done) => tracing::debug!(done, "the log makes way for the next stay"),
        Err(e) => tracing::debug!(error = %e.sentence(), "the log stays in the way"),
    }
}
