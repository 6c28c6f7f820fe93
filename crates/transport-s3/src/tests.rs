use std::sync::Arc;

use logchain_core::transport::{Error, LogTransportExt, Prefix, conformance};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::StoreTransport;

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    for prefix in ["", "some/prefix"] {
        let transport = StoreTransport::new(Arc::new(InMemory::new()), "memory", prefix);
        transport.probe().await.unwrap();
        conformance::run_all(Arc::new(transport)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_folder_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    let transport = StoreTransport::new(Arc::new(store), "folder", "logs");
    transport.probe().await.unwrap();
    conformance::run_all(Arc::new(transport)).await;
}

/// A store that takes puts for overwrites, as some do.
#[derive(Debug)]
struct Careless {
    inner: InMemory,
    /// It looks whether the object is there, and a little later overwrites it.
    looks: bool,
}

impl Careless {
    fn transport(looks: bool) -> StoreTransport {
        let inner = InMemory::new();
        StoreTransport::new(Arc::new(Self { inner, looks }), "careless", "")
    }
}

impl std::fmt::Display for Careless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("careless")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Careless {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        if self.looks && self.inner.head(location).await.is_ok() {
            return self.inner.put_opts(location, payload, options).await;
        }
        tokio::task::yield_now().await;
        self.inner
            .put_opts(location, payload, PutOptions::default())
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: futures_util::stream::BoxStream<'static, object_store::Result<Path>>,
    ) -> futures_util::stream::BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(
        &self,
        prefix: Option<&Path>,
    ) -> futures_util::stream::BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_store_that_overwrites_is_refused() {
    for looks in [false, true] {
        let transport = Careless::transport(looks);
        let refused = transport.probe().await;
        assert!(
            matches!(&refused, Err(Error::Denied { reason, .. }) if reason.contains("overwrites")),
            "looks: {looks}, {refused:?}"
        );
        let left = transport.list_all(&Prefix::All).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}
