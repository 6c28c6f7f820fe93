//! What a guest boots: the distribution's kernel for virtual machines, and an
//! initramfs of one small program. Both are made once and kept in the build's
//! folder, under names that exist only when the file is whole.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{LabError, Result, io_error};
use crate::place::cache_folder;
use crate::tool::tool;
use crate::wait::{try_lock, until};

/// Packages that depend on the newest kernel for guests: Debian's, then Ubuntu's.
const KERNEL_PACKAGES: [&str; 3] = [
    "linux-image-cloud-amd64",
    "linux-image-virtual",
    "linux-image-generic",
];
const TICKER: &str = include_str!("guest/ticker.c");

/// What a guest boots, as this machine sees it.
#[derive(Debug, Clone)]
pub struct BootFiles {
    /// The distribution's kernel.
    pub kernel: PathBuf,
    /// An initramfs of the one program that prints numbered lines.
    pub initramfs: PathBuf,
}

/// What a guest's kernel is told, but for how its program prints (`lc_pace` and so on): what is off
/// here makes an emulated boot a third shorter.
pub const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 nokaslr mitigations=off \
    tsc=reliable no_timer_check lpj=4000000 random.trust_cpu=on";

/// The archive may be far away.
const FETCH_LIMIT: Duration = Duration::from_secs(600);

/// Fetches the guest's kernel and builds its program, if that was not done before.
/// Every lab does it when it starts; whoever wants to say so beforehand, or to do
/// it without root, calls this.
///
/// # Errors
/// [`LabError::Missing`], or how apt or the compiler failed.
pub fn prepare_guest() -> Result<()> {
    boot_files().map(drop)
}

/// Finds or makes both, for code that boots guests itself. Whoever comes while another makes them
/// waits for it.
///
/// # Errors
/// As [`prepare_guest`].
pub fn boot_files() -> Result<BootFiles> {
    let cache = cache_folder()?;
    fs::create_dir_all(&cache).map_err(io_error("create", &cache))?;
    let gate = cache.join("lock");
    let lock = File::create(&gate).map_err(io_error("create", &gate))?;
    until(
        "another process to fetch the guest's kernel",
        FETCH_LIMIT,
        || try_lock(&lock, &gate),
    )?;
    let kernel = match std::env::var_os("LOGCHAIN_LAB_KERNEL") {
        Some(path) => PathBuf::from(path),
        None => {
            let kernel = cache.join("vmlinuz");
            if !kernel.exists() {
                fetch_kernel(&cache, &kernel)?;
            }
            kernel
        }
    };
    let initramfs = cache.join(format!("initramfs-{:016x}", fnv1a(TICKER.as_bytes())));
    if !initramfs.exists() {
        build_initramfs(&cache, &initramfs)?;
    }
    Ok(BootFiles { kernel, initramfs })
}

fn fetch_kernel(cache: &Path, kernel: &Path) -> Result<()> {
    let work = cache.join("fetch.tmp");
    // A fetch that was cut short left it behind.
    let _ = fs::remove_dir_all(&work);
    fs::create_dir(&work).map_err(io_error("create", &work))?;
    let package = match newest_kernel(&work)? {
        Some(package) => package,
        None => {
            fetch(&["apt-get", "update", "-q"], &work)?;
            newest_kernel(&work)?.ok_or_else(|| LabError::Missing {
                what: "a kernel for guests".to_owned(),
                hint: format!(
                    "apt knows none of {}: add the distribution's main archive to its sources, or set LOGCHAIN_LAB_KERNEL",
                    KERNEL_PACKAGES.join(", ")
                ),
            })?
        }
    };
    // As root, or apt complains that its own user cannot write here.
    let download = [
        "apt-get",
        "download",
        "-q",
        "-o",
        "APT::Sandbox::User=root",
        &package,
    ];
    if fetch(&download, &work).is_err() {
        // Lists that have aged name files that the archive has no more.
        fetch(&["apt-get", "update", "-q"], &work)?;
        fetch(&download, &work)?;
    }
    let deb = only_file(&work, |name| name.ends_with(".deb"))?;
    let unpacked = work.join("root");
    let (from, to) = (deb.to_string_lossy(), unpacked.to_string_lossy());
    fetch(&["dpkg", "-x", &from, &to], &work)?;
    let image = only_file(&unpacked.join("boot"), |name| name.starts_with("vmlinuz"))?;
    place(&image, kernel)?;
    fs::remove_dir_all(&work).map_err(io_error("remove", &work))
}

fn fetch(args: &[&str], folder: &Path) -> Result<Vec<u8>> {
    tool(
        "the guest's kernel to be fetched",
        args,
        folder,
        FETCH_LIMIT,
    )
}

/// The package behind the first of [`KERNEL_PACKAGES`] that apt knows.
fn newest_kernel(folder: &Path) -> Result<Option<String>> {
    for package in KERNEL_PACKAGES {
        // A package that apt does not know is a failure of this command.
        let depends = ["apt-cache", "depends", "--important", package];
        let output = match fetch(&depends, folder) {
            Err(LabError::Failed { .. }) => continue,
            other => other?,
        };
        let text = String::from_utf8_lossy(&output);
        let found = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| {
                name.strip_prefix("linux-image-")
                    .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            });
        if let Some(name) = found {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

fn build_initramfs(cache: &Path, initramfs: &Path) -> Result<()> {
    let source = cache.join("ticker.c");
    let program = cache.join("ticker.tmp");
    fs::write(&source, TICKER).map_err(io_error("write", &source))?;
    let (from, to) = (source.to_string_lossy(), program.to_string_lossy());
    tool(
        "the guest's program to be built",
        &[
            "gcc",
            "-Os",
            "-static",
            "-nostdlib",
            "-ffreestanding",
            "-fno-stack-protector",
            "-fno-pie",
            "-no-pie",
            "-o",
            &to,
            &from,
        ],
        cache,
        Duration::from_secs(60),
    )?;
    let init = fs::read(&program).map_err(io_error("read", &program))?;
    let mut archive = Archive::default();
    archive.entry("dev", 0o040_755, (0, 0), &[]);
    archive.entry("dev/console", 0o020_600, (5, 1), &[]);
    for (port, minor) in [("dev/ttyS0", 64), ("dev/ttyS1", 65)] {
        archive.entry(port, 0o020_600, (4, minor), &[]);
    }
    archive.entry("init", 0o100_755, (0, 0), &init);
    let made = cache.join("initramfs.tmp");
    fs::write(&made, archive.finish()).map_err(io_error("write", &made))?;
    place(&made, initramfs)?;
    fs::remove_file(&made).map_err(io_error("remove", &made))
}

/// The kernel's archive format for an initramfs, "newc".
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let (ino, size, name_size) = (self.entries, content.len(), name.len() + 1);
        // magic, ino, mode, uid, gid, links, mtime, size, device, rdevice, name's size, checksum
        let header = format!(
            "070701{ino:08X}{mode:08X}{0:08X}{0:08X}{1:08X}{0:08X}{size:08X}{0:08X}{0:08X}{2:08X}{3:08X}{name_size:08X}{0:08X}",
            0, 1, device.0, device.1
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

/// Gives a whole copy of `from` the name `to`, at once or not at all.
fn place(from: &Path, to: &Path) -> Result<()> {
    let temporary = to.with_extension("placing");
    let bytes = fs::read(from).map_err(io_error("read", from))?;
    let mut file = File::create(&temporary).map_err(io_error("create", &temporary))?;
    file.write_all(&bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o644)))
        .map_err(io_error("write", &temporary))?;
    #[expect(
        clippy::disallowed_methods,
        reason = "a cache entry may be replaced by one that is as good"
    )]
    fs::rename(&temporary, to).map_err(io_error("rename to", to))
}

fn only_file(folder: &Path, fits: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).map_err(io_error("list", folder))?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| fits(&name.to_string_lossy()))
        })
        .ok_or_else(|| LabError::Missing {
            what: format!("the guest's kernel in {}", folder.display()),
            hint: "set LOGCHAIN_LAB_KERNEL to a kernel image with a serial console".to_owned(),
        })
}

/// A name for a source text: not secret, only unlikely to repeat.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn an_archive_is_aligned_and_ends_with_its_trailer() {
        let mut archive = Archive::default();
        archive.entry("init", 0o100_755, (0, 0), b"12345");
        let bytes = archive.finish();
        assert_eq!(&bytes[..6], b"070701");
        // header 110, "init\0" 5, padded to 116; the content begins there.
        assert_eq!(&bytes[116..121], b"12345");
        assert_eq!(&bytes[124..130], b"070701");
        assert!(bytes.len().is_multiple_of(4));
        assert!(bytes.windows(11).any(|w| w == b"TRAILER!!!\0"));
    }
}
