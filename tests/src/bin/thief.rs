//! A host with a good certificate that wants the log of a domain which is none of its business:
//! it asks an agent to believe it, and tries each verb on what belongs to the domain.
//!
//! ```text
//! thief PKI AGENT DOMAIN SECONDS [ADDRESS…]
//! ```
//!
//! `PKI`: the folder with its certificate. `AGENT`: whom it asks, `192.0.2.2:16515`. For so many
//! `SECONDS` it tries again and again, and once at least. To each `ADDRESS` it holds a connection meanwhile, as if
//! it had business there. What succeeds is printed, a line each; the last line is `tried N`.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use logchain_core::transport::{Key, LogTransport, Prefix};
use logchain_transport_tls::{
    AllowedNames, ClientCredentials, ExpectedPeer, LinkOptions, Notice, PeerLink, Pki,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(1);

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(20);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match steal().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("thief: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn steal() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [pki, agent, domain, seconds, held @ ..] = &args[..] else {
        return Err("usage: thief PKI AGENT DOMAIN SECONDS [ADDRESS…]".into());
    };
    let until = Instant::now() + Duration::from_secs(seconds.parse()?);
    let link = link(Path::new(pki), agent).await?;
    let mut connections = Vec::new();
    for address in held {
        let address: SocketAddr = address.parse()?;
        connections.push(TcpStream::connect_timeout(&address, CONNECT)?);
    }
    let mut tried = 0_u32;
    loop {
        attack(&link, domain).await?;
        tried += 1;
        if Instant::now() > until {
            break;
        }
        tokio::time::sleep(AGAIN).await;
    }
    drop(connections);
    println!("tried {tried}");
    Ok(())
}

async fn link(folder: &Path, agent: &str) -> Result<PeerLink, Box<dyn std::error::Error>> {
    let mut pki = Pki::in_folder(folder);
    pki.ca = folder.join("ca-cert.pem");
    pki.client_certificate = folder.join("agent-cert.pem");
    pki.client_key = folder.join("agent-key.pem");
    let credentials = ClientCredentials::load(pki, Notice::default()).await?;
    let expected = ExpectedPeer::Allowed(AllowedNames::any());
    Ok(PeerLink::new(
        agent.parse()?,
        credentials,
        expected,
        LinkOptions::default(),
    ))
}

/// Everything once. What is refused is as it should be.
async fn attack(link: &PeerLink, domain: &str) -> Outcome {
    let leaves = format!(r#"{{"version":1,"ask":"leaves","domain":"{domain}"}}"#);
    let comes = format!(r#"{{"version":1,"ask":"comes","domain":"{domain}","port":16515}}"#);
    for ask in [leaves, comes] {
        if let Ok(answer) = link.ask(Bytes::from(ask.clone())).await {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let is_believed = ask.contains("leaves") && answer.contains("true");
            let what = if is_believed { "BELIEVED" } else { "answered" };
            println!("{what} {ask} {answer}");
        }
    }
    let handoff = "11111111-1111-4111-8111-111111111111";
    let begin: Key = format!("v1/{domain}/serial0/{handoff}/begin").parse()?;
    let chunk = format!("v1/{domain}/serial0/{handoff}/chunk-{:020}-{:010}", 0, 6);
    let chunk: Key = chunk.parse()?;
    for (key, bytes) in [(&begin, "{}"), (&chunk, "forged")] {
        if link.put(key, Bytes::from(bytes)).await.is_ok() {
            println!("PUT {key}");
        }
        if link.get(key, None).await.is_ok() {
            println!("GOT {key}");
        }
    }
    let prefix = Prefix::Domain(begin.domain);
    if let Ok(entries) = link.list(&prefix, None).await {
        println!("LISTED {} of the domain", entries.len());
        for entry in entries {
            if link.get(&entry.key, None).await.is_ok() {
                println!("GOT {}", entry.key);
            }
        }
    }
    if link.list(&Prefix::All, None).await.is_ok() {
        println!("LISTED all");
    }
    for key in [&begin, &chunk] {
        if link.delete(key).await.is_ok() {
            println!("DELETED {key}");
        }
    }
    Ok(())
}
