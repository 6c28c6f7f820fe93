//! What the fuzz targets call: takes any bytes for what a hostile peer sends, and asserts what
//! must hold whatever they are. No part of the API.
#![expect(clippy::unwrap_used, reason = "a panic is what is looked for")]

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use logchain_core::transport::{Error, LogTransport, LogTransportExt, MemoryTransport, Prefix};
use uuid::Uuid;

use crate::frame::{Answer, PART, Response, read_frame};
use crate::{Access, Handler, MAX_MESSAGE, Protocol, ServeOptions, serve};

const PROTOCOL: Protocol = Protocol::new("fuzzed", 1, 3);

/// The one domain that the peer may touch.
const THEIRS: Uuid = Uuid::from_u128(1);

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: &[(&str, Target)] = &[("frame", frame)];

struct Guarded(MemoryTransport);

#[async_trait]
impl Handler for Guarded {
    fn transport(&self) -> &dyn LogTransport {
        &self.0
    }

    fn authorise(&self, access: &Access<'_>) -> Result<(), Error> {
        match access.domain() {
            Some(THEIRS) => Ok(()),
            _ => Err(Error::Denied {
                transport: self.0.to_string(),
                reason: access.verb().to_string(),
            }),
        }
    }

    async fn message(&self, message: Bytes) -> Result<Bytes, Error> {
        assert!(message.len() <= MAX_MESSAGE);
        Ok(message)
    }
}

/// What a peer sends to a server after its greeting, what a server answers to a client, and
/// either one's greeting.
pub fn frame(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let guarded = Arc::new(Guarded(MemoryTransport::new()));
        let handler: Arc<dyn Handler> = Arc::<Guarded>::clone(&guarded);
        let said = std::io::Cursor::new([&*PROTOCOL.greeting(), data].concat());
        let options = ServeOptions::default();
        let _ = serve(handler, said, tokio::io::sink(), PROTOCOL, options).await;
        let stored = guarded.0.list_all(&Prefix::All).await.unwrap();
        assert!(stored.iter().all(|entry| entry.key.domain == THEIRS));

        let mut answers = data;
        while let Ok(Some((Response { answer, .. }, body))) = read_frame(&mut answers).await {
            assert!(body.len() <= data.len());
            if let Answer::Failed { outcome, reason } = answer {
                let error = outcome.into_error("fuzzed".to_owned(), "", reason);
                assert!(error.to_string().len() <= data.len() * 3 + PART);
            }
        }

        let mut greeting = data;
        if let Ok(version) = PROTOCOL.read_greeting(&mut greeting, &mut Vec::new()).await {
            assert!((1..=3).contains(&version));
        }
    });
}
