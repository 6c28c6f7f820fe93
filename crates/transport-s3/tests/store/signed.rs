//! Requests that no transport makes, as making a bucket.

use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};

/// Sends one that `sign` has signed; gives the status.
pub(crate) async fn send(method: &str, url: &str, sign: impl FnOnce(&mut HttpRequest)) -> u16 {
    // Another test may have done so.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.method_mut() = method.parse().unwrap();
    *request.uri_mut() = url.parse().unwrap();
    sign(&mut request);
    let options = object_store::ClientOptions::new().with_allow_http(true);
    let client = ReqwestConnector::default().connect(&options).unwrap();
    client.execute(request).await.unwrap().status().as_u16()
}
