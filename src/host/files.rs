//! Files: read with their attributes, replaced atomically, never through a stranger's symbolic link.
//!
//! Belongs here: how a file is read, replaced and removed so that a crash leaves the old content or the new one.
//! Does not: which files, or what is in them.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::FileSeen;
use crate::{
    error::{Error, ErrorKind, Result},
    plan::{Owner, Remove, Write},
};

/// What the names of files begin with that are not yet in their place.
pub(super) const UNFINISHED: &str = ".edgeallow-";

/// The largest file that is ever read whole: a rules file of a million prefixes has 40 MB.
const LARGEST: u64 = 256 << 20;

pub(super) fn read(path: &Path) -> Result<Option<FileSeen>> {
    let io_error = |e: &io::Error| Error::io(ErrorKind::Io, "read", path, e);
    let link = match fs::symlink_metadata(path) {
        Ok(m) => m,
        Err(e) if absent(&e) => return Ok(None),
        Err(e) => return Err(io_error(&e)),
    };
    let meta = match fs::metadata(path) {
        Ok(m) => m,
        // A dangling link: there is no file, but something stands in its place.
        Err(e) if absent(&e) => {
            return Err(refused(path, "is a symbolic link that leads nowhere").hint("remove it or mend it"));
        }
        Err(e) => return Err(io_error(&e)),
    };
    if !meta.is_file() {
        return Err(no_file(path, &meta));
    }
    if meta.len() > LARGEST {
        return Err(refused(path, "is too large to be what it should be"));
    }
    let content = fs::read(path).map_err(|e| io_error(&e))?;
    Ok(Some(FileSeen {
        content: content.into(),
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        symlink: link.is_symlink(),
    }))
}

/// Reads a file that the operator or another process names: a regular one, up to so many bytes. A pipe or a device is not
/// waited for. A symbolic link is followed if `links`.
///
/// # Errors
/// The operating system's, or in words that the file is none, or too large.
pub fn read_bounded(path: &Path, most: u64, links: bool) -> io::Result<Vec<u8>> {
    use rustix::fs::OFlags;
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    flags.set(OFlags::NOFOLLOW, !links);
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        let what = if meta.is_dir() { "it is a folder" } else { "it is not a regular file" };
        return Err(io::Error::other(what));
    }
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    // The length that the file system tells is not to be relied on: it may grow, and in /proc it is 0.
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}

/// Makes a folder, and those above it that are missing, for everybody to look into, whatever the caller's umask says: what
/// edgeallow keeps isn't secret, and `edgeallow status` of an ordinary user reads it.
pub fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        make_folder(above)?;
    }
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o755)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) => Err(e),
    }
}

pub(super) fn names(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if absent(&e) => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(ErrorKind::Io, "list", path, &e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io(ErrorKind::Io, "list", path, &e))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Replaces a file as a [`Write`] says.
pub(super) fn write(write: &Write) -> Result<()> {
    let path = real_path(&write.path, write.owner)?;
    let seen = read(&path)?;
    if seen.as_ref().map(|s| &s.content[..]) != write.was.as_deref() {
        return Err(Error::new(
            ErrorKind::RaceLost,
            format!("{} was changed by somebody else in the meantime", write.path.display()),
        ));
    }
    if write.in_place && seen.is_some() {
        in_place(&path, &write.content)
    } else {
        replace(&path, &write.content, write.mode, seen.as_ref())
    }
    .map_err(|e| Error::io(ErrorKind::Io, "write", &write.path, &e))
}

pub(super) fn remove(remove: &Remove) -> Result<()> {
    match read(&remove.path)? {
        None => Ok(()),
        Some(seen) if seen.symlink => Err(not_ours(&remove.path)),
        Some(seen) if seen.content != remove.was => Err(Error::new(
            ErrorKind::RaceLost,
            format!("{} was changed by somebody else in the meantime", remove.path.display()),
        )),
        Some(_) => {
            #[allow(clippy::disallowed_methods)] // this is the one place
            fs::remove_file(&remove.path).map_err(|e| Error::io(ErrorKind::Io, "remove", &remove.path, &e))?;
            sync_folder(&remove.path).map_err(|e| Error::io(ErrorKind::Io, "remove", &remove.path, &e))
        }
    }
}

/// Makes an empty file, or sets the time of one that is there.
pub(super) fn touch(path: &Path) -> Result<()> {
    let io_error = |e: &io::Error| Error::io(ErrorKind::Io, "touch", path, e);
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut open = fs::OpenOptions::new();
    open.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    let file = open.open(path).map_err(|e| io_error(&e))?;
    file.set_modified(std::time::SystemTime::now()).map_err(|e| io_error(&e))
}

/// Replaces a file of the state folder: the same guarantees, without the comparison.
///
/// # Errors
/// `io`, or `file-refused` for a symbolic link or a folder in its place.
pub fn replace_own(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let path = real_path(path, Owner::Edgeallow)?;
    let seen = match fs::metadata(&path) {
        Ok(m) if m.is_file() => Some(FileSeen {
            content: Arc::default(),
            mode: m.mode() & 0o7777,
            owner: (m.uid(), m.gid()),
            symlink: false,
        }),
        Ok(m) => return Err(no_file(&path, &m)),
        Err(_) => None,
    };
    replace(&path, content, mode, seen.as_ref()).map_err(|e| Error::io(ErrorKind::Io, "write", &path, &e))
}

/// Where a write really goes: through the administrator's links, never through one in place of a file of ours.
fn real_path(path: &Path, owner: Owner) -> Result<PathBuf> {
    match fs::symlink_metadata(path) {
        Ok(m) if m.is_symlink() => match owner {
            Owner::Edgeallow => Err(not_ours(path)),
            Owner::Administrator => path.canonicalize().map_err(|e| Error::io(ErrorKind::Io, "follow", path, &e)),
        },
        _ => Ok(path.to_owned()),
    }
}

fn not_ours(path: &Path) -> Error {
    refused(path, "is a symbolic link where a file of edgeallow's own belongs")
        .hint("somebody else put it there; look where it leads, remove it, and run edgeallow again")
}

fn no_file(path: &Path, what_is: &fs::Metadata) -> Error {
    let what = if what_is.is_dir() { "is a folder where a file is expected" } else { "is not a regular file" };
    refused(path, what).hint("move it out of the way, or name another file")
}

fn refused(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::FileRefused, format!("{} {why}", path.display()))
}

/// Temporary file in the same folder, attributes of the old one, fsync, rename, fsync of the folder.
fn replace(path: &Path, content: &[u8], mode: u32, old: Option<&FileSeen>) -> io::Result<()> {
    let folder = folder_of(path);
    let mut temp = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    temp.write_all(content)?;
    if let Some(old) = old {
        // Owner before mode: chown clears set-id bits.
        let now = temp.as_file().metadata()?;
        if (now.uid(), now.gid()) != old.owner {
            std::os::unix::fs::fchown(temp.as_file(), Some(old.owner.0), Some(old.owner.1))?;
        }
        copy_labels(path, temp.as_file())?;
    }
    let mode = old.map_or(mode, |o| o.mode);
    temp.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    temp.as_file().sync_all()?;
    temp.persist(path).map_err(|e| e.error)?;
    sync_folder(path)
}

/// Carries the security label and the access list over to the new file; file systems without them are fine.
fn copy_labels(from: &Path, to: &File) -> io::Result<()> {
    for name in ["security.selinux", "security.SMACK64", "system.posix_acl_access"] {
        let mut value = [0_u8; 4096];
        match rustix::fs::getxattr(from, name, &mut value[..]) {
            Ok(length) => rustix::fs::fsetxattr(to, name, &value[..length], rustix::fs::XattrFlags::empty())?,
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP | rustix::io::Errno::ACCESS) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn in_place(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    // The room is taken before the first byte is written: a full disk must not leave half a file.
    let room = rustix::fs::FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(&file, room, 0, (content.len() as u64).max(1)) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        Err(e) => return Err(e.into()),
    }
    file.write_all(content)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// The folder that a file lies in: this one, where only a name is given.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => Path::new("/"),
    }
}

fn absent(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(path: &Path, was: Option<&[u8]>, owner: Owner) -> Write {
        Write {
            path: path.into(),
            content: b"new".as_slice().into(),
            mode: 0o640,
            owner,
            was: was.map(Into::into),
            in_place: false,
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_replacement_keeps_the_mode_and_refuses_what_it_did_not_see() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write(&wanted(&path, None, Owner::Edgeallow)).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().mode, 0o640);
        fs::write(&path, "his").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        let lost = write(&wanted(&path, Some(b"old"), Owner::Edgeallow)).unwrap_err();
        assert_eq!(lost.kind, ErrorKind::RaceLost);
        write(&wanted(&path, Some(b"his"), Owner::Edgeallow)).unwrap();
        let seen = read(&path).unwrap().unwrap();
        assert_eq!((&seen.content[..], seen.mode), (&b"new"[..], 0o604));
        assert_eq!(names(dir.path()).unwrap(), ["f"], "no temporary file is left");
    }

    #[test]
    fn a_bare_name_lies_in_this_folder() {
        for (path, folder) in [("x.prom", "."), ("./x.prom", "."), ("a/x.prom", "a"), ("/x.prom", "/")] {
            assert_eq!(folder_of(Path::new(path)), Path::new(folder), "{path}");
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn in_place_the_file_stays_the_same_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "his own words").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let was: &[u8] = b"his own words";
        write(&Write { in_place: true, ..wanted(&path, Some(was), Owner::Administrator) }).unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::metadata(&path).unwrap().ino()), (b"new".to_vec(), inode));
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_touch_makes_a_file_for_root_alone_and_leaves_what_is_in_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("f"), dir.path().join("link"));
        touch(&path).unwrap();
        assert_eq!((read(&path).unwrap().unwrap().mode, fs::metadata(&path).unwrap().len()), (0o600, 0));
        fs::write(&path, "x").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        touch(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"x");
        assert!(fs::metadata(&path).unwrap().mtime() > 0);
        std::os::unix::fs::symlink("f", &link).unwrap();
        assert_eq!(touch(&link).unwrap_err().kind, ErrorKind::Io);
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn links_are_followed_for_him_and_refused_for_us() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&path, "his").unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        let e = write(&wanted(&link, Some(b"his"), Owner::Edgeallow)).unwrap_err();
        assert_eq!(e.kind, ErrorKind::FileRefused);
        write(&wanted(&link, Some(b"his"), Owner::Administrator)).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let e = remove(&Remove { path: link, was: b"new".as_slice().into() }).unwrap_err();
        assert_eq!(e.kind, ErrorKind::FileRefused);
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn what_is_named_is_read_if_it_is_a_file_and_not_too_large() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link, pipe) = (dir.path().join("f"), dir.path().join("link"), dir.path().join("pipe"));
        fs::write(&path, "12345").unwrap();
        std::os::unix::fs::symlink("f", &link).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert_eq!(read_bounded(&path, 5, false).unwrap(), b"12345");
        assert_eq!(read_bounded(&link, 5, true).unwrap(), b"12345");
        assert!(read_bounded(&link, 5, false).is_err());
        assert_eq!(read_bounded(&path, 4, true).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        for (none, words) in [(pipe.as_path(), "regular"), (Path::new("/dev/zero"), "regular"), (dir.path(), "folder")]
        {
            assert!(read_bounded(none, 5, true).unwrap_err().to_string().contains(words), "{}", none.display());
        }
    }

    #[test]
    fn a_folder_in_place_of_a_file_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap_err().kind, ErrorKind::FileRefused);
        assert_eq!(read(&dir.path().join("none")).unwrap(), None);
        assert_eq!(names(&dir.path().join("none")).unwrap(), Vec::<String>::new());
    }
}
