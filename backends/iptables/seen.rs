//! The look: which programs there are, what the tables, sets and files hold.
//!
//! Belongs here: reading, and nothing but. Does not: judging it ([`super::target`]).
//!
//! A run with nothing to do spends its time here, so as few programs as possible are started, and those that don't
//! wait for each other at once. Looking must not change anything: the legacy programs load their module and make
//! the table that they are asked about, so they are only asked about a table that is known to exist, and `ipset`
//! is only asked if its module is there. What the kernel says by netlink not to exist, no program is asked about.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Owned, Place, Variant,
    ipset::{self, Content, Set},
    persist, refuse,
    rules::{self, From, Part, Rule},
    save,
};
use crate::{
    allowlist::{Family, Prefixes},
    backends::Context,
    error::{Error, ErrorKind, Result},
    host::{FileSeen, Look, Output},
    nft::{self, ChainId, Expr, TableFamily, TableId, Verdict},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A pair of programs for one variant and family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Which variant they write.
    pub variant: Variant,
    /// Which family.
    pub family: Family,
    /// `iptables-nft-save`
    pub save: String,
    /// `iptables-nft-restore`
    pub restore: String,
    /// `iptables-nft`
    pub command: String,
}

/// One filter table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What writes it.
    pub tool: Tool,
    /// What is ours in it.
    pub part: Part,
    /// How many rules of others INPUT has.
    pub foreign: usize,
    /// Whether a rule that isn't ours leads into our chain.
    pub held: bool,
    /// Whether the chain of our name is somebody else's, so that nothing here is ours.
    pub taken: bool,
    /// What it does to a connection, and who else works in it.
    pub verdict: refuse::Verdict,
    /// nft wrote it, and iptables can't show it.
    pub unreadable: bool,
    /// What of ours is in such a table, and can only be taken out over netlink.
    pub stranded: Option<Stranded>,
}

/// Our chain in a table that iptables can no longer work with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranded {
    /// The chain.
    pub chain: ChainId,
    /// Our jumps into it: their chains, and the kernel's numbers for them.
    pub jumps: Vec<(ChainId, u64)>,
    /// The kernel's numbers for the rules in it.
    pub rules: Vec<u64>,
    /// A chain with a rule that isn't ours and leads into it.
    pub held: Option<ChainId>,
}

/// A set of ours as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSeen {
    /// Options and elements.
    pub set: Set,
    /// How many rules, of whomever, look into it.
    pub references: usize,
    /// The elements were counted, not compared.
    pub counted: bool,
}

/// A file that a service loads at boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Of which family.
    pub family: Family,
    /// Where.
    pub path: PathBuf,
    /// As it is.
    pub file: FileSeen,
    /// What is ours in it, or why it can't be edited.
    pub found: Result<persist::Found, &'static str>,
}

impl Stored {
    /// The name of this place.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::Stored(self.family, self.path.clone())
    }
}

/// What a look returns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// A table for each variant and family that there is a program for, also where it doesn't exist yet.
    pub tables: Vec<Table>,
    /// Our sets.
    pub sets: BTreeMap<Family, SetSeen>,
    /// Sets of our names and another type than ours have, as `create NAME` would take them: somebody else's.
    pub foreign_sets: BTreeMap<Family, String>,
    /// Sets that a run which was cut off left half built.
    pub leftovers: Vec<&'static str>,
    /// Files loaded at boot.
    pub files: Vec<Stored>,
    /// Whether `ipset` is installed.
    pub ipset: bool,
    /// The generation of the nftables rule set, where something of ours is stranded in it.
    pub generation: Option<u32>,
    /// The variant that the plain command `iptables` writes, if that had to be known.
    pub default: Option<Variant>,
    /// Why IPv6 is left out, if it is.
    pub without_v6: Option<&'static str>,
}

impl Seen {
    /// The part that is ours.
    #[must_use]
    pub fn owned(&self) -> Owned {
        let live = self.tables.iter().map(|t| (Place::Live(t.tool.variant, t.tool.family), t.part.clone()));
        let stored = self.files.iter().filter_map(|f| Some((f.place(), f.found.as_ref().ok()?.part.clone())));
        Owned {
            parts: live.chain(stored).filter(|(_, part)| !part.is_empty()).collect(),
            sets: self.sets.iter().filter(|(f, _)| !self.only_held(**f)).map(|(f, s)| (*f, s.set.clone())).collect(),
        }
    }

    /// The prefixes that our live rules let in, in any table.
    #[must_use]
    pub fn held(&self) -> Prefixes {
        let mut open = Vec::new();
        for table in &self.tables {
            for rule in table.part.chain.iter().flatten() {
                let Rule::Allow(allow) = rule else { continue };
                match allow.from {
                    From::Net(net) => open.push(net),
                    From::Any => open.push(rules::everything(table.tool.family)),
                    From::Set(family) => {
                        if let Some(Content::Known { nets, .. }) = self.sets.get(&family).map(|s| &s.set.content) {
                            open.extend_from_slice(nets);
                        }
                    }
                }
            }
        }
        open.into_iter().collect()
    }

    /// How many references to a set are not from rules of ours.
    #[must_use]
    pub fn foreign_references(&self, family: Family) -> usize {
        let ours: usize =
            self.tables.iter().filter(|t| t.tool.family == family).map(|t| t.part.set_rules(family)).sum();
        self.sets.get(&family).map_or(0, |s| s.references.saturating_sub(ours))
    }

    /// An empty set that only rules of others keep alive is not ours any more: it can't be destroyed.
    #[must_use]
    pub fn only_held(&self, family: Family) -> bool {
        let empty = self.sets.get(&family).is_some_and(|s| match &s.set.content {
            Content::Known { nets, odd } => nets.is_empty() && odd.is_empty(),
            Content::Unknown(count) => *count == 0,
        });
        empty && self.foreign_references(family) > 0
    }
}

/// The programs that there are, IPv4 before IPv6.
///
/// Where both variants are installed they have names of their own; a distribution with only one may have the plain
/// names only, and then `--version` says which it is.
#[must_use]
pub fn tools(host: &dyn Look) -> Vec<Tool> {
    let mut out = Vec::new();
    let mut plain_variant = None;
    for family in Family::BOTH {
        let stem = stem(family);
        let own_names = Variant::BOTH.into_iter().filter(|v| both(host, &format!("{stem}-{}", v.as_str())));
        let before = out.len();
        out.extend(own_names.map(|v| tool(v, family, format!("{stem}-{}", v.as_str()))));
        if out.len() == before && both(host, stem) {
            let variant = *plain_variant.get_or_insert_with(|| default_variant(host));
            out.extend(variant.map(|v| tool(v, family, stem.to_owned())));
        }
    }
    out
}

/// The programs of a family begin like this.
pub const fn stem(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

fn both(host: &dyn Look, name: &str) -> bool {
    ["save", "restore"].iter().all(|verb| host.program(&format!("{name}-{verb}")).is_some())
}

fn tool(variant: Variant, family: Family, command: String) -> Tool {
    Tool { variant, family, save: format!("{command}-save"), restore: format!("{command}-restore"), command }
}

/// The variant of the plain command. Before version 1.8 there was only legacy, and it didn't say so.
fn default_variant(host: &dyn Look) -> Option<Variant> {
    host.program("iptables")?;
    host.run(&["iptables", "--version"], PATIENCE).ok().and_then(|o| variant_from(&o))
}

fn variant_from(version: &Output) -> Option<Variant> {
    if !version.ok() {
        return None;
    }
    let text = String::from_utf8_lossy(&version.stdout);
    Some(if text.contains("(nf_tables)") { Variant::Nft } else { Variant::Legacy })
}

/// Tables, and what was learnt on the way.
pub struct Looked {
    /// See [`Seen::tables`].
    pub tables: Vec<Table>,
    /// See [`Seen::without_v6`].
    pub without_v6: Option<&'static str>,
    sets: Option<Result<Output>>,
    version: Option<String>,
}

impl Looked {
    /// Version and variants, for people.
    #[must_use]
    pub fn version(&self) -> String {
        let mut variants: Vec<_> = self.tables.iter().map(|t| t.tool.variant).collect();
        variants.sort_unstable();
        variants.dedup();
        let names = variants.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(" and ");
        match &self.version {
            Some(version) => format!("{version} ({names})"),
            None => names,
        }
    }
}

/// What the save programs printed.
pub struct Printed {
    /// For each variant and family that there is a program for; empty where the table doesn't exist.
    pub saved: Vec<(Tool, save::Saved)>,
    /// See [`Seen::without_v6`].
    pub without_v6: Option<&'static str>,
    /// What `ipset list -t` said, if it was to be asked.
    pub sets: Option<Result<Output>>,
}

/// Asks the save programs, and if wanted for the list of sets in the same breath.
///
/// # Errors
/// `no-privilege`, or `program` if a program fails.
pub fn printed(host: &dyn Look, with_sets: bool) -> Result<Printed> {
    let mut tools = tools(host);
    let mut without_v6 = None;
    if !tools.iter().any(|t| t.family == Family::V6) {
        without_v6 = Some("ip6tables is not installed");
    } else if !host.exists(Path::new("/proc/net/if_inet6")) {
        without_v6 = Some("this machine's kernel has no IPv6");
        tools.retain(|t| t.family == Family::V4);
    }
    let mut exists = Vec::with_capacity(tools.len());
    for tool in &tools {
        exists.push(match tool.variant {
            Variant::Nft => nft_table_may_exist(host, tool.family),
            Variant::Legacy => legacy_tables(host, tool.family)?.iter().any(|name| name == "filter"),
        });
    }
    let asked: Vec<usize> = (0..tools.len()).filter(|i| exists[*i]).collect();
    let mut commands: Vec<Vec<&str>> = asked.iter().map(|i| vec![tools[*i].save.as_str()]).collect();
    if with_sets {
        commands.push(vec!["ipset", "list", "-t"]);
    }
    let mut answers = host.run_all(&commands, PATIENCE);
    let sets = if with_sets { answers.pop() } else { None };
    let mut saved: BTreeMap<usize, save::Saved> = BTreeMap::new();
    for (index, answer) in asked.into_iter().zip(answers) {
        let answer = answer?;
        if !answer.ok() {
            return Err(failed(&tools[index].save, &answer));
        }
        saved.insert(index, save::parse(&answer.stdout));
    }
    let with_saved = |(index, tool): (usize, Tool)| (tool, saved.remove(&index).unwrap_or_default());
    Ok(Printed { saved: tools.into_iter().enumerate().map(with_saved).collect(), without_v6, sets })
}

/// Looks at the tables, and if asked at the list of sets in the same breath.
///
/// # Errors
/// Those of [`printed`].
pub fn tables(host: &dyn Look, with_sets: bool) -> Result<Looked> {
    let Printed { saved, without_v6, sets } = printed(host, with_sets)?;
    let mut version = None;
    // Without nf_tables there is nothing that nft could have written.
    let native = if saved.iter().any(|(t, _)| t.variant == Variant::Nft) { host.nft_ruleset().ok() } else { None };
    let native = native.unwrap_or_default();
    let table = |(tool, saved): (Tool, save::Saved)| {
        version = version.take().or(saved.version);
        let of_nft = native.table(&filter_table(tool.family)).filter(|_| tool.variant == Variant::Nft);
        // The program passes over what it can't show of some tables: ask the same question as the backend nftables.
        let natively = of_nft.is_some_and(|t| t.chains.iter().any(|c| c.hooked.is_some()) && !nft::is_xtables(t));
        let unreadable = saved.unreadable || natively;
        let filter = if unreadable { save::Filter::default() } else { saved.filter.unwrap_or_default() };
        let rules::Contents { part, foreign, held, taken } = rules::contents(&filter);
        let mut verdict = refuse::verdict(&filter, taken);
        if of_nft.is_some_and(|t| t.dormant) {
            verdict.refuses = None;
        }
        let stranded = if unreadable { of_nft.and_then(stranded) } else { None };
        Table { tool, part, foreign, held, taken, verdict, unreadable, stranded }
    };
    let tables = saved.into_iter().map(table).collect();
    Ok(Looked { tables, without_v6, sets, version })
}

fn filter_table(family: Family) -> TableId {
    TableId::new(TableFamily::of(family), "filter")
}

/// What is left of ours in a table that is nft's by now. nft keeps no comment of a rule that it wrote anew, so a jump
/// is ours if it asks for nothing.
fn stranded(table: &nft::Table) -> Option<Stranded> {
    let accepts = |r: &nft::Rule| r.exprs.last() == Some(&Expr::Verdict(Verdict::Accept));
    // A chain of our name that does anything but accept isn't ours.
    let chain = table.chain(rules::CHAIN).filter(|c| c.rules.iter().all(accepts))?;
    let mut out = Stranded {
        chain: table.id.chain(rules::CHAIN),
        jumps: Vec::new(),
        rules: chain.rules.iter().map(|r| r.handle).collect(),
        held: None,
    };
    let leads = |r: &&nft::Rule| {
        r.exprs.iter().any(|e| matches!(e, Expr::Verdict(Verdict::Jump(c) | Verdict::Goto(c)) if c == rules::CHAIN))
    };
    let asks = |e: &Expr| !matches!(e, Expr::Counter | Expr::Compat | Expr::Verdict(Verdict::Jump(_)));
    for from in &table.chains {
        for rule in from.rules.iter().filter(leads) {
            let place = table.id.chain(&from.name);
            if from.name == "INPUT" && !rule.exprs.iter().any(asks) {
                out.jumps.push((place, rule.handle));
            } else {
                out.held = Some(place);
            }
        }
    }
    Some(out)
}

/// Why a program that was to look failed.
pub fn failed(program: &str, answer: &Output) -> Error {
    let complaint = answer.complaint();
    if complaint.contains("ermission denied") || complaint.contains("not permitted") {
        return Error::new(ErrorKind::NoPrivilege, format!("{program}: {complaint}")).hint("run edgeallow as root");
    }
    Error::new(ErrorKind::Program, format!("{program} failed: {complaint}"))
        .hint(format!("run {program} by hand; edgeallow can't plan without its answer"))
}

/// A table that isn't there needs no program to say so. What the kernel doesn't tell, the program will.
fn nft_table_may_exist(host: &dyn Look, family: Family) -> bool {
    host.nft_has_table(&filter_table(family)).ok().flatten() != Some(false)
}

/// The names of the legacy tables that exist in this network namespace: the kernel lists them.
///
/// # Errors
/// `no-privilege` if the list can't be read; `io` where /proc doesn't show the network, so that nothing can be told from
/// there being no list.
pub fn legacy_tables(host: &dyn Look, family: Family) -> Result<Vec<String>> {
    let path = Path::new(match family {
        Family::V4 => "/proc/net/ip_tables_names",
        Family::V6 => "/proc/net/ip6_tables_names",
    });
    match host.file(path) {
        Ok(Some(file)) => Ok(String::from_utf8_lossy(&file.content).lines().map(str::to_owned).collect()),
        Ok(None) if host.exists(Path::new("/proc/net/dev")) => Ok(Vec::new()),
        Ok(None) => {
            let what = "/proc/net is not there, so it can't be told which legacy tables there are";
            Err(Error::new(ErrorKind::Io, what).hint("mount /proc, all of it: systemd's ProcSubset=pid hides it, too"))
        }
        Err(e) => Err(Error::new(ErrorKind::NoPrivilege, e.message).hint("run edgeallow as root")),
    }
}

/// Whether `ipset` can be asked without loading the kernel's ip_set. A kernel that has it built in shows it there too.
#[must_use]
pub fn ip_set_loaded(host: &dyn Look) -> bool {
    host.exists(Path::new("/sys/module/ip_set")) || !host.exists(Path::new("/sys/module"))
}

/// Where a distribution's service keeps its rules, and what shows that the service is installed.
const FILES: [(Family, &str, &[&str]); 4] = [
    (Family::V4, "/etc/iptables/rules.v4", &["/usr/share/netfilter-persistent/plugins.d/15-ip4tables"]),
    (Family::V6, "/etc/iptables/rules.v6", &["/usr/share/netfilter-persistent/plugins.d/25-ip6tables"]),
    (
        Family::V4,
        "/etc/sysconfig/iptables",
        &["/usr/libexec/iptables/iptables.init", "/usr/lib/systemd/system/iptables.service"],
    ),
    (
        Family::V6,
        "/etc/sysconfig/ip6tables",
        &["/usr/libexec/iptables/ip6tables.init", "/usr/lib/systemd/system/ip6tables.service"],
    ),
];

fn files(host: &dyn Look) -> Result<Vec<Stored>> {
    let mut out = Vec::new();
    for (family, path, signs) in FILES {
        if !signs.iter().any(|sign| host.exists(Path::new(sign))) {
            continue;
        }
        let path = PathBuf::from(path);
        if let Some(file) = host.file(&path)? {
            out.push(Stored { family, path, found: persist::read(&file.content), file });
        }
    }
    Ok(out)
}

/// The whole look.
///
/// # Errors
/// Those of [`tables`]; `io` if a stored file can't be read; `program` if `ipset` fails.
pub fn observe(cx: &Context<'_>, named: bool) -> Result<Seen> {
    let host = cx.host;
    let ipset = host.program("ipset").is_some();
    let sets_possible = ipset && ip_set_loaded(host);
    let may_exist = |name: &str| host.has_ipset(name).ok().flatten() != Some(false);
    let ours = Family::BOTH.map(|f| [ipset::set_name(f), ipset::new_name(f)]);
    let before = host.nft_generation().ok().flatten();
    let looked = tables(host, sets_possible && ours.as_flattened().iter().any(|name| may_exist(name)))?;
    // What isn't seen isn't touched.
    let files = if cx.leave_stored { Vec::new() } else { files(host)? };
    let mut seen = Seen { tables: looked.tables, files, ipset, without_v6: looked.without_v6, ..Seen::default() };
    seen.generation = before.filter(|_| seen.tables.iter().any(|t| t.stranded.is_some()));
    if let Some(answer) = looked.sets {
        sets(cx, &answer?, &mut seen)?;
    }
    let mut variants: Vec<_> = seen.tables.iter().map(|t| t.tool.variant).collect();
    variants.sort_unstable();
    variants.dedup();
    let undecided = named && super::target::chosen_by_need(&seen).is_empty();
    seen.default = match variants.as_slice() {
        [only] => Some(*only),
        _ if !seen.files.is_empty() || undecided => default_variant(host),
        _ => None,
    };
    Ok(seen)
}

fn sets(cx: &Context<'_>, list: &Output, seen: &mut Seen) -> Result<()> {
    if !list.ok() {
        return Err(failed("ipset", list));
    }
    let headers = ipset::parse_headers(&list.stdout);
    let mut to_dump = Vec::new();
    for family in Family::BOTH {
        if headers.iter().any(|h| h.name == ipset::new_name(family) && ipset::is_ours(family, &h.create)) {
            seen.leftovers.push(ipset::new_name(family));
        }
        let Some(header) = headers.iter().find(|h| h.name == ipset::set_name(family)) else { continue };
        if !ipset::is_ours(family, &header.create) {
            seen.foreign_sets.insert(family, header.create.join(" "));
            continue;
        }
        let set = Set { create: header.create.clone(), content: Content::Unknown(header.entries.unwrap_or(0)) };
        seen.sets.insert(family, SetSeen { set, references: header.references, counted: false });
        match header.entries {
            Some(entries) if entries > cx.full_check && !cx.deep => {
                // The kernel knows how many; that these are the ones is presumed from what was confirmed last.
                let applied = cx.applied.as_ref().map_or_else(Arc::default, |p| ipset::elements(p, family));
                if let Some(s) = seen.sets.get_mut(&family) {
                    s.counted = true;
                    if applied.len() == entries {
                        s.set.content = Content::Known { nets: applied, odd: Vec::new() };
                    }
                }
            }
            _ => to_dump.push(family),
        }
    }
    let commands: Vec<Vec<&str>> = to_dump.iter().map(|f| vec!["ipset", "save", ipset::set_name(*f)]).collect();
    if commands.is_empty() {
        return Ok(());
    }
    for (family, answer) in to_dump.into_iter().zip(cx.host.run_all(&commands, PATIENCE)) {
        let answer = answer?;
        if !answer.ok() {
            return Err(failed("ipset", &answer));
        }
        if let Some(s) = seen.sets.get_mut(&family) {
            s.set.content = ipset::parse_elements(&answer.stdout);
        }
    }
    Ok(())
}

/// Asks iptables itself for our jump, and for the first and the last rule of our chain.
///
/// # Errors
/// `unconfirmed` if one of them isn't there, `program` if the program fails.
pub fn confirm(host: &dyn Look, seen: &Seen) -> Result<()> {
    // Where something of ours was seen the table exists, so asking the legacy program doesn't make it.
    for table in seen.tables.iter().filter(|t| !t.part.jumps.is_empty()) {
        let rules = table.part.chain.as_deref().unwrap_or_default();
        let last = if rules.len() > 1 { rules.last() } else { None };
        let ours = rules.first().into_iter().chain(last).map(|r| format!("{} {}", rules::CHAIN, r.text()));
        let jump = format!("INPUT {}", rules::JUMP.join(" "));
        for rule in std::iter::once(jump).chain(ours) {
            if !host.iptables_has(&table.tool.command, "filter", &rule)? {
                return Err(Error::new(
                    ErrorKind::Unconfirmed,
                    format!("{} shows a rule that {} doesn't find: {rule}", table.tool.save, table.tool.command),
                )
                .hint("run edgeallow again; something else may be changing the firewall at this moment"));
            }
        }
    }
    Ok(())
}
