//! What the administrator and his distribution wrote: every section there is, and its own ignoreip.
//!
//! Belongs here: reading fail2ban's files in fail2ban's order, without ours. Does not: what the running server holds
//! ([`super::client`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use super::{
    file,
    ini::{self, Ini, Options},
};
use crate::{error::Result, host::Look};

/// Where fail2ban is configured.
pub const FOLDER: &str = "/etc/fail2ban";

/// The configuration of the jails, without what is ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Jails {
    /// `[DEFAULT]`, later files over earlier ones.
    pub defaults: Options,
    /// Every section, with options of later files over those of earlier ones.
    pub sections: BTreeMap<String, Options>,
    /// Sections whose ignoreip is set by a file that is read after ours.
    pub after_ours: BTreeSet<String>,
    /// Files that are included before `jail.conf`, so that everything else overrides them, lowest first; also those
    /// that don't exist.
    pub lowest: Vec<PathBuf>,
    /// A file among the lowest sets an ignoreip for all jails.
    pub default_is_lowest: bool,
    /// Files that fail2ban can't read, and why.
    pub unreadable: Vec<String>,
}

impl Jails {
    /// Reads all of it.
    ///
    /// # Errors
    /// `io` when a file is there and can't be read.
    pub fn read(host: &dyn Look) -> Result<Self> {
        let mut jails = Self::default();
        let mut after_ours = false;
        for read in in_order(host, &mut jails)? {
            match read.ini {
                _ if read.ours => after_ours |= read.path == Path::new(file::PATH),
                Some(ini) => {
                    let lowest = jails.lowest.contains(&read.path);
                    jails.default_is_lowest |= lowest && ini.defaults.contains_key("ignoreip");
                    jails.merge(ini, after_ours);
                }
                None => {}
            }
        }
        Ok(jails)
    }

    fn merge(&mut self, ini: Ini, after_ours: bool) {
        self.defaults.extend(ini.defaults);
        for (name, mut options) in ini.sections {
            // `[jail?family=inet6]` sets options of `jail` under other names.
            let (name, conditional) = match name.split_once('?') {
                Some((name, _)) => (name.to_owned(), true),
                None => (name, false),
            };
            if name == "INCLUDES" {
                continue;
            }
            let section = self.sections.entry(name.clone()).or_default();
            if conditional {
                continue;
            }
            if let Some(value) = options.get_mut("ignoreip") {
                // What `known/` meant at this place: the value of the files before, or else the default.
                let before = section.get("ignoreip").cloned().unwrap_or_else(|| "%(default/ignoreip)s".to_owned());
                *value = value.replace("%(known/ignoreip)s", &before);
                if after_ours {
                    self.after_ours.insert(name);
                }
            }
            section.extend(options);
        }
    }

    /// The jail's own ignoreip, raw; `None` where it has none and takes the default.
    #[must_use]
    pub fn own(&self, jail: &str) -> Option<&str> {
        self.sections.get(jail)?.get("ignoreip").map(String::as_str)
    }

    /// Whether anything defines an ignoreip for all jails.
    #[must_use]
    pub fn has_default(&self) -> bool {
        self.defaults.contains_key("ignoreip")
    }

    /// Whether the jail may be running, as far as the files say.
    #[must_use]
    pub fn enabled(&self, jail: &str) -> bool {
        let value = self.sections.get(jail).and_then(|s| s.get("enabled")).or_else(|| self.defaults.get("enabled"));
        value.is_some_and(|v| !matches!(v.to_lowercase().as_str(), "false" | "no" | "off" | "0" | ""))
    }

    /// The prefixes that the administrator himself ignores in a jail, as far as they can be read off.
    #[must_use]
    pub fn his(&self, jail: &str) -> BTreeSet<IpNet> {
        let raw = self.own(jail).unwrap_or("%(default/ignoreip)s");
        let text = ini::substitute(raw, &|name| {
            let name = name.to_lowercase();
            if let Some(name) = name.strip_prefix("default/") {
                return self.defaults.get(name).cloned();
            }
            let (section, name) = name.split_once('/').unwrap_or((jail, &name));
            let section = if section == "known" { jail } else { section };
            self.sections.get(section).and_then(|s| s.get(name)).or_else(|| self.defaults.get(name)).cloned()
        });
        file::nets(&text)
    }
}

/// A file as it was read.
struct Read {
    path: PathBuf,
    /// Nothing where there is no such file, or fail2ban can't read it.
    ini: Option<Ini>,
    ours: bool,
}

/// Every file, in the order in which they override each other.
fn in_order(host: &dyn Look, jails: &mut Jails) -> Result<Vec<Read>> {
    let folder = Path::new(FOLDER);
    let dropped: Vec<String> = host.folder(&folder.join("jail.d"))?;
    let of = |ending: &str| {
        let names = dropped.iter().filter(|n| n.ends_with(ending) && !n.starts_with('.'));
        names.map(|n| folder.join("jail.d").join(n)).collect::<Vec<_>>()
    };
    let mut top = vec![folder.join("jail.conf")];
    top.extend(of(".conf"));
    top.push(folder.join("jail.local"));
    top.extend(of(".local"));
    let mut out = Vec::new();
    for path in &top {
        let mut found = Vec::new();
        with_includes(host, path, &top, &mut Vec::new(), &mut found, &mut jails.unreadable)?;
        if path == &top[0] {
            jails.lowest = found.iter().map(|r| r.path.clone()).take_while(|p| p != path).collect();
        }
        out.append(&mut found);
    }
    Ok(out)
}

/// A file between those that it includes. Files that don't exist are named with nothing in them.
fn with_includes(
    host: &dyn Look,
    path: &Path,
    top: &[PathBuf],
    above: &mut Vec<PathBuf>,
    out: &mut Vec<Read>,
    unreadable: &mut Vec<String>,
) -> Result<()> {
    let seen = host.file(path)?;
    let ours = seen.as_ref().is_some_and(|s| file::is_ours(path, &s.content));
    let ini = match seen {
        None => None,
        Some(seen) => match std::str::from_utf8(&seen.content).map_err(|e| e.to_string()).and_then(ini::parse) {
            Ok(ini) => Some(ini),
            Err(why) => {
                unreadable.push(format!("{}: {why}", path.display()));
                None
            }
        },
    };
    let includes = |which: &str| -> Vec<PathBuf> {
        let named = ini.as_ref().and_then(|i| i.sections.get("INCLUDES")?.get(which)).map_or("", String::as_str);
        let folder = path.parent().unwrap_or(Path::new("/"));
        named.lines().map(str::trim).filter(|l| !l.is_empty()).map(|l| folder.join(l)).collect()
    };
    let (before, after) = (includes("before"), includes("after"));
    above.push(path.to_owned());
    let mut all = |files: Vec<PathBuf>, out: &mut Vec<Read>| -> Result<()> {
        for file in files {
            if above.contains(&file) {
                continue;
            }
            with_includes(host, &file, top, above, out, unreadable)?;
            // fail2ban reads x.local after x.conf, also where it is included.
            let local = file.with_extension("local");
            if local != file && !top.contains(&local) {
                with_includes(host, &local, top, above, out, unreadable)?;
            }
        }
        Ok(())
    };
    all(before, out)?;
    out.push(Read { path: path.to_owned(), ini, ours });
    all(after, out)?;
    above.pop();
    Ok(())
}
