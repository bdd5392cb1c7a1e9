//! One consistent picture of all packet filters, taken without changing them.
//!
//! Each program costs milliseconds, so as few as possible are started: what netlink says not to be there no program is
//! asked about, what doesn't wait for each other runs at once, and what a backend has asked already isn't asked again.
//! Sets of ours that are big come from memory; the kernel takes minutes to tell a million elements.
//!
//! Belongs here: what is asked, and what is missing; whether the answers can be believed (`compare`), ipsets (`ipsets`),
//! and the host apart from its packet filters (`facts`). Does not: the languages of the answers ([`crate::reach`]).

mod compare;
mod facts;
mod ipsets;

use std::{collections::BTreeSet, time::Duration};

pub use facts::facts;

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
        self, Picture, Place, Sources,
        model::{Elements, Hook, Language, Set, Table},
        xtables::Saved,
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
