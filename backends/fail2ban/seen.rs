//! A look at fail2ban: the files, what they come to, and the running jails.
//!
//! Belongs here: what was seen, and what follows for the operator. Does not: what should be changed
//! ([`super::steps`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use super::{
    Owned,
    client::{self, Answers, Jail},
    file,
    jails::{FOLDER, Jails},
};
use crate::{
    allowlist::Prefixes,
    backends::Warning,
    error::Result,
    host::{FileSeen, Look},
};

/// What a look returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What others configured.
    pub jails: Jails,
    /// Files of ours, as they are.
    pub files: BTreeMap<PathBuf, FileSeen>,
    /// Where an empty default can stand, if anywhere.
    pub base: Option<PathBuf>,
    /// Whether the folder for our file is there.
    pub folder: bool,
    /// The prefixes in our file.
    pub list: BTreeSet<IpNet>,
    /// What fail2ban says.
    pub answers: Answers,
}

impl Seen {
    /// Looks.
    ///
    /// # Errors
    /// `io` for a file that can't be read, `no-privilege`, `program`.
    pub fn look(host: &dyn Look) -> Result<Self> {
        let jails = Jails::read(host)?;
        let answers = client::ask(host, &jails)?;
        let mut files = BTreeMap::new();
        let mut free = Vec::new();
        let local = |p: &&PathBuf| p.extension().is_some_and(|e| e == "local") && p.starts_with(FOLDER);
        for path in jails.lowest.iter().filter(local) {
            match host.file(path)? {
                None => free.push(path),
                Some(seen) if file::is_ours(path, &seen.content) => drop(files.insert(path.clone(), seen)),
                Some(_) => {}
            }
        }
        let preferred = |p: &&&PathBuf| p.ends_with("paths-overrides.local");
        let free = free.iter().find(preferred).or(free.first()).map(|p| (*p).clone());
        let base = files.keys().next().cloned().or(free).filter(|_| !jails.default_is_lowest);
        let ours = host.file(Path::new(file::PATH))?;
        let list = ours.as_ref().map(|f| file::list(&f.content)).unwrap_or_default();
        files.extend(ours.map(|f| (PathBuf::from(file::PATH), f)));
        let folder = Path::new(file::PATH).parent().is_some_and(|p| host.exists(p));
        Ok(Self { jails, files, base, folder, list, answers })
    }

    /// The running jails; none where the server is down.
    pub fn running(&self) -> impl Iterator<Item = (&String, &Jail)> {
        self.answers.server.iter().flat_map(|s| &s.jails)
    }

    /// The part that is ours.
    #[must_use]
    pub fn owned(&self) -> Owned {
        let live = self.running().map(|(name, jail)| (name.clone(), &jail.ignored & &self.list));
        Owned {
            files: self.files.iter().map(|(path, seen)| (path.clone(), seen.content.clone())).collect(),
            live: live.filter(|(_, nets)| !nets.is_empty()).collect(),
        }
    }

    /// Enabled jails that wouldn't ignore the ranges after a restart, though our file is there.
    pub fn lacking(&self) -> impl Iterator<Item = &str> {
        let loads = self.answers.loads.iter().flatten();
        loads.filter(|(_, nets)| !self.list.is_subset(nets)).map(|(jail, _)| jail.as_str())
    }

    /// What the operator should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let mut out = Vec::new();
        if let Err(why) = &self.answers.loads {
            out.push(Warning::new(
                "fail2ban-config",
                format!(
                    "fail2ban's configuration doesn't load ({why}), and so fail2ban wouldn't start again: mend it, and \
                     see with `fail2ban-client -d`"
                ),
            ));
        }
        for why in &self.jails.unreadable {
            out.push(Warning::new("fail2ban-file", format!("fail2ban can't use the file {why}")));
        }
        for jail in self.lacking() {
            out.push(Warning::new(
                "fail2ban-overridden",
                format!(
                    "jail {jail} would not ignore Cloudflare after a restart of fail2ban: a file that is read after {} \
                     sets its ignoreip. Add `%(edgeallow_ips)s` there",
                    file::PATH
                ),
            ));
        }
        for jail in self.answers.server.iter().flat_map(|s| &s.unasked) {
            out.push(Warning::new(
                "fail2ban-jail",
                format!("jail `{jail}` can't be asked what it bans, so nothing was changed in it while it runs"),
            ));
        }
        for (name, jail) in self.running() {
            for wide in jail.banned.iter().filter(|b| self.holds_part_of(b)) {
                out.push(Warning::new(
                    "fail2ban-wide-ban",
                    format!(
                        "jail {name} bans {wide}, which holds addresses of Cloudflare and others; lift it with \
                         `fail2ban-client set {name} unbanip {wide}` if that is not meant"
                    ),
                ));
            }
        }
        out
    }

    /// Whether a ban is wider than a range of ours that it holds.
    fn holds_part_of(&self, banned: &str) -> bool {
        let Some(banned) = file::net(banned) else { return false };
        let banned = Prefixes::from_iter([banned]);
        self.list.iter().any(|net| banned.covers(net) && !banned.iter().any(|b| b == *net))
    }
}
