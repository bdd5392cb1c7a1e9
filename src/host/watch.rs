//! Hearing that files change: inotify(7) on folders, narrowed to the names that matter.
//!
//! A folder is watched, not the file: most programs replace a file by renaming another one over it. Where a folder
//! isn't there yet, the nearest one above it is watched for its coming.
//!
//! Belongs here: watching. Does not: which files matter, or what a change means.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch},
    io::Errno,
};

use crate::error::{Error, ErrorKind, Result, io_reason};

/// Which names in a folder matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// All of them.
    All,
    /// These.
    These(BTreeSet<String>),
}

impl Names {
    /// Adds one.
    pub fn add(&mut self, name: &str) {
        if let Self::These(names) = self {
            names.insert(name.to_owned());
        }
    }

    fn holds(&self, name: &OsStr) -> bool {
        match self {
            // Half a file of ours is none yet, and on a full disk it never becomes one.
            Self::All => !name.as_bytes().starts_with(super::files::UNFINISHED.as_bytes()),
            Self::These(names) => name.to_str().is_some_and(|n| names.contains(n)),
        }
    }
}

/// Folders, and what matters in each.
pub type Places = BTreeMap<PathBuf, Names>;

/// Everything that leaves a file or a folder other than it was.
const CHANGES: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Watches folders.
pub struct Watcher {
    fd: OwnedFd,
    watched: BTreeMap<i32, Names>,
}

impl Watcher {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// `io` when the kernel grants no more inotify instances.
    pub fn new() -> Result<Self> {
        let fd = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|e| {
            Error::new(ErrorKind::Io, format!("cannot watch files: {}", io_reason(&e.into())))
                .hint("raise fs.inotify.max_user_instances")
        })?;
        Ok(Self { fd, watched: BTreeMap::new() })
    }

    /// Watches these places from now on, and no others. What can't be watched comes back, in words.
    pub fn follow(&mut self, places: &Places) -> Vec<String> {
        let mut refused = Vec::new();
        let mut watched: BTreeMap<i32, Names> = BTreeMap::new();
        for (folder, names) in real(places) {
            match add_watch(&self.fd, folder.as_os_str(), CHANGES) {
                Ok(id) => {
                    // Two paths may lead to one folder.
                    match (watched.get_mut(&id), names) {
                        (Some(all @ Names::These(_)), Names::All) => *all = Names::All,
                        (Some(known), Names::These(more)) => more.iter().for_each(|name| known.add(name)),
                        (Some(Names::All), Names::All) => {}
                        (None, names) => drop(watched.insert(id, names)),
                    }
                }
                // Gone between the two looks: its coming back is heard of in the folder above.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(e) => {
                    refused.push(format!("{} can't be watched for changes: {}", folder.display(), io_reason(&e.into())))
                }
            }
        }
        for id in self.watched.keys().filter(|id| !watched.contains_key(id)) {
            // It may have gone with its folder.
            let _ = remove_watch(&self.fd, *id);
        }
        self.watched = watched;
        refused
    }

    /// Takes all that has happened off the list; says whether any of it matters.
    ///
    /// # Errors
    /// `io` when the list can't be read.
    pub fn drain(&mut self) -> Result<bool> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.fd, &mut space);
        let mut heard = false;
        loop {
            match events.next() {
                Ok(event) => heard |= matters(&self.watched, event.wd(), event.events(), event.file_name()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(heard),
                Err(e) => {
                    let reason = io_reason(&e.into());
                    return Err(Error::new(ErrorKind::Io, format!("cannot hear of changed files: {reason}")));
                }
            }
        }
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn matters(watched: &BTreeMap<i32, Names>, id: i32, what: ReadFlags, name: Option<&std::ffi::CStr>) -> bool {
    // More happened than the list could hold.
    if what.contains(ReadFlags::QUEUE_OVERFLOW) {
        return true;
    }
    match (watched.get(&id), name) {
        (None, _) => false,
        (Some(names), Some(name)) => names.holds(OsStr::from_bytes(name.to_bytes())),
        // The folder itself: gone, or moved away. Its times and mode don't matter.
        (Some(_), None) => what.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED),
    }
}

/// The folders that are really there, with what to listen for in each: missing ones are waited for in the nearest one
/// above, and where a symbolic link stands for a file, the place it leads to is watched too.
fn real(places: &Places) -> Places {
    let mut real = Places::new();
    for (folder, names) in places {
        let mut add = |folder: &Path, name: &str| {
            real.entry(folder.to_owned()).or_insert_with(|| Names::These(BTreeSet::new())).add(name);
        };
        if folder.is_dir() {
            if let Names::These(names) = names {
                for name in names {
                    add(folder, name);
                    let target = fs::canonicalize(folder.join(name)).unwrap_or_default();
                    if let (Some(there), Some(called)) = (target.parent(), target.file_name().and_then(OsStr::to_str)) {
                        add(there, called);
                    }
                }
            } else {
                real.insert(folder.clone(), Names::All);
            }
        } else if let Some((above, next)) = nearest(folder) {
            add(above, next);
        }
    }
    real
}

/// The nearest folder above that is there, and the name in it that leads on.
fn nearest(folder: &Path) -> Option<(&Path, &str)> {
    let mut missing = folder;
    loop {
        let above = missing.parent()?;
        if above.is_dir() {
            return Some((above, missing.file_name()?.to_str()?));
        }
        missing = above;
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn these(names: &[&str]) -> Names {
        Names::These(names.iter().map(|&n| n.to_owned()).collect())
    }

    #[test]
    fn only_the_names_that_matter_are_heard() {
        let dir = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::new().unwrap();
        assert!(watcher.follow(&Places::from([(dir.path().to_owned(), these(&["rules"]))])).is_empty());
        fs::write(dir.path().join("other"), "x").unwrap();
        assert!(!watcher.drain().unwrap());
        fs::write(dir.path().join("rules"), "x").unwrap();
        assert!(watcher.drain().unwrap());
        assert!(!watcher.drain().unwrap(), "it was taken off the list");
        fs::write(dir.path().join("new"), "x").unwrap();
        fs::rename(dir.path().join("new"), dir.path().join("rules")).unwrap();
        assert!(watcher.drain().unwrap(), "a rename is a change");
        fs::remove_file(dir.path().join("rules")).unwrap();
        assert!(watcher.drain().unwrap(), "so is going");
        // A file that could not be written to its end was never there.
        assert!(watcher.follow(&Places::from([(dir.path().to_owned(), Names::All)])).is_empty());
        fs::write(dir.path().join(".edgeallow-Xy12"), "x").unwrap();
        fs::remove_file(dir.path().join(".edgeallow-Xy12")).unwrap();
        assert!(!watcher.drain().unwrap());
        fs::write(dir.path().join("any"), "x").unwrap();
        assert!(watcher.drain().unwrap());
    }

    #[test]
    fn a_folder_that_comes_later_is_heard_of_and_one_that_goes() {
        let dir = tempfile::tempdir().unwrap();
        let later = dir.path().join("a/b");
        let places = Places::from([(later.clone(), Names::All)]);
        let mut watcher = Watcher::new().unwrap();
        watcher.follow(&places);
        fs::write(dir.path().join("else"), "x").unwrap();
        assert!(!watcher.drain().unwrap());
        fs::create_dir_all(&later).unwrap();
        assert!(watcher.drain().unwrap());
        watcher.follow(&places);
        let _ = watcher.drain().unwrap();
        fs::write(later.join("any"), "x").unwrap();
        assert!(watcher.drain().unwrap());
        fs::remove_dir_all(&later).unwrap();
        assert!(watcher.drain().unwrap());
    }

    #[test]
    fn the_file_behind_a_link_is_watched() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["etc", "real"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("real/file"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("real/file"), dir.path().join("etc/rules")).unwrap();
        let mut watcher = Watcher::new().unwrap();
        watcher.follow(&Places::from([(dir.path().join("etc"), these(&["rules"]))]));
        fs::write(dir.path().join("real/file"), "y").unwrap();
        assert!(watcher.drain().unwrap());
    }
}
