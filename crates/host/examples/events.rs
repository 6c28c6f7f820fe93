//! Writes the schema of the events, and their kinds and fields on the reference page:
//! `cargo run -p logchain-host --features schema --example events -- docs/src/reference`.
//! `cargo xtask docs` runs it.

use std::path::PathBuf;
use std::{env, fs, io};

use logchain_host::event::schema;

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("which folder has events.md?"))?;
    let schema = format!("{:#}\n", schema::schema());
    fs::write(folder.join("events.schema.json"), schema)?;
    let path = folder.join("events.md");
    let page = schema::page(&fs::read_to_string(&path)?);
    let page = page.ok_or_else(|| io::Error::other("events.md has no place for its kinds"))?;
    fs::write(path, page)
}
