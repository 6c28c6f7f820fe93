//! Tells in seconds whether a transport works from here, before a migration
//! relies on it. All that it puts it takes away again.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;
use uuid::Uuid;

use super::{Advice, Error, Key, LogTransport, LogTransportExt, ObjectName, Prefix};
use crate::ids::{ConsoleName, HandoffId};

/// A step that takes longer than this has failed.
const LIMIT: Duration = Duration::from_secs(30);

/// Writers in the race for one key.
const RACERS: u8 = 8;

/// Small reads, of which the middle one counts.
const READS: usize = 9;

/// Size of the objects by which the speed is told.
const LARGE: usize = 4 << 20;

/// How many of them, side by side.
const MANY: u64 = 4;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// An object can be put.
    Put,
    /// A second put of its key is refused, and of many at once one wins: all
    /// else rests on that.
    CreateOnly,
    /// It comes back as it was put, whole and in part.
    Get,
    /// It is listed, and nothing else under its prefix.
    List,
    /// How fast large objects go there.
    Upload,
    /// How fast they come back.
    Download,
    /// It can be deleted, and is gone.
    Delete,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put",
            Self::CreateOnly => "create-only",
            Self::Get => "get",
            Self::List => "list",
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Delete => "delete",
        })
    }
}

/// What a step found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It works.
    Works {
        /// How long it took; for [`Step::Get`] one small object, the middle of some.
        time: Duration,
        /// Bytes a second, where that was looked at.
        speed: Option<u64>,
    },
    /// It does not.
    Fails {
        /// What is wrong.
        reason: String,
        /// What can be done.
        advice: Advice,
    },
}

/// Goes through all steps, and tells each as it is done. Ends early only where
/// nothing can be put. Says whether all of it works.
pub async fn check(transport: &dyn LogTransport, mut tell: impl FnMut(Step, &Finding)) -> bool {
    let trial = Trial {
        transport,
        key: Key {
            domain: Uuid::nil(),
            console: ConsoleName::ours("check"),
            collection: HandoffId::random().into(),
            object: ObjectName::Begin,
        },
    };
    let mut all = true;
    for step in [
        Step::Put,
        Step::CreateOnly,
        Step::Get,
        Step::List,
        Step::Upload,
        Step::Download,
        Step::Delete,
    ] {
        let began = Instant::now();
        let done = timeout(LIMIT, trial.step(step)).await;
        let finding = match done {
            Ok(Ok(Done { time, bytes })) => {
                let time = time.unwrap_or_else(|| began.elapsed());
                let speed = bytes.map(|bytes| per_second(bytes, time));
                Finding::Works { time, speed }
            }
            Ok(Err(Wrong { reason, advice })) => Finding::Fails { reason, advice },
            Err(_) => Finding::Fails {
                reason: format!("it did not come to an end within {} s", LIMIT.as_secs()),
                advice: Advice::Retry,
            },
        };
        let works = matches!(finding, Finding::Works { .. });
        tell(step, &finding);
        all &= works;
        if step == Step::Put && !works {
            break;
        }
    }
    all
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1_000_000) / micros
}

struct Done {
    /// Where it is not the whole step's.
    time: Option<Duration>,
    bytes: Option<u64>,
}

struct Wrong {
    reason: String,
    advice: Advice,
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self {
            reason: error.to_string(),
            advice: error.advice(),
        }
    }
}

/// It does not do what every transport must.
fn broken(reason: &str) -> Wrong {
    Wrong {
        reason: reason.to_owned(),
        advice: Advice::Fix,
    }
}

struct Trial<'a> {
    transport: &'a dyn LogTransport,
    key: Key,
}

impl Trial<'_> {
    fn chunk(&self, offset: u64) -> Key {
        let len = u32::try_from(LARGE).unwrap_or(u32::MAX);
        Key {
            object: ObjectName::Chunk { offset, len },
            ..self.key.clone()
        }
    }

    fn prefix(&self) -> Prefix {
        let Key {
            domain,
            console,
            collection,
            ..
        } = self.key.clone();
        Prefix::Collection(domain, console, collection)
    }

    async fn step(&self, step: Step) -> Result<Done, Wrong> {
        let mut done = Done {
            time: None,
            bytes: None,
        };
        match step {
            Step::Put => self.transport.put(&self.key, text()).await?,
            Step::CreateOnly => self.create_only().await?,
            Step::Get => done.time = Some(self.get().await?),
            Step::List => self.list().await?,
            Step::Upload => {
                self.upload().await?;
                done.bytes = Some(MANY * LARGE as u64);
            }
            Step::Download => {
                self.download().await?;
                done.bytes = Some(MANY * LARGE as u64);
            }
            Step::Delete => self.delete().await?,
        }
        Ok(done)
    }

    async fn create_only(&self) -> Result<(), Wrong> {
        const OVERWRITES: &str =
            "an object that was there was overwritten: no handoff would be safe here";
        match self
            .transport
            .put(&self.key, Bytes::from_static(b"other"))
            .await
        {
            Err(Error::AlreadyExists { .. }) => {}
            Ok(()) => return Err(broken(OVERWRITES)),
            Err(e) => return Err(e.into()),
        }
        let key = Key {
            object: ObjectName::Commit,
            ..self.key.clone()
        };
        let key = &key;
        let racers = (0..RACERS).map(|n| async move {
            let put = self.transport.put(key, Bytes::from(vec![n; 100])).await;
            match put {
                Ok(()) => Ok(true),
                Err(Error::AlreadyExists { .. }) => Ok(false),
                Err(e) => Err(e),
            }
        });
        let mut racers: FuturesUnordered<_> = racers.collect();
        let mut winners = 0;
        while let Some(won) = racers.next().await {
            winners += u32::from(won?);
        }
        if winners > 1 {
            return Err(broken(OVERWRITES));
        }
        if winners == 0 {
            return Err(broken("of many writers of one key none succeeded"));
        }
        Ok(())
    }

    async fn get(&self) -> Result<Duration, Wrong> {
        let mut times = Vec::new();
        for _ in 0..READS {
            let began = Instant::now();
            if self.transport.get_bytes(&self.key, 1 << 10).await? != text() {
                return Err(broken("an object came back altered"));
            }
            times.push(began.elapsed());
        }
        let mut part = self.transport.get(&self.key, Some(2..5)).await?;
        let mut bytes = Vec::new();
        while let Some(some) = part.next().await {
            bytes.extend_from_slice(&some?);
        }
        if Some(&*bytes) != text().get(2..5) {
            return Err(broken("a part of an object came back altered"));
        }
        times.sort();
        Ok(times.get(READS / 2).copied().unwrap_or_default())
    }

    async fn list(&self) -> Result<(), Wrong> {
        let listed = self.transport.list(&self.prefix(), None).await?;
        let keys: Vec<_> = listed.iter().map(|e| e.key.object).collect();
        if keys != [ObjectName::Begin, ObjectName::Commit] {
            return Err(broken("a listing does not show what was put"));
        }
        Ok(())
    }

    async fn upload(&self) -> Result<(), Wrong> {
        // Nothing that a store or a line could shrink.
        let mut data = vec![0; LARGE];
        let mut noise = blake3::Hasher::new().update(b"check").finalize_xof();
        noise.fill(&mut data);
        let data = Bytes::from(data);
        let puts = (0..MANY).map(|n| {
            let (key, data) = (self.chunk(n), data.clone());
            async move { self.transport.put(&key, data).await }
        });
        let mut puts: FuturesUnordered<_> = puts.collect();
        while let Some(put) = puts.next().await {
            put?;
        }
        Ok(())
    }

    async fn download(&self) -> Result<(), Wrong> {
        let gets = (0..MANY).map(|n| {
            let key = self.chunk(n);
            async move { self.transport.get_bytes(&key, LARGE as u64).await }
        });
        let mut gets: FuturesUnordered<_> = gets.collect();
        while let Some(got) = gets.next().await {
            if got?.len() != LARGE {
                return Err(broken("a large object came back cut short"));
            }
        }
        Ok(())
    }

    async fn delete(&self) -> Result<(), Wrong> {
        for entry in self.transport.list_all(&self.prefix()).await? {
            self.transport.delete(&entry.key).await?;
        }
        if !self.transport.list(&self.prefix(), None).await?.is_empty() {
            return Err(broken("what was deleted is still listed"));
        }
        Ok(())
    }
}

fn text() -> Bytes {
    Bytes::from_static(b"logchain was here")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::MemoryTransport;
    use super::super::fault::{Fault, FaultTransport, Verb};
    use super::*;

    async fn failing(
        plan: impl Fn(&super::super::fault::Call<'_>) -> Option<Fault> + Send + Sync + 'static,
    ) -> Vec<(Step, String)> {
        let memory = Arc::new(MemoryTransport::new());
        let mut failed = Vec::new();
        let transport = FaultTransport::new(memory, plan);
        let works = check(&transport, |step, finding| {
            if let Finding::Fails { reason, .. } = finding {
                failed.push((step, reason.clone()));
            }
        });
        assert_eq!(works.await, failed.is_empty());
        failed
    }

    #[tokio::test]
    async fn what_works_works_and_leaves_nothing() {
        let memory = MemoryTransport::new();
        let mut steps = Vec::new();
        assert!(check(&memory, |step, _| steps.push(step.to_string())).await);
        let all = [
            "put",
            "create-only",
            "get",
            "list",
            "upload",
            "download",
            "delete",
        ];
        assert_eq!(steps, all);
        assert!(memory.list_all(&Prefix::All).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_does_not_work_is_told() {
        let refused = |what: &str| {
            let reason = what.to_owned();
            let transport = "store".to_owned();
            Fault::Fail(Error::Denied { transport, reason })
        };
        let no_put = refused("no writing here");
        let failed = failing(move |call| (call.verb == Verb::Put).then(|| no_put.clone())).await;
        assert_eq!(failed.len(), 1, "it ends there: {failed:?}");
        assert!(failed[0].1.contains("no writing here"), "{failed:?}");

        let no_delete = refused("no deleting here");
        let failed =
            failing(move |call| (call.verb == Verb::Delete).then(|| no_delete.clone())).await;
        assert_eq!(failed[0].0, Step::Delete, "{failed:?}");

        let failed = failing(|call| (call.verb == Verb::Get).then_some(Fault::Alter)).await;
        assert_eq!(failed[0].0, Step::Get, "{failed:?}");
    }
}
