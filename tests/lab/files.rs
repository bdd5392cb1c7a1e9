//! Files in the lab, and pictures of whole folders to compare.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use super::Lab;

/// Everything in some folders: path to kind, mode, owner and content.
pub type Tree = BTreeMap<String, String>;

impl Lab {
    /// Writes a file, with the folders above it.
    pub fn write_file(&self, path: &str, content: impl AsRef<[u8]>) {
        let content = content.as_ref();
        self.inside(|| {
            with_files_of_its_own();
            if let Some(folder) = Path::new(path).parent() {
                fs::create_dir_all(folder).unwrap_or_else(|e| panic!("cannot make the folder of {path}: {e}"));
            }
            fs::write(path, content).unwrap_or_else(|e| panic!("cannot write {path}: {e}"));
        });
    }

    /// A file's text.
    pub fn read_file(&self, path: &str) -> String {
        let bytes = self.inside(|| fs::read(path)).unwrap_or_else(|e| panic!("cannot read {path}: {e}"));
        String::from_utf8(bytes).unwrap_or_else(|_| panic!("{path} is not UTF-8"))
    }

    /// Whether there is anything at a path, be it a dangling symbolic link.
    pub fn exists(&self, path: &str) -> bool {
        self.inside(|| fs::symlink_metadata(path).is_ok())
    }

    /// Changes files by means of the standard library; errors fail the test.
    pub fn files<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> T {
        self.inside(work).unwrap_or_else(|e| panic!("cannot prepare files in the lab: {e}"))
    }

    /// Puts a symbolic link in a place, whatever is there now.
    pub fn link(&self, target: &str, path: &str) {
        self.files(|| {
            if fs::symlink_metadata(path).is_ok() {
                fs::remove_file(path)?;
            }
            symlink(target, path)
        });
    }

    /// Sets permission bits.
    pub fn chmod(&self, path: &str, mode: u32) {
        self.files(|| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    }

    /// A picture of everything in these folders.
    pub fn tree(&self, folders: &[&str]) -> Tree {
        self.inside(|| {
            let mut tree = Tree::new();
            for folder in folders {
                walk(Path::new(folder), false, &mut tree).unwrap_or_else(|e| panic!("cannot look at {folder}: {e}"));
            }
            tree
        })
    }

    /// The same with inode numbers and times of change: equal means that nobody has written anything.
    pub fn stamps(&self, folders: &[&str]) -> Tree {
        self.inside(|| {
            let mut tree = Tree::new();
            for folder in folders {
                walk(Path::new(folder), true, &mut tree).unwrap_or_else(|e| panic!("cannot look at {folder}: {e}"));
            }
            tree
        })
    }
}

/// What differs between two pictures, a line each.
pub fn diff(before: &Tree, after: &Tree) -> Vec<String> {
    let gone = before.keys().filter(|p| !after.contains_key(*p)).map(|p| format!("gone: {p}"));
    let rest = after.iter().filter_map(|(path, now)| match before.get(path) {
        None => Some(format!("new: {path} {now}")),
        Some(was) if was != now => Some(format!("changed: {path}\n    was {was}\n    now {now}")),
        Some(_) => None,
    });
    gone.chain(rest).collect()
}

/// From now on the files that this thread opens are in no table but its own. A program that another test starts at the
/// same time would have them for as long as its start takes, and none that somebody has open for writing can be executed
/// (`ETXTBSY`).
fn with_files_of_its_own() {
    // SAFETY: a table of its own, without any but the three standard ones, is all that this thread gets by it; the files
    // of all others stay open. It ends with the lab's work, which brought none.
    #[allow(unsafe_code)]
    unsafe {
        // Kernels before 5.9 don't know it: then it is as it would be without.
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE);
    }
}

/// Adds what there is at a path. What daemons take away meanwhile isn't there.
fn walk(path: &Path, stamps: bool, tree: &mut Tree) -> io::Result<()> {
    match look(path, stamps, tree) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn look(path: &Path, stamps: bool, tree: &mut Tree) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    let what = if meta.is_symlink() {
        format!("link to {:?}", fs::read_link(path)?)
    } else if meta.is_dir() {
        "folder".to_owned()
    } else if meta.is_file() && !stamps {
        format!("file {:?}", String::from_utf8_lossy(&fs::read(path)?))
    } else {
        format!("{} bytes", meta.len())
    };
    let mut line = format!("{:o} {}:{} {what}", meta.mode(), meta.uid(), meta.gid());
    if stamps {
        line += &format!(" inode {} changed {}.{:09}", meta.ino(), meta.ctime(), meta.ctime_nsec());
    }
    tree.insert(path.display().to_string(), line);
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), stamps, tree)?;
        }
    }
    Ok(())
}
