//! A connection to the libvirt of one host.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{debug, trace};
use uuid::Uuid;
use virt::connect::Connect;
use virt::error::{Error as VirtError, ErrorNumber};

use crate::call::{self, Failure};
use crate::domain::Domain;
use crate::events::{self, LifecycleEvents, Passes};
use crate::uri::Uri;
use crate::{Error, Result, capabilities, ffi};

/// How long [`Connection::open`] waits.
pub(crate) const OPEN_LIMIT: Duration = Duration::from_secs(15);

/// How long any other question to a host may take. libvirt itself gives a
/// silent host up after [`KEEPALIVE_SECONDS`] × [`KEEPALIVE_COUNT`].
pub(crate) const ASK_LIMIT: Duration = Duration::from_secs(30);

const KEEPALIVE_SECONDS: i32 = 5;
const KEEPALIVE_COUNT: u32 = 5;

/// A connection to the libvirt of one host. Clones share it.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None` only while it is dropped.
    connect: Option<Connect>,
    uri: String,
    hostname: String,
    watched: bool,
    closed: watch::Receiver<bool>,
}

impl Connection {
    /// Connects to `uri`, or to what libvirt takes where none is given
    /// (`LIBVIRT_DEFAULT_URI`, its client's configuration, the local system).
    ///
    /// Starts the event loop first: events and keepalive need it. A host that
    /// falls silent is given up after 25 s, where its driver can tell.
    ///
    /// # Errors
    /// [`Error::NoAnswer`] after 15 s, [`Error::Connect`].
    pub async fn open(uri: Option<&str>) -> Result<Self> {
        Self::open_within(uri, OPEN_LIMIT).await
    }

    /// As [`Connection::open`], with another limit.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn open_within(uri: Option<&str>, limit: Duration) -> Result<Self> {
        events::EventLoop::start()?;
        let asked = uri.unwrap_or("the default libvirt").to_owned();
        let given = uri.map(str::to_owned);
        if uri.is_some_and(|uri| uri.contains('\0')) {
            return Err(Error::BadRequest(format!("{asked:?} is not a URI")));
        }
        let answer = call::call(Some(limit), move || {
            let bare = |error| Failure::Libvirt { error, alive: true };
            let connect = Connect::open(given.as_deref()).map_err(bare)?;
            // Held from here on, so that an early return closes it.
            let mut inner = Inner::new(connect);
            inner.ask().map_err(bare)?;
            Ok(inner)
        })
        .await;
        match answer {
            Ok(inner) => Ok(Self {
                inner: Arc::new(inner),
            }),
            Err(Failure::NoAnswer(limit)) => Err(Error::NoAnswer {
                action: "answer".to_owned(),
                uri: asked,
                limit,
            }),
            Err(Failure::Libvirt { error, .. }) => Err(Error::Connect {
                uri: asked,
                message: error.message().to_owned(),
            }),
            Err(Failure::Machine(message)) => Err(Error::Machine {
                action: format!("connect to {asked}"),
                message,
            }),
        }
    }

    /// A new connection to the same host.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn reopen(&self, limit: Duration) -> Result<Self> {
        Self::open_within(Some(&self.inner.uri), limit).await
    }

    /// The URI, as libvirt has completed it.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.inner.uri
    }

    /// The host's own name for itself.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.inner.hostname
    }

    /// The UUID that tells this host from all others, by whatever URI it was
    /// reached; `None` where its driver does not say.
    ///
    /// # Errors
    /// [`Error::NoAnswer`], [`Error::Lost`], [`Error::Unsupported`].
    pub async fn host_uuid(&self) -> Result<Option<Uuid>> {
        let asked = self
            .ask("", "say which host it is", Connect::get_capabilities)
            .await?;
        Ok(capabilities::host_uuid(&asked))
    }

    /// Whether paths in the XML of this host's domains are paths on this machine.
    ///
    /// True for the daemon's own socket. `localhost`, or a socket of another path, may
    /// lead through a tunnel: there the host's own name decides.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let Some(uri) = Uri::parse(&self.inner.uri) else {
            return true;
        };
        let named = || own_name().is_some_and(|own| is_same_name(&own, self.hostname()));
        uri.is_own_socket() || (uri.is_loopback() && named())
    }

    /// Whether libvirt has noticed that the connection is broken.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        *self.inner.closed.borrow()
    }

    /// Waits until libvirt notices that the connection is broken. Never, for a
    /// driver that does not tell (`test:///`).
    pub async fn closed(&self) {
        let mut closed = self.inner.closed.clone();
        if closed.wait_for(|closed| *closed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Finds a domain by its UUID, its name, or the number that libvirt has given
    /// it, in this order.
    ///
    /// # Errors
    /// [`Error::NoDomain`]; [`Error::NoAnswer`], [`Error::Lost`].
    pub async fn lookup(&self, domain: &str) -> Result<Domain> {
        if let Ok(uuid) = Uuid::parse_str(domain) {
            match self.lookup_uuid(uuid).await {
                Err(Error::NoDomain { .. }) => {}
                other => return other,
            }
        }
        if domain.contains('\0') {
            return Err(self.no_domain(domain));
        }
        let name = domain.to_owned();
        let found = self
            .ask(domain, "look for the domain", move |connect| {
                use virt::domain::Domain as Raw;
                let found = match (Raw::lookup_by_name(connect, &name), name.parse::<u32>()) {
                    (Err(e), Ok(id)) if e.code() == ErrorNumber::NoDomain => {
                        Raw::lookup_by_id(connect, id)?
                    }
                    (found, _) => found?,
                };
                Domain::describe(found)
            })
            .await?;
        Ok(Domain::new(self.clone(), found))
    }

    /// Finds a domain by its UUID: a migration may rename a domain, but keeps this.
    ///
    /// # Errors
    /// As [`Connection::lookup`].
    pub async fn lookup_uuid(&self, uuid: Uuid) -> Result<Domain> {
        let found = self
            .ask(&uuid.to_string(), "look for the domain", move |connect| {
                Domain::describe(virt::domain::Domain::lookup_by_uuid(connect, uuid)?)
            })
            .await?;
        Ok(Domain::new(self.clone(), found))
    }

    /// What happens from now on to the domain with this UUID, whether the host
    /// knows it yet or not.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::NoAnswer`], [`Error::Lost`].
    pub async fn lifecycle_events(&self, uuid: Uuid) -> Result<LifecycleEvents> {
        events::subscribe(self, uuid).await
    }

    /// How far the migration of the domain with this UUID is, pass by pass, from now on.
    ///
    /// # Errors
    /// As [`Connection::lifecycle_events`].
    pub async fn passes(&self, uuid: Uuid) -> Result<Passes> {
        events::passes(self, uuid).await
    }

    /// Asks the host a question that should be answered soon.
    pub(crate) async fn ask<T, F>(&self, domain: &str, action: &str, ask: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connect) -> Result<T, VirtError> + Send + 'static,
    {
        self.ask_within(Some(ASK_LIMIT), domain, action, ask).await
    }

    /// As [`Connection::ask`], with another limit or none.
    pub(crate) async fn ask_within<T, F>(
        &self,
        limit: Option<Duration>,
        domain: &str,
        action: &str,
        ask: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connect) -> Result<T, VirtError> + Send + 'static,
    {
        let (inner, began) = (Arc::clone(&self.inner), Instant::now());
        let answer = call::call(limit, move || {
            let Some(connect) = &inner.connect else {
                return Err(Failure::Machine("the connection is closed".to_owned()));
            };
            ask(connect).map_err(|error| Failure::Libvirt {
                error,
                // Looks at the socket only; drivers that cannot tell are alive.
                alive: connect.is_alive().unwrap_or(true),
            })
        })
        .await;
        let answer = answer.map_err(|failure| self.explain(domain, action, failure));
        let (uri, ms) = (self.uri(), began.elapsed().as_millis());
        match &answer {
            Ok(_) => trace!(uri, domain, action, ms, "libvirt answered"),
            Err(error) => debug!(uri, domain, action, ms, %error, "libvirt did not"),
        }
        answer
    }

    /// For threads that may block; `None` only while the last handle goes.
    pub(crate) fn raw(&self) -> Option<&Connect> {
        self.inner.connect.as_ref()
    }

    pub(crate) fn no_domain(&self, domain: &str) -> Error {
        Error::NoDomain {
            domain: domain.to_owned(),
            uri: self.inner.uri.clone(),
        }
    }

    fn explain(&self, domain: &str, action: &str, failure: Failure) -> Error {
        let action = action.to_owned();
        let uri = self.inner.uri.clone();
        let (error, alive) = match failure {
            Failure::NoAnswer(limit) => return Error::NoAnswer { action, uri, limit },
            Failure::Machine(message) => return Error::Machine { action, message },
            Failure::Libvirt { error, alive } => (error, alive),
        };
        let message = error.message().to_owned();
        if !alive {
            return Error::Lost {
                action,
                uri,
                message,
            };
        }
        match error.code() {
            ErrorNumber::NoDomain => self.no_domain(domain),
            ErrorNumber::NoSupport
            | ErrorNumber::ConfigUnsupported
            | ErrorNumber::ArgumentUnsupported
            | ErrorNumber::OperationUnsupported => Error::Unsupported {
                action,
                uri,
                message,
            },
            ErrorNumber::AccessDenied
            | ErrorNumber::AuthFailed
            | ErrorNumber::AuthCancelled
            | ErrorNumber::AuthUnavailable
            | ErrorNumber::OperationDenied => Error::Denied {
                action,
                uri,
                message,
            },
            ErrorNumber::OperationAborted => Error::Cancelled {
                action,
                uri,
                message,
            },
            _ => Error::Failed {
                action,
                uri,
                message,
            },
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.inner.uri).finish()
    }
}

impl Inner {
    fn new(connect: Connect) -> Self {
        let (close, closed) = watch::channel(false);
        let on_close = Box::new(move |reason| {
            debug!(reason, "a connection to libvirt closed");
            close.send_replace(true);
        });
        // Neither is known to every driver, and none is needed to be right.
        let watched = ffi::register_close(&connect, on_close);
        if let Err(error) = &watched {
            debug!(%error, "a connection that closes is noticed at the next call");
        }
        let watched = watched.is_ok();
        if let Err(error) = connect.set_keep_alive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT) {
            debug!(%error, "a host that vanishes is noticed by the limit of each call");
        }
        Self {
            connect: Some(connect),
            uri: String::new(),
            hostname: String::new(),
            watched,
            closed,
        }
    }

    fn ask(&mut self) -> Result<(), VirtError> {
        if let Some(connect) = &self.connect {
            self.uri = connect.get_uri()?;
            // A host need not have a name; then the one it was called by has to do.
            self.hostname = connect
                .get_hostname()
                .ok()
                .or_else(|| Uri::parse(&self.uri)?.host().map(str::to_owned))
                .unwrap_or_else(|| "localhost".to_owned());
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(mut connect) = self.connect.take() else {
            return;
        };
        let watched = self.watched;
        // Closing says goodbye over the network.
        call::aside(move || {
            if watched {
                drop(ffi::unregister_close(&connect));
            }
            // The binding does not close it by itself.
            drop(connect.close());
        });
    }
}

/// By the first label: a host may know its own name with its domain, or without.
fn is_same_name(one: &str, other: &str) -> bool {
    first_label(one).eq_ignore_ascii_case(first_label(other))
}

fn first_label(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

fn own_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Machine};

    #[tokio::test]
    async fn opens_and_knows_itself() {
        let connection = testing::connect().await;
        assert_eq!(connection.uri(), "test:///default");
        assert!(!connection.hostname().is_empty());
        assert!(connection.is_local());
        assert!(!connection.is_closed());
        // It answers; its driver has no UUID of a host.
        connection.host_uuid().await.unwrap();
    }

    #[tokio::test]
    async fn a_uri_of_no_driver_is_one_sentence() {
        let error = Connection::open(Some("nosuch:///system"))
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("cannot connect to nosuch:///system: "),
            "{text}"
        );
        assert!(!text.contains('\n'), "{text}");
    }

    #[tokio::test]
    async fn a_uri_that_does_not_answer_is_given_up() {
        // Accepts, and never says a word.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("qemu+tcp://{}/system", silent.local_addr().unwrap());
        let limit = Duration::from_millis(300);
        let error = Connection::open_within(Some(&uri), limit)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{uri} did not answer within 0.3 s; see whether libvirtd runs there and the network reaches it"
            )
        );
    }

    #[tokio::test]
    async fn a_domain_is_found_by_name_and_by_uuid() {
        let machine = Machine::define("lookup", "").await;
        let by_name = machine.connection.lookup(&machine.name).await.unwrap();
        let by_uuid = machine
            .connection
            .lookup(&machine.uuid.to_string())
            .await
            .unwrap();
        assert_eq!(by_name.uuid(), machine.uuid);
        assert_eq!(by_uuid.name(), machine.name);
    }

    #[tokio::test]
    async fn an_unknown_domain_is_named_with_its_host() {
        let connection = testing::connect().await;
        for name in ["nobody", "no\0body", "9e2b0c39-0000-4000-8000-000000000000"] {
            let error = connection.lookup(name).await.unwrap_err();
            assert_eq!(
                error,
                Error::NoDomain {
                    domain: name.to_owned(),
                    uri: "test:///default".to_owned()
                }
            );
        }
    }
}
