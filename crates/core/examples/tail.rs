//! Prints the last 100 lines of a console log and its rotated files:
//! `cargo run -p logchain-core --example tail -- /var/log/libvirt/qemu/vm1.console.log`.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use logchain_core::{Amount, LogChain, NumberingChoice};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("which log?")?;
    let chain = LogChain::open(&PathBuf::from(path), NumberingChoice::Auto)?;
    let mut tail = chain.tail(Amount::Lines(100))?;
    io::copy(&mut tail, &mut io::stdout())?;
    // What was not read, and where the order of the files is in doubt.
    for remark in tail.remarks() {
        eprintln!("{remark}");
    }
    Ok(())
}
