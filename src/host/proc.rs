//! Processes, as procfs shows them (proc(5)).
//!
//! Belongs here: which process holds what. Does not: whether that is right.

use std::{
    collections::BTreeMap,
    fs,
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
    fn this_process_holds_its_socket() {
        let _server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode =
            fs::read_dir("/proc/self/fd").unwrap().flatten().find_map(|e| socket(&fs::read_link(e.path()).ok()?));
        let inode = inode.unwrap();
        let found = holders(&[inode]);
        assert!(found[&inode].iter().any(|p| p.pid == std::process::id() && p.file.is_some()), "{found:?}");
    }
}
