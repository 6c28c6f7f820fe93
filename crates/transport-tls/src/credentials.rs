//! The certificates in force. They are read again where their files changed, which is looked at
//! before each handshake; where the new ones are of no use, the old ones stay in force.
//!
//! Must not know: what is in the files.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ClientConfig;
use tracing::{info, warn};

use crate::files::Stamp;
use crate::pki::{Pki, PkiError, Tls};

type Tell = dyn Fn(&PkiError) + Send + Sync;

/// Who is told, once for each change, that changed certificates are of no use and the old ones
/// stay in force. They are told to `tracing` in any case.
#[derive(Clone, Default)]
pub struct Notice(Option<Arc<Tell>>);

impl Notice {
    /// Tells this function, on a thread that may block.
    pub fn new(tell: impl Fn(&PkiError) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Notice" } else { "none" })
    }
}

pub(crate) struct Credentials<T> {
    pki: Pki,
    notice: Notice,
    state: Mutex<State<T>>,
}

struct State<T> {
    in_force: Arc<T>,
    /// Of the files as they were looked at last, whether or not they were of use.
    stamps: Vec<Stamp>,
}

impl<T: Tls> Credentials<T> {
    pub(crate) async fn load(pki: Pki, notice: Notice) -> Result<Arc<Self>, PkiError> {
        let credentials = move || {
            // Files that change while they are read are found to have changed.
            let stamps = T::stamps(&pki);
            let in_force = Arc::new(T::load(&pki)?);
            let state = Mutex::new(State { in_force, stamps });
            Ok(Arc::new(Self { pki, notice, state }))
        };
        blocking(credentials).await
    }

    pub(crate) fn pki(&self) -> &Pki {
        &self.pki
    }

    /// What a handshake that begins now uses.
    pub(crate) async fn current(self: &Arc<Self>) -> Arc<T> {
        let ours = Arc::clone(self);
        blocking(move || ours.look()).await
    }

    fn look(&self) -> Arc<T> {
        let stamps = T::stamps(&self.pki);
        let mut state = self.state();
        if state.stamps == stamps {
            return Arc::clone(&state.in_force);
        }
        let loaded = T::load(&self.pki);
        state.stamps = stamps;
        let unfit = match loaded {
            Ok(new) => {
                info!(certificate = %T::certificate(&self.pki).display(), "certificates read again");
                state.in_force = Arc::new(new);
                None
            }
            Err(e) => Some(e),
        };
        let in_force = Arc::clone(&state.in_force);
        drop(state);
        if let Some(error) = unfit {
            warn!(%error, "changed certificates are of no use: the old ones stay in force");
            if let Notice(Some(tell)) = &self.notice {
                tell(&error);
            }
        }
        in_force
    }

    /// A panic elsewhere leaves it whole.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// On a thread for what blocks. What panics there panics here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only where the runtime ends, and this with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// A host's certificate for connecting to other hosts; any number of links may share it.
#[derive(Clone)]
pub struct ClientCredentials(pub(crate) Arc<Credentials<ClientConfig>>);

impl ClientCredentials {
    /// Reads the CA's certificates and the client's certificate and key. They are read again,
    /// before a handshake, when they changed.
    ///
    /// # Errors
    /// [`PkiError`] where one of the files is of no use.
    pub async fn load(pki: Pki, notice: Notice) -> Result<Self, PkiError> {
        Credentials::load(pki, notice).await.map(Self)
    }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = self.0.pki().client_certificate.display();
        write!(f, "ClientCredentials({certificate})")
    }
}
