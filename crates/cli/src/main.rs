//! `logchain`: make a VM's serial-console log follow the VM through live migration.

mod adopt;
mod args;
mod carry;
mod exit;
mod far;
mod host;
mod migrate;
mod offer;
mod report;
mod serve;
mod show;
mod transports;

fn main() -> std::process::ExitCode {
    exit::run(args::parse())
}
