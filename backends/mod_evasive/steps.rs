//! What should be ours in Apache, and the way there. Pure.
//!
//! The file is enabled by `a2enconf`, Debian's own tool, so that `a2query` and the administrator see it as theirs. A
//! configuration that is broken already is left alone; one that we broke goes back before Apache reads it.

use super::{
    OurFile, Owned, Variant, file,
    seen::{Layout, Place, Seen},
};
use crate::{
    allowlist::{Family, Prefixes},
    error::{Error, ErrorKind, Result},
    plan::{Check, Plan, Remove, Run, Step, Write},
};

/// The error for a configuration that fails before anything is changed.
#[must_use]
pub fn broken(why: &str) -> Error {
    Error::new(ErrorKind::ToolConfig, format!("Apache's configuration test fails already: {why}"))
        .hint("mend it, see with `apachectl configtest`, and run edgeallow again; nothing was changed")
}

/// See [`crate::backends::Backend::target`].
///
/// # Errors
/// `tool-config` if Apache's configuration is broken, `backend-unusable` if the module isn't loaded.
pub fn target(prefixes: &Prefixes, seen: &Seen) -> Result<Owned> {
    if let Some(why) = &seen.broken {
        return Err(broken(why));
    }
    let Some(module) = &seen.module else {
        return Err(Error::new(ErrorKind::BackendUnusable, "Apache doesn't load mod_evasive")
            .hint("enable the module, or leave mod_evasive out of `backends`"));
    };
    if module.variant == Variant::Octets && prefixes.count(Family::V4) == 0 {
        return Ok(Owned::default());
    }
    // Only 1.10.1 empties one list for all; the later ones have a list for each virtual host.
    let last = seen.layout == Layout::Debian && module.variant == Variant::Octets && !seen.wiping.is_empty();
    let place = if last { Place::LastSite } else { Place::Snippet };
    let content = file::render(module.name, module.variant, prefixes).into_bytes().into();
    Ok(Owned([(place, OurFile { content: Some(content), enabled: true })].into()))
}

/// See [`crate::backends::Backend::steps`].
#[must_use]
pub fn steps(seen: &Seen, to: &Owned) -> Plan {
    let mut plan = Plan::default();
    // What is to be there before what is not, so that the white list is in force at any moment.
    for (place, wanted) in &to.0 {
        let path = place.path(seen.layout);
        let there = seen.files.get(place);
        let old = there.and_then(|t| t.file.as_ref());
        if let Some(content) = &wanted.content
            && old.map(|f| &f.content) != Some(content)
        {
            let write = Write::ours(path, content.clone(), old.map(|f| f.content.clone()));
            plan.change(why(old.map(|f| &f.content[..]), content), Step::Write(write));
        }
        let is_enabled = there.is_some_and(|t| t.enabled);
        if wanted.enabled && !is_enabled && seen.layout == Layout::Debian {
            plan.change("Apache isn't told to read it", Step::Run(switch(*place, "en")));
        } else if !wanted.enabled && is_enabled {
            plan.change("Apache is told to read it", Step::Run(switch(*place, "dis")));
        }
    }
    for (place, there) in seen.files.iter().filter(|(place, _)| !to.0.contains_key(place)) {
        if there.enabled && seen.layout == Layout::Debian {
            plan.change("the white list is not needed there", Step::Run(switch(*place, "dis")));
        }
        if let Some(old) = &there.file {
            let remove = Remove { path: place.path(seen.layout).to_owned(), was: old.content.clone() };
            plan.change("the white list is not needed there", Step::Remove(remove));
        }
    }
    let what = "Apache's configuration test passes".to_owned();
    plan.checks.push(Check::NotWorse { what, run: Run::new([seen.control, "-t"]) });
    if seen.running && seen.broken.is_none() {
        // Also where nothing is to be changed: a run that was cut off has left this undone.
        plan.activate.push(Step::Run(Run::new([control_for_signals(seen), "graceful"])));
    }
    plan
}

fn control_for_signals(seen: &Seen) -> &'static str {
    if seen.control == "httpd" { "apachectl" } else { seen.control }
}

/// Debian's tools for enabling and disabling: `a2enconf`, `a2dissite`.
fn switch(place: Place, verb: &str) -> Run {
    let (what, name) = match place {
        Place::Snippet => ("conf", "edgeallow-evasive"),
        Place::LastSite => ("site", "zzz-edgeallow-evasive"),
    };
    Run::new([format!("a2{verb}{what}"), "-q".to_owned(), name.to_owned()])
}

fn why(old: Option<&[u8]>, new: &[u8]) -> String {
    let Some(old) = old else { return "mod_evasive doesn't know the ranges".to_owned() };
    let (old, new) = (file::held(old), file::held(new));
    match (new.minus(&old).len(), old.minus(&new).len()) {
        (0, 0) => "the file is not as edgeallow wrote it".to_owned(),
        (missing, extra) => format!("{missing} prefixes are missing, {extra} don't belong there"),
    }
}
