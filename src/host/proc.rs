//! Processes, as procfs shows them (proc(5)).
//!
//! Belongs here: which process holds what, and what it does. Does not: whether that is right.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// A running program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    /// The process.
    pub pid: u32,
    /// The name that it goes by: `nginx`.
    pub name: String,
    /// The file that it was started from; `None` where that may not be read.
    pub file: Option<PathBuf>,
}

/// A running process, with what it holds and may hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// The one that started it.
    pub parent: u32,
    /// The name that it goes by, cut to 15 letters: `nginx`.
    pub name: String,
    /// Its arguments with blanks between, or the title that it gave itself: `nginx: worker process`. Not for showing:
    /// arguments may hold secrets.
    pub title: String,
    /// How many files it may have open: the soft limit; `None` where there is none, or it may not be seen.
    pub file_limit: Option<u64>,
    /// How many it has open that count against the limit, which is one on their numbers: what was opened under a higher
    /// one does not. `None` where that may not be seen: another user's, without root.
    pub files: Option<u64>,
    /// The inodes of the sockets among them, in ascending order.
    pub sockets: Vec<u32>,
    /// What each thread waits in, by the kernel's name of it, the first thread first; `0` for one that runs, or that may
    /// not be seen.
    pub waits_in: Vec<String>,
    /// Whether it sees other files than this process: it is in a container.
    pub elsewhere: bool,
}

/// No process is asked for more than this many of its files: reading a name for each takes a second a million.
const MOST_FILES: usize = 200_000;

/// Whether the program that this process runs has been removed since it was started. One that was replaced, as by an
/// upgrade, has not.
#[must_use]
pub fn executable_is_gone() -> bool {
    fs::read_link("/proc/self/exe").is_ok_and(|link| is_gone(&link))
}

/// The kernel writes so behind the name of a file that has none any more (proc(5)).
fn is_gone(link: &Path) -> bool {
    let name = link.as_os_str().as_bytes().strip_suffix(b" (deleted)");
    name.is_some_and(|name| matches!(Path::new(OsStr::from_bytes(name)).try_exists(), Ok(false)))
}

/// The running processes whose name is wanted, in the order of their numbers. One that ends meanwhile is left out.
pub(super) fn running(wanted: &dyn Fn(&str) -> bool) -> Vec<Process> {
    let here = fs::read_link("/proc/self/ns/mnt").ok();
    let mut found: Vec<Process> = processes().filter_map(|pid| process(pid, wanted, here.as_deref())).collect();
    found.sort_by_key(|p| p.pid);
    found
}

fn process(pid: u32, wanted: &dyn Fn(&str) -> bool, here: Option<&Path>) -> Option<Process> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let name = fs::read_to_string(folder.join("comm")).ok()?.trim_end().to_owned();
    if !wanted(&name) {
        return None;
    }
    let title = fs::read(folder.join("cmdline")).ok()?;
    let title = String::from_utf8_lossy(&title).replace('\0', " ").trim_end().to_owned();
    let limits = fs::read_to_string(folder.join("limits")).ok();
    let file_limit = limits.and_then(|text| file_limit(&text));
    let (mut files, mut sockets) = (None, Vec::new());
    if let Ok(open) = fs::read_dir(folder.join("fd")) {
        let mut count = 0;
        for (n, entry) in open.flatten().enumerate() {
            let number: Option<u64> = entry.file_name().to_str().and_then(|n| n.parse().ok());
            count += u64::from(number < file_limit || file_limit.is_none());
            if n < MOST_FILES {
                sockets.extend(fs::read_link(entry.path()).ok().and_then(|link| socket(&link)));
            }
        }
        files = Some(count);
        sockets.sort_unstable();
        sockets.dedup();
    }
    let mut threads: Vec<u32> = fs::read_dir(folder.join("task"))
        .ok()?
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    threads.sort_by_key(|thread| (*thread != pid, *thread));
    let waits_in = |thread: u32| fs::read_to_string(folder.join(format!("task/{thread}/wchan"))).unwrap_or_default();
    Some(Process {
        pid,
        parent: parent(&fs::read_to_string(folder.join("stat")).ok()?)?,
        name,
        title,
        file_limit,
        files,
        sockets,
        waits_in: threads.into_iter().map(waits_in).collect(),
        elsewhere: matches!((fs::read_link(folder.join("ns/mnt")), here), (Ok(there), Some(here)) if there != here),
    })
}

/// The fourth field of `stat`: the second is a name in brackets, which may hold blanks and brackets.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The soft one of `Max open files  1024  524288  files`; `None` for `unlimited`.
fn file_limit(limits: &str) -> Option<u64> {
    limits.lines().find_map(|l| l.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

/// The numbers of the processes that can be seen.
pub(super) fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

/// Which programs hold each of these sockets, by the sockets' inodes; those of other users are seen by root only.
pub(super) fn holders(inodes: &[u32]) -> BTreeMap<u32, Vec<Program>> {
    let mut found: BTreeMap<u32, Vec<Program>> = BTreeMap::new();
    for pid in processes() {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let Ok(open) = fs::read_dir(folder.join("fd")) else { continue };
        let mut held: Vec<u32> = open.flatten().filter_map(|e| socket(&fs::read_link(e.path()).ok()?)).collect();
        held.retain(|inode| inodes.contains(inode));
        held.sort_unstable();
        held.dedup();
        if held.is_empty() {
            continue;
        }
        let name = fs::read_to_string(folder.join("comm")).unwrap_or_default().trim_end().to_owned();
        let program = Program { pid, name, file: fs::read_link(folder.join("exe")).ok() };
        for inode in held {
            found.entry(inode).or_default().push(program.clone());
        }
    }
    found.values_mut().for_each(|programs| programs.sort());
    found
}

/// `socket:[12345]`
fn socket(link: &Path) -> Option<u32> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_program_is_gone_when_nothing_took_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("edgeallow");
        let mut link = program.clone().into_os_string();
        link.push(" (deleted)");
        assert!(is_gone(Path::new(&link)) && !is_gone(&program));
        fs::write(&program, "the next version").unwrap();
        assert!(!is_gone(Path::new(&link)), "an upgrade");
        assert!(!executable_is_gone());
    }

    #[test]
    fn this_process_holds_its_socket() {
        use std::os::fd::AsRawFd as _;
        // This very one: those of other tests come and go.
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = socket(&fs::read_link(format!("/proc/self/fd/{}", server.as_raw_fd())).unwrap()).unwrap();
        let found = holders(&[inode]);
        assert!(found[&inode].iter().any(|p| p.pid == std::process::id() && p.file.is_some()), "{found:?}");

        let own = running(&|_| true).into_iter().find(|p| p.pid == std::process::id()).unwrap();
        assert!(own.sockets.contains(&inode) && own.files > Some(3) && own.file_limit > own.files, "{own:?}");
        assert!(!own.waits_in.is_empty() && !own.elsewhere && own.parent > 0 && !own.title.is_empty(), "{own:?}");
        assert!(running(&|_| false).is_empty());
    }

    #[test]
    fn names_with_brackets_hide_no_parent() {
        assert_eq!(parent("12 (a) b) (c)) S 7 12 12 0 -1"), Some(7));
        assert_eq!(parent("12"), None);
        assert_eq!(file_limit("Limit  Soft\nMax open files            1024     524288   files"), Some(1024));
        assert_eq!(file_limit("Max open files            unlimited            unlimited            files"), None);
    }
}
