//! A migration: virsh's options, checked before anything is touched, and the
//! call itself, its progress and its end by hand.
//!
//! Must not know: what becomes of the log. What the call answers is not the
//! last word on where the guest is: that is [`crate::outcome`].

mod options;

pub use options::{MigrateFlags, MigrateParams, MigrateRequest};

use std::time::Duration;

use virt::error::ErrorNumber;
use virt_sys as sys;

use crate::connection::Connection;
use crate::domain::Domain;
use crate::{Error, Result, ffi};

/// Migrates `domain`, and returns when libvirt says that it is over.
///
/// `dest` is this process's own connection to the destination. Without `p2p` and
/// `direct` it is needed: this process then drives the migration, and libvirt
/// ends it should the connection break. With either it is not used.
///
/// Dropping the future does not end the migration: [`abort`] does.
///
/// # Errors
/// [`Error::BadRequest`] before anything was touched. Anything else is libvirt's
/// answer, after which the state of both hosts has to be asked for.
pub async fn migrate(
    domain: &Domain,
    dest: Option<&Connection>,
    request: &MigrateRequest,
) -> Result<()> {
    request.check()?;
    let action = format!("migrate {} to {}", domain.name(), request.dest_uri);
    let flags = request.flags.bits();
    let dest_uri = options::c_text(&request.dest_uri)?;
    let params = request.params.values()?;
    if request.flags.p2p || request.flags.direct {
        return domain
            .ask_patiently(&action, move |domain| {
                ffi::migrate_to_uri3(domain, &dest_uri, &params, flags)
            })
            .await;
    }
    let Some(dest) = dest.cloned() else {
        return Err(Error::BadRequest(format!(
            "migrating without --p2p needs a connection to {}",
            request.dest_uri
        )));
    };
    domain
        .ask_patiently(&action, move |domain| {
            let Some(dest) = dest.raw() else {
                return Err(virt::error::Error::last_error());
            };
            ffi::migrate3(domain, dest, &params, flags)
        })
        .await
}

/// How far a job is. All in bytes; a figure that is not known (yet) is 0, and
/// `total` can grow while the guest dirties its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct JobProgress {
    /// Time since it began.
    pub elapsed: Duration,
    /// Memory and disks.
    pub total: u64,
    /// Of `total`, what has been sent.
    pub processed: u64,
    /// Of `total`, what is to be sent.
    pub remaining: u64,
    /// Of `total`, the memory.
    pub memory_total: u64,
    /// Of `remaining`, the memory.
    pub memory_remaining: u64,
    /// Of `total`, the disks.
    pub disk_total: u64,
    /// Of `remaining`, the disks.
    pub disk_remaining: u64,
}

impl JobProgress {
    fn from_raw(info: &sys::virDomainJobInfo) -> Option<Self> {
        let runs = [sys::VIR_DOMAIN_JOB_BOUNDED, sys::VIR_DOMAIN_JOB_UNBOUNDED];
        runs.contains(&info.type_.cast_unsigned()).then_some(Self {
            elapsed: Duration::from_millis(info.timeElapsed),
            total: info.dataTotal,
            processed: info.dataProcessed,
            remaining: info.dataRemaining,
            memory_total: info.memTotal,
            memory_remaining: info.memRemaining,
            disk_total: info.fileTotal,
            disk_remaining: info.fileRemaining,
        })
    }

    /// Between 0 and 1, as virsh reckons; `None` before libvirt knows the total.
    #[must_use]
    pub fn fraction(&self) -> Option<f64> {
        if self.total == 0 {
            return None;
        }
        let done = self.total.saturating_sub(self.remaining);
        // Exact to 2^53 bytes; it is for a bar.
        #[expect(clippy::cast_precision_loss, reason = "a bar has less than 2^53 steps")]
        let fraction = done as f64 / self.total as f64;
        Some(fraction)
    }
}

/// How far the domain's job is; `None` where none runs, or the domain does not
/// run any more. All figures are 0 while the destination is being prepared.
///
/// # Errors
/// [`Error::Unsupported`], [`Error::NoAnswer`], [`Error::Lost`].
pub async fn progress(domain: &Domain) -> Result<Option<JobProgress>> {
    let info = domain
        .ask("ask how far the migration is", |domain, _| {
            match ffi::job_info(domain) {
                // How a QEMU that is gone already is told, for a moment.
                Err(e) if e.code() == ErrorNumber::OperationInvalid => Ok(None),
                Err(e) if e.code() == ErrorNumber::NoDomain => Ok(None),
                other => other.map(Some),
            }
        })
        .await?;
    Ok(info.as_ref().and_then(JobProgress::from_raw))
}

/// Ends the domain's migration; the guest goes on at the source. Ask the source.
///
/// # Errors
/// [`Error::Failed`] where none runs, or one that can no longer be ended
/// (post-copy); [`Error::NoDomain`], [`Error::NoAnswer`], [`Error::Lost`].
pub async fn abort(domain: &Domain) -> Result<()> {
    domain
        .ask("cancel the migration", |domain, _| ffi::abort_job(domain))
        .await
}

/// Switches a migration that was begun with `postcopy` to post-copy.
///
/// # Errors
/// As [`abort`].
pub async fn start_post_copy(domain: &Domain) -> Result<()> {
    domain
        .ask("switch the migration to post-copy", |domain, _| {
            ffi::start_post_copy(domain)
        })
        .await
}

#[cfg(test)]
mod tests;
