//! Rows of a CSV file, each written as soon as it is measured: a run that was cut
//! short is gone on with by the next one.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::Fallible;

pub(crate) struct Rows {
    path: PathBuf,
    rows: Vec<Vec<String>>,
}

impl Rows {
    /// Those of an earlier run, if the file is there; beneath the repository where
    /// the path is relative. Another header is another measurement's: refused.
    pub(crate) fn open(path: &str, header: &str) -> Fallible<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let path = root.join(path);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(_) => {
                fs::write(&path, format!("{header}\n"))
                    .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
                format!("{header}\n")
            }
        };
        let mut lines = text.lines();
        if lines.next() != Some(header) {
            return Err(format!("{} has other columns than {header}", path.display()).into());
        }
        let split = |line: &str| line.split(',').map(str::to_owned).collect();
        let rows = lines.map(split).collect();
        Ok(Self { path, rows })
    }

    /// How many begin with these.
    pub(crate) fn count(&self, begin: &[impl AsRef<str>]) -> usize {
        self.of(begin).len()
    }

    /// What follows the first columns in all rows that begin with these.
    pub(crate) fn of(&self, begin: &[impl AsRef<str>]) -> Vec<&[String]> {
        let rest = |row: &'_ Vec<String>| {
            let (first, _) = row.split_at_checked(begin.len())?;
            first
                .iter()
                .eq(begin.iter().map(AsRef::as_ref))
                .then_some(begin.len())
        };
        let rows = self.rows.iter();
        rows.filter_map(|row| row.get(rest(row)?..)).collect()
    }

    pub(crate) fn add(&mut self, row: Vec<String>) -> Fallible<()> {
        let line = row.join(",");
        println!("{line}");
        let mut file = OpenOptions::new().append(true).open(&self.path)?;
        writeln!(file, "{line}")?;
        self.rows.push(row);
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
