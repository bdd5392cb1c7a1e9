//! The look at CSF: its files, and its chains.
//!
//! Belongs here: reading, and nothing but. Does not: judging it ([`super::steps`], [`super::warnings`]).
//!
//! `csf` itself is never run, not even to look: it flushes the firewall on a malformed line, answers 0 whatever
//! happened, and colours its output. The chains come from the same commands that the iptables backend looks by, so
//! that in one run they are started once.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    Owned,
    chains::Chains,
    conf::Conf,
    line::{Allow, Way},
    lists::{self, Found},
};
use crate::{
    allowlist::{Family, Prefixes},
    backends::{
        Context,
        iptables::{rules::net, save, seen as iptables},
    },
    error::Result,
    host::{FileSeen, Look},
    plan::Protocol,
};

/// CSF's configuration; where it isn't there CSF isn't installed.
pub const CONF: &str = "/etc/csf/csf.conf";
/// Held by CSF while it starts, stops or restarts.
pub const LOCK: &str = "/var/lib/csf/csf.lock";
/// lfd starts anew, and reads its ignore lists, when it finds this.
pub const LFD_RESTART: &str = "/var/lib/csf/lfd.restart";
/// What a stopped CSF puts back when its service is started, instead of reading its lists.
pub const SAVED: [(Family, &str); 2] =
    [(Family::V4, "/var/lib/csf/csf.4.saved"), (Family::V6, "/var/lib/csf/csf.6.saved")];

/// How deep lists may include each other; CSF itself knows no end.
const MOST_INCLUDES: usize = 64;

/// A list of the administrator's that has, or is to have, our line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HisList {
    /// As it is; `None` where there is none.
    pub file: Option<FileSeen>,
    /// What it has of our line.
    pub found: Found,
}

/// CSF's chains in one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What writes it.
    pub tool: iptables::Tool,
    /// What it holds.
    pub chains: Chains,
}

/// Rules that CSF saved when it was stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Of which family.
    pub family: Family,
    /// Where.
    pub path: PathBuf,
    /// As they are.
    pub content: Arc<[u8]>,
    /// What they hold, if it is CSF's.
    pub chains: Option<Chains>,
}

/// What a look returns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// CSF's settings.
    pub conf: Conf,
    /// `/etc/csf/csf.disable` is there.
    pub disabled: bool,
    /// What `/etc/csf/csf.error` says, if it is there.
    pub error: Option<String>,
    /// Our list of advanced lines.
    pub allow: Option<Arc<[u8]>>,
    /// Our list for lfd.
    pub ignore: Option<Arc<[u8]>>,
    /// csf.allow.
    pub his_allow: HisList,
    /// csf.ignore.
    pub his_ignore: HisList,
    /// Rules of our form that follow from entries of the administrator's, and how often.
    pub his: BTreeMap<Allow, usize>,
    /// Addresses that CSF or lfd blocks: where, and which.
    pub blocked: Vec<(&'static str, IpNet)>,
    /// The tables that CSF is loaded in.
    pub tables: Vec<Table>,
    /// What CSF would put back when it is started; looked at only while it isn't loaded.
    pub saved: Vec<Saved>,
    /// Whether there is a folder for CSF's lock.
    pub lockable: bool,
}

impl Seen {
    /// Whether CSF is loaded in a family.
    #[must_use]
    pub fn loaded(&self, family: Family) -> bool {
        self.tables.iter().any(|t| t.tool.family == family)
    }

    /// The rules that are ours: those of our own list.
    #[must_use]
    pub fn ours(&self) -> BTreeSet<Allow> {
        self.allow.iter().flat_map(|text| lists::allows(text)).collect()
    }

    /// The part that is ours.
    #[must_use]
    pub fn owned(&self) -> Owned {
        let his = |allow: &Allow| self.his.get(allow).copied().unwrap_or(0);
        let live = |a: &Allow| {
            let mut tables = self.tables.iter().filter(|t| t.tool.family == a.family()).peekable();
            tables.peek().is_some() && tables.all(|t| t.chains.count(a) > his(a))
        };
        Owned {
            live: self.ours().into_iter().filter(live).collect(),
            allow: self.allow.clone(),
            ignore: self.ignore.clone(),
            allow_included: self.his_allow.found.good > 0,
            ignore_included: self.his_ignore.found.good > 0,
        }
    }

    /// The prefixes that our list lets in.
    #[must_use]
    pub fn held(&self) -> Prefixes {
        self.ours().iter().filter(|a| a.way == Way::In).map(|a| a.net).collect()
    }
}

/// Whether CSF is installed.
///
/// # Errors
/// `io` where its folder can't be read: it is closed to everybody but root.
pub fn installed(host: &dyn Look) -> Result<bool> {
    Ok(host.file(Path::new(CONF))?.is_some())
}

/// The tables that CSF is loaded in.
///
/// # Errors
/// Those of [`iptables::printed`].
pub fn tables(host: &dyn Look) -> Result<Vec<Table>> {
    let printed = iptables::printed(host, false)?.saved.into_iter();
    Ok(printed.filter_map(|(tool, saved)| Some(Table { tool, chains: Chains::read(&saved.filter?)? })).collect())
}

/// Whether something of ours is stored, be CSF started or not.
///
/// # Errors
/// `io`.
pub fn stored(host: &dyn Look) -> Result<bool> {
    let named = host.file(Path::new(lists::HIS_ALLOW))?.is_some_and(|f| lists::find(&f.content, lists::ALLOW).good > 0);
    Ok(named || host.file(Path::new(lists::ALLOW))?.is_some())
}

/// The whole look.
///
/// # Errors
/// Those of [`tables`]; `io` if a file can't be read.
pub fn observe(cx: &Context<'_>) -> Result<Seen> {
    let host = cx.host;
    let content = |path: &str| Ok(host.file(Path::new(path))?.map(|f| f.content));
    let his = |path: &str, ours: &str| {
        let file = host.file(Path::new(path))?;
        let found = file.as_ref().map_or_else(Found::default, |f| lists::find(&f.content, ours));
        Ok(HisList { file, found })
    };
    let mut seen = Seen {
        conf: content(CONF)?.map(|c| Conf::read(&c)).unwrap_or_default(),
        disabled: host.file(Path::new("/etc/csf/csf.disable"))?.is_some(),
        error: content("/etc/csf/csf.error")?.map(|c| first_line(&c)),
        allow: content(lists::ALLOW)?,
        ignore: content(lists::IGNORE)?,
        his_allow: his(lists::HIS_ALLOW, lists::ALLOW)?,
        his_ignore: his(lists::HIS_IGNORE, lists::IGNORE)?,
        tables: tables(host)?,
        lockable: host.exists(Path::new("/var/lib/csf")),
        ..Seen::default()
    };
    for text in with_includes(host, lists::HIS_ALLOW)? {
        lists::allows(&text).into_iter().for_each(|a| *seen.his.entry(a).or_default() += 1);
    }
    if let Some(text) = content("/var/lib/csf/csf.tempallow")? {
        temporary(&text).into_iter().for_each(|a| *seen.his.entry(a).or_default() += 1);
    }
    for text in with_includes(host, "/etc/csf/csf.deny")? {
        seen.blocked.extend(lists::addresses(&text).into_iter().map(|a| ("/etc/csf/csf.deny", a)));
    }
    if let Some(text) = content("/var/lib/csf/csf.tempban")? {
        let addresses = records(&text).into_iter().filter_map(|f| net(f.get(1)?));
        seen.blocked.extend(addresses.map(|a| ("/var/lib/csf/csf.tempban", a)));
    }
    if seen.tables.is_empty() {
        for (family, path) in SAVED {
            if let Some(content) = content(path)? {
                let chains = save::parse(&content).filter.and_then(|f| Chains::read(&f));
                seen.saved.push(Saved { family, path: path.into(), content, chains });
            }
        }
    }
    Ok(seen)
}

/// A list of the administrator's and all that it includes, but for what is ours.
fn with_includes(host: &dyn Look, path: &str) -> Result<Vec<Arc<[u8]>>> {
    let mut out = Vec::new();
    let mut to_do = vec![path.to_owned()];
    while let Some(path) = to_do.pop() {
        // What he includes may be missing or no file at all; CSF goes on, and so does the look.
        let file = match host.file(Path::new(&path)) {
            Ok(file) => file,
            Err(_) if !out.is_empty() => continue,
            Err(e) => return Err(e),
        };
        let Some(file) = file else { continue };
        if out.len() < MOST_INCLUDES {
            to_do.extend(lists::includes(&file.content).into_iter().filter(|p| p.trim() != lists::ALLOW));
            out.push(file.content);
        }
    }
    Ok(out)
}

/// What `csf -ta` let in for a while: `time|address|ports|inout|seconds|comment`, a rule for each port.
fn temporary(text: &[u8]) -> Vec<Allow> {
    let mut out = Vec::new();
    for fields in records(text) {
        let [_, address, ports, way, ..] = fields.as_slice() else { continue };
        let Some(net) = net(address) else { continue };
        for port in ports.split(',').filter(|_| way.contains("in")) {
            let (port, protocol) = port.split_once(';').unwrap_or((port, "tcp"));
            let protocol = if protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
            out.extend(port.parse().ok().map(|port| Allow { net, protocol, ports: vec![port], way: Way::In }));
        }
    }
    out
}

/// The records of csf.tempallow and csf.tempban.
fn records(text: &[u8]) -> Vec<Vec<String>> {
    let text = String::from_utf8_lossy(text);
    text.lines().map(|l| l.split('|').map(str::to_owned).collect()).collect()
}

fn first_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_entries_make_one_rule_a_port() {
        let text = b"1|10.0.0.0/8|443|in|3600|x\n2|2400:cb00::/32|80,443;udp|inout|60|y\n3|9.9.9.9||in|60|\n4|9.9.9.9|80|out|6|\nx\n";
        let lines: Vec<_> = temporary(text).iter().map(Allow::line).collect();
        assert_eq!(
            lines,
            ["tcp|in|d=443|s=10.0.0.0/8", "tcp|in|d=80|s=2400:cb00::/32", "udp|in|d=443|s=2400:cb00::/32"]
        );
    }
}
