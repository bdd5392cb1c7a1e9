//! The text of the files that are ours.
//!
//! Belongs here: what stands in them, and reading it back. Does not: whether they should be there.

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr, path::Path};

use ipnet::IpNet;

use super::{ini, jails::Jails};
use crate::allowlist::Prefixes;

/// The file that holds the ranges. It is read after the administrator's own, unless he names one `zzz`.
pub const PATH: &str = "/etc/fail2ban/jail.d/zz-edgeallow.local";

/// What every file of ours begins with.
const MARK: &str = "# Written by edgeallow, which replaces it.";

const HEAD: &str = "\
# Written by edgeallow, which replaces it. Don't edit it; write your own addresses into jail.local.
# `edgeallow remove --backend fail2ban` takes it out.
";

/// An empty default at the lowest place, so that `%(default/ignoreip)s` always means something.
pub const BASE: &str = "\
# Written by edgeallow, which replaces it. Every other file overrides this one.
# Without a default ignoreip somewhere, zz-edgeallow.local would keep fail2ban from loading its configuration.
[DEFAULT]
ignoreip =
";

/// Whether a file is ours: by its name, or by how it begins.
#[must_use]
pub fn is_ours(path: &Path, content: &[u8]) -> bool {
    path == Path::new(PATH) || content.starts_with(MARK.as_bytes())
}

/// The file for these prefixes: one line for each section there is, so that jails enabled later are covered too.
///
/// A jail without an ignoreip of its own gets `%(default/ignoreip)s`, which follows the administrator's later edits. One
/// that has its own gets his words repeated before ours: `%(known/ignoreip)s` would be shorter, but two files that
/// use it for one jail keep the server from starting.
#[must_use]
pub fn render(jails: &Jails, prefixes: &Prefixes) -> String {
    let mut out = format!("{HEAD}\n[DEFAULT]\nedgeallow_ips =\n");
    // Writing to a String can't fail.
    for net in prefixes.iter() {
        let _ = writeln!(out, "    {net}");
    }
    for name in jails.sections.keys().filter(|n| can_be_named(n)) {
        let his = jails.own(name).unwrap_or("%(default/ignoreip)s");
        let lines = his.lines().map(str::trim).filter(|l| !l.is_empty()).chain(["%(edgeallow_ips)s"]);
        let _ = writeln!(out, "\n[{name}]\nignoreip = {}", lines.collect::<Vec<_>>().join("\n    "));
    }
    out
}

/// Whether a section can be written so that it is read as the same.
fn can_be_named(name: &str) -> bool {
    !name.contains(['[', ']', ';', '\n']) && !name.starts_with("KNOWN/")
}

/// The prefixes that a file of ours holds; none if it isn't readable.
#[must_use]
pub fn list(content: &[u8]) -> BTreeSet<IpNet> {
    let ini = std::str::from_utf8(content).ok().and_then(|text| ini::parse(text).ok());
    ini.and_then(|i| i.defaults.get("edgeallow_ips").map(|text| nets(text))).unwrap_or_default()
}

/// The addresses and prefixes among the words of an ignoreip; names and the rest are left out.
#[must_use]
pub fn nets(text: &str) -> BTreeSet<IpNet> {
    text.split(|c: char| c.is_whitespace() || c == ',').filter_map(net).collect()
}

/// One address or prefix, host bits cleared as fail2ban does.
#[must_use]
pub fn net(word: &str) -> Option<IpNet> {
    let whole = || word.parse::<IpAddr>().ok().map(IpNet::from);
    word.parse::<IpNet>().ok().map(|n| n.trunc()).or_else(whole)
}
