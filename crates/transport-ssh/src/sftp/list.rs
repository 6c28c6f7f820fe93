//! Listing: folder by folder in the order of keys, and no deeper than the prefix
//! asks. What the server lists is not trusted: what cannot be part of a key is not
//! entered.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::join_all;
use logchain_core::ids::ConsoleName;
use logchain_core::transport::{Collection, Entry, Key, LIST_PAGE, Prefix};
use russh_sftp::protocol::FileAttributes;
use uuid::Uuid;

use super::session::{Done, Kind, Session, Trouble, kind};

/// Folders above an object: layout, domain, console, handoff.
pub(super) const DEPTH: usize = 4;

/// The layout of keys.
const LAYOUT: &str = "v1";

/// Requests for names under way at once.
const AHEAD: usize = 4;

/// Names that a folder has at the most: what has more is no handoff of ours.
const MOST: usize = 1_000_000;

/// A name, and what the server says of it without following links.
pub(super) type Named = (String, FileAttributes);

/// What a folder has, where the names are of use; `None` where there is no such folder.
pub(super) async fn names(
    session: &Arc<Session>,
    path: &str,
    is_of_use: impl Fn(&str) -> bool,
) -> Done<Option<Vec<Named>>> {
    let folder = match session.open_folder(path).await {
        Ok(folder) => folder,
        Err(Trouble::NotFound(_)) => return Ok(None),
        Err(trouble) => return Err(trouble),
    };
    let (mut found, mut seen) = (Vec::new(), 0_usize);
    let read = loop {
        let more = join_all((0..AHEAD).map(|_| folder.names())).await;
        let more: Done<Vec<_>> = more.into_iter().collect();
        let more = match more {
            Ok(more) => more,
            Err(trouble) => break Err(trouble),
        };
        let ended = more.iter().any(Vec::is_empty);
        for name in more.into_iter().flatten() {
            seen = seen.saturating_add(1);
            if is_of_use(&name.filename) {
                found.push((name.filename, name.attrs));
            }
        }
        if ended {
            break Ok(());
        }
        if seen > MOST {
            break Err(Trouble::Odd(format!("{path} has more than {MOST} names")));
        }
    };
    folder.end().await;
    read.map(|()| Some(found))
}

/// Whether a folder of this name can lie at this depth.
pub(super) fn fits(depth: usize, name: &str) -> bool {
    match depth {
        0 => name == LAYOUT,
        1 => Uuid::try_parse(name).is_ok_and(|uuid| uuid.hyphenated().to_string() == name),
        2 => name.parse::<ConsoleName>().is_ok(),
        _ => name.parse::<Collection>().is_ok(),
    }
}

pub(super) async fn list(
    session: &Arc<Session>,
    root: &str,
    prefix: &Prefix,
    after: Option<&Key>,
) -> Done<Vec<Entry>> {
    let wanted = prefix.to_string();
    let after = after.map(ToString::to_string);
    let mut walk = Walk {
        session,
        root,
        wanted: wanted.split('/').filter(|p| !p.is_empty()).collect(),
        after: after.as_deref(),
        found: Vec::new(),
    };
    walk.folder(String::new(), 0).await?;
    Ok(walk.found)
}

struct Walk<'a> {
    session: &'a Arc<Session>,
    root: &'a str,
    wanted: Vec<&'a str>,
    after: Option<&'a str>,
    found: Vec<Entry>,
}

type Walked<'a> = Pin<Box<dyn Future<Output = Done<()>> + Send + 'a>>;

impl Walk<'_> {
    /// `at`: the beginning of the keys beneath, with its slash.
    fn folder(&mut self, at: String, depth: usize) -> Walked<'_> {
        Box::pin(async move {
            if depth == DEPTH {
                return self.objects(&at).await;
            }
            let mut folders = self.folders(&at, depth).await?;
            // The slash belongs to the order: `a-b/` comes before `a/`.
            folders.iter_mut().for_each(|name| name.push('/'));
            folders.sort();
            folders.dedup();
            for name in folders {
                if self.found.len() >= LIST_PAGE {
                    return Ok(());
                }
                let path = format!("{at}{name}");
                // A whole folder before `after` needs no look.
                let is_over = |after: &str| !after.starts_with(&path) && *path < *after;
                if !self.after.is_some_and(is_over) {
                    self.folder(path, depth + 1).await?;
                }
            }
            Ok(())
        })
    }

    /// Of what is one now: links and files are not ours.
    async fn folders(&self, at: &str, depth: usize) -> Done<Vec<String>> {
        let path = format!("{}/{at}", self.root);
        let named = match self.wanted.get(depth) {
            Some(only) => {
                let found = self.session.look(&[format!("{path}{only}")]).await?;
                let found = found.into_iter().flatten();
                found.map(|attrs| ((*only).to_owned(), attrs)).collect()
            }
            None => {
                let path = path.trim_end_matches('/');
                let names = names(self.session, path, |name| fits(depth, name)).await?;
                typed(self.session, path, names.unwrap_or_default()).await?
            }
        };
        let folders = named.into_iter().filter(|(_, a)| kind(a) == Kind::Folder);
        Ok(folders.map(|(name, _)| name).collect())
    }

    async fn objects(&mut self, at: &str) -> Done<()> {
        let path = format!("{}/{at}", self.root);
        let path = path.trim_end_matches('/');
        let is_next = |name: &str| {
            let key = format!("{at}{name}");
            self.after.is_none_or(|after| *key > *after) && key.parse::<Key>().is_ok()
        };
        let mut named = names(self.session, path, is_next)
            .await?
            .unwrap_or_default();
        named.sort_by(|(a, _), (b, _)| a.cmp(b));
        named.dedup_by(|(a, _), (b, _)| a == b);
        let room = LIST_PAGE.saturating_sub(self.found.len());
        let named = typed(self.session, path, named).await?;
        let objects = named.into_iter().filter_map(|(name, attrs)| {
            let key = format!("{at}{name}").parse().ok()?;
            let size = attrs.size.filter(|_| kind(&attrs) == Kind::File)?;
            Some(Entry { key, size })
        });
        self.found.extend(objects.take(room));
        Ok(())
    }
}

/// With what a server leaves out of its listing looked up.
async fn typed(session: &Session, path: &str, mut named: Vec<Named>) -> Done<Vec<Named>> {
    let is_bare = |a: &FileAttributes| a.permissions.is_none() || a.size.is_none();
    for some in named.chunks_mut(LIST_PAGE) {
        let bare: Vec<&mut Named> = some.iter_mut().filter(|(_, a)| is_bare(a)).collect();
        let paths: Vec<String> = bare
            .iter()
            .map(|(name, _)| format!("{path}/{name}"))
            .collect();
        let found = session.look(&paths).await?;
        for ((_, attrs), found) in bare.into_iter().zip(found) {
            // Gone since: nothing of ours.
            *attrs = found.unwrap_or_default();
        }
    }
    Ok(named)
}
