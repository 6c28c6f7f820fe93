//! What `migrate` is asked for: `virsh migrate`'s options, by its names.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Carry, Connect, Format, State, name, seconds, size};

#[derive(Debug, Args)]
pub struct Migrate {
    #[command(flatten)]
    pub connect: Connect,
    #[command(flatten)]
    pub carry: Carry,
    #[command(flatten)]
    pub state: State,
    #[command(flatten)]
    pub where_to: WhereTo,

    /// How long the history may be sent ahead of the migration, at the most, in seconds: it
    /// begins as soon as the rest is little. 0: at once.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub head_start: Duration,
    /// Undefine the source domain once the destination has the log.
    #[arg(long)]
    pub undefine_when_carried: bool,
    /// Show progress in a pipe too; on a terminal it is shown in any case.
    #[arg(long)]
    pub verbose: bool,
    /// How to tell what happens: sentences, or one JSON object a line.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    #[command(flatten)]
    pub way: Way,
    #[command(flatten)]
    pub timeout: Timeout,
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub disks: Disks,
    #[command(flatten)]
    pub memory: Memory,
}

/// Which domain goes where: by place, or, as virsh has it, by name.
#[derive(Debug, Args)]
pub struct WhereTo {
    /// Domain name, id or UUID.
    #[arg(
        value_name = "DOMAIN",
        value_parser = name,
        required_unless_present_any = ["named_domain", "named_dest_uri"]
    )]
    pub domain: Option<String>,
    /// Connection URI of the destination, as the client sees it, or with --p2p as the source does.
    #[arg(
        value_name = "DESTURI",
        value_parser = name,
        required_unless_present_any = ["named_domain", "named_dest_uri"]
    )]
    pub dest_uri: Option<String>,
    /// URI for the migration's own data, usually left out.
    #[arg(value_name = "MIGRATEURI", value_parser = name)]
    pub migrate_uri: Option<String>,
    /// DOMAIN by name.
    #[arg(long = "domain", value_name = "DOMAIN", value_parser = name)]
    pub named_domain: Option<String>,
    /// DESTURI by name.
    #[arg(long = "desturi", value_name = "DESTURI", value_parser = name)]
    pub named_dest_uri: Option<String>,
    /// MIGRATEURI by name.
    #[arg(long = "migrateuri", value_name = "MIGRATEURI", value_parser = name)]
    pub named_migrate_uri: Option<String>,
}

/// How it goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "How it goes, as with virsh")]
pub struct Way {
    /// Keep the guest running while its memory is copied.
    #[arg(long)]
    pub live: bool,
    /// Not offered: no guest moves, and so no log.
    #[arg(long)]
    pub offline: bool,
    /// The source's libvirt drives the migration.
    #[arg(long, alias = "peer2peer")]
    pub p2p: bool,
    /// Not offered: QEMU cannot drive a migration itself.
    #[arg(long)]
    pub direct: bool,
    /// Send the migration's data through libvirt's own connection (needs --p2p).
    #[arg(long)]
    pub tunnelled: bool,
    /// Define the domain at the destination.
    #[arg(long)]
    pub persistent: bool,
    /// Have libvirt undefine the source domain at once, as virsh does.
    #[arg(long = "undefinesource", conflicts_with = "undefine_when_carried")]
    pub undefine_source: bool,
    /// Leave the guest paused at the destination.
    #[arg(long)]
    pub suspend: bool,
    /// Refuse changes of the domain until the migration ends.
    #[arg(long)]
    pub change_protection: bool,
    /// Migrate even where libvirt finds it unsafe.
    #[arg(long = "unsafe")]
    pub allow_unsafe: bool,
    /// Abort the migration on a soft error.
    #[arg(long)]
    pub abort_on_error: bool,
    /// Allow post-copy: the guest runs at the destination before all its memory is there. It is
    /// switched to by an option below, or by `virsh migrate-postcopy`.
    #[arg(long)]
    pub postcopy: bool,
    /// Switch to post-copy once all memory was copied once (needs --postcopy).
    #[arg(long)]
    pub postcopy_after_precopy: bool,
    /// Go on with a post-copy migration that broke off (needs --postcopy).
    #[arg(long)]
    pub postcopy_resume: bool,
}

/// What is done where it takes too long.
#[derive(Debug, Args)]
#[command(next_help_heading = "How it goes, as with virsh")]
pub struct Timeout {
    /// Where a live migration takes longer, in seconds, suspend the guest, or what follows says.
    #[arg(long = "timeout", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub after: Option<u64>,
    /// After the timeout: suspend the guest, so that its memory comes to rest.
    #[arg(
        long = "timeout-suspend",
        requires = "after",
        conflicts_with = "postcopy_then"
    )]
    pub suspend_then: bool,
    /// After the timeout: switch to post-copy (needs --postcopy).
    #[arg(long = "timeout-postcopy", requires = "after")]
    pub postcopy_then: bool,
}

/// What it is at the destination, and where that waits.
#[derive(Debug, Args)]
#[command(next_help_heading = "At the destination, as with virsh")]
pub struct Target {
    /// Rename the domain at the destination.
    #[arg(long, value_name = "NAME")]
    pub dname: Option<String>,
    /// Domain XML for the destination.
    #[arg(long, value_name = "FILE")]
    pub xml: Option<PathBuf>,
    /// Persistent domain XML for the destination (needs --persistent).
    #[arg(long, value_name = "FILE")]
    pub persistent_xml: Option<PathBuf>,
    /// Where a viewer of the guest's graphics is sent.
    #[arg(long = "graphicsuri", value_name = "URI")]
    pub graphics_uri: Option<String>,
    /// Address that the destination listens on for the migration.
    #[arg(long, value_name = "ADDRESS")]
    pub listen_address: Option<String>,
}

/// Disks that are not shared.
#[derive(Debug, Args)]
#[command(next_help_heading = "Disks, as with virsh")]
pub struct Disks {
    /// Copy the disks, which the hosts do not share.
    #[arg(long)]
    pub copy_storage_all: bool,
    /// Copy the disks above a base image that both hosts have.
    #[arg(long)]
    pub copy_storage_inc: bool,
    /// Have the guest's writes wait until the destination has them too.
    #[arg(long)]
    pub copy_storage_synchronous_writes: bool,
    /// Which disks to copy.
    #[arg(long, value_name = "DISK,…", value_delimiter = ',')]
    pub migrate_disks: Vec<String>,
    /// Port that the destination waits for the disks at.
    #[arg(long, value_name = "PORT")]
    pub disks_port: Option<i32>,
    /// Where the disks go, instead of that.
    #[arg(long, value_name = "URI")]
    pub disks_uri: Option<String>,
}

/// How memory travels.
#[derive(Debug, Args)]
#[command(next_help_heading = "Memory, as with virsh")]
pub struct Memory {
    /// Bandwidth in MiB/s.
    #[arg(long, value_name = "MIB")]
    pub bandwidth: Option<u64>,
    /// Bandwidth of post-copy in MiB/s.
    #[arg(long, value_name = "MIB")]
    pub postcopy_bandwidth: Option<u64>,
    /// Slow the guest down where its memory changes too fast to copy.
    #[arg(long)]
    pub auto_converge: bool,
    /// By how much at first, in percent.
    #[arg(long, value_name = "PERCENT")]
    pub auto_converge_initial: Option<i32>,
    /// And by how much more each time.
    #[arg(long, value_name = "PERCENT")]
    pub auto_converge_increment: Option<i32>,
    /// Compress the memory.
    #[arg(long)]
    pub compressed: bool,
    /// How: xbzrle, mt.
    #[arg(long, value_name = "METHOD,…", value_delimiter = ',')]
    pub comp_methods: Vec<String>,
    /// Level of the method mt.
    #[arg(long, value_name = "LEVEL")]
    pub comp_mt_level: Option<i32>,
    /// Threads that compress with the method mt.
    #[arg(long, value_name = "N")]
    pub comp_mt_threads: Option<i32>,
    /// Threads that decompress.
    #[arg(long, value_name = "N")]
    pub comp_mt_dthreads: Option<i32>,
    /// Bytes of the page cache of the method xbzrle.
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub comp_xbzrle_cache: Option<u64>,
    /// Send memory over several connections.
    #[arg(long)]
    pub parallel: bool,
    /// How many.
    #[arg(long, value_name = "N")]
    pub parallel_connections: Option<i32>,
    /// Send memory pages without copying them first (needs --parallel).
    #[arg(long)]
    pub zerocopy: bool,
    /// Encrypt the migration with TLS.
    #[arg(long)]
    pub tls: bool,
    /// Host name that the destination's certificate must have.
    #[arg(long, value_name = "NAME")]
    pub tls_destination: Option<String>,
    /// Pin all memory before an RDMA migration.
    #[arg(long)]
    pub rdma_pin_all: bool,
}
