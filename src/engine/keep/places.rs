//! Which files and folders a keeper watches. Pure.
//!
//! Belongs here: from the paths that backends name to folders and names. Does not: watching.

use std::{collections::BTreeSet, path::Path};

use crate::host::watch::{Names, Places};

/// The folders to watch for these files. A path with `*` or a `/` at its end means all that is in the folder.
///
/// In a tool's own folder under `/etc` everything matters: what it holds besides our files decides what they do. In
/// folders that many share, only the files themselves.
#[must_use]
pub fn places<'a>(files: impl IntoIterator<Item = &'a Path>) -> Places {
    let mut places = Places::new();
    for file in files {
        let text = file.to_string_lossy();
        let (folder, name) = if text.ends_with('/') { (Some(file), None) } else { (file.parent(), file.file_name()) };
        let Some(folder) = folder else { continue };
        let name = name.and_then(|n| n.to_str()).filter(|n| !n.contains('*'));
        match name {
            Some(name) if !of_a_tool(folder) => {
                places.entry(folder.to_owned()).or_insert_with(|| Names::These(BTreeSet::new())).add(name);
            }
            _ => drop(places.insert(folder.to_owned(), Names::All)),
        }
    }
    places
}

/// Whether a folder is one tool's: `/etc/ufw` is, `/etc` and `/var/lib/csf`, where lfd writes every minute, are not.
fn of_a_tool(folder: &Path) -> bool {
    folder.strip_prefix("/etc").is_ok_and(|rest| rest.components().next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_s_own_folder_is_watched_whole_and_a_shared_one_for_the_file() {
        let files = ["/etc/ufw/user.rules", "/etc/nftables.conf", "/etc/nftables.nft", "/etc/firewalld/zones/"];
        let more = ["/etc/edgeallow/nftables/*.nft", "/var/lib/csf/csf.4.saved"];
        let places = places(files.iter().chain(&more).map(Path::new));
        let all: Vec<&Path> = places.iter().filter(|(_, n)| **n == Names::All).map(|(f, _)| f.as_path()).collect();
        assert_eq!(all, ["/etc/edgeallow/nftables", "/etc/firewalld/zones", "/etc/ufw"].map(Path::new));
        let these = |names: &[&str]| Names::These(names.iter().map(|&n| n.to_owned()).collect());
        assert_eq!(places[Path::new("/etc")], these(&["nftables.conf", "nftables.nft"]));
        assert_eq!(places[Path::new("/var/lib/csf")], these(&["csf.4.saved"]));
    }
}
