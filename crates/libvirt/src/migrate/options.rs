//! Pure: `virsh migrate`'s options as types, and which of them go together.
//!
//! Checked here is what virsh checks itself, and what libvirt and its QEMU
//! driver refuse whatever the domain is: the answer comes before anything is
//! touched, and in the words of the command line.

use std::ffi::CString;

use virt_sys as sys;

use crate::ffi::{Param, Value};
use crate::{Error, Result};

/// A migration that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MigrateRequest {
    /// The destination's libvirt: as the source sees it with `p2p` and `direct`,
    /// as this process sees it otherwise.
    pub dest_uri: String,
    /// The options without a value.
    pub flags: MigrateFlags,
    /// The options with a value.
    pub params: MigrateParams,
}

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:path,)*) => {
        /// `virsh migrate`'s options without a value, by its names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
        pub struct MigrateFlags {
            $($(#[$doc])* pub $name: bool,)*
            /// `--direct`: unmanaged; the hypervisors talk to each other without
            /// libvirt at the destination. QEMU knows no such thing.
            pub direct: bool,
        }

        impl MigrateFlags {
            /// As libvirt's bits. `direct` has none: it is another call.
            #[must_use]
            pub fn bits(&self) -> u32 {
                let mut bits = 0;
                $(if self.$name {
                    bits |= $bit;
                })*
                bits
            }
        }
    };
}

flags! {
    /// `--live`: the guest runs on while it is copied.
    live = sys::VIR_MIGRATE_LIVE,
    /// `--offline`: only the definition moves.
    offline = sys::VIR_MIGRATE_OFFLINE,
    /// `--p2p`: the source's libvirtd drives it.
    p2p = sys::VIR_MIGRATE_PEER2PEER,
    /// `--tunnelled`: the guest's memory goes through libvirt's connection.
    tunnelled = sys::VIR_MIGRATE_TUNNELLED,
    /// `--persistent`: the destination keeps the definition.
    persistent = sys::VIR_MIGRATE_PERSIST_DEST,
    /// `--undefinesource`: the source forgets the domain when it has left.
    undefine_source = sys::VIR_MIGRATE_UNDEFINE_SOURCE,
    /// `--suspend`: the guest stays paused at the destination.
    suspend = sys::VIR_MIGRATE_PAUSED,
    /// `--copy-storage-all`: disks are copied whole.
    copy_storage_all = sys::VIR_MIGRATE_NON_SHARED_DISK,
    /// `--copy-storage-inc`: disks are copied above a shared base.
    copy_storage_inc = sys::VIR_MIGRATE_NON_SHARED_INC,
    /// `--copy-storage-synchronous-writes`
    copy_storage_synchronous_writes = sys::VIR_MIGRATE_NON_SHARED_SYNCHRONOUS_WRITES,
    /// `--change-protection`
    change_protection = sys::VIR_MIGRATE_CHANGE_PROTECTION,
    /// `--unsafe`
    unsafe_disks = sys::VIR_MIGRATE_UNSAFE,
    /// `--compressed`
    compressed = sys::VIR_MIGRATE_COMPRESSED,
    /// `--auto-converge`
    auto_converge = sys::VIR_MIGRATE_AUTO_CONVERGE,
    /// `--rdma-pin-all`
    rdma_pin_all = sys::VIR_MIGRATE_RDMA_PIN_ALL,
    /// `--abort-on-error`
    abort_on_error = sys::VIR_MIGRATE_ABORT_ON_ERROR,
    /// `--postcopy`: allows [`start_post_copy`](super::start_post_copy).
    postcopy = sys::VIR_MIGRATE_POSTCOPY,
    /// `--postcopy-resume`
    postcopy_resume = sys::VIR_MIGRATE_POSTCOPY_RESUME,
    /// `--zerocopy`
    zerocopy = sys::VIR_MIGRATE_ZEROCOPY,
    /// `--tls`
    tls = sys::VIR_MIGRATE_TLS,
    /// `--parallel`
    parallel = sys::VIR_MIGRATE_PARALLEL,
}

/// `virsh migrate`'s options with a value.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MigrateParams {
    /// `--migrateuri`: where the memory goes.
    pub migrate_uri: Option<String>,
    /// `--dname`: the domain's name at the destination.
    pub dname: Option<String>,
    /// What `--xml` names: the domain's XML for the destination.
    pub dest_xml: Option<String>,
    /// What `--persistent-xml` names: the definition for the destination.
    pub persist_xml: Option<String>,
    /// `--graphicsuri`
    pub graphics_uri: Option<String>,
    /// `--listen-address`: where the destination waits for the memory.
    pub listen_address: Option<String>,
    /// `--migrate-disks`, split at its commas.
    pub migrate_disks: Vec<String>,
    /// `--disks-port`
    pub disks_port: Option<i32>,
    /// `--disks-uri`
    pub disks_uri: Option<String>,
    /// `--bandwidth`, in MiB/s
    pub bandwidth: Option<u64>,
    /// `--postcopy-bandwidth`, in MiB/s
    pub postcopy_bandwidth: Option<u64>,
    /// `--comp-methods`, split at its commas.
    pub comp_methods: Vec<String>,
    /// `--comp-mt-level`
    pub comp_mt_level: Option<i32>,
    /// `--comp-mt-threads`
    pub comp_mt_threads: Option<i32>,
    /// `--comp-mt-dthreads`
    pub comp_mt_dthreads: Option<i32>,
    /// `--comp-xbzrle-cache`, in bytes
    pub comp_xbzrle_cache: Option<u64>,
    /// `--auto-converge-initial`, in percent
    pub auto_converge_initial: Option<i32>,
    /// `--auto-converge-increment`, in percent
    pub auto_converge_increment: Option<i32>,
    /// `--parallel-connections`
    pub parallel_connections: Option<i32>,
    /// `--tls-destination`
    pub tls_destination: Option<String>,
}

impl MigrateParams {
    /// As libvirt's typed parameters.
    pub(crate) fn values(&self) -> Result<Vec<Param>> {
        let mut values = Vec::new();
        let texts = [
            (sys::VIR_MIGRATE_PARAM_URI, &self.migrate_uri),
            (sys::VIR_MIGRATE_PARAM_DEST_NAME, &self.dname),
            (sys::VIR_MIGRATE_PARAM_DEST_XML, &self.dest_xml),
            (sys::VIR_MIGRATE_PARAM_PERSIST_XML, &self.persist_xml),
            (sys::VIR_MIGRATE_PARAM_GRAPHICS_URI, &self.graphics_uri),
            (sys::VIR_MIGRATE_PARAM_LISTEN_ADDRESS, &self.listen_address),
            (sys::VIR_MIGRATE_PARAM_DISKS_URI, &self.disks_uri),
            (
                sys::VIR_MIGRATE_PARAM_TLS_DESTINATION,
                &self.tls_destination,
            ),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                values.push((name, Value::Text(c_text(text)?)));
            }
        }
        for disk in &self.migrate_disks {
            values.push((
                sys::VIR_MIGRATE_PARAM_MIGRATE_DISKS,
                Value::Text(c_text(disk)?),
            ));
        }
        for method in &self.comp_methods {
            values.push((
                sys::VIR_MIGRATE_PARAM_COMPRESSION,
                Value::Text(c_text(method)?),
            ));
        }
        let longs = [
            (sys::VIR_MIGRATE_PARAM_BANDWIDTH, self.bandwidth),
            (
                sys::VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY,
                self.postcopy_bandwidth,
            ),
            (
                sys::VIR_MIGRATE_PARAM_COMPRESSION_XBZRLE_CACHE,
                self.comp_xbzrle_cache,
            ),
        ];
        for (name, long) in longs {
            values.extend(long.map(|long| (name, Value::ULong(long))));
        }
        let ints = [
            (sys::VIR_MIGRATE_PARAM_DISKS_PORT, self.disks_port),
            (
                sys::VIR_MIGRATE_PARAM_COMPRESSION_MT_LEVEL,
                self.comp_mt_level,
            ),
            (
                sys::VIR_MIGRATE_PARAM_COMPRESSION_MT_THREADS,
                self.comp_mt_threads,
            ),
            (
                sys::VIR_MIGRATE_PARAM_COMPRESSION_MT_DTHREADS,
                self.comp_mt_dthreads,
            ),
            (
                sys::VIR_MIGRATE_PARAM_AUTO_CONVERGE_INITIAL,
                self.auto_converge_initial,
            ),
            (
                sys::VIR_MIGRATE_PARAM_AUTO_CONVERGE_INCREMENT,
                self.auto_converge_increment,
            ),
            (
                sys::VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS,
                self.parallel_connections,
            ),
        ];
        for (name, int) in ints {
            values.extend(int.map(|int| (name, Value::Int(int))));
        }
        Ok(values)
    }
}

impl MigrateRequest {
    /// Whether the options go together.
    ///
    /// # Errors
    /// [`Error::BadRequest`], naming the options.
    pub fn check(&self) -> Result<()> {
        let MigrateRequest {
            dest_uri,
            flags: f,
            params: p,
        } = self;
        if dest_uri.is_empty() {
            return bad("the destination's URI is empty".to_owned());
        }
        for (one, other, both) in [
            ("--live", "--offline", f.live && f.offline),
            ("--p2p", "--direct", f.p2p && f.direct),
            (
                "--copy-storage-all",
                "--copy-storage-inc",
                f.copy_storage_all && f.copy_storage_inc,
            ),
            (
                "--offline",
                "--copy-storage-all",
                f.offline && f.copy_storage_all,
            ),
            (
                "--offline",
                "--copy-storage-inc",
                f.offline && f.copy_storage_inc,
            ),
            ("--offline", "--tunnelled", f.offline && f.tunnelled),
            ("--offline", "--postcopy", f.offline && f.postcopy),
            ("--tunnelled", "--postcopy", f.tunnelled && f.postcopy),
            ("--tunnelled", "--parallel", f.tunnelled && f.parallel),
            ("--tunnelled", "--tls", f.tunnelled && f.tls),
            (
                "--tunnelled",
                "--migrateuri",
                f.tunnelled && p.migrate_uri.is_some(),
            ),
            (
                "--tunnelled",
                "--listen-address",
                f.tunnelled && p.listen_address.is_some(),
            ),
        ] {
            if both {
                return bad(format!("{one} and {other} exclude each other"));
            }
        }
        let storage = f.copy_storage_all || f.copy_storage_inc;
        let compressing = !p.comp_methods.is_empty()
            || p.comp_mt_level.is_some()
            || p.comp_mt_threads.is_some()
            || p.comp_mt_dthreads.is_some()
            || p.comp_xbzrle_cache.is_some();
        let converging = p.auto_converge_initial.is_some() || p.auto_converge_increment.is_some();
        for (option, given, needs, there) in [
            ("--tunnelled", f.tunnelled, "--p2p", f.p2p),
            ("--offline", f.offline, "--persistent", f.persistent),
            (
                "--copy-storage-synchronous-writes",
                f.copy_storage_synchronous_writes,
                "--copy-storage-all or --copy-storage-inc",
                storage,
            ),
            (
                "--migrate-disks",
                !p.migrate_disks.is_empty(),
                "--copy-storage-all or --copy-storage-inc",
                storage,
            ),
            (
                "--postcopy-resume",
                f.postcopy_resume,
                "--postcopy",
                f.postcopy,
            ),
            (
                "--persistent-xml",
                p.persist_xml.is_some(),
                "--persistent",
                f.persistent,
            ),
            (
                "--tls-destination",
                p.tls_destination.is_some(),
                "--tls",
                f.tls,
            ),
            (
                "--parallel-connections",
                p.parallel_connections.is_some(),
                "--parallel",
                f.parallel,
            ),
            ("--zerocopy", f.zerocopy, "--parallel", f.parallel),
            (
                "a --comp-… option",
                compressing,
                "--compressed",
                f.compressed,
            ),
            (
                "an --auto-converge-… option",
                converging,
                "--auto-converge",
                f.auto_converge,
            ),
        ] {
            if given && !there {
                return bad(format!("{option} needs {needs}"));
            }
        }
        for (option, number, least, most) in [
            ("--disks-port", p.disks_port, 0, 65535),
            ("--comp-mt-level", p.comp_mt_level, 0, 9),
            ("--comp-mt-threads", p.comp_mt_threads, 1, i32::MAX),
            ("--comp-mt-dthreads", p.comp_mt_dthreads, 1, i32::MAX),
            ("--auto-converge-initial", p.auto_converge_initial, 1, 99),
            (
                "--auto-converge-increment",
                p.auto_converge_increment,
                1,
                99,
            ),
            (
                "--parallel-connections",
                p.parallel_connections,
                1,
                i32::MAX,
            ),
        ] {
            if let Some(number) = number
                && !(least..=most).contains(&number)
            {
                return bad(format!("{option} is {number}, not {least} to {most}"));
            }
        }
        if let Some(name) = &p.dname
            && (name.is_empty() || name.contains('/') || name.contains('\n'))
        {
            return bad(format!("--dname {name:?} is no name of a domain"));
        }
        Ok(())
    }
}

/// # Errors
/// [`Error::BadRequest`] where C would see less of it.
pub(super) fn c_text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::BadRequest(format!("{text:?} has a NUL byte in it")))
}

fn bad<T>(what: String) -> Result<T> {
    Err(Error::BadRequest(what))
}
