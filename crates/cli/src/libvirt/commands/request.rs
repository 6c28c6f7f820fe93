//! From the command line to what libvirt is asked for.

use std::path::Path;

use anyhow::Context;
use logchain::args::Migrate;
use logchain::args::migrate::WhereTo;
use logchain::exit::Usage;
use logchain_host::libvirt::migrate::{MigrateFlags, MigrateParams, MigrateRequest};

/// Which domain goes where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) domain: String,
    pub(super) dest_uri: String,
    pub(super) migrate_uri: Option<String>,
}

impl Route {
    /// What stands at a place is the first thing that has no name, as with virsh.
    pub(super) fn of(args: &Migrate) -> Result<Self, Usage> {
        let WhereTo {
            domain,
            dest_uri,
            migrate_uri,
            named_domain,
            named_dest_uri,
            named_migrate_uri,
        } = &args.where_to;
        let mut placed = [domain, dest_uri, migrate_uri].into_iter().flatten();
        let mut next = |named: &Option<String>| named.clone().or_else(|| placed.next().cloned());
        let (domain, dest_uri, migrate_uri) = (
            next(named_domain),
            next(named_dest_uri),
            next(named_migrate_uri),
        );
        if let Some(surplus) = placed.next() {
            return Err(Usage(format!("{surplus:?} is one argument too many")));
        }
        let missing = |what: &str| Usage(format!("{what} is missing"));
        Ok(Self {
            domain: domain.ok_or_else(|| missing("DOMAIN"))?,
            dest_uri: dest_uri.ok_or_else(|| missing("DESTURI"))?,
            migrate_uri,
        })
    }
}

/// Reads the XML files that are named, and checks that the options go together.
pub(super) async fn of(args: &Migrate, route: &Route) -> anyhow::Result<MigrateRequest> {
    let Migrate {
        way,
        target,
        disks,
        memory,
        ..
    } = args;
    refuse(args)?;
    let request = MigrateRequest {
        dest_uri: route.dest_uri.clone(),
        flags: MigrateFlags {
            live: way.live,
            offline: way.offline,
            p2p: way.p2p,
            tunnelled: way.tunnelled,
            persistent: way.persistent,
            undefine_source: way.undefine_source,
            suspend: way.suspend,
            copy_storage_all: disks.copy_storage_all,
            copy_storage_inc: disks.copy_storage_inc,
            copy_storage_synchronous_writes: disks.copy_storage_synchronous_writes,
            change_protection: way.change_protection,
            unsafe_disks: way.allow_unsafe,
            compressed: memory.compressed,
            auto_converge: memory.auto_converge,
            rdma_pin_all: memory.rdma_pin_all,
            abort_on_error: way.abort_on_error,
            postcopy: way.postcopy,
            postcopy_resume: way.postcopy_resume,
            zerocopy: memory.zerocopy,
            tls: memory.tls,
            parallel: memory.parallel,
            direct: way.direct,
        },
        params: MigrateParams {
            migrate_uri: route.migrate_uri.clone(),
            dname: target.dname.clone(),
            dest_xml: read(target.xml.as_deref()).await?,
            persist_xml: read(target.persistent_xml.as_deref()).await?,
            graphics_uri: target.graphics_uri.clone(),
            listen_address: target.listen_address.clone(),
            migrate_disks: disks.migrate_disks.clone(),
            disks_port: disks.disks_port,
            disks_uri: disks.disks_uri.clone(),
            bandwidth: memory.bandwidth,
            postcopy_bandwidth: memory.postcopy_bandwidth,
            comp_methods: memory.comp_methods.clone(),
            comp_mt_level: memory.comp_mt_level,
            comp_mt_threads: memory.comp_mt_threads,
            comp_mt_dthreads: memory.comp_mt_dthreads,
            comp_xbzrle_cache: memory.comp_xbzrle_cache,
            auto_converge_initial: memory.auto_converge_initial,
            auto_converge_increment: memory.auto_converge_increment,
            parallel_connections: memory.parallel_connections,
            tls_destination: memory.tls_destination.clone(),
        },
    };
    request.check().map_err(|e| Usage(e.to_string()))?;
    Ok(request)
}

/// What virsh has and this cannot have, and what virsh refuses itself.
fn refuse(args: &Migrate) -> Result<(), Usage> {
    let Migrate { way, timeout, .. } = args;
    for (given, why) in [
        (
            way.direct,
            "--direct is for hypervisors that migrate by themselves, which QEMU does not: \
             leave it out, or take --p2p",
        ),
        (
            way.offline,
            "--offline moves a definition and no guest, so no log goes with it: \
             use `virsh migrate --offline`; the log stays here",
        ),
        (
            timeout.after.is_some() && !way.live,
            "--timeout needs --live",
        ),
        (
            timeout.postcopy_then && !way.postcopy,
            "--timeout-postcopy needs --postcopy",
        ),
        (
            way.postcopy_after_precopy && !way.postcopy,
            "--postcopy-after-precopy needs --postcopy",
        ),
    ] {
        if given {
            return Err(Usage(why.to_owned()));
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use logchain::args::{Cli, Command};

    fn migrate(words: &[&str]) -> Result<Route, String> {
        let words = [&["logchain", "migrate"], words].concat();
        let cli = Cli::try_parse_from(words).map_err(|e| e.to_string())?;
        let Command::Migrate(args) = cli.command else {
            return Err("another command".to_owned());
        };
        Route::of(&args).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_not_named_is_taken_by_its_place() {
        let route = |domain: &str, dest: &str, uri: Option<&str>| Route {
            domain: domain.to_owned(),
            dest_uri: dest.to_owned(),
            migrate_uri: uri.map(str::to_owned),
        };
        for (words, want) in [
            (&["vm", "d"][..], route("vm", "d", None)),
            (&["vm", "d", "m"], route("vm", "d", Some("m"))),
            (&["--domain", "vm", "d"], route("vm", "d", None)),
            (&["--desturi", "d", "vm"], route("vm", "d", None)),
            (
                &["--desturi", "d", "--domain", "vm", "m"],
                route("vm", "d", Some("m")),
            ),
            (
                &["vm", "d", "--migrateuri", "m"],
                route("vm", "d", Some("m")),
            ),
        ] {
            assert_eq!(migrate(words), Ok(want), "{words:?}");
        }
        for (words, says) in [
            (&["vm"][..], "DESTURI"),
            (&["--domain", "vm"], "DESTURI is missing"),
            (&["--desturi", "d"], "DOMAIN is missing"),
            (&["--domain", "vm", "d", "m", "x"], "one argument too many"),
        ] {
            let said = migrate(words).unwrap_err();
            assert!(said.contains(says), "{words:?}: {said}");
        }
    }
}
