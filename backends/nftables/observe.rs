//! The look: rule set, elements and files, read into [`Seen`].
//!
//! Belongs here: what is asked, and how much of a large set. Does not: what should be there.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    OWN_CHAIN, OWN_TABLE, SET_PORTS, SET_V4, SET_V6,
    attach::{self, Place, Verdicts},
    boot, file, live,
    seen::{BootSeen, ChainSeen, Content, Folder, OurFile, Seen, SetSeen, TableSeen},
};
use crate::{
    allowlist::Family,
    backends::{Context, Verified},
    error::{Error, ErrorKind, Result},
    host::Look,
    nft::{Chain, Elements, Hooked, Ruleset, Set, SetKind, Table, prefixes},
    plan::TAG,
};

/// How many prefixes are looked up where a set is too large to be listed and the kernel doesn't count.
const SAMPLE: usize = 64;

/// The places alone, for a first look; `None` where the kernel has no nf_tables.
pub(super) fn places(host: &dyn Look) -> Result<Option<Vec<Place>>> {
    if host.nft_generation()?.is_none() {
        return Ok(None);
    }
    let rules = host.nft_ruleset()?;
    let verdicts = verdicts(host, &rules)?;
    Ok(Some(attach::places(&rules, &verdicts)))
}

/// The whole look. Read again, three times at most, if the rule set changes in between.
pub(super) fn observe(cx: &Context<'_>) -> Result<Seen> {
    let boot = files(cx)?;
    for _ in 0..3 {
        let Some(generation) = cx.host.nft_generation()? else {
            return Err(Error::new(ErrorKind::BackendUnusable, "the kernel has no nf_tables"));
        };
        match kernel(cx) {
            Err(e) if e.kind == ErrorKind::RaceLost => {}
            Err(e) if cx.host.nft_generation()? == Some(generation) => return Err(e),
            Err(_) => {}
            Ok(mut seen) => {
                if cx.host.nft_generation()? == Some(generation) {
                    seen.generation = Some(generation);
                    seen.boot = boot;
                    return Ok(seen);
                }
            }
        }
    }
    Err(Error::new(ErrorKind::RaceLost, "the nftables rule set keeps changing while it is read")
        .hint("see what changes it all the time with `nft monitor`"))
}

fn verdicts(host: &dyn Look, rules: &Ruleset) -> Result<Verdicts> {
    attach::maps(rules).into_iter().map(|map| Ok((map.clone(), host.nft_verdicts(&map)?))).collect()
}

fn kernel(cx: &Context<'_>) -> Result<Seen> {
    let rules = cx.host.nft_ruleset()?;
    let verdicts = verdicts(cx.host, &rules)?;
    let mut seen = Seen {
        places: attach::places(&rules, &verdicts),
        foreign: attach::foreign_refusals(&rules, &verdicts),
        limit: cx.full_check,
        ..Seen::default()
    };
    for table in &rules.tables {
        seen.chains.extend(table.chains.iter().map(|c| table.id.chain(&c.name)));
        let base = table.chains.iter().filter(|c| c.hooked.is_some());
        seen.hooked.extend(base.map(|c| table.id.chain(&c.name)));
        let led_to = attach::led_to(table, &verdicts);
        let others = |c: &&Chain| c.rules.iter().any(|r| r.comment.as_deref() != Some(TAG));
        let lived_in =
            table.chains.iter().filter(|c| c.hooked.is_some() || others(c) || led_to.contains(c.name.as_str()));
        seen.lived_in.extend(lived_in.map(|c| table.id.chain(&c.name)));
        let inputs = table.chains.iter().filter(|c| attach::on_input(c));
        seen.inputs.extend(inputs.map(|c| table.id.chain(&c.name)));
        if table.dormant {
            seen.dormant.insert(table.id.clone());
        }
        if attach::compat(table) {
            seen.mixed.insert(table.id.clone());
        }
        let ours = ours(cx, table, &mut seen.verified)?;
        if table.id == *OWN_TABLE || !ours.sets.is_empty() || !ours.chains.is_empty() {
            seen.tables.insert(table.id.clone(), ours);
        }
    }
    Ok(seen)
}

/// What of ours is in a table.
fn ours(cx: &Context<'_>, table: &Table, verified: &mut Verified) -> Result<TableSeen> {
    let mut seen = TableSeen {
        sound: !table.dormant && table.chain(OWN_CHAIN).is_some_and(|c| c.hooked == Some(Hooked::input())),
        ..TableSeen::default()
    };
    for chain in &table.chains {
        let rules = chain.rules.iter().filter(|r| r.comment.as_deref() == Some(TAG));
        let rules: Vec<_> = rules.map(|r| (r.handle, live::recognise(table.id.family, &r.exprs))).collect();
        if !rules.is_empty() {
            let first = chain.rules.iter().take(rules.len()).all(|r| r.comment.as_deref() == Some(TAG));
            seen.chains.insert(chain.name.clone(), ChainSeen { rules, first });
        }
    }
    for (name, kind) in [(SET_V4, SetKind::V4), (SET_V6, SetKind::V6), (SET_PORTS, SetKind::Ports)] {
        let Some(set) = table.set(name) else { continue };
        let mut seen_set = match set.kind() {
            Some(found) if found == kind => content(cx, table, set, kind, verified)?,
            _ => SetSeen { content: None, exact: false, users: Vec::new() },
        };
        let others = table.chains.iter().filter(|c| {
            let foreign = c.rules.iter().filter(|r| r.comment.as_deref() != Some(TAG));
            foreign.flat_map(|r| &r.exprs).any(|e| e.set() == Some(name))
        });
        seen_set.users = others.map(|c| c.name.clone()).collect();
        seen.sets.insert(name.to_owned(), seen_set);
    }
    Ok(seen)
}

/// The elements of one of our sets, or, above the limit, whether they are still what the last run left.
fn content(cx: &Context<'_>, table: &Table, set: &Set, kind: SetKind, verified: &mut Verified) -> Result<SetSeen> {
    let id = table.id.set(&set.name);
    let seen = |content, exact| SetSeen { content: Some(content), exact, users: Vec::new() };
    let family = match kind {
        SetKind::Ports => return Ok(seen(Content::Known(Elements::Ports(cx.host.nft_ports(&id)?)), true)),
        SetKind::V4 => Family::V4,
        SetKind::V6 => Family::V6,
    };
    let applied = cx.applied.as_ref();
    let likely = match (set.count, applied) {
        (Some(count), _) => count as usize,
        (None, applied) => applied.map_or(0, |list| list.count(family)),
    };
    if cx.deep || likely <= cx.full_check {
        let (list, exact) = prefixes(kind, &cx.host.nft_elements(&id, kind)?);
        return Ok(seen(Content::Known(Elements::Prefixes { of: Arc::new(list), family }), exact));
    }
    let Some(list) = applied else {
        *verified = Verified::Count;
        return Ok(seen(Content::Unknown(kind), false));
    };
    let same = if let Some(count) = set.count {
        *verified = if *verified == Verified::Sample { Verified::Sample } else { Verified::Count };
        counts_as(list, family, count as usize)
    } else {
        *verified = Verified::Sample;
        cx.host.nft_sample(&id, list, family, SAMPLE)?
    };
    Ok(if same {
        seen(Content::Known(Elements::Prefixes { of: list.clone(), family }), true)
    } else {
        seen(Content::Unknown(kind), false)
    })
}

/// Whether the kernel's count can be that of this list.
///
/// The kernel holds two boundaries for a prefix, but one for the prefix that ends with the address space, sometimes
/// nft's own marker at address 0, and tells half of that, rounded down (`nft_rbtree_usize`; seen on 6.18). A kernel
/// that told the boundaries themselves is believed too: otherwise such a set would be filled anew at every run.
pub fn counts_as(list: &crate::allowlist::Prefixes, family: Family, told: usize) -> bool {
    let open = match family {
        Family::V4 => list.v4().last().is_some_and(|n| u32::from(n.broadcast()) == u32::MAX),
        Family::V6 => list.v6().last().is_some_and(|n| u128::from(n.broadcast()) == u128::MAX),
    };
    let boundaries = 2 * list.count(family) - usize::from(open);
    [boundaries / 2, boundaries.div_ceil(2), boundaries, boundaries + 1].contains(&told)
}

fn files(cx: &Context<'_>) -> Result<BootSeen> {
    let host = cx.host;
    let mut seen = BootSeen {
        nft: host.program("nft"),
        systemd: host.exists(Path::new("/run/systemd/system")),
        unit: boot::UNITS.iter().any(|unit| host.exists(Path::new(unit))),
        enabled: enabled(host)?,
        ..BootSeen::default()
    };
    for path in boot::CONFIGS {
        if let Some(found) = host.file(Path::new(path))? {
            seen.configs.push((PathBuf::from(path), found.content));
        }
    }
    let folder = Path::new(boot::FOLDER);
    let mut others = false;
    for name in host.folder(folder)? {
        let path = folder.join(&name);
        let found = if name.ends_with(".nft") { host.file(&path)? } else { None };
        let ours = found.filter(|f| file::is_ours(&name, &f.content));
        match ours {
            Some(f) => _ = seen.files.insert(path, OurFile { content: f.content, symlink: f.symlink }),
            None => others = true,
        }
    }
    seen.folder = kind_of(host, folder, others);
    let above = Path::new(boot::ABOVE);
    let others = host.folder(above)?.iter().any(|name| !folder.ends_with(name));
    seen.above = kind_of(host, above, others);
    let drop_in = Path::new(boot::DROP_IN);
    seen.drop_in = host.file(drop_in)?.map(|f| OurFile { content: f.content, symlink: f.symlink });
    let folder = Path::new(boot::DROP_IN_FOLDER);
    let others = host.folder(folder)?.iter().any(|name| !drop_in.ends_with(name));
    seen.drop_in_folder = kind_of(host, folder, others);
    seen.left = cx.leave_stored;
    seen.frozen = seen.nft.is_none() || seen.left;
    Ok(seen)
}

fn kind_of(host: &dyn Look, folder: &Path, others: bool) -> Folder {
    match (host.exists(folder), others) {
        (false, _) => Folder::Absent,
        (true, false) if host.ordinary_folder(folder) => Folder::Ours,
        (true, false) => Folder::Shared,
        (true, true) => Folder::Shared,
    }
}

/// Whether some target wants nftables.service.
fn enabled(host: &dyn Look) -> Result<bool> {
    let units = Path::new("/etc/systemd/system");
    let wants = host.folder(units)?;
    let mut wants = wants.iter().filter(|name| name.ends_with(".wants") || name.ends_with(".requires"));
    Ok(wants.any(|name| host.exists(&units.join(name).join("nftables.service"))))
}
