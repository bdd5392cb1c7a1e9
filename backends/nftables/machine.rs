//! A machine in memory for the tests: a rule set that takes transactions as the kernel does, and files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    error::{Error, ErrorKind, Result},
    host::{FileSeen, Look, Output},
    nft::{
        Chain, Elements, Expr, Hooked, Interval, NftBatch, NftOp, Policy, Rule, Ruleset, Set, SetId, SetKind, Table,
        TableFamily, TableId, Verdict,
    },
    plan::{Plan, Step},
};

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Machine {
    pub rules: Ruleset,
    pub elements: BTreeMap<SetId, Elements>,
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    pub links: BTreeSet<PathBuf>,
    pub without_nft: bool,
    pub generation: u32,
    handle: u64,
}

fn no(what: &str) -> Error {
    Error::new(ErrorKind::Netlink, what)
}

impl Machine {
    /// A machine with one base chain on input in each of these tables.
    pub(super) fn new(chains: &[(TableFamily, &str, &str, Policy)]) -> Self {
        let mut machine = Self { generation: 1, ..Self::default() };
        for (family, table, chain, policy) in chains {
            let hooked = Some(Hooked { policy: *policy, ..Hooked::input() });
            let his = Rule {
                handle: machine.next(),
                comment: None,
                exprs: vec![Expr::Meta(4), Expr::Verdict(Verdict::Accept)],
            };
            let chain = Chain { name: (*chain).to_owned(), hooked, rules: vec![his] };
            let id = TableId::new(*family, *table);
            machine.rules.tables.push(Table {
                id,
                owned: false,
                dormant: false,
                chains: vec![chain],
                sets: Vec::new(),
            });
        }
        machine
    }

    fn next(&mut self) -> u64 {
        self.handle += 1;
        self.handle
    }

    /// The same without what changes at every transaction.
    pub(super) fn settled(&self) -> Self {
        let mut same = Self { handle: 0, generation: 0, ..self.clone() };
        for table in &mut same.rules.tables {
            table.sets.sort_by(|a, b| a.name.cmp(&b.name));
            table.chains.iter_mut().flat_map(|c| &mut c.rules).for_each(|r| r.handle = 0);
        }
        same
    }

    pub(super) fn carry_out(&mut self, plan: &Plan) {
        self.carry_out_first(plan, usize::MAX);
    }

    pub(super) fn carry_out_first(&mut self, plan: &Plan, many: usize) {
        for change in plan.changes.iter().take(many) {
            match &change.step {
                Step::Nft(batch) => self.transact(batch).unwrap(),
                Step::Write(w) => {
                    assert_eq!(self.files.get(&w.path).map(Vec::as_slice), w.was.as_deref(), "{}", w.path.display());
                    self.files.insert(w.path.clone(), w.content.to_vec());
                }
                Step::Remove(r) => assert_eq!(self.files.remove(&r.path).as_deref(), Some(&*r.was)),
                Step::Mkdir(_) | Step::Rmdir(_) | Step::Touch(_) => {}
                Step::Run(run) => panic!("{run}"),
            }
        }
    }

    /// All of a batch or nothing, by the kernel's rules.
    pub(super) fn transact(&mut self, batch: &NftBatch) -> Result<()> {
        if batch.generation.is_some_and(|g| g != self.generation) {
            return Err(Error::new(ErrorKind::RaceLost, "stale"));
        }
        let mut next = self.clone();
        for op in &batch.ops {
            next.operate(op).map_err(|e| no(&format!("{op}: {e}")))?;
        }
        next.generation += 1;
        *self = next;
        Ok(())
    }

    fn table(&mut self, id: &TableId) -> Result<&mut Table> {
        self.rules.tables.iter_mut().find(|t| t.id == *id).ok_or_else(|| no("no such table"))
    }

    fn chain(&mut self, id: &crate::nft::ChainId) -> Result<&mut Chain> {
        let table = self.table(&id.table)?;
        table.chains.iter_mut().find(|c| c.name == id.name).ok_or_else(|| no("no such chain"))
    }

    fn operate(&mut self, op: &NftOp) -> Result<()> {
        match op {
            NftOp::AddTable(id) => {
                if self.table(id).is_err() {
                    let table =
                        Table { id: id.clone(), owned: false, dormant: false, chains: Vec::new(), sets: Vec::new() };
                    self.rules.tables.push(table);
                }
            }
            NftOp::DelTable(id) => {
                self.table(id)?;
                self.rules.tables.retain(|t| t.id != *id);
                self.elements.retain(|set, _| set.table != *id);
            }
            NftOp::AddChain { chain, hooked } => {
                let new = Chain { name: chain.name.clone(), hooked: Some(hooked.clone()), rules: Vec::new() };
                self.table(&chain.table)?.chains.push(new);
            }
            NftOp::DelChain(id) => self.table(&id.table)?.chains.retain(|c| c.name != id.name),
            NftOp::AddSet { set, kind } => {
                let table = self.table(&set.table)?;
                if table.set(&set.name).is_some() {
                    return Err(no("set exists"));
                }
                table.sets.push(set_like(&set.name, *kind));
                let empty = match kind {
                    SetKind::Ports => Elements::Ports(BTreeSet::new()),
                    SetKind::V4 => Elements::Prefixes { of: Arc::default(), family: crate::allowlist::Family::V4 },
                    SetKind::V6 => Elements::Prefixes { of: Arc::default(), family: crate::allowlist::Family::V6 },
                };
                self.elements.insert(set.clone(), empty);
            }
            NftOp::DelSet(set) => {
                let table = self.table(&set.table)?;
                if table.chains.iter().any(|c| c.uses().contains(set.name.as_str())) {
                    return Err(no("set in use"));
                }
                table.sets.retain(|s| s.name != set.name);
                self.elements.remove(set).ok_or_else(|| no("no such set"))?;
            }
            NftOp::FlushSet(set) => {
                let held = self.held(set)?;
                *held = held.minus(&held.clone());
            }
            NftOp::AddElements { set, elements } => {
                let held = self.held(set)?;
                *held = joined(held, elements)?;
            }
            NftOp::DelElements { set, elements } => {
                let held = self.held(set)?;
                if !elements.minus(held).is_empty() {
                    return Err(no("no such element"));
                }
                *held = held.minus(elements);
            }
            NftOp::InsertRule { chain, rule } => {
                for set in [&rule.sources, &rule.ports] {
                    self.held(&chain.table.set(set))?;
                }
                let exprs = rule.exprs(chain.table.family);
                let new = Rule { handle: self.next(), comment: Some(rule.comment.clone()), exprs };
                self.chain(chain)?.rules.insert(0, new);
            }
            NftOp::DelRule { chain, handle } => {
                let rules = &mut self.chain(chain)?.rules;
                let at = rules.iter().position(|r| r.handle == *handle).ok_or_else(|| no("no such rule"))?;
                rules.remove(at);
            }
        }
        Ok(())
    }

    fn held(&mut self, set: &SetId) -> Result<&mut Elements> {
        self.elements.get_mut(set).ok_or_else(|| no("no such set"))
    }
}

fn set_like(name: &str, kind: SetKind) -> Set {
    Set {
        name: name.to_owned(),
        flags: kind.flags(),
        key_type: kind.key_type(),
        key_len: kind.key_len(),
        expires: false,
        count: None,
    }
}

/// Both together; refused if one overlaps another, as the kernel does.
fn joined(held: &Elements, more: &Elements) -> Result<Elements> {
    match (held, more) {
        (Elements::Ports(a), Elements::Ports(b)) => Ok(Elements::Ports(a | b)),
        (Elements::Prefixes { of: a, family }, Elements::Prefixes { of: b, family: f }) if family == f => {
            let all = a.only(*family).union(&b.only(*family));
            let expected = a.count(*family) + b.count(*family);
            // The canonical union is shorter exactly if something overlaps.
            if all.len() != expected {
                return Err(no("overlap"));
            }
            Ok(Elements::Prefixes { of: Arc::new(all), family: *family })
        }
        _ => Err(no("wrong kind")),
    }
}

impl Look for Machine {
    fn file(&self, path: &Path) -> Result<Option<FileSeen>> {
        Ok(self.files.get(path).map(|text| FileSeen {
            content: text.clone().into(),
            mode: 0o644,
            owner: (0, 0),
            symlink: self.links.contains(path),
        }))
    }
    fn folder(&self, path: &Path) -> Result<Vec<String>> {
        let inside =
            self.files.keys().filter_map(|p| p.strip_prefix(path).ok()?.iter().next()?.to_str().map(str::to_owned));
        Ok(inside.collect::<BTreeSet<_>>().into_iter().collect())
    }
    fn exists(&self, path: &Path) -> bool {
        self.files.keys().any(|p| p.starts_with(path))
    }
    fn program(&self, name: &str) -> Option<PathBuf> {
        (!self.without_nft).then(|| Path::new("/usr/sbin").join(name))
    }
    fn run(&self, argv: &[&str], _: Duration) -> Result<Output> {
        panic!("nothing to run: {argv:?}")
    }
    fn may_administer(&self) -> bool {
        true
    }
    fn nft_generation(&self) -> Result<Option<u32>> {
        Ok(Some(self.generation))
    }
    fn nft_ruleset(&self) -> Result<Ruleset> {
        Ok(self.rules.clone())
    }
    fn nft_elements(&self, set: &SetId, _: SetKind) -> Result<Vec<Interval>> {
        let held = self.elements.get(set).ok_or_else(|| no("no such set"))?;
        let v4 = held
            .v4()
            .iter()
            .map(|n| Interval { first: u32::from(n.network()).into(), last: u32::from(n.broadcast()).into() });
        let v6 = held.v6().iter().map(|n| Interval { first: n.network().into(), last: n.broadcast().into() });
        Ok(v4.chain(v6).collect())
    }
    fn nft_ports(&self, set: &SetId) -> Result<BTreeSet<u16>> {
        match self.elements.get(set) {
            Some(Elements::Ports(ports)) => Ok(ports.clone()),
            _ => Err(no("no such set of ports")),
        }
    }
}
