//! A [`LogTransport`](logchain_core::transport::LogTransport) on any store that
//! [`object_store`] reaches: S3 and what is compatible with it, Google Cloud
//! Storage, Azure, a local folder, memory.
//!
//! By URL, with the options and the environment variables that object_store
//! itself knows (`AWS_ENDPOINT`, `AWS_ACCESS_KEY_ID`, …):
//!
//! ```
//! use logchain_transport_s3::{StoreOptions, StoreTransport, StoreUrl};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let url: StoreUrl = "s3://bucket/logs/console".parse()?;
//! let options = StoreOptions {
//!     settings: vec![("region".to_owned(), "eu-central-1".to_owned())],
//!     ..StoreOptions::default()
//! };
//! let transport = StoreTransport::open(&url, &options)?;
//! // transport.probe().await? refuses a store that overwrites.
//! assert_eq!(transport.to_string(), "s3://bucket/logs/console");
//! # Ok(())
//! # }
//! ```
//!
//! Or on a store that an embedder has made:
//!
//! ```
//! use std::sync::Arc;
//! use logchain_transport_s3::StoreTransport;
//! use object_store::memory::InMemory;
//!
//! let transport = StoreTransport::new(Arc::new(InMemory::new()), "memory", "logs/console");
//! assert_eq!(transport.to_string(), "memory/logs/console");
//! ```
//!
//! All rests on one conditional write, `PutMode::Create`. Some stores accept it
//! and overwrite all the same, always or where puts race: [`StoreTransport::probe`]
//! finds that out, of a race as far as chance lets it.
//!
//! A put carries an id of its own in the object's metadata. Where the answer to it
//! was lost, and trying again says that the object exists, the id tells whether it
//! is ours.
//!
//! There are no multipart uploads: an object is 8 MiB at the most
//! ([`MAX_OBJECT`](logchain_core::transport::MAX_OBJECT)), one request on every
//! store, and a cut-off request leaves nothing behind. A large log is many objects.
//!
//! Keys that may put, get, list and delete beneath the prefix are enough; on S3
//! listing (`s3:ListBucket`) also lets it tell an object that is missing from one
//! that is forbidden. Encryption by the store is a matter of options
//! (`AWS_SERVER_SIDE_ENCRYPTION`, …) or of the bucket. Objects that a dead host left
//! behind are worth a lifecycle rule on `<prefix>/v1/`: nothing here looks for them.
//!
//! A get reads on in a task of its own: 8 MiB wait for the reader, and 8 MiB are
//! being gathered, at the most. Memory that was read into is used again, at most 64 MiB
//! of it waiting for that, and none once nobody reads or has what was read.
//!
//! Must not know: what keys mean, what objects hold.

mod ahead;
mod buffers;
mod failure;
mod open;
mod store;
mod tls;
mod trust;
mod url;

#[cfg(test)]
mod tests;

pub use open::StoreOptions;
pub use store::StoreTransport;
pub use url::{BadUrl, StoreUrl};
