//! A transport of one's own: objects as files of one flat folder, as a share that
//! both hosts mount would give. It passes the suite that every transport must
//! pass, and then carries a log.
//!
//! `cargo run -p logchain-core --features conformance --example custom_transport`

use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use logchain_core::chain::{LogChain, Numbering, NumberingChoice};
use logchain_core::follow::NoWriters;
use logchain_core::handoff::adopt::{Adopt, Place};
use logchain_core::handoff::offer::{Held, Offer, Source};
use logchain_core::handoff::{Handoff, run_locally};
use logchain_core::ids::HandoffId;
use logchain_core::placement::Rules;
use logchain_core::rotation::Retention;
use logchain_core::transport::{
    self, ByteStream, Entry, Key, LIST_PAGE, LogTransport, MAX_OBJECT, Prefix, conformance,
};
use tokio::sync::watch;
use uuid::Uuid;

/// A folder with a file for each object: `v1+<domain>+<console>+<handoff>+<object>`.
#[derive(Clone, Debug)]
struct Share(PathBuf);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "share {}", self.0.display())
    }
}

impl Share {
    fn path(&self, key: &Key) -> PathBuf {
        self.0.join(key.to_string().replace('/', "+"))
    }

    /// What files say, as callers of a transport are told it.
    fn error(&self, key: &Key, e: &std::io::Error) -> transport::Error {
        let (transport, key) = (self.to_string(), key.to_string());
        match e.kind() {
            ErrorKind::AlreadyExists => transport::Error::AlreadyExists { transport, key },
            ErrorKind::NotFound => transport::Error::NotFound { transport, key },
            _ => transport::Error::Unreachable {
                transport,
                reason: e.to_string(),
            },
        }
    }

    /// Files block, so they are worked on away from the runtime's threads.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> transport::Result<T> + Send + 'static,
    ) -> transport::Result<T> {
        let share = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&share)).await;
        done.unwrap_or_else(|e| {
            Err(transport::Error::Unreachable {
                transport: self.to_string(),
                reason: e.to_string(),
            })
        })
    }
}

#[async_trait]
impl LogTransport for Share {
    async fn put(&self, key: &Key, data: Bytes) -> transport::Result<()> {
        let key = key.clone();
        if data.len() > MAX_OBJECT {
            let key = key.to_string();
            return Err(transport::Error::TooLarge { key });
        }
        self.blocking(move |share| {
            // Whole or not at all, and never over another: written under a name
            // that is no key, then given its name by a link, which fails where
            // there is one.
            let temporary = share.0.join(format!("+{}", Uuid::new_v4()));
            let put = File::create_new(&temporary)
                .and_then(|mut file| file.write_all(&data).and_then(|()| file.sync_all()))
                .and_then(|()| fs::hard_link(&temporary, share.path(&key)));
            let _ = fs::remove_file(&temporary);
            put.map_err(|e| share.error(&key, &e))
        })
        .await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> transport::Result<ByteStream> {
        let key = key.clone();
        let part = self.blocking(move |share| {
            let bytes = Bytes::from(fs::read(share.path(&key)).map_err(|e| share.error(&key, &e))?);
            let all = 0..bytes.len() as u64;
            let range = range.unwrap_or(all.clone());
            if range.start > range.end || range.end > all.end {
                let (transport, key) = (share.to_string(), key.to_string());
                return Err(transport::Error::BadRange { transport, key });
            }
            let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            Ok(bytes.slice(index(range.start)..index(range.end)))
        });
        let part = part.await?;
        Ok(stream::iter([Ok(part)]).boxed())
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>) -> transport::Result<Vec<Entry>> {
        let (prefix, after) = (prefix.clone(), after.cloned());
        self.blocking(move |share| {
            let unreachable = |e: std::io::Error| transport::Error::Unreachable {
                transport: share.to_string(),
                reason: e.to_string(),
            };
            let mut entries = Vec::new();
            for file in fs::read_dir(&share.0).map_err(unreachable)? {
                let file = file.map_err(unreachable)?;
                let name = file.file_name().to_string_lossy().replace('+', "/");
                // What does not read as a key is not ours.
                let Ok(key) = name.parse::<Key>() else {
                    continue;
                };
                let later = after.as_ref().is_none_or(|after| key > *after);
                // Deleted since it was listed: then it is not there.
                if let (true, true, Ok(data)) = (later, prefix.matches(&key), file.metadata()) {
                    let size = data.len();
                    entries.push(Entry { key, size });
                }
            }
            entries.sort_by(|one, other| one.key.cmp(&other.key));
            entries.truncate(LIST_PAGE);
            Ok(entries)
        })
        .await
    }

    async fn delete(&self, key: &Key) -> transport::Result<()> {
        let key = key.clone();
        self.blocking(move |share| match fs::remove_file(share.path(&key)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(share.error(&key, &e)),
            _ => Ok(()),
        })
        .await
    }
}

/// Carries the log at `from` behind the one at `to`.
async fn carry(share: &Share, from: &Path, to: &Path) -> Result<u64, Box<dyn Error>> {
    let handoff = Handoff {
        domain: Uuid::new_v4(),
        console: "serial0".parse()?,
        id: HandoffId::random(),
    };
    // The migration is over: there is no guest. A program that drives one tells here what
    // it does.
    let source = watch::Sender::new(Source::Over);
    // From now on no byte of the log can be lost.
    let chain = LogChain::open(from, NumberingChoice::Auto)?;
    let held = Held::open(&chain, handoff.domain, &handoff.console)?;
    let place = Place {
        path: to.to_owned(),
        rules: Rules {
            numbering: Numbering::FromZero,
            retention: Retention::UNLIMITED,
        },
    };
    // Nobody writes these logs any more; a real host asks the kernel
    // (`logchain_libvirt::drain`), and libvirt where the log lies.
    let (writers, transport) = (Arc::new(NoWriters), Arc::new(share.clone()));
    let offer = Offer::new(
        handoff.clone(),
        Arc::<Share>::clone(&transport),
        Arc::<NoWriters>::clone(&writers),
        source.subscribe(),
    )
    .with_names("vm1", "h1");
    let adopt = Adopt::new(handoff, transport, writers, Arc::new(place)).with_host("h2");
    let receipt = run_locally(offer, held, adopt).await?;
    Ok(receipt.bytes)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let [spool, source, destination] =
        ["spool", "source", "destination"].map(|name| folder.path().join(name));
    for folder in [&spool, &source, &destination] {
        fs::create_dir(folder)?;
    }
    let share = Share(spool);
    conformance::run_all(Arc::new(share.clone())).await;
    println!("{share} does what a transport must do");

    let (from, to) = (source.join("console.log"), destination.join("console.log"));
    fs::write(&from, "printed on h1\n")?;
    fs::write(&to, "printed on h2\n")?;
    println!("{} bytes carried", carry(&share, &from, &to).await?);
    let chain = LogChain::open(&to, NumberingChoice::Auto)?;
    let whole = std::io::read_to_string(chain.snapshot()?.read_all()?)?;
    print!("{whole}");
    if whole != "printed on h1\nprinted on h2\n" {
        return Err("that is not what was printed".into());
    }
    Ok(())
}

#[test]
fn it_conforms_and_carries() -> Result<(), Box<dyn Error>> {
    main()
}
