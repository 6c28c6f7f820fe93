//! Azurite, Microsoft's own emulator of Azure's blobs.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use logchain_transport_s3::{StoreOptions, StoreTransport};
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};

use crate::child::{Server, free_address, installed};
use crate::{real, signed};

const CONTAINER: &str = "console-logs";

/// The account that every Azurite has, and its key: no secret.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

const PATIENCE: Duration = Duration::from_secs(20);

struct Azurite {
    _server: Server,
    address: SocketAddr,
}

impl Azurite {
    /// Starts one, with an empty container.
    async fn start() -> Self {
        let program = installed("azurite/node_modules/azurite/dist/src/blob/main.js");
        assert!(program.is_file(), "`cargo xtask test --stores` installs it");
        for _ in 0..3 {
            let address = free_address();
            let mut server = Server::start("node", |command| {
                command.arg(&program);
                command.args(["--blobHost", "127.0.0.1", "--blobPort"]);
                command.arg(address.port().to_string());
                // object_store may speak a newer version than it knows.
                command.args(["--inMemoryPersistence", "--silent", "--skipApiVersionCheck"]);
                command.arg("--disableTelemetry");
            });
            if server.gets_ready(|| TcpStream::connect(address).is_ok()) {
                let url = format!("http://{address}/{ACCOUNT}/{CONTAINER}?restype=container");
                let key = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY).unwrap());
                let sign = |request: &mut _| {
                    let authorizer = AzureAuthorizer::new(&key, ACCOUNT);
                    authorizer.try_authorize(request).unwrap();
                };
                assert_eq!(signed::send("PUT", &url, sign).await, 201);
                return Self {
                    _server: server,
                    address,
                };
            }
        }
        panic!("{} ends as soon as it starts", program.display());
    }
}

fn open(address: SocketAddr, url: &str, patience: Duration) -> StoreTransport {
    open_as(address, url, patience, KEY)
}

fn open_as(address: SocketAddr, url: &str, patience: Duration, key: &str) -> StoreTransport {
    let options = StoreOptions {
        patience,
        ..StoreOptions::default()
    };
    let endpoint = format!("http://{address}/{ACCOUNT}");
    let environment = [
        ("AZURE_ENDPOINT", endpoint.as_str()),
        ("AZURE_ALLOW_HTTP", "true"),
        ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
        ("AZURE_STORAGE_ACCOUNT_KEY", key),
        ("AZURE_EXTENSION_DIR", "no option of a store"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    StoreTransport::open_in(&url.parse().unwrap(), &options, environment).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`cargo xtask test --stores` runs it"]
async fn conforms() {
    let azurite = Azurite::start().await;
    for prefix in ["", "/a b/c"] {
        let url = format!("az://{CONTAINER}{prefix}");
        real::conforms(open(azurite.address, &url, real::PATIENCE)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`cargo xtask test --stores` runs it"]
async fn a_put_whose_answer_was_lost_is_known_as_ours() {
    let azurite = Azurite::start().await;
    let url = format!("az://{CONTAINER}/p");
    real::own_puts_are_known(azurite.address, |address| open(address, &url, PATIENCE)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`cargo xtask test --stores` runs it"]
async fn what_is_wrong_is_said() {
    let azurite = Azurite::start().await;
    let refused = async |url, key, but, words| {
        let transport = open_as(azurite.address, url, PATIENCE, key);
        real::is_refused(&transport, but, words).await;
    };
    // A batch of deletions does not tell a container that is missing from an object
    // that is.
    let words = &["no such bucket"];
    refused("az://no-such-container/p", KEY, Some("delete"), words).await;
    let words = &["credentials"];
    let url = format!("az://{CONTAINER}/p");
    refused(&url, "bm90IHRoZSBrZXk=", None, words).await;
}
