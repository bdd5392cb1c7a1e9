//! One consistent picture of all packet filters, taken without changing them.
//!
//! Each program costs milliseconds, so as few as possible are started: what netlink says not to be there no program is
//! asked about, what doesn't wait for each other runs at once, and what a backend has asked already isn't asked again.
//! Sets of ours that are big come from memory; the kernel takes minutes to tell a million elements.
//!
//! Belongs here: what is asked, and what is missing. Does not: the languages of the answers ([`crate::reach`]).

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use crate::{
    allowlist::{Family, Prefixes},
    backends::{
        iptables::{Variant, ipset, seen},
        nftables::counts_as,
    },
    error::{Error, ErrorKind, Result},
    host::{Look, Output},
    nft::{self, Ruleset, SetId, TableFamily, TableId},
    reach::{
        self, Facts, Interface, Picture, Place, Sources,
        model::{Chain, Elements, Hook, Language, Set, Table},
        xtables::{Ipsets, Saved},
    },
};

/// How often it is begun anew because the rule set was changed meanwhile.
const TRIES: usize = 3;
/// From how many elements on a set of ours comes from memory, and any other is asked for alone.
const BIG: usize = 4096;
/// Up to how many elements a set is read, if the kernel tells the number: it takes a second for as many.
const LARGEST: usize = 100_000;
/// At how many places a set of ours is compared with what it should hold.
const SAMPLE: usize = 64;
/// How long a program may take: a foreign set of a hundred thousand elements takes a second.
const PATIENCE: Duration = Duration::from_secs(30);
/// Prints the rules as nft writes them, with their numbers.
const LISTING: [&str; 5] = ["nft", "-a", "-t", "list", "ruleset"];
/// `NFT_SET_ANONYMOUS`, `NFT_SET_MAP` of linux/netfilter/nf_tables.h.
const SET_ANONYMOUS: u32 = 0x1;
const SET_MAP: u32 = 0x8;

/// Takes the picture. `ours` is what the sets of ours hold when all is well. What can't be read is a gap in it.
#[must_use]
pub fn take(host: &dyn Look, ours: &Prefixes) -> Picture {
    if !host.may_administer() {
        return gap("the packet filters can be read with CAP_NET_ADMIN only: run edgeallow as root");
    }
    for _ in 0..TRIES {
        let before = host.nft_generation();
        let mut taking = Taking::new(host, ours);
        match &before {
            Ok(Some(_)) => match host.nft_ruleset() {
                Ok(rules) => taking.rules = rules,
                // Changed while it was read.
                Err(e) if e.kind == ErrorKind::RaceLost => continue,
                Err(e) => taking.missing("nftables", &e),
            },
            Ok(None) => {}
            Err(e) => taking.missing("nftables", e),
        }
        taking.all();
        if host.nft_generation() == before {
            return taking.picture;
        }
    }
    gap("the nftables rule set kept changing while it was looked at: try again")
}

fn gap(words: &str) -> Picture {
    Picture { gaps: vec![words.to_owned()], ..Picture::default() }
}

/// The interfaces, as far as a packet's way depends on them.
///
/// # Errors
/// `netlink`.
pub fn facts(host: &dyn Look, links: &[crate::host::Link]) -> Facts {
    let interface = |link: &crate::host::Link| Interface {
        name: link.name.clone(),
        addresses: link.addresses.iter().map(|a| (a.ip, a.prefix)).collect(),
        programs: link.programs.clone(),
    };
    let on = |path: &str| {
        host.file(std::path::Path::new(path))
            .ok()
            .flatten()
            .is_some_and(|f| f.content.first().is_some_and(|c| *c != b'0'))
    };
    let forwards = (on("/proc/sys/net/ipv4/ip_forward"), on("/proc/sys/net/ipv6/conf/all/forwarding"));
    let dead_ends = host.dead_ends().unwrap_or_default();
    Facts { interfaces: links.iter().map(interface).collect(), forwards, dead_ends }
}

/// Looks up how nft prints the rules at these places.
pub fn texts(host: &dyn Look, places: &mut [&mut Place]) {
    let wanted = |p: &&mut &mut Place| p.language == Language::Nft && p.handle.is_some() && p.text.is_none();
    if !places.iter_mut().any(|p| wanted(&p)) {
        return;
    }
    // Without an answer the rules are shown without their text.
    let Ok(answer) = host.run(&LISTING, PATIENCE) else { return };
    let listing = reach::nft::texts(&String::from_utf8_lossy(&answer.stdout));
    for place in places.iter_mut().filter(wanted) {
        let chain = TableId::new(place.family, place.table.clone()).chain(place.chain.clone());
        place.text = place.handle.and_then(|handle| listing.rule(&chain, handle)).map(str::to_owned);
    }
}

struct Taking<'a> {
    host: &'a dyn Look,
    ours: &'a Prefixes,
    rules: Ruleset,
    /// What nft printed.
    ruleset: Option<Vec<u8>>,
    /// Sets that were asked for alone.
    sets: Vec<Vec<u8>>,
    /// Sets of ours that come from memory.
    memory: Vec<(SetId, Family)>,
    /// Legacy tables that the kernel names.
    legacy: Vec<(Family, String)>,
    /// What iptables' programs printed.
    saved: Vec<(Family, Language, Saved)>,
    picture: Picture,
}

/// A question to a program, and what it is about.
struct Question {
    argv: Vec<String>,
    about: About,
}

enum About {
    Ruleset,
    NftSet,
    Save(Family, Language),
}

impl<'a> Taking<'a> {
    fn new(host: &'a dyn Look, ours: &'a Prefixes) -> Self {
        let (rules, picture) = (Ruleset::default(), Picture::default());
        Self {
            host,
            ours,
            rules,
            ruleset: None,
            sets: Vec::new(),
            memory: Vec::new(),
            legacy: Vec::new(),
            saved: Vec::new(),
            picture,
        }
    }

    fn missing(&mut self, what: &str, e: &Error) {
        self.picture.gaps.push(format!("{what} can't be read: {e}"));
    }

    fn all(&mut self) {
        let mut questions = Vec::new();
        let mut xtables = self.ask_iptables(&mut questions);
        self.ask_nft(&xtables, &mut questions);
        self.answers(questions);
        self.neighbours();
        // iptables passes over a table that it can't show, without failing; nft shows what is in it.
        let unreadable: BTreeSet<TableId> = xtables.iter().filter(|id| !self.is_shown(id)).cloned().collect();
        if !unreadable.is_empty() {
            xtables.retain(|id| !unreadable.contains(id));
            if self.ruleset.is_none() {
                let mut questions = Vec::new();
                self.ask_nft(&xtables, &mut questions);
                self.answers(questions);
            }
        }
        if let Err(e) = self.parse_nft(&xtables) {
            self.missing("the nftables rule set", &e);
        }
        self.ipsets();
        self.compare();
    }

    /// What the programs show has to be what the kernel says there is: of nf_tables the same chains on the same hooks, with as
    /// many rules in each, of legacy iptables the same tables with all chains that such a table has.
    fn compare(&mut self) {
        // A gap says so already.
        if !self.picture.gaps.is_empty() {
            return;
        }
        for (family, name) in &self.legacy {
            let is = |t: &&Table| {
                t.language == Language::IptablesLegacy && t.family == TableFamily::of(*family) && t.name == *name
            };
            let shown = self.picture.tables.iter().find(is);
            if !shown.is_some_and(|t| built_in(name).iter().all(|c| t.chains.get(*c).is_some_and(|c| c.base.is_some())))
            {
                let what = format!("{}-legacy-save doesn't show all of the table {name}", seen::stem(*family));
                self.picture.gaps.push(what);
            }
        }
        let families = [TableFamily::Inet, TableFamily::Ip, TableFamily::Ip6, TableFamily::NETDEV];
        for table in self.rules.tables.iter().filter(|t| sees_packets(t) && families.contains(&t.id.family)) {
            let is = |t: &&Table| {
                t.language != Language::IptablesLegacy && t.family == table.id.family && t.name == table.id.name
            };
            let shown = self.picture.tables.iter().find(is);
            let differs = |c: &&nft::Chain| shown.and_then(|t| t.chains.get(&c.name)).is_none_or(|s| !is_same(c, s));
            if let Some(chain) = table.chains.iter().find(differs) {
                let words =
                    format!("what is shown of the chain {} isn't what the kernel has", table.id.chain(&chain.name));
                self.picture.gaps.push(words);
            }
        }
    }

    /// Tables that neighbours are found through: what they refuse isn't followed, and without neighbours nobody is reached.
    fn neighbours(&mut self) {
        let refuses = |c: &nft::Chain| {
            c.hooked.as_ref().is_some_and(|h| h.policy == nft::Policy::Drop)
                || c.rules.iter().flat_map(|r| &r.exprs).any(|e| matches!(e, nft::Expr::Verdict(nft::Verdict::Drop)))
        };
        let arp = |t: &&nft::Table| t.id.family == TableFamily::ARP && sees_packets(t) && t.chains.iter().any(refuses);
        for table in self.rules.tables.iter().filter(arp) {
            self.picture.gaps.push(format!("table {} can refuse ARP, which isn't followed", table.id));
        }
    }

    fn answers(&mut self, questions: Vec<Question>) {
        let answers = self.run(&questions);
        for (question, answer) in questions.iter().zip(answers) {
            if let Err(e) = answer.and_then(|output| self.read(question, output)) {
                self.missing(&format!("what `{}` shows", question.argv.join(" ")), &e);
            }
        }
    }

    /// The programs that print iptables' tables, only where there are any; the nf_tables tables that they answer for.
    fn ask_iptables(&mut self, questions: &mut Vec<Question>) -> BTreeSet<TableId> {
        let tools = seen::tools(self.host);
        let tool = |variant, family| tools.iter().find(|t| t.variant == variant && t.family == family);
        let mut xtables = BTreeSet::new();
        for family in Family::BOTH {
            // Without their program they are read as what they are to the kernel: tables of nftables.
            if let Some(tool) = tool(Variant::Nft, family) {
                let of = |t: &&nft::Table| t.id.family == TableFamily::of(family) && nft::is_xtables(t);
                let found: Vec<TableId> = self.rules.tables.iter().filter(of).map(|t| t.id.clone()).collect();
                if !found.is_empty() {
                    let about = About::Save(family, Language::IptablesNft);
                    questions.push(Question { argv: vec![tool.save.clone()], about });
                    xtables.extend(found);
                }
            }
            let legacy = match seen::legacy_tables(self.host, family) {
                Ok(names) => names,
                Err(e) => {
                    self.missing(&format!("legacy {}", seen::stem(family)), &e);
                    continue;
                }
            };
            self.legacy.extend(legacy.iter().map(|name| (family, name.clone())));
            match tool(Variant::Legacy, family) {
                _ if legacy.is_empty() => {}
                Some(tool) => {
                    let about = About::Save(family, Language::IptablesLegacy);
                    questions.push(Question { argv: vec![tool.save.clone()], about });
                }
                None => self.picture.gaps.push(format!(
                    "the kernel has legacy {stem} tables ({}), and there is no {stem}-legacy-save to read them",
                    legacy.join(", "),
                    stem = seen::stem(family),
                )),
            }
        }
        xtables
    }

    /// nft, only where a table of its own sees packets.
    fn ask_nft(&mut self, xtables: &BTreeSet<TableId>, questions: &mut Vec<Question>) {
        let natives: Vec<&nft::Table> =
            self.rules.tables.iter().filter(|t| sees_packets(t) && !xtables.contains(&t.id)).collect();
        if natives.is_empty() {
            return;
        }
        if self.host.program("nft").is_none() {
            let names: Vec<String> = natives.iter().map(|t| t.id.to_string()).collect();
            self.picture.gaps.push(format!(
                "the kernel has nftables tables ({}), and there is no nft program to read them",
                names.join(", ")
            ));
            return;
        }
        let of_nft = |words: &[&str]| ["nft", "-j"].iter().chain(words).map(|w| (*w).to_owned()).collect();
        if !self.any_big() {
            questions.push(Question { argv: of_nft(&["list", "ruleset"]), about: About::Ruleset });
            return;
        }
        questions.push(Question { argv: of_nft(&["-t", "list", "ruleset"]), about: About::Ruleset });
        let (mut memory, mut too_big) = (Vec::new(), Vec::new());
        for table in natives {
            for set in table.sets.iter().filter(|s| s.flags & SET_ANONYMOUS == 0) {
                let id = table.id.set(&set.name);
                match ours(&set.name) {
                    Some(family) if self.holds_ours(&id, set.count, family) => memory.push((id, family)),
                    _ if set.count.is_some_and(|n| n as usize > LARGEST) => too_big.push(id),
                    _ => {
                        let kind = if set.flags & SET_MAP == 0 { "set" } else { "map" };
                        let words = ["list", kind, table.id.family.as_str(), &table.id.name, &set.name];
                        questions.push(Question { argv: of_nft(&words), about: About::NftSet });
                    }
                }
            }
        }
        self.memory = memory;
        for id in too_big {
            self.picture
                .gaps
                .push(format!("the set {id} is too big to be read, and isn't known to hold edgeallow's list"));
        }
    }

    /// Whether a big set holds what edgeallow put there: by the kernel's count of it, or where there is none by a sample.
    fn holds_ours(&self, id: &SetId, count: Option<u32>, family: Family) -> bool {
        match count {
            Some(count) => counts_as(self.ours, family, count as usize),
            None => self.host.nft_sample(id, self.ours, family, SAMPLE).unwrap_or(false),
        }
    }

    fn any_big(&self) -> bool {
        let big = |s: &nft::Set| s.count.is_some_and(|n| n as usize > BIG);
        self.ours.len() > BIG || self.rules.tables.iter().flat_map(|t| &t.sets).any(big)
    }

    fn run(&self, questions: &[Question]) -> Vec<Result<Output>> {
        let commands: Vec<Vec<&str>> = questions.iter().map(|q| q.argv.iter().map(String::as_str).collect()).collect();
        // One that is refused must not take the others with it.
        let answers = self.host.run_all(&commands, PATIENCE);
        let refused = |e: &Error| e.kind == ErrorKind::Internal;
        let alone = |(command, answer): (&Vec<&str>, Result<Output>)| match answer {
            Err(e) if refused(&e) => self.host.run(command, PATIENCE),
            answer => answer,
        };
        commands.iter().zip(answers).map(alone).collect()
    }

    fn read(&mut self, question: &Question, output: Output) -> Result<()> {
        if !output.ok() {
            return Err(seen::failed(&question.argv[0], &output));
        }
        match question.about {
            About::Ruleset => self.ruleset = Some(output.stdout),
            About::NftSet => self.sets.push(output.stdout),
            About::Save(family, language) => {
                let saved = reach::xtables::tables(&output.stdout, family, language)?;
                if language == Language::IptablesLegacy && !saved.unreadable.is_empty() {
                    let what = format!("{} doesn't show {}", question.argv[0], saved.unreadable.join(", "));
                    return Err(Error::new(ErrorKind::Program, what));
                }
                self.saved.push((family, language, saved));
            }
        }
        Ok(())
    }

    /// Whether iptables' own program shows this table, and as it is.
    fn is_shown(&self, id: &TableId) -> bool {
        self.saved.iter().any(|(family, language, saved)| {
            *language == Language::IptablesNft
                && TableFamily::of(*family) == id.family
                && saved.tables.iter().any(|t| t.name == id.name)
                && !saved.unreadable.contains(&id.name)
        })
    }

    fn parse_nft(&mut self, xtables: &BTreeSet<TableId>) -> Result<()> {
        let Some(json) = self.ruleset.take() else { return Ok(()) };
        let idle: BTreeSet<&TableId> = self.rules.tables.iter().filter(|t| !sees_packets(t)).map(|t| &t.id).collect();
        let skip = |id: &TableId| xtables.contains(id) || idle.contains(id);
        let mut tables =
            if self.any_big() { reach::nft::parse_terse(&json, &skip)? } else { reach::nft::parse(&json, &skip)? };
        for json in std::mem::take(&mut self.sets) {
            reach::nft::merge_set(&mut tables, &json)?;
        }
        for (id, family) in std::mem::take(&mut self.memory) {
            if let Some(table) = tables.iter_mut().find(|t| t.family == id.table.family && t.name == id.table.name) {
                table.sets.insert(id.name, Set::Plain(Elements::Numbers(sources(self.ours, family), ())));
            }
        }
        // nft's JSON leaves out on which devices such a chain is; its text doesn't.
        let on_device = |t: &Table| {
            t.chains.values().filter_map(|c| c.base.as_ref()).any(|b| matches!(b.hook, Hook::Ingress | Hook::Egress))
        };
        if tables.iter().any(on_device) {
            reach::nft::texts(&String::from_utf8_lossy(&self.printed(&[LISTING.to_vec()])?)).complete(&mut tables);
        }
        self.picture.tables.extend(tables);
        Ok(())
    }

    /// The ipsets that iptables' rules name, put where they are named.
    fn ipsets(&mut self) {
        let named: BTreeSet<String> = self.saved.iter().flat_map(|(_, _, saved)| saved.ipsets_named()).collect();
        let mut ipsets = Ipsets::default();
        if !named.is_empty() {
            match self.read_ipsets(&named) {
                Ok(sets) => ipsets = sets,
                Err(e) => {
                    let names: Vec<&str> = named.iter().map(String::as_str).collect();
                    self.missing(&format!("the ipsets that rules name ({})", names.join(", ")), &e);
                }
            }
        }
        for (_, _, mut saved) in std::mem::take(&mut self.saved) {
            saved.bind(&ipsets);
            self.picture.tables.extend(saved.tables);
        }
        self.picture.ipsets = ipsets.sets;
    }

    fn read_ipsets(&self, named: &BTreeSet<String>) -> Result<Ipsets> {
        if !seen::ip_set_loaded(self.host) || self.host.program("ipset").is_none() {
            return Err(Error::new(ErrorKind::Program, "there is no ipset program"));
        }
        let memory = if self.any_big() { self.ipsets_of_ours() } else { HashMap::new() };
        let alone: Vec<&str> = named.iter().map(String::as_str).filter(|n| !memory.contains_key(*n)).collect();
        // One or two the backend may have asked for already; and with a big one of ours there is no other way.
        let few = alone.len() <= 2 || !memory.is_empty();
        let all = vec![vec!["ipset", "save"]];
        let mut text = if few {
            self.printed(&alone.iter().map(|name| vec!["ipset", "save", name]).collect::<Vec<_>>())?
        } else {
            self.printed(&all)?
        };
        // A list of sets needs those that it names.
        if few && String::from_utf8_lossy(&text).contains(" list:set ") {
            if !memory.is_empty() {
                let what = "a rule names a list of sets, and edgeallow's sets are too big to be read with all others";
                return Err(Error::new(ErrorKind::Program, what));
            }
            text = self.printed(&all)?;
        }
        for family in Family::BOTH.into_iter().filter(|f| memory.contains_key(ipset::set_name(*f))) {
            let inet = if family == Family::V4 { "inet" } else { "inet6" };
            text.extend_from_slice(format!("create {} hash:net family {inet}\n", ipset::set_name(family)).as_bytes());
        }
        let mut ipsets = reach::xtables::ipsets(&text)?;
        ipsets.sets.extend(memory);
        Ok(ipsets)
    }

    /// What some programs print, one after the other.
    fn printed(&self, commands: &[Vec<&str>]) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        for (command, answer) in commands.iter().zip(self.host.run_all(commands, PATIENCE)) {
            let output = answer?;
            if !output.ok() {
                return Err(seen::failed(command[0], &output));
            }
            text.extend_from_slice(&output.stdout);
        }
        Ok(text)
    }

    /// Our sets that have as many elements as they should: what the backend goes by, too.
    fn ipsets_of_ours(&self) -> HashMap<String, Set> {
        let list = self.host.run(&["ipset", "list", "-t"], PATIENCE).ok().filter(Output::ok);
        let headers = list.map(|output| ipset::parse_headers(&output.stdout)).unwrap_or_default();
        let mut sets = HashMap::new();
        for family in Family::BOTH {
            let name = ipset::set_name(family);
            let full = |h: &&ipset::Header| {
                h.name == name
                    && ipset::is_ours(family, &h.create)
                    && h.entries == Some(ipset::elements(self.ours, family).len())
            };
            if headers.iter().any(|h| full(&h)) {
                sets.insert(name.to_owned(), Set::Plain(Elements::Numbers(sources(self.ours, family), ())));
            }
        }
        sets
    }
}

/// The chains that a legacy table can't be without.
fn built_in(table: &str) -> &'static [&'static str] {
    match table {
        "filter" | "security" => &["INPUT", "FORWARD", "OUTPUT"],
        "nat" => &["PREROUTING", "OUTPUT", "POSTROUTING"],
        "mangle" => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
        "raw" => &["PREROUTING", "OUTPUT"],
        _ => &[],
    }
}

/// Whether a chain that a program shows can be the one that the kernel has.
fn is_same(chain: &nft::Chain, shown: &Chain) -> bool {
    let number = |hook| match hook {
        // `NF_NETDEV_INGRESS` and `NF_NETDEV_EGRESS`; in inet ingress is 5 (`NF_INET_INGRESS`).
        Hook::Prerouting | Hook::Ingress => 0,
        Hook::Input | Hook::Egress => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    };
    let hangs = match (&chain.hooked, &shown.base) {
        (None, None) => true,
        (Some(hooked), Some(base)) => {
            let here = hooked.hook == number(base.hook) || (base.hook == Hook::Ingress && hooked.hook == 5);
            here && hooked.priority == base.priority && (hooked.policy == nft::Policy::Drop) == base.drops
        }
        _ => false,
    };
    hangs && chain.rules.len() == shown.rules.len()
}

/// Whether any packet passes through it.
fn sees_packets(table: &nft::Table) -> bool {
    !table.dormant && table.chains.iter().any(|c| c.hooked.is_some())
}

/// The family of a set of ours by its name, which is the same in nftables, in ipset and in firewalld.
fn ours(name: &str) -> Option<Family> {
    Family::BOTH.into_iter().find(|f| ipset::set_name(*f) == name)
}

/// A family's prefixes as addresses.
#[must_use]
pub fn sources(prefixes: &Prefixes, family: Family) -> Sources {
    Sources::new(prefixes.family(family).map(|net| reach::sources::bounds(&net)).collect())
}
