//! What has to hold before firewalld is told to reload.
//!
//! Belongs here: the two dangers of a reload, seen on 1.3.3, and how they are ruled out. Does not: when a reload is
//! needed ([`super::steps`]).
//!
//! It forgets what was told to the running firewalld only (without `--permanent`). And where the stored
//! configuration doesn't load, firewalld ends in the state *failed* with an empty rule set: the machine is open to
//! everybody. `firewall-cmd --check-config` doesn't find the commonest reason, a rule that uses an ipset which isn't
//! there.

use std::{collections::BTreeSet, path::Path, time::Duration};

use super::{
    FirewalldConfig, Reload,
    seen::{ETC, LIB, Seen, policy_path},
    xml,
};
use crate::{
    error::{Error, ErrorKind, Result},
    host::Look,
    plan::TAG,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Pairs of questions whose answers must agree: each is asked of the running and of the stored configuration.
const LISTS: [&[&str]; 5] = [
    &["--list-all-zones"],
    &["--list-all-policies"],
    &["--get-ipsets"],
    &["--direct", "--get-all-rules"],
    &["--direct", "--get-all-passthroughs"],
];

/// Refuses a reload that would lose something.
///
/// # Errors
/// `tool-config`, saying what would be lost or why the stored configuration wouldn't load; `program`.
pub fn before(config: &FirewalldConfig, host: &dyn Look, seen: &Seen) -> Result<()> {
    every_ipset_is_there(host)?;
    let mut lists: Vec<&[&str]> = LISTS.to_vec();
    lists.retain(|list| seen.policies || list != &["--list-all-policies"]);
    if config.reload == Reload::Always {
        lists.clear();
    }
    let mut commands = vec![vec!["firewall-cmd", "--check-config"]];
    for list in &lists {
        commands.push([&["firewall-cmd"], *list].concat());
        commands.push([&["firewall-cmd", "--permanent"], *list].concat());
    }
    let mut answers = Vec::new();
    for (command, answer) in commands.iter().zip(host.run_all(&commands, PATIENCE)) {
        let answer = answer?;
        if !answer.ok() {
            let what = format!("`{}` says: {}", command.join(" "), answer.complaint());
            return Err(Error::new(ErrorKind::ToolConfig, what)
                .hint("mend that first: firewalld would not come back from a reload; nothing was changed"));
        }
        answers.push(String::from_utf8_lossy(&answer.stdout).into_owned());
    }
    for (list, pair) in lists.iter().zip(answers[1..].chunks(2)) {
        let (running, stored) = (comparable(&pair[0]), comparable(&pair[1]));
        if let Some(lost) = running.difference(&stored).next() {
            let what =
                format!("edgeallow needs one reload of firewalld, which would forget what is not stored: {lost}");
            return Err(Error::new(ErrorKind::ToolConfig, what).hint(format!(
                "compare `firewall-cmd {0}` with `firewall-cmd --permanent {0}`; keep it with `firewall-cmd \
                 --runtime-to-permanent`, or let it go with `reload = \"always\"` in [firewalld]; nothing was changed",
                list.join(" ")
            )));
        }
    }
    Ok(())
}

/// A rule whose ipset is missing makes a reload end with an empty rule set.
fn every_ipset_is_there(host: &dyn Look) -> Result<()> {
    for folder in ["zones", "policies"] {
        let folder = Path::new(ETC).join(folder);
        for name in host.folder(&folder)?.into_iter().filter(|n| n.ends_with(".xml")) {
            let path = folder.join(name);
            if path == policy_path() {
                continue;
            }
            let Some(file) = host.file(&path)? else { continue };
            for set in xml::ipsets(&file.content) {
                let is_there = |place: &str| host.exists(&Path::new(place).join("ipsets").join(format!("{set}.xml")));
                // Ours are written before the reload.
                if !set.starts_with(TAG) && ![ETC, LIB].into_iter().any(is_there) {
                    let what = format!("{} uses the ipset {set}, which doesn't exist", path.display());
                    return Err(Error::new(ErrorKind::ToolConfig, what).hint(
                        "mend that first: with it firewalld's next start or reload leaves this machine without any \
                         rules; nothing was changed",
                    ));
                }
            }
        }
    }
    Ok(())
}

/// What firewalld lists, as facts in any order: each with the zone or policy that it stands under. Without what is
/// ours, and without interfaces, which NetworkManager and container engines put back themselves.
fn comparable(text: &str) -> BTreeSet<String> {
    let (mut under, mut key, mut out) = (String::new(), String::new(), BTreeSet::new());
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        if !line.starts_with([' ', '\t']) {
            // `public (default, active)`; the answer to --get-ipsets is one line of names.
            let heading = line.split(" (").next().unwrap_or(line);
            under = heading.to_owned();
            out.extend(heading.split_whitespace().filter(|w| !w.starts_with(TAG)).map(str::to_owned));
            continue;
        }
        let (name, value) = line.split_once(':').filter(|(n, _)| !n.trim().contains('"')).unwrap_or((&key, line));
        let (name, value) = (name.trim().to_owned(), value.trim());
        key.clone_from(&name);
        if name == "interfaces" || under == TAG || value.contains(&format!("ipset=\"{TAG}")) {
            continue;
        }
        // A rich rule is one fact, a list of services as many as it has words.
        let values: Vec<&str> = if value.contains('"') { vec![value] } else { value.split_whitespace().collect() };
        out.extend(values.into_iter().map(|value| format!("{under}: {name}: {value}")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::comparable;

    const RUNNING: &str = "edgeallow (active)\n  priority: -10\n\npublic (default, active)\n  target: default\n  interfaces: eth0\n  \
        services: dhcpv6-client ssh\n  rich rules: \n\trule family=\"ipv4\" source address=\"10.0.0.0/8\" accept\n\
        \trule family=\"ipv4\" source ipset=\"edgeallow-v4\" port port=\"80\" protocol=\"tcp\" accept\n";
    const STORED: &str = "public\n  target: default\n  interfaces: \n  services: ssh dhcpv6-client\n  rich rules: \n\
        \trule family=\"ipv4\" source address=\"10.0.0.0/8\" accept\n";

    #[test]
    fn interfaces_order_and_what_is_ours_make_no_difference() {
        assert_eq!(comparable(RUNNING), comparable(STORED));
        assert_eq!(comparable("edgeallow-v4 his edgeallow-v6"), comparable("his"));
    }

    #[test]
    fn whatever_else_is_only_running_is_told() {
        for (more, told) in [
            ("services: dhcpv6-client ssh", "public: services: http"),
            (
                "\trule family=\"ipv4\" source address=\"10.0.0.0/8\" accept",
                "public: rich rules: rule family=\"ipv4\" drop",
            ),
        ] {
            let new =
                if more.starts_with('\t') { "\trule family=\"ipv4\" drop".to_owned() } else { format!("{more} http") };
            let running = RUNNING.replace(more, &if more.starts_with('\t') { format!("{more}\n{new}") } else { new });
            let lost: Vec<_> = comparable(&running).difference(&comparable(STORED)).cloned().collect();
            assert_eq!(lost, [told]);
        }
    }
}
