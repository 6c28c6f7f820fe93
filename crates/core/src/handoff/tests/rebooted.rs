//! A reboot may give the same disk another device number (LVM, NFS, disks found in
//! another order): nothing that is remembered may depend on it.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::resumed::killed_after_its_claim;
use super::*;
use crate::offsets::{Lookup, Offsets};

/// A file system in a file, on a loop device.
struct Disk {
    images: tempfile::TempDir,
    device: String,
    at: PathBuf,
}

/// What a command says, or why it failed.
fn run<S: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = S>,
) -> Result<String, String> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.success() {
        true => Ok(said),
        false => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

impl Disk {
    /// Mounted at `at`. `Err`: loop devices are not to be had here.
    fn mount(at: &Path) -> Result<Self, String> {
        let images = tempfile::tempdir().map_err(|e| e.to_string())?;
        let image = images.path().join("first");
        let file = File::create(&image).map_err(|e| e.to_string())?;
        file.set_len(16 << 20).map_err(|e| e.to_string())?;
        run("mkfs.ext4", [OsStr::new("-q"), image.as_os_str()])?;
        let device = attach(&image)?;
        let at = at.to_owned();
        let disk = Self { images, device, at };
        run("mount", [OsStr::new(&disk.device), disk.at.as_os_str()])?;
        Ok(disk)
    }

    /// The same bytes on another device.
    fn reboot(&mut self) {
        let before = fs::metadata(&self.at).unwrap();
        run("umount", [&self.at]).unwrap();
        let (old, new) = (
            self.images.path().join("first"),
            self.images.path().join("second"),
        );
        fs::copy(old, &new).unwrap();
        // Attached before the other is let go of: its number is another one.
        let device = attach(&new).unwrap();
        let before_device = std::mem::replace(&mut self.device, device);
        let mounted = run("mount", [OsStr::new(&self.device), self.at.as_os_str()]);
        run("losetup", ["-d", &before_device]).unwrap();
        mounted.unwrap();
        let after = fs::metadata(&self.at).unwrap();
        assert_ne!(after.dev(), before.dev());
        assert_eq!(after.ino(), before.ino());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", [&self.at]);
        let _ = run("losetup", ["-d", &self.device]);
    }
}

fn attach(image: &Path) -> Result<String, String> {
    run(
        "losetup",
        [
            OsStr::new("--find"),
            OsStr::new("--show"),
            image.as_os_str(),
        ],
    )
}

#[test]
fn offsets_stay_when_a_disk_gets_another_device_number() {
    let host = Host::new();
    let mut disk = match Disk::mount(host.dir.path()) {
        Ok(disk) => disk,
        Err(why) => return eprintln!("skipped: no loop devices here: {why}"),
    };
    let chain = || LogChain::open(&host.log, NumberingChoice::FromZero).unwrap();
    host.write("console.log.1", "dropped ");
    host.write("console.log.0", "one ");
    host.write("console.log", "two ");
    let offsets = Offsets::of(&chain()).unwrap();
    assert!(offsets.remember(&chain()).unwrap());
    drop(offsets);
    disk.reboot();
    fs::remove_file(host.dir.path().join("console.log.1")).unwrap();
    host.print("three");
    let offsets = Offsets::of(&chain()).unwrap();
    let one = StreamOffset::new(8);
    assert!(matches!(
        offsets.from(StreamOffset::START, 99).unwrap(),
        Lookup::Gone { next, .. } if next == one
    ));
    let Lookup::Run(mut run) = offsets.from(one, 99).unwrap() else {
        panic!("it is there");
    };
    let mut text = String::new();
    std::io::Read::read_to_string(&mut run, &mut text).unwrap();
    assert_eq!((text.as_str(), run.follows_gap()), ("one two three", false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_known_as_our_own_on_another_device_number() {
    let (source, host) = (Host::new(), Host::new());
    let mut disk = match Disk::mount(host.dir.path()) {
        Ok(disk) => disk,
        Err(why) => return eprintln!("skipped: no loop devices here: {why}"),
    };
    source.print("history ");
    host.print("here");
    let spool = memory();
    let mut trial = Trial::new(Arc::clone(&spool));
    trial.patience = Duration::from_millis(50);
    trial.source.send_replace(Source::Over);
    trial.offer(&source).await.unwrap();
    trial.patience = Duration::from_secs(5);
    trial.here.set(true);
    // The destination goes down between its claim and its seal.
    killed_after_its_claim(&mut trial, &spool, &host).await;
    disk.reboot();

    trial.transport = Arc::clone(&spool);
    let adopted = trial.adopt(&host, false).await.unwrap();
    assert!(matches!(adopted, adopt::Outcome::Adopted(_)), "{adopted:?}");
    assert_eq!(host.merged(), "history here");
}
