//! From the command line to what libvirt is asked for.

use std::path::Path;

use anyhow::Context;
use logchain_libvirt::migrate::{MigrateFlags, MigrateParams, MigrateRequest};

use crate::args::Migrate;
use crate::exit::Usage;

/// Reads the XML files that are named, and checks that the options go together.
pub(super) async fn of(args: &Migrate) -> anyhow::Result<MigrateRequest> {
    let request = MigrateRequest {
        dest_uri: args.dest_uri.clone(),
        flags: MigrateFlags {
            live: args.live,
            p2p: args.p2p,
            direct: args.direct,
            tunnelled: args.tunnelled,
            persistent: args.persistent,
            undefine_source: args.undefine_source,
            suspend: args.suspend,
            unsafe_disks: args.allow_unsafe,
            auto_converge: args.auto_converge,
            abort_on_error: args.abort_on_error,
            ..MigrateFlags::default()
        },
        params: MigrateParams {
            migrate_uri: args.migrate_uri.clone(),
            dname: args.dname.clone(),
            dest_xml: read(args.xml.as_deref()).await?,
            persist_xml: read(args.persistent_xml.as_deref()).await?,
            bandwidth: args.bandwidth,
            listen_address: args.listen_address.clone(),
            ..MigrateParams::default()
        },
    };
    request.check().map_err(|e| Usage(e.to_string()))?;
    Ok(request)
}

async fn read(path: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(path) = path.map(Path::to_owned) else {
        return Ok(None);
    };
    let read = tokio::task::spawn_blocking(move || {
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    });
    read.await?.map(Some)
}
