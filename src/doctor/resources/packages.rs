//! Whether the distribution has newer packages of what answers here, as far as that is known without network.
//!
//! Only apt is asked, by a form of its question that writes nothing. dnf writes its log and its cache even to look, so it
//! is named as a command instead.
//!
//! Belongs here: that. Does not: what a newer version mends.

use std::{path::Path, time::Duration};

use super::finding;
use crate::{
    host::Look,
    report::{Finding, Finds},
};

/// Without its cache apt reads all lists: a second, on a small machine several.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is asked about; what isn't installed is passed over.
const PACKAGES: [&str; 9] =
    ["openssl", "libssl3", "libssl3t64", "libssl1.1", "nginx", "nginx-light", "nginx-full", "nginx-extras", "apache2"];

pub(super) fn look(host: &dyn Look) -> Finding {
    const ID: &str = "resources.packages";
    if host.program("apt-cache").is_none() {
        let skipped = |text: &str| finding(ID, Finds::Skipped, text);
        return if host.program("dnf").is_some() {
            skipped("whether packages are outdated was not looked at: dnf writes even when it only looks")
                .mend_by("ask dnf", "dnf check-update openssl openssl-libs nginx httpd")
        } else {
            skipped("whether packages are outdated can't be told: this package manager is not known")
        };
    }
    if !has_lists(host) {
        return finding(
            ID,
            Finds::Skipped,
            "whether packages are outdated can't be told: apt has no lists of packages",
        )
        .mend_by("fetch the lists", "apt-get update");
    }
    let question = ["apt-cache", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "policy", "--"];
    match host.run(&[&question[..], &PACKAGES].concat(), PATIENCE) {
        Ok(output) if output.ok() => judge(&String::from_utf8_lossy(&output.stdout)),
        Ok(output) => {
            let text = format!("whether packages are outdated can't be told: {}", output.complaint());
            finding(ID, Finds::Skipped, text)
        }
        Err(e) => finding(ID, Finds::Skipped, format!("whether packages are outdated can't be told: {}", e.message)),
    }
}

fn has_lists(host: &dyn Look) -> bool {
    let names = host.folder(Path::new("/var/lib/apt/lists")).unwrap_or_default();
    names.iter().any(|n| n.contains("_Packages"))
}

fn judge(policy: &str) -> Finding {
    let known = installed(policy);
    let source = "apt-cache policy";
    if known.is_empty() {
        let text = "neither OpenSSL nor nginx nor Apache was installed by apt";
        return finding("resources.packages", Finds::Ok, text).seen(source, PACKAGES.join(" "));
    }
    let old: Vec<_> = known.iter().filter(|(_, installed, candidate)| installed != candidate).collect();
    if old.is_empty() {
        let known: Vec<String> = known.iter().map(|(name, v, _)| format!("{name} {v}")).collect();
        let text = "OpenSSL and the web servers are as new as apt's lists";
        return finding("resources.packages", Finds::Ok, text).seen(source, known.join(", "));
    }
    let names: Vec<&str> = old.iter().map(|(name, ..)| *name).collect();
    let shows: Vec<String> = old.iter().map(|(name, has, may)| format!("{name} {has}, {may} is there")).collect();
    finding("resources.packages", Finds::Note, format!("there are newer packages of {}", names.join(", ")))
        .seen(source, shows.join("; "))
        .mend_by("install them", format!("apt-get install --only-upgrade {}", names.join(" ")))
}

/// Name, installed version, version that would be installed; of what is installed.
fn installed(policy: &str) -> Vec<(&str, &str, &str)> {
    let mut found = Vec::new();
    let (mut name, mut has) = ("", "");
    for line in policy.lines() {
        if let Some(heading) = line.strip_suffix(':').filter(|l| !l.starts_with(' ')) {
            (name, has) = (heading, "");
        } else if let Some(version) = line.trim().strip_prefix("Installed: ") {
            has = version;
        } else if let Some(version) = line.trim().strip_prefix("Candidate: ")
            && has != "(none)"
            && version != "(none)"
        {
            found.push((name, has, version));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "openssl:\n  Installed: 3.0.1\n  Candidate: 3.0.2\n  Version table:\n     3.0.2 500\nnginx:\n  \
                          Installed: (none)\n  Candidate: 1.22\n  Version table:\napache2:\n  Installed: 2.4\n  Candidate: 2.4\n";

    #[test]
    fn what_is_installed_and_older_is_a_note() {
        assert_eq!(installed(POLICY), [("openssl", "3.0.1", "3.0.2"), ("apache2", "2.4", "2.4")]);
        let f = judge(POLICY);
        assert_eq!((f.verdict, f.text.as_str()), (Finds::Note, "there are newer packages of openssl"));
        assert_eq!(f.fix.unwrap().command.unwrap(), "apt-get install --only-upgrade openssl");
        assert_eq!(judge(&POLICY.replace("3.0.1", "3.0.2")).verdict, Finds::Ok);
        assert_eq!(judge("").verdict, Finds::Ok);
    }
}
