//! Logs: read in passing, however large they are, and what a program prints that answers with a log.
//!
//! Belongs here: opening them so that nothing hangs, and reading to an end that is known. Does not: what they say.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt as _,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::spawn;
use crate::error::{Error, ErrorKind, Result, io_reason};

/// A file that is read from its beginning to where it ended when it was opened: a log that grows meanwhile has an end
/// too, and one that is renamed stays the one that was opened.
pub struct OpenLog {
    /// Its content.
    pub content: Box<dyn Read>,
    /// How many bytes it had when it was opened.
    pub size: u64,
    /// When it was last written.
    pub modified: Timestamp,
    /// Device and inode: two paths with the same are one file.
    pub id: (u64, u64),
}

pub(super) fn open(path: &Path) -> Result<Option<OpenLog>> {
    let failed = |e: &io::Error| Error::io(ErrorKind::Io, "read", path, e);
    // A pipe or a device may do something when it is opened, and a pipe waits for its writer.
    match fs::metadata(path) {
        Ok(meta) => regular(path, &meta)?,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(failed(&e)),
    }
    // Without waiting, for what was put in its place in the meantime, and for files of /proc that wait for news.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|e| failed(&e))?;
    let meta = file.metadata().map_err(|e| failed(&e))?;
    regular(path, &meta)?;
    // Nothing here depends on a time that can't be represented.
    let modified = Timestamp::from_second(meta.mtime()).unwrap_or(Timestamp::MAX);
    let size = meta.len();
    Ok(Some(OpenLog { content: Box::new(file.take(size)), size, modified, id: (meta.dev(), meta.ino()) }))
}

fn regular(path: &Path, meta: &fs::Metadata) -> Result<()> {
    if meta.is_file() {
        return Ok(());
    }
    let what = if meta.is_dir() { "is a folder where a file is expected" } else { "is not a regular file" };
    Err(Error::new(ErrorKind::FileRefused, format!("{} {what}", path.display())))
}

/// Starts a program whose output is read as it comes; silence that is longer than `patience` is an error.
#[allow(clippy::disallowed_methods)] // beside `spawn`, which keeps the whole of what a program says
pub(super) fn stream(argv: &[&str], patience: Duration) -> Result<Box<dyn Read>> {
    let [name, args @ ..] = argv else { return Err(Error::new(ErrorKind::Internal, "no program to start")) };
    let program = spawn::find(name).ok_or_else(|| {
        Error::new(ErrorKind::Program, format!("there is no program {name} in {}", spawn::FOLDERS.join(":")))
    })?;
    let mut child = Command::new(&program)
        .args(args)
        .env_clear()
        .env("PATH", spawn::FOLDERS.join(":"))
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| {
            Error::new(ErrorKind::Program, format!("cannot start {}: {}", program.display(), io_reason(&e)))
        })?;
    match child.stdout.take() {
        Some(stdout) => Ok(Box::new(Output { child, stdout, patience })),
        None => Err(Error::new(ErrorKind::Internal, "a program without output")),
    }
}

struct Output {
    child: Child,
    stdout: ChildStdout,
    patience: Duration,
}

impl Read for Output {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let limit = Timespec::try_from(self.patience).map_err(io::Error::other)?;
        let mut wait = [PollFd::from_borrowed_fd(self.stdout.as_fd(), PollFlags::IN)];
        if poll(&mut wait, Some(&limit))? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it says nothing more and does not end"));
        }
        self.stdout.read(into)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // It has ended, or nobody listens to it any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn a_log_ends_where_it_ended_when_it_was_opened_also_after_it_was_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, rotated) = (dir.path().join("a.log"), dir.path().join("a.log.1"));
        fs::write(&path, "one\n").unwrap();
        let mut log = open(&path).unwrap().unwrap();
        fs::rename(&path, rotated).unwrap();
        fs::write(&path, "another\n").unwrap();
        let mut text = String::new();
        log.content.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), log.size), ("one\n", 4));
        assert_ne!(open(&path).unwrap().unwrap().id, log.id);
    }

    #[test]
    fn what_would_hang_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        for path in [&pipe, Path::new("/dev/zero"), dir.path()] {
            assert_eq!(open(path).err().unwrap().kind, ErrorKind::FileRefused, "{path:?}");
        }
        assert!(open(&dir.path().join("none")).unwrap().is_none());
        // Regular by its kind, endless by its nature.
        if let Ok(Some(mut log)) = open(Path::new("/proc/self/status")) {
            assert_eq!(io::copy(&mut log.content, &mut io::sink()).unwrap(), 0);
        }
    }

    #[test]
    fn a_programs_words_come_as_they_are_said_and_silence_ends() {
        let mut said = String::new();
        stream(&["echo", "a", "b"], Duration::from_secs(10)).unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "a b\n");
        let silent = stream(&["sleep", "100"], Duration::from_millis(20)).unwrap().read(&mut [0; 8]).unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
        assert!(stream(&["no-such-program-at-all"], Duration::from_secs(1)).is_err());
    }
}
