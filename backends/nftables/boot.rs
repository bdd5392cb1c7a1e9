//! What is stored for the next boot: our files, and the drop-in or the include line that loads them.
//!
//! Belongs here: where it is stored and in which order it is changed: what loads a file is written after the file and
//! removed before it. Does not: the files' text ([`super::file`]), the line ([`super::include`]).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Persist, file, include,
    seen::{BootSeen, Folder, Holding, OurFile, Seen, Stored},
};
use crate::{
    backends::Warning,
    error::{Error, ErrorKind, Result},
    nft::TableId,
    plan::{Owner, Plan, Remove, Run, Step, TAG, Write},
};

/// The folder of our files.
pub(super) const FOLDER: &str = "/etc/edgeallow/nftables";
/// The folder that it is in.
pub(super) const ABOVE: &str = "/etc/edgeallow";
/// The drop-in and its folder.
pub(super) const DROP_IN: &str = "/etc/systemd/system/nftables.service.d/edgeallow.conf";
pub(super) const DROP_IN_FOLDER: &str = "/etc/systemd/system/nftables.service.d";
/// The distributions' configurations: Debian, RHEL, Alpine. The first that exists counts.
pub(super) const CONFIGS: [&str; 3] = ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf", "/etc/nftables.nft"];
/// Where systemd finds nftables.service.
pub(super) const UNITS: [&str; 3] = [
    "/etc/systemd/system/nftables.service",
    "/usr/lib/systemd/system/nftables.service",
    "/lib/systemd/system/nftables.service",
];

/// What loads our files.
enum Loader<'a> {
    DropIn(&'a Path),
    Include(&'a Path),
    /// Nothing can, and why.
    Nobody(&'static str),
    /// Nothing shall.
    Unwanted,
}

fn loader(persist: Persist, seen: &BootSeen) -> Loader<'_> {
    let can_drop_in = seen.systemd && seen.unit;
    let config = seen.configs.first().map(|(path, _)| path.as_path());
    match (persist, &seen.nft, config) {
        (Persist::None, ..) => Loader::Unwanted,
        (Persist::Auto | Persist::DropIn, Some(nft), _) if can_drop_in => Loader::DropIn(nft),
        (Persist::DropIn, ..) => Loader::Nobody("systemd runs no nftables.service here"),
        // Whatever names a sleeping table without `flags dormant` wakes it, and his includes are not looked into.
        (_, _, Some(_)) if seen.configs.first().is_some_and(|(_, text)| names_dormant(text)) => {
            Loader::Nobody("its configuration has a dormant table, which an include of ours could wake")
        }
        (_, _, Some(config)) => Loader::Include(config),
        (_, _, None) => Loader::Nobody("this machine has no configuration of nftables"),
    }
}

/// Whether a configuration holds rules with our comment, as `nft list ruleset` prints them.
fn holds_ours(config: &[u8]) -> bool {
    let comment = format!("comment \"{TAG}\"");
    config.windows(comment.len()).any(|text| text == comment.as_bytes())
}

fn names_dormant(config: &[u8]) -> bool {
    config.windows(7).any(|word| word == b"dormant")
}

/// What should be stored, given what should be live.
pub(super) fn target(persist: Persist, live: &std::collections::BTreeMap<TableId, Holding>, seen: &Seen) -> Stored {
    let boot = &seen.boot;
    if boot.frozen {
        return boot.stored();
    }
    let loader = loader(persist, boot);
    let form = match loader {
        Loader::DropIn(_) => file::Form::OnTop,
        Loader::Include(_) => file::Form::Whole,
        Loader::Nobody(_) | Loader::Unwanted => return Stored::default(),
    };
    // What iptables made is not in his configuration, and an empty chain in its place would break iptables.
    let live: std::collections::BTreeMap<_, _> = live.iter().filter(|(id, _)| !seen.mixed.contains(id)).collect();
    if live.is_empty() {
        return Stored::default();
    }
    let path = |id: &TableId| Path::new(FOLDER).join(file::name(id));
    let files = live.iter().map(|(id, h)| (path(id), file::text(id, h, form, usize::MAX).into_bytes().into()));
    let mut stored = Stored { files: files.collect(), ..Stored::default() };
    match loader {
        Loader::DropIn(nft) => stored.drop_in = Some(drop_in(nft, stored.files.keys()).into_bytes().into()),
        Loader::Include(config) => _ = stored.includes.insert(config.to_owned()),
        Loader::Nobody(_) | Loader::Unwanted => {}
    }
    stored
}

/// The drop-in: the leading `-` makes systemd shrug off a failure, so ours can never keep his from loading.
fn drop_in<'a>(nft: &Path, files: impl Iterator<Item = &'a PathBuf>) -> String {
    let mut text = "# edgeallow: made by edgeallow, which overwrites what is changed here.\n[Service]\n".to_owned();
    for file in files {
        let load = format!("-{} -f {}\n", nft.display(), file.display()).replace('%', "%%");
        text += &format!("ExecStartPost={load}ExecReload={load}");
    }
    text
}

/// Plans the way from what is stored to what should be. Returns whether something is written that must be tested.
pub(super) fn steps(seen: &Seen, to: &Stored, plan: &mut Plan) -> Result<bool> {
    let boot = &seen.boot;
    if boot.left {
        return Ok(false);
    }
    let changes = plan.changes.len();
    if !to.files.is_empty() && boot.folder == Folder::Absent {
        plan.change("the folder of our files is missing", Step::Mkdir(FOLDER.into()));
    }
    for (path, content) in &to.files {
        put(plan, path, boot.files.get(path), content, "what is loaded at boot is not what it should be")?;
    }
    if let Some(content) = &to.drop_in {
        if boot.drop_in_folder == Folder::Absent {
            plan.change("the folder of the drop-in is missing", Step::Mkdir(DROP_IN_FOLDER.into()));
        }
        let why = "nftables.service does not load our files as it should";
        put(plan, Path::new(DROP_IN), boot.drop_in.as_ref(), content, why)?;
    }
    for (path, text) in &boot.configs {
        if to.includes.contains(path) && !include::is_last(text) {
            if !include::can_follow(text) {
                return Err(Error::new(ErrorKind::ToolConfig, format!("{} ends in a backslash", path.display()))
                    .hint("end that file with a whole line, or set `nftables.persist = \"none\"`"));
            }
            let why = format!("{} must load our files as its last statement", path.display());
            plan.change(why, edit(path, text, include::with(text)));
        }
    }
    let stores = plan.changes.len() > changes;
    take_out(boot, to, plan)?;
    let reloads = |step: &Step| match step {
        Step::Write(w) => w.path == Path::new(DROP_IN),
        Step::Remove(r) => r.path == Path::new(DROP_IN),
        _ => false,
    };
    if boot.systemd && plan.changes.iter().any(|c| reloads(&c.step)) {
        plan.activate.push(Step::Run(Run::new(["systemctl", "daemon-reload"])));
    }
    Ok(stores)
}

/// Plans the removal of what should no longer be stored.
fn take_out(boot: &BootSeen, to: &Stored, plan: &mut Plan) -> Result<()> {
    for (path, text) in boot.configs.iter().filter(|(path, text)| include::has(text) && !to.includes.contains(path)) {
        plan.change("our files are no longer loaded from there", edit(path, text, include::without(text)));
    }
    if let Some(file) = boot.drop_in.as_ref().filter(|_| to.drop_in.is_none()) {
        remove(plan, Path::new(DROP_IN), file)?;
        if boot.drop_in_folder == Folder::Ours {
            plan.change("nothing is left in it", Step::Rmdir(DROP_IN_FOLDER.into()));
        }
    }
    let gone = boot.files.iter().filter(|(path, _)| !to.files.contains_key(*path));
    for (path, file) in gone {
        remove(plan, path, file)?;
    }
    // Also where there was no file: a run that failed may have got no further than the folder.
    if to.files.is_empty() && boot.folder == Folder::Ours {
        plan.change("nothing is left in it", Step::Rmdir(FOLDER.into()));
        if boot.above == Folder::Ours {
            plan.change("nothing is left in it", Step::Rmdir(ABOVE.into()));
        }
    }
    Ok(())
}

fn put(plan: &mut Plan, path: &Path, seen: Option<&OurFile>, content: &Arc<[u8]>, why: &str) -> Result<()> {
    refuse_link(path, seen)?;
    if seen.is_none_or(|file| file.content != *content) {
        let was = seen.map(|file| file.content.clone());
        plan.change(why, Step::Write(Write::ours(path, content.clone(), was)));
    }
    Ok(())
}

fn remove(plan: &mut Plan, path: &Path, file: &OurFile) -> Result<()> {
    refuse_link(path, Some(file))?;
    plan.change("no longer needed", Step::Remove(Remove { path: path.to_owned(), was: file.content.clone() }));
    Ok(())
}

fn refuse_link(path: &Path, seen: Option<&OurFile>) -> Result<()> {
    if seen.is_some_and(|file| file.symlink) {
        return Err(Error::new(
            ErrorKind::FileRefused,
            format!("a symbolic link stands in place of our file {}", path.display()),
        )
        .hint("remove that link and run edgeallow again"));
    }
    Ok(())
}

/// His file keeps its mode and owner, and its line ends.
fn edit(path: &Path, text: &Arc<[u8]>, content: Vec<u8>) -> Step {
    Step::Write(Write {
        path: path.to_owned(),
        content: content.into(),
        mode: 0o644,
        owner: Owner::Administrator,
        was: Some(text.clone()),
        in_place: false,
    })
}

/// What the operator should know of the next boot.
pub(super) fn warnings(persist: Persist, seen: &Seen) -> Vec<Warning> {
    let boot = &seen.boot;
    let mut warnings = Vec::new();
    // While ours are live the rehearsal tells that they are there twice.
    let saved = boot.configs.iter().find(|(_, text)| seen.tables.is_empty() && holds_ours(text));
    if let Some((path, _)) = saved {
        warnings.push(Warning::new(
            "rules-in-configuration",
            format!(
                "{} holds a saved copy of edgeallow's rules, which opens the ports again at boot: delete what is \
                 commented \"edgeallow\" there, and the sets edgeallow4, edgeallow6 and edgeallow_ports",
                path.display()
            ),
        ));
    }
    if persist == Persist::None {
        return warnings;
    }
    for id in seen.mixed.iter().filter(|id| seen.tables.contains_key(id)) {
        warnings.push(Warning::new(
            "not-persisted",
            format!(
                "table {id} holds rules of iptables and rules of nft, so neither can store it: after a boot our rules \
                 are missing from it until edgeallow runs again"
            ),
        ));
    }
    if boot.nft.is_none() {
        warnings.push(Warning::new(
            "nft-missing",
            "the program nft is not here, so what is stored for the next boot can't be tested and stays as it is: \
             install the package nftables",
        ));
    } else if let Loader::Nobody(why) = loader(persist, boot) {
        warnings.push(Warning::new(
            "not-persisted",
            format!("{why}: after a boot the rules are missing until edgeallow runs again"),
        ));
    } else if boot.systemd && !boot.enabled {
        warnings.push(Warning::new(
            "nftables-not-enabled",
            "nftables.service is not started at boot, so nothing loads the stored rules: `systemctl enable nftables`",
        ));
    }
    warnings
}
