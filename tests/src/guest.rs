//! Guests: what they are made of, and how they look from a host.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::boot::KERNEL_ARGUMENTS;
use crate::error::{LabError, Result, io_error};
use crate::host::Host;
use crate::ticks::Ticks;

/// Where a guest's log lies, as every host sees it.
pub(crate) fn log_path(guest: &str) -> PathBuf {
    Path::new("/var/log/lab").join(guest).join("console.log")
}

/// What a guest has beyond whole MiB, so that its memory is no multiple of 256 KiB.
///
/// QEMU before 9.0 loses writes of an emulated processor during a migration, and the guest's kernel
/// crashes: where it goes over the memory's dirty bitmap in whole words, of 64 pages each, it forgets
/// to tell the processor that pages count as clean again (mended by "physmem: Fix migration dirty
/// bitmap coherency with TCG memory access", March 2024). Memory that ends within a word is gone over
/// page by page, and there it does not forget. QEMU takes multiples of 8 KiB.
const ODD_KIB: u64 = 8;

/// How fast a guest prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// So many microseconds from line to line, where the processor keeps up: 1000
    /// gives 700 to 900 lines a second on an emulated one.
    Micros(u32),
    /// A line after the other, without a pause: some 200 KiB a second.
    Flat,
}

/// A guest to define: some 96 MiB, one emulated processor, and an init that prints
/// [`Ticks`] to its serial port.
#[derive(Debug, Clone)]
pub struct Guest {
    name: String,
    uuid: Option<String>,
    append: Option<bool>,
    log: bool,
    pace: Pace,
    lines: Option<u64>,
    floods: Option<(u64, u64)>,
    file: bool,
    second: bool,
    dirty: u32,
    fill: u32,
    huge: bool,
    disk: Option<PathBuf>,
}

impl Guest {
    /// How much memory it has, but for some KiB.
    pub const MIB: u64 = 96;

    /// A guest that prints every millisecond, its log without `append`.
    #[must_use]
    pub fn new(name: &str) -> Guest {
        Guest {
            name: name.to_owned(),
            uuid: None,
            append: None,
            log: true,
            pace: Pace::Micros(1000),
            lines: None,
            floods: None,
            file: false,
            second: false,
            dirty: 0,
            fill: 0,
            huge: false,
            disk: None,
        }
    }

    /// Sets `append='on'` or `'off'` on its log; not set unless called.
    #[must_use]
    pub fn append(mut self, append: bool) -> Guest {
        self.append = Some(append);
        self
    }

    /// Sets how fast it prints.
    #[must_use]
    pub fn pace(mut self, pace: Pace) -> Guest {
        self.pace = pace;
        self
    }

    /// Lets it fall silent after so many lines; it runs on.
    #[must_use]
    pub fn lines(mut self, lines: u64) -> Guest {
        self.lines = Some(lines);
        self
    }

    /// Lets `flood` lines come without a pause after every `calm` ones at its pace.
    #[must_use]
    pub fn floods(mut self, calm: u64, flood: u64) -> Guest {
        self.floods = Some((calm, flood));
        self
    }

    /// Sets its UUID; libvirt chooses one unless called.
    #[must_use]
    pub fn uuid(mut self, uuid: &str) -> Guest {
        self.uuid = Some(uuid.to_owned());
        self
    }

    /// Gives it a serial port without a log.
    #[must_use]
    pub fn without_log(mut self) -> Guest {
        self.log = false;
        self
    }

    /// Lets QEMU write its log itself: `<serial type='file'>`, without a `<log>`.
    #[must_use]
    pub fn file(mut self) -> Guest {
        self.file = true;
        self
    }

    /// Gives it a second serial port, with a log of its own, `second.log` beside the
    /// first one's; it prints every line to both.
    #[must_use]
    pub fn second_port(mut self) -> Guest {
        self.second = true;
        self
    }

    /// Lets it write to so many MiB of its memory all the time, 16 at the most: a live
    /// migration that is slower has no end to come to by itself.
    #[must_use]
    pub fn dirty(mut self, mib: u32) -> Guest {
        self.dirty = mib;
        self
    }

    /// Lets it write to so many MiB of its memory once, 16 at the most: they have to be
    /// sent, and nobody asks for them.
    #[must_use]
    pub fn fill(mut self, mib: u32) -> Guest {
        self.fill = mib;
        self
    }

    /// Has its memory in huge pages, of which this machine must have enough for every
    /// host that it is on.
    #[must_use]
    pub fn huge_pages(mut self) -> Guest {
        self.huge = true;
        self
    }

    /// Gives it a disk, which must be there on the host that starts it.
    #[must_use]
    pub fn disk(mut self, image: impl Into<PathBuf>) -> Guest {
        self.disk = Some(image.into());
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of its log as the hosts see it, if it has one.
    pub(crate) fn log_folder(&self) -> Option<PathBuf> {
        let folder = log_path(&self.name).parent().map(Path::to_owned);
        folder.filter(|_| self.log)
    }

    /// Its definition for libvirt.
    #[must_use]
    pub fn xml(&self) -> String {
        let name = &self.name;
        let uuid = match &self.uuid {
            Some(uuid) => format!("<uuid>{uuid}</uuid>"),
            None => String::new(),
        };
        let append = match self.append {
            None => "",
            Some(true) => " append='on'",
            Some(false) => " append='off'",
        };
        let path = log_path(name);
        let serial = |port: u32, path: &Path| match (self.log, self.file) {
            (false, _) => format!("<serial type='pty'><target port='{port}'/></serial>"),
            (true, false) => format!(
                "<serial type='pty'><log file='{}'{append}/><target port='{port}'/></serial>",
                path.display()
            ),
            (true, true) => format!(
                "<serial type='file'><source path='{}'{append}/><target port='{port}'/></serial>",
                path.display()
            ),
        };
        let mut devices = serial(0, &path);
        if self.second {
            devices += &serial(1, &path.with_file_name("second.log"));
        }
        if let Some(disk) = &self.disk {
            devices += &format!(
                "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>\
                 <source file='{}'/><target dev='vda' bus='virtio'/></disk>",
                disk.display()
            );
        }
        let ports = if self.second { 2 } else { 1 };
        let (dirty, fill) = (self.dirty, self.fill);
        // Huge pages cannot be odd.
        let (backing, arguments) = match self.huge {
            true => ("<memoryBacking><hugepages/></memoryBacking>", String::new()),
            false => ("", odd_memory()),
        };
        let pace = match self.pace {
            Pace::Micros(micros) => micros,
            Pace::Flat => 0,
        };
        let lines = self.lines.unwrap_or(0);
        let (calm, flood) = self.floods.unwrap_or_default();
        format!(
            "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
             <name>{name}</name>{uuid}\
             <memory unit='MiB'>{}</memory>{backing}<vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='q35'>hvm</type>\
             <kernel>/run/lab/boot/vmlinuz</kernel><initrd>/run/lab/boot/initramfs</initrd>\
             <cmdline>{KERNEL_ARGUMENTS} lc_pace={pace} lc_lines={lines} \
             lc_ports={ports} lc_dirty={dirty} lc_fill={fill} \
             lc_calm={calm} lc_flood={flood}</cmdline></os>\
             <features><acpi/></features>\
             <cpu mode='custom' match='exact'><model fallback='allow'>qemu64</model></cpu>\
             <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\
             <controller type='usb' model='none'/>\
             {devices}\
             <memballoon model='none'/></devices>{arguments}</domain>",
            Self::MIB
        )
    }
}

/// Memory of an odd size, which libvirt has no element for: it rounds up to whole MiB.
fn odd_memory() -> String {
    let kib = Guest::MIB * 1024 + ODD_KIB;
    let arguments = [
        "-object".to_owned(),
        format!("memory-backend-ram,id=lab.ram,size={kib}k"),
        "-machine".to_owned(),
        "memory-backend=lab.ram".to_owned(),
        "-m".to_owned(),
        format!("{kib}k"),
    ];
    let arguments = arguments.map(|argument| format!("<qemu:arg value='{argument}'/>"));
    format!(
        "<qemu:commandline>{}</qemu:commandline>",
        arguments.concat()
    )
}

/// A guest as one host sees it. After a migration ask the other host for its own view.
#[derive(Debug, Clone)]
pub struct GuestOn {
    host: Host,
    name: String,
}

/// A boot takes seconds where the processor is emulated, and far more where others use it as well.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// Holds many lines, whatever the guest's pace.
const TAIL: u64 = 64 * 1024;

impl GuestOn {
    pub(crate) fn new(host: &Host, name: &str) -> GuestOn {
        GuestOn {
            host: host.clone(),
            name: name.to_owned(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host whose view this is.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`crate::LabError::Failed`] with libvirt's words.
    pub fn start(&self) -> Result<()> {
        self.host
            .run(["virsh", "--quiet", "start", &self.name])?
            .checked()?;
        Ok(())
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// [`crate::LabError::Failed`] with libvirt's words.
    pub fn destroy(&self) -> Result<()> {
        self.host
            .run(["virsh", "--quiet", "destroy", &self.name])?
            .checked()?;
        Ok(())
    }

    /// Its state in virsh's words ("running", "shut off", …); none where this
    /// host does not know it.
    ///
    /// # Errors
    /// As [`Host::run`].
    pub fn state(&self) -> Result<Option<String>> {
        let output = self.host.run(["virsh", "domstate", &self.name])?;
        Ok(output
            .status
            .success()
            .then(|| output.out().trim().to_owned()))
    }

    /// Waits until a line with at least this counter is in its log here, up to two
    /// minutes.
    ///
    /// # Errors
    /// [`crate::LabError::Timeout`], with what the host's daemons said last.
    pub fn wait_for_tick(&self, counter: u64) -> Result<u64> {
        let what = format!("line {counter} of {}", self.name);
        self.host.until(&what, BOOT_LIMIT, || {
            Ok(self.last_tick()?.filter(|last| *last >= counter))
        })
    }

    /// Waits until its log here has this many lines more than now, or its first
    /// ones if there are none: it prints here.
    ///
    /// # Errors
    /// As [`GuestOn::wait_for_tick`].
    pub fn wait_for_more_ticks(&self, more: u64) -> Result<u64> {
        let now = self.last_tick()?.unwrap_or(0);
        self.wait_for_tick(now + more)
    }

    /// The counter of the last whole line in its log here; none where there is no
    /// line yet.
    ///
    /// # Errors
    /// [`crate::LabError::Io`].
    pub fn last_tick(&self) -> Result<Option<u64>> {
        let base = self.host.path(log_path(&self.name));
        // Right after a rollover the base holds no whole line.
        let older = base.with_file_name("console.log.0");
        for path in [&base, &older] {
            if let Some(last) = read_tail(path)?.as_deref().and_then(Ticks::last) {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }

    /// Where its log lies, as the host sees it.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        log_path(&self.name)
    }

    /// Its log's files here: see [`Host::read_log_files`].
    ///
    /// # Errors
    /// As there.
    pub fn log_files(&self) -> Result<Vec<crate::LogFile>> {
        self.host.read_log_files(&self.name)
    }

    /// Removes the folder of its log here, as Nova does at a migration's source: it
    /// gets another name, and is removed under that; again, where somebody put a file
    /// into it meanwhile.
    ///
    /// # Errors
    /// [`crate::LabError::Io`].
    pub fn remove_log_folder(&self) -> Result<()> {
        const TRIES: u32 = 5;
        let path = log_path(&self.name);
        let folder = path.parent().unwrap_or(&path);
        let mut gone = folder.as_os_str().to_owned();
        gone.push("_del");
        let gone = Path::new(&gone);
        let from = self.host.path(folder);
        #[expect(
            clippy::disallowed_methods,
            reason = "what has the name already is of an earlier removal"
        )]
        fs::rename(&from, self.host.path(gone)).map_err(io_error("rename", &from))?;
        let mut left = TRIES;
        loop {
            left -= 1;
            match self.host.remove_folder(gone) {
                Err(LabError::Io { source, .. })
                    if source.kind() == ErrorKind::DirectoryNotEmpty && left > 0 => {}
                removed => return removed,
            }
        }
    }

    /// Makes the folder of its log here, as an orchestrator does before a migration.
    ///
    /// # Errors
    /// [`crate::LabError::Io`].
    pub fn make_log_folder(&self) -> Result<()> {
        let path = self.host.path(log_path(&self.name));
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder).map_err(io_error("create", folder))
    }
}

fn read_tail(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io_error("open", path))?,
    };
    let mut bytes = Vec::new();
    let read = file
        .metadata()
        .and_then(|meta| file.seek(SeekFrom::Start(meta.len().saturating_sub(TAIL))))
        .and_then(|_| file.take(TAIL).read_to_end(&mut bytes));
    read.map_err(io_error("read", path))?;
    Ok(Some(bytes))
}
