//! Which streams lie in a transport.

use std::sync::Arc;

use uuid::Uuid;

use super::{Archive, Result, offset_of};
use crate::OkLogged as _;
use crate::ids::ConsoleName;
use crate::transport::{Key, LogTransport, LogTransportExt, ObjectName, Prefix};

/// A stream, and its newest batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// UUID of the domain.
    pub domain: Uuid,
    /// The console.
    pub console: ConsoleName,
    /// The domain's name when the newest batch was put.
    pub name: String,
}

/// All streams with this prefix, one request for each and one for its newest batch.
/// A damaged batch is passed over.
pub async fn heads(transport: &Arc<dyn LogTransport>, prefix: &Prefix) -> Result<Vec<Head>> {
    let mut found = Vec::new();
    let mut after: Option<Key> = None;
    loop {
        let page = transport.list_page(prefix, after.as_ref()).await?;
        let Some(last) = page.last() else {
            return Ok(found);
        };
        let stream = page.iter().find_map(|e| Some((offset_of(&e.key)?, &e.key)));
        let Some((newest, key)) = stream else {
            after = Some(last.key.clone());
            continue;
        };
        let archive = Archive::new(Arc::clone(transport), key.domain, key.console.clone());
        let batch = archive.batch(newest).await;
        if let Some(Some(batch)) = batch.ok_logged("this stream is not listed") {
            found.push(Head {
                domain: key.domain,
                console: key.console.clone(),
                name: batch.about.name,
            });
        }
        // Behind all that this stream can have.
        let object = ObjectName::Batch { offset: 0 };
        after = Some(Key {
            object,
            ..key.clone()
        });
    }
}
