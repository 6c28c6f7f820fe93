//! Migrates a domain, and its console logs with it, and prints each event as a line of JSON.
//!
//! ```sh
//! cargo run -p logchain-host --example migrate -- vm1 qemu+ssh://h2/system
//! ```
//!
//! logchain has to be installed at the destination. Ctrl-C cancels the migration: the domain
//! then stays here, and its log too.

use std::process::ExitCode;
use std::time::Duration;

use logchain_host::libvirt::migrate::{MigrateFlags, MigrateParams, MigrateRequest};
use logchain_host::migrate::{Options, migrate};
use logchain_host::stop::stop;
use logchain_host::{Error, Event, Events};

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(domain), Some(dest_uri)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: migrate DOMAIN DESTURI");
        return ExitCode::from(2);
    };
    let request = MigrateRequest {
        dest_uri,
        flags: MigrateFlags {
            live: true,
            persistent: true,
            ..MigrateFlags::default()
        },
        params: MigrateParams::default(),
    };
    let mut options = Options::new(domain, request);
    options.head_start = Duration::from_secs(30);
    options.undefine_when_carried = true;

    let events = Events::to(|event: &Event| println!("{}", event.to_json()));
    let (request, stop) = stop();
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            request.ask();
        }
    });
    match migrate(options, &events, &stop).await {
        Ok(finished) if finished.is_success() => ExitCode::SUCCESS,
        // Each failure was an event: the domain runs there, and a log of it is here.
        Ok(_) => ExitCode::from(3),
        Err(e @ Error::NotCarried(_)) => {
            eprintln!("{}", e.sentence());
            ExitCode::from(3)
        }
        Err(e) => {
            eprintln!("{}", e.sentence());
            ExitCode::FAILURE
        }
    }
}
