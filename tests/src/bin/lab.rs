//! A lab to look around in: starts one, says how to enter its hosts, and holds
//! it until standard input ends. The argument is the number of hosts, 2 unless given.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use logchain_tests::{Lab, LabError, Result};

fn main() -> ExitCode {
    match hold() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("lab: {e}");
            ExitCode::FAILURE
        }
    }
}

fn hold() -> Result<()> {
    let hosts = match std::env::args().nth(1).map(|n| n.parse()) {
        None => 2,
        Some(Ok(hosts @ 1..=9)) => hosts,
        Some(_) => {
            return Err(LabError::Missing {
                what: "a number of hosts from 1 to 9".to_owned(),
                hint: "usage: lab [HOSTS]".to_owned(),
            });
        }
    };
    let lab = Lab::start(hosts)?;
    let mut words = format!("state {}\n", lab.state().display());
    for host in lab.hosts() {
        let pid = host.root().parent().and_then(|proc| proc.file_name());
        let pid = pid.unwrap_or_default().to_string_lossy();
        words += &format!(
            "{} nsenter --target {pid} --mount --uts --ipc --net --pid -- bash\n",
            host.name()
        );
    }
    words += "ready, ends with standard input\n";
    // Nobody may be listening: the lab is held all the same.
    let _ = std::io::stdout().lock().write_all(words.as_bytes());
    let mut nothing = [0; 256];
    while let Ok(1..) = std::io::stdin().lock().read(&mut nothing) {}
    Ok(())
}
