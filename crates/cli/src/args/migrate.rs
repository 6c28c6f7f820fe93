//! What `migrate` is asked for: `virsh migrate`'s options, by its names.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::{name, seconds, size};
use super::{Carry, Connect, Format, State};

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

    /// Send the history ahead of the migration for this many seconds at most. The migration
    /// begins earlier if little is left to send. 0: begin at once.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub head_start: Duration,
    /// Undefine the source domain once the destination has the log.
    #[arg(long)]
    pub undefine_when_carried: bool,
    /// Show progress even if standard error is not a terminal.
    #[arg(long)]
    pub verbose: bool,
    /// Print what happens as sentences, or as one JSON object a line.
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
    /// Connection URI of the destination as this client reaches it; with --p2p, as the source's
    /// libvirt reaches it.
    #[arg(
        value_name = "DESTURI",
        value_parser = name,
        required_unless_present_any = ["named_domain", "named_dest_uri"]
    )]
    pub dest_uri: Option<String>,
    /// URI to which the source sends the migration's data; usually left out.
    #[arg(value_name = "MIGRATEURI", value_parser = name)]
    pub migrate_uri: Option<String>,
    /// The same as DOMAIN.
    #[arg(long = "domain", value_name = "DOMAIN", value_parser = name)]
    pub named_domain: Option<String>,
    /// The same as DESTURI.
    #[arg(long = "desturi", value_name = "DESTURI", value_parser = name)]
    pub named_dest_uri: Option<String>,
    /// The same as MIGRATEURI.
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
    /// Refused: an offline migration moves no guest, and so no log.
    #[arg(long)]
    pub offline: bool,
    /// The source's libvirt drives the migration.
    #[arg(long, alias = "peer2peer")]
    pub p2p: bool,
    /// Refused: QEMU cannot drive a migration itself.
    #[arg(long)]
    pub direct: bool,
    /// Send the migration's data through libvirt's own connection (needs --p2p).
    #[arg(long)]
    pub tunnelled: bool,
    /// Define the domain at the destination.
    #[arg(long)]
    pub persistent: bool,
    /// Let libvirt undefine the source domain at once, whether or not the log was carried.
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
    /// Allow post-copy: the guest runs at the destination before all its memory is there. An
    /// option below or `virsh migrate-postcopy` switches to it.
    #[arg(long)]
    pub postcopy: bool,
    /// Switch to post-copy after all memory was copied once (needs --postcopy).
    #[arg(long)]
    pub postcopy_after_precopy: bool,
    /// Resume a post-copy migration that broke off (needs --postcopy).
    #[arg(long)]
    pub postcopy_resume: bool,
}

/// What is done where it takes too long.
#[derive(Debug, Args)]
#[command(next_help_heading = "How it goes, as with virsh")]
pub struct Timeout {
    /// After this many seconds, suspend the guest; with --timeout-postcopy, switch to post-copy
    /// instead (needs --live).
    #[arg(long = "timeout", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub after: Option<u64>,
    /// At the timeout, suspend the guest so that its memory stops changing: the default.
    #[arg(
        long = "timeout-suspend",
        requires = "after",
        conflicts_with = "postcopy_then"
    )]
    pub suspend_then: bool,
    /// At the timeout, switch to post-copy (needs --postcopy).
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
    /// URI to which viewers of the guest's graphics reconnect.
    #[arg(long = "graphicsuri", value_name = "URI")]
    pub graphics_uri: Option<String>,
    /// Address on which the destination listens for the migration.
    #[arg(long, value_name = "ADDRESS")]
    pub listen_address: Option<String>,
}

/// Disks that are not shared.
#[derive(Debug, Args)]
#[command(next_help_heading = "Disks, as with virsh")]
pub struct Disks {
    /// Copy disks that the hosts do not share, completely.
    #[arg(long)]
    pub copy_storage_all: bool,
    /// Copy disks that the hosts do not share, without the base image that both have.
    #[arg(long)]
    pub copy_storage_inc: bool,
    /// Let each write of the guest wait until the destination has it too.
    #[arg(long)]
    pub copy_storage_synchronous_writes: bool,
    /// Copy only these disks.
    #[arg(long, value_name = "DISK,…", value_delimiter = ',')]
    pub migrate_disks: Vec<String>,
    /// Port on which the destination receives the disks.
    #[arg(long, value_name = "PORT")]
    pub disks_port: Option<i32>,
    /// URI to which the source sends the disks, instead of that port.
    #[arg(long, value_name = "URI")]
    pub disks_uri: Option<String>,
}

/// How memory travels.
#[derive(Debug, Args)]
#[command(next_help_heading = "Memory, as with virsh")]
pub struct Memory {
    /// Send at most this many MiB/s.
    #[arg(long, value_name = "MIB")]
    pub bandwidth: Option<u64>,
    /// Send at most this many MiB/s during post-copy.
    #[arg(long, value_name = "MIB")]
    pub postcopy_bandwidth: Option<u64>,
    /// Slow the guest down if its memory changes faster than it can be copied.
    #[arg(long)]
    pub auto_converge: bool,
    /// How much to slow it down at first, in percent (needs --auto-converge).
    #[arg(long, value_name = "PERCENT")]
    pub auto_converge_initial: Option<i32>,
    /// How much more to slow it down each time, in percent (needs --auto-converge).
    #[arg(long, value_name = "PERCENT")]
    pub auto_converge_increment: Option<i32>,
    /// Compress the memory.
    #[arg(long)]
    pub compressed: bool,
    /// Methods of compression: xbzrle, mt.
    #[arg(long, value_name = "METHOD,…", value_delimiter = ',')]
    pub comp_methods: Vec<String>,
    /// Compression level of the method mt.
    #[arg(long, value_name = "LEVEL")]
    pub comp_mt_level: Option<i32>,
    /// Number of threads that compress, method mt.
    #[arg(long, value_name = "N")]
    pub comp_mt_threads: Option<i32>,
    /// Number of threads that decompress, method mt.
    #[arg(long, value_name = "N")]
    pub comp_mt_dthreads: Option<i32>,
    /// Size of the page cache of the method xbzrle, in bytes.
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub comp_xbzrle_cache: Option<u64>,
    /// Send memory over several connections.
    #[arg(long)]
    pub parallel: bool,
    /// Number of these connections (needs --parallel).
    #[arg(long, value_name = "N")]
    pub parallel_connections: Option<i32>,
    /// Send memory pages without copying them first (needs --parallel).
    #[arg(long)]
    pub zerocopy: bool,
    /// Encrypt the migration with TLS.
    #[arg(long)]
    pub tls: bool,
    /// Host name that the destination's TLS certificate must have.
    #[arg(long, value_name = "NAME")]
    pub tls_destination: Option<String>,
    /// Pin all memory before an RDMA migration.
    #[arg(long)]
    pub rdma_pin_all: bool,
}
