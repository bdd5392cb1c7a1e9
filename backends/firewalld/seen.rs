//! The look: firewalld's files, whether it runs, and what it has loaded.
//!
//! Belongs here: reading, and nothing but. Does not: judging it ([`super::target`]).
//!
//! A run with nothing to do starts no program here (where firewalld loads its rules into iptables, those that print
//! them). firewalld itself is asked only where the kernel doesn't hold what is stored, because then it matters what
//! firewalld believes to have loaded: telling it to add what it believes to be there does nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::{
    Owned,
    live::{self, Found, Holder, Live, Loaded},
    rule::{Rule, set_name},
    xml,
};
use crate::{
    allowlist::{Family, Prefixes},
    backends::Context,
    error::Result,
    host::{FileSeen, Look},
    plan::TAG,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// The administrator's configuration.
pub const ETC: &str = "/etc/firewalld";
/// The distribution's.
pub const LIB: &str = "/usr/lib/firewalld";

/// What the main configuration file says, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    /// The zone of everything that is in no other.
    pub default_zone: String,
    /// Whether a reload forgets what isn't stored.
    pub flush_all: bool,
}

/// A zone's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// The administrator's, if there is one.
    pub file: Option<FileSeen>,
    /// The distribution's, if there is one.
    pub stock: Option<Arc<[u8]>>,
    /// Our rules in it, or why it can't be read.
    pub rules: Result<BTreeSet<Rule>, String>,
}

/// What a look returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The main configuration.
    pub conf: Conf,
    /// Whether firewalld runs and has loaded its rules.
    pub running: bool,
    /// Whether this version knows policies (0.9).
    pub policies: bool,
    /// The files that are ours as a whole and exist.
    pub files: BTreeMap<PathBuf, FileSeen>,
    /// Zones that have a rule of ours, and the default zone.
    pub zones: BTreeMap<String, Zone>,
    /// What is loaded.
    pub found: Found,
    /// Families whose set something of the administrator's uses too.
    pub held: BTreeSet<Family>,
    /// Folders that would have to be made.
    pub missing_folders: Vec<PathBuf>,
    /// Whether the kernel has IPv6: without it firewalld loads no rule of that family.
    pub v6: bool,
}

/// The file of a family's set.
#[must_use]
pub fn set_path(family: Family) -> PathBuf {
    Path::new(ETC).join("ipsets").join(format!("{}.xml", set_name(family)))
}

/// The file of our policy.
#[must_use]
pub fn policy_path() -> PathBuf {
    Path::new(ETC).join("policies").join(format!("{TAG}.xml"))
}

/// The administrator's file of a zone.
#[must_use]
pub fn zone_path(zone: &str) -> PathBuf {
    Path::new(ETC).join("zones").join(format!("{zone}.xml"))
}

impl Seen {
    /// The part that is ours.
    #[must_use]
    pub fn owned(&self) -> Owned {
        let mut files: BTreeMap<_, _> = self.files.iter().map(|(p, f)| (p.clone(), f.content.clone())).collect();
        let mut live = self.found.live.clone();
        live.odd = !self.found.odd.is_empty();
        for family in Family::BOTH {
            // An empty set that something of his needs is not ours any more; nor is one that firewalld never forgets.
            if self.held.contains(&family) && files.get(&set_path(family)) == Some(&xml::ipset(family, &[])) {
                files.remove(&set_path(family));
            }
            let used = live.rules.values().flatten().any(|r| r.family == family);
            let stays = self.held.contains(&family) || !self.conf.flush_all;
            if stays && !used && live.sets.get(&family).is_some_and(BTreeSet::is_empty) {
                live.sets.remove(&family);
            }
        }
        let zones = self.zones.iter().filter_map(|(name, z)| Some((name.clone(), z.rules.clone().ok()?)));
        Owned { files, zones: zones.filter(|(_, rules)| !rules.is_empty()).collect(), live }
    }

    /// Whether anything of ours is stored.
    #[must_use]
    pub fn stored(&self) -> bool {
        let owned = self.owned();
        !owned.files.is_empty() || !owned.zones.is_empty()
    }

    /// The prefixes that are open, or will be once firewalld runs.
    #[must_use]
    pub fn held(&self) -> Prefixes {
        let live = self.found.live.sets.values().flatten().copied();
        let stored = Family::BOTH.into_iter().filter_map(|f| self.files.get(&set_path(f)));
        live.chain(stored.flat_map(|f| xml::entries(&f.content))).collect()
    }

    /// What firewalld would load from the files.
    #[must_use]
    pub fn stored_live(&self) -> Live {
        let mut live = Live::default();
        for family in Family::BOTH {
            if let Some(file) = self.files.get(&set_path(family)) {
                live.sets.insert(family, xml::entries(&file.content).into_iter().collect());
            }
        }
        if let Some(file) = self.files.get(&policy_path()) {
            live.rules.insert(Holder::Policy, xml::rules(&file.content).unwrap_or_default());
        }
        for (zone, seen) in &self.zones {
            if let Ok(rules) = &seen.rules
                && !rules.is_empty()
            {
                live.rules.insert(Holder::Zone(zone.clone()), rules.clone());
            }
        }
        live
    }
}

/// firewalld's version, from its own files: asking the program takes a quarter of a second.
#[must_use]
pub fn version(host: &dyn Look) -> Option<String> {
    let mut folders = vec![PathBuf::from("/usr/lib/python3/dist-packages")];
    for name in host.folder(Path::new("/usr/lib")).unwrap_or_default() {
        if name.starts_with("python") {
            folders.push(Path::new("/usr/lib").join(name).join("site-packages"));
        }
    }
    let paths = folders.into_iter().map(|f| f.join("firewall/config/__init__.py"));
    let file = paths.filter_map(|p| host.file(&p).ok().flatten()).next()?;
    let text = String::from_utf8_lossy(&file.content).into_owned();
    let value = text.lines().find_map(|l| l.strip_prefix("VERSION")?.trim().strip_prefix('='))?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned())
}

/// Whether a process of that name is there. Neither a pid file nor the bus can be relied on: services start firewalld
/// with `--nopid`, and a question on the bus costs a program.
///
/// # Errors
/// Never for a process that ends meanwhile; `io` where /proc can't be listed.
pub fn process(host: &dyn Look) -> Result<bool> {
    let names = host.folder(Path::new("/proc"))?;
    let is = |pid: &String| {
        // `8 (firewalld) S 1 …`; one in state Z has ended, and nobody has asked how.
        let stat = host.file(&Path::new("/proc").join(pid).join("stat")).ok().flatten();
        let stat = stat.map(|s| String::from_utf8_lossy(&s.content).into_owned()).unwrap_or_default();
        stat.contains(" (firewalld) ") && !stat.contains(" (firewalld) Z")
    };
    Ok(names.iter().filter(|n| n.bytes().all(|b| b.is_ascii_digit())).any(is))
}

fn conf(host: &dyn Look) -> Result<Conf> {
    let mut conf = Conf { default_zone: "public".to_owned(), flush_all: true };
    let Some(file) = host.file(&Path::new(ETC).join("firewalld.conf"))? else { return Ok(conf) };
    for line in String::from_utf8_lossy(&file.content).lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        match (key.trim(), value.trim()) {
            ("DefaultZone", zone) if !zone.is_empty() => conf.default_zone = zone.to_owned(),
            ("FlushAllOnReload", value) => conf.flush_all = !matches!(value.to_lowercase().as_str(), "no" | "false"),
            _ => {}
        }
    }
    Ok(conf)
}

/// The names of the XML files in a folder, without the ending.
fn names(host: &dyn Look, folder: &Path) -> Result<Vec<String>> {
    Ok(host.folder(folder)?.into_iter().filter_map(|n| n.strip_suffix(".xml").map(str::to_owned)).collect())
}

/// The whole look.
///
/// # Errors
/// `io` if a file can't be read; those of [`live::find`].
pub fn observe(cx: &Context<'_>) -> Result<Seen> {
    let host = cx.host;
    let conf = conf(host)?;
    let loaded = live::loaded(host)?;
    let running = loaded != Loaded::Nothing && process(host)?;
    let policies = host.exists(&Path::new(LIB).join("policies"));
    let mut seen = Seen {
        running,
        policies,
        files: BTreeMap::new(),
        zones: BTreeMap::new(),
        found: if running { live::find(cx, &loaded)? } else { Found::default() },
        held: BTreeSet::new(),
        missing_folders: Vec::new(),
        v6: host.exists(Path::new("/proc/net/if_inet6")),
        conf,
    };
    for path in Family::BOTH.map(set_path).into_iter().chain([policy_path()]) {
        if let Some(file) = host.file(&path)? {
            seen.files.insert(path, file);
        }
    }
    for folder in ["ipsets", "policies", "zones"] {
        let folder = Path::new(ETC).join(folder);
        if !host.exists(&folder) {
            seen.missing_folders.push(folder);
        }
    }
    his_files(host, &mut seen)?;
    if running && seen.found.odd.is_empty() && seen.found.live != seen.stored_live() {
        ask_firewalld(host, &mut seen);
    }
    Ok(seen)
}

/// Zones with rules of ours, and what of his uses our sets.
fn his_files(host: &dyn Look, seen: &mut Seen) -> Result<()> {
    let mut texts = Vec::new();
    for folder in ["zones", "policies"] {
        for name in names(host, &Path::new(ETC).join(folder))? {
            let path = Path::new(ETC).join(folder).join(format!("{name}.xml"));
            if path == policy_path() {
                continue;
            }
            let Some(file) = host.file(&path)? else { continue };
            let is_default = folder == "zones" && name == seen.conf.default_zone;
            if !xml::mentions_us(&file.content) && !is_default {
                continue;
            }
            texts.push(file.content.clone());
            let rules = xml::rules(&file.content);
            if folder == "zones" && (is_default || rules.as_ref().is_ok_and(|r| !r.is_empty())) {
                let stock = host.file(&Path::new(LIB).join("zones").join(format!("{name}.xml")))?.map(|f| f.content);
                seen.zones.insert(name, Zone { file: Some(file), stock, rules });
            }
        }
    }
    texts.extend(host.file(&Path::new(ETC).join("direct.xml"))?.map(|f| f.content));
    seen.held = Family::BOTH.into_iter().filter(|f| texts.iter().any(|t| xml::uses(t, *f))).collect();
    if !seen.zones.contains_key(&seen.conf.default_zone) {
        let path = Path::new(LIB).join("zones").join(format!("{}.xml", seen.conf.default_zone));
        let stock = host.file(&path)?.map(|f| f.content);
        seen.zones.insert(seen.conf.default_zone.clone(), Zone { file: None, stock, rules: Ok(BTreeSet::new()) });
    }
    Ok(())
}

/// Compares the kernel with what firewalld believes to have loaded.
fn ask_firewalld(host: &dyn Look, seen: &mut Seen) {
    let live = seen.found.live.clone();
    let (mut commands, mut expected) = (Vec::new(), Vec::new());
    for (family, nets) in &live.sets {
        commands.push(vec![
            "firewall-cmd".to_owned(),
            format!("--ipset={}", set_name(*family)),
            "--get-entries".to_owned(),
        ]);
        expected.push(nets.iter().map(IpNet::to_string).collect::<BTreeSet<_>>());
    }
    // A zone whose rules are all gone from the kernel doesn't show there at all.
    let mut loaded = live.rules.clone();
    for holder in seen.stored_live().rules.into_keys().filter(|h| *h != Holder::Policy) {
        loaded.entry(holder).or_default();
    }
    for (holder, rules) in &loaded {
        commands.push(vec!["firewall-cmd".to_owned(), holder.option(), "--list-rich-rules".to_owned()]);
        expected.push(rules.iter().map(Rule::to_string).collect());
    }
    let argv: Vec<Vec<&str>> = commands.iter().map(|c| c.iter().map(String::as_str).collect()).collect();
    for ((command, expected), answer) in commands.iter().zip(expected).zip(host.run_all(&argv, PATIENCE)) {
        let believed = answer.ok().filter(crate::host::Output::ok).map(|a| {
            let text = String::from_utf8_lossy(&a.stdout).into_owned();
            let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
            // A zone has his rules too.
            let ours =
                lines.filter(|l| !l.starts_with("rule") || command[1].starts_with("--policy") || l.contains(TAG));
            ours.map(str::to_owned).collect::<BTreeSet<_>>()
        });
        if believed != Some(expected) {
            seen.found.odd.push(format!("`{}` tells something else than the kernel", command.join(" ")));
        }
    }
}

impl Holder {
    /// The option of `firewall-cmd` that names it.
    #[must_use]
    pub fn option(&self) -> String {
        match self {
            Self::Policy => format!("--policy={TAG}"),
            Self::Zone(zone) => format!("--zone={zone}"),
        }
    }
}
