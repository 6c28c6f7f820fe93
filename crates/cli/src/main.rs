//! `logchain`: make a VM's serial-console log follow the VM through live migration.

fn main() -> std::process::ExitCode {
    logchain::without_libvirt()
}
