//! Listing: folder by folder in the order of keys, and no deeper than the prefix
//! asks. Names in the folder come from outside: what cannot be part of a key is
//! not entered.

use std::ffi::OsString;

use super::super::key::LAYOUT;
use super::super::{Collection, Entry, Key, LIST_PAGE, Prefix};
use crate::folder::{self, Folder};
use crate::ids::ConsoleName;
use crate::ids::uuid_as_written;

/// Folders above an object: layout, domain, console, handoff.
pub(super) const DEPTH: usize = 4;

pub(super) fn list(
    root: &Folder,
    prefix: &Prefix,
    after: Option<&Key>,
) -> folder::Result<Vec<Entry>> {
    let wanted = prefix.to_string();
    let after = after.map(ToString::to_string);
    let mut walk = Walk {
        wanted: wanted.split('/').filter(|p| !p.is_empty()).collect(),
        after: after.as_deref(),
        found: Vec::new(),
    };
    walk.folder(root, "", 0)?;
    Ok(walk.found)
}

/// Whether a folder of this name can lie at this depth.
pub(super) fn fits(depth: usize, name: &str) -> bool {
    match depth {
        0 => name == LAYOUT,
        1 => uuid_as_written(name).is_some(),
        2 => name.parse::<ConsoleName>().is_ok(),
        _ => name.parse::<Collection>().is_ok(),
    }
}

struct Walk<'a> {
    wanted: Vec<&'a str>,
    after: Option<&'a str>,
    found: Vec<Entry>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Folder, at: &str, depth: usize) -> folder::Result<()> {
        let names = match self.wanted.get(depth) {
            Some(only) => vec![OsString::from(only)],
            None => folder.names()?,
        };
        let mut names: Vec<String> = names
            .into_iter()
            .filter_map(|n| n.into_string().ok())
            .collect();
        if depth == DEPTH {
            // A long handoff is looked at again and again: by far the most of it was
            // seen before.
            if let Some(after) = self.after.and_then(|after| after.strip_prefix(at)) {
                names.retain(|name| name.as_str() > after);
            }
            names.sort();
        } else {
            names.retain(|name| fits(depth, name));
            // The slash belongs to the order: `a-b/` comes before `a/`.
            names.iter_mut().for_each(|name| name.push('/'));
            names.sort();
        }
        for name in names {
            if self.found.len() >= LIST_PAGE {
                return Ok(());
            }
            let path = format!("{at}{name}");
            if depth == DEPTH {
                self.object(folder, &name, &path)?;
            } else {
                self.deeper(folder, name.trim_end_matches('/'), &path, depth)?;
            }
        }
        Ok(())
    }

    fn object(&mut self, folder: &Folder, name: &str, path: &str) -> folder::Result<()> {
        if self.after.is_some_and(|after| path <= after) {
            return Ok(());
        }
        let Ok(key) = path.parse::<Key>() else {
            return Ok(());
        };
        // Gone since the names were read: deleted.
        if let Some(stat) = folder.stat(name.as_ref())?.filter(|s| s.regular) {
            let size = stat.size;
            self.found.push(Entry { key, size });
        }
        Ok(())
    }

    fn deeper(
        &mut self,
        folder: &Folder,
        name: &str,
        path: &str,
        depth: usize,
    ) -> folder::Result<()> {
        // A whole folder before `after` needs no look.
        if self
            .after
            .is_some_and(|after| !after.starts_with(path) && path < after)
        {
            return Ok(());
        }
        match folder.open_folder(name.as_ref()) {
            Ok(next) => self.folder(&next, path, depth + 1),
            // Deleted just now; or a file or a link, which is not ours.
            Err(folder::Error::NotFound { .. } | folder::Error::NotFolder { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }
}
