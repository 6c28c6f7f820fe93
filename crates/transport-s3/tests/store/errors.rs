//! What goes wrong for good is said in one sentence that tells what to do.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use logchain_core::transport::{Advice, Error, LogTransport, LogTransportExt, Prefix};
use logchain_transport_s3::{StoreOptions, StoreTransport};

use crate::moto::{BUCKET, Moto};
use crate::proxy::{Fault, Proxy};
use crate::{any_key, bytes, open, open_with};

const PATIENCE: Duration = Duration::from_secs(20);

fn one_sentence(error: &Error, words: &[&str]) {
    let said = error.to_string();
    assert!(said.starts_with("s3://"), "{said}");
    assert!(
        !said.contains(['\n', '<', '{']) && said.len() < 300,
        "{said}"
    );
    for word in words {
        assert!(said.contains(word), "{word:?} in {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there() {
    let moto = Moto::start();
    let transport = open(&moto.endpoint(), "s3://no-such-bucket/p", PATIENCE);
    let key = any_key();
    for error in [
        transport.probe().await.unwrap_err(),
        transport.put(&key, bytes(1, 10)).await.unwrap_err(),
        // Not as an object that is not there, which would be no error.
        transport.get_opt(&key, 10).await.unwrap_err(),
        transport
            .list(&Prefix::Domain(key.domain), None)
            .await
            .unwrap_err(),
    ] {
        assert!(matches!(error, Error::Denied { .. }), "{error:?}");
        one_sentence(&error, &["no such bucket"]);
    }
}

/// The server's word for each thing an operator has done wrong.
#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let moto = Moto::start();
    for (status, code, words) in [
        (
            403,
            "InvalidAccessKeyId",
            &["credentials", "AWS_ACCESS_KEY_ID"][..],
        ),
        (403, "SignatureDoesNotMatch", &["AWS_SECRET_ACCESS_KEY"]),
        (400, "ExpiredToken", &["no longer valid"]),
        (403, "AccessDenied", &["may not", "AccessDenied"]),
        (403, "RequestTimeTooSkewed", &["clocks", "set this host's"]),
        (400, "AuthorizationHeaderMalformed", &["AWS_REGION"]),
        (501, "NotImplemented", &["NotImplemented"]),
    ] {
        let proxy = Proxy::start(moto.address, move |_| {
            let body = format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code></Error>");
            Fault::Answer(status, body)
        })
        .await;
        let transport = open(&proxy.endpoint(), &format!("s3://{BUCKET}/p"), PATIENCE);
        let started = Instant::now();
        let error = transport.probe().await.unwrap_err();
        one_sentence(&error, words);
        if status < 500 {
            assert_eq!(error.advice(), Advice::Fix, "{error}");
            assert!(
                started.elapsed() < Duration::from_secs(2),
                "{code} was tried again"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let transport = open(&format!("http://{address}"), "s3://b/p", PATIENCE);
    let error = transport.probe().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    one_sentence(&error, &["refused", "AWS_ENDPOINT"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_encryption_only_where_that_is_said() {
    let options = StoreOptions::default();
    let environment = [
        ("AWS_ENDPOINT", "http://127.0.0.1:9"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let opened = StoreTransport::open_in(&"s3://b/p".parse().unwrap(), &options, environment);
    let error = opened.unwrap().probe().await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    one_sentence(&error, &["AWS_ALLOW_HTTP=true"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials() {
    // Where a cloud's machines would ask for theirs, nobody answers here.
    let options = StoreOptions {
        patience: Duration::from_secs(8),
        ..StoreOptions::default()
    };
    let environment = [
        ("AWS_ENDPOINT", "https://127.0.0.1:9"),
        ("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let opened = StoreTransport::open_in(&"s3://b/p".parse().unwrap(), &options, environment);
    let error = opened.unwrap().probe().await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    one_sentence(&error, &["no credentials", "AWS_ACCESS_KEY_ID"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn options_are_passed_on() {
    let moto = Moto::start();
    let proxy = Proxy::start(moto.address, |_| Fault::None).await;
    let settings = [
        ("aws_server_side_encryption", "AES256"),
        ("user_agent", "logchain-test"),
    ];
    let url = format!("s3://{BUCKET}/p");
    let transport = open_with(&proxy.endpoint(), &url, PATIENCE, &settings);
    transport.put(&any_key(), bytes(1, 10)).await.unwrap();
    let head = proxy.heads()[0].to_ascii_lowercase();
    for header in [
        "x-amz-server-side-encryption: aes256",
        "user-agent: logchain-test",
        "if-none-match: *",
    ] {
        assert!(head.contains(header), "{header} in {head}");
    }
    // A key management service, too.
    let settings = [
        ("aws_server_side_encryption", "aws:kms"),
        ("aws_sse_kms_key_id", "the-key"),
    ];
    let proxy = Proxy::start(moto.address, |_| Fault::None).await;
    let transport = open_with(&proxy.endpoint(), &url, PATIENCE, &settings);
    transport.put(&any_key(), bytes(1, 10)).await.unwrap();
    let head = proxy.heads()[0].to_ascii_lowercase();
    assert!(
        head.contains("x-amz-server-side-encryption: aws:kms"),
        "{head}"
    );
    assert!(head.contains("the-key"), "{head}");
}

#[test]
fn an_option_that_is_none_is_refused() {
    let options = StoreOptions {
        settings: vec![("aws_secret_sauce".to_owned(), "x".to_owned())],
        ..StoreOptions::default()
    };
    let opened = StoreTransport::open_in(&"s3://b".parse().unwrap(), &options, []);
    let error = opened.unwrap_err();
    one_sentence(&error, &["aws_secret_sauce"]);
}
