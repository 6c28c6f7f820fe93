//! Ceph: a store of several daemons, as operators run it.

use std::net::SocketAddr;
use std::time::Duration;

use logchain_transport_s3::StoreTransport;

use crate::cluster::{BUCKET, Ceph, KEY};
use crate::{open_as, real};

const PATIENCE: Duration = Duration::from_secs(20);

fn open(address: SocketAddr, url: &str, patience: Duration) -> StoreTransport {
    open_as(&format!("http://{address}"), url, patience, &[], (KEY, KEY))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`cargo xtask test --stores` runs it"]
async fn conforms() {
    let ceph = Ceph::start().await;
    for prefix in ["", "/a b/c"] {
        let url = format!("s3://{BUCKET}{prefix}");
        real::conforms(open(ceph.address, &url, real::PATIENCE)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`cargo xtask test --stores` runs it"]
async fn own_puts_are_known_and_what_is_wrong_is_said() {
    let ceph = Ceph::start().await;
    let url = format!("s3://{BUCKET}/p");
    real::own_puts_are_known(ceph.address, |address| open(address, &url, PATIENCE)).await;
    for (url, keys, words) in [
        ("s3://no-such-bucket/p", (KEY, KEY), &["no such bucket"][..]),
        (&url, ("other", KEY), &["AWS_ACCESS_KEY_ID"]),
        (&url, (KEY, "other"), &["AWS_SECRET_ACCESS_KEY"]),
    ] {
        let transport = open_as(&ceph.endpoint(), url, PATIENCE, &[], keys);
        real::is_refused(&transport, None, words).await;
    }
}
