//! The programs that may be run to look, and with which arguments. Whatever is not listed here is refused, so that a
//! backend can't change the machine by way of [`super::Look::run`].
//!
//! Belongs here: the list, with the reason where a look is not as innocent as it seems. Does not: running anything.

/// Whether the command is known to change nothing.
#[must_use]
pub fn is_look_only(argv: &[&str]) -> bool {
    let Some((program, args)) = argv.split_first() else { return false };
    let name = program.rsplit('/').next().unwrap_or(program);
    match name {
        "fail2ban-client" => matches!(args, ["-d" | "--version"]),
        // As root it would keep what it has read as its cache; without names for the two files it keeps nothing.
        "apt-cache" => match args {
            ["-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "policy", "--", packages @ ..] => {
                packages.iter().all(|p| p.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c)))
            }
            _ => false,
        },
        // The first makes the folders in /run that Apache has made at its own first start, nothing else.
        "apachectl" | "apache2ctl" | "httpd" => {
            matches!(args, ["-t", "-D", "DUMP_MODULES", "-D", "DUMP_INCLUDES"] | ["-L" | "-v" | "-t"])
        }
        // Makes the log files, the folders for temporary files and the empty pid file that its own next start makes.
        "nginx" => args == ["-t"],
        // The same as nobody, who may make none of them.
        "setpriv" => args == ["--reuid=65534", "--regid=65534", "--clear-groups", "nginx", "-t"],
        "cscli" => args == ["decisions", "list", "-o", "json"],
        // Prints rules; -f writes a file, -M loads a module. Legacy with -t creates the table by looking.
        "iptables-save" | "ip6tables-save" | "iptables-nft-save" | "ip6tables-nft-save" => {
            args.is_empty() || args == ["-t", "filter"]
        }
        "iptables-legacy-save" | "ip6tables-legacy-save" => args.is_empty(),
        "iptables" | "ip6tables" | "nft" | "ipset" if args == ["--version"] => true,
        // `-file` would write.
        "ipset" => {
            matches!(args, ["save", set] | ["list", "-t", set] if !set.starts_with('-'))
                || matches!(args, ["list", "-t"] | ["save"])
        }
        // Prints; other options flush, rotate and vacuum the journal.
        "journalctl" => {
            let seconds = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
            !args.is_empty()
                && args.iter().all(|arg| {
                    matches!(*arg, "--no-pager" | "--quiet" | "--output=short-iso")
                        || arg.strip_prefix("--since=@").is_some_and(seconds)
                        || arg.starts_with("--identifier=")
                })
        }
        // Asks the daemon; without a question among these it does nothing.
        "firewall-cmd" => {
            !args.is_empty()
                && args.iter().all(|arg| {
                    let asks =
                        ["--list-", "--get-", "--ipset=", "--policy=", "--zone="].iter().any(|p| arg.starts_with(p));
                    asks || matches!(*arg, "--permanent" | "--direct" | "--check-config")
                })
        }
        // Its arguments are one line of its language, so a name could be a command.
        "nft" => match args {
            ["-j", "list", "ruleset"] | ["-j" | "-a", "-t", "list", "ruleset"] => true,
            ["-j", "list", "set" | "map", names @ ..] => names.len() == 3 && names.iter().all(|n| plain(n)),
            _ => false,
        },
        _ => false,
    }
}

/// Whether a name means nothing to nft but itself.
fn plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

/// Whether the command, fed with this, is known to change nothing.
#[must_use]
pub fn is_look_only_fed(argv: &[&str], stdin: &str) -> bool {
    let [program, args @ ..] = argv else { return false };
    // The client reads one command a line, as a shell splits words.
    program.rsplit('/').next() == Some("fail2ban-client") && args == ["-i"] && stdin.lines().all(asks_fail2ban)
}

/// Whether a line of fail2ban-client's interactive mode only asks.
fn asks_fail2ban(line: &str) -> bool {
    let plain = |jail: &str| jail.chars().all(|c| c.is_alphanumeric() || "-_.:@+/".contains(c));
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["version" | "status" | "exit"] => true,
        ["status", jail] | ["get", jail, "ignoreip"] => !jail.is_empty() && plain(jail),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{is_look_only, is_look_only_fed};

    #[test]
    fn what_fail2ban_is_fed_decides() {
        let fed = |stdin| is_look_only_fed(&["fail2ban-client", "-i"], stdin);
        assert!(fed("version\nstatus\nstatus sshd\nget sshd ignoreip\nexit\n"));
        for stdin in ["reload\n", "stop", "set sshd banip 1.2.3.4", "status\nstart\n", "status a;b", "status 'a'"] {
            assert!(!fed(stdin), "{stdin}");
        }
        assert!(!is_look_only(&["fail2ban-client", "-i"]));
        assert!(is_look_only(&["fail2ban-client", "-d"]));
        assert!(!is_look_only_fed(&["sh"], "exit\n"));
    }

    #[test]
    fn looking_is_allowed_and_nothing_else() {
        assert!(is_look_only(&["/usr/sbin/iptables-nft-save", "-t", "filter"]));
        assert!(is_look_only(&["nginx", "-t"]) && is_look_only(&["apachectl", "-t"]));
        assert!(is_look_only(&["ipset", "save", "edgeallow4"]));
        assert!(is_look_only(&["cscli", "decisions", "list", "-o", "json"]));
        assert!(is_look_only(&["iptables", "--version"]));
        assert!(is_look_only(&["nft", "-j", "list", "set", "inet", "crowdsec", "crowdsec-blacklists"]));
        assert!(is_look_only(&["nft", "-a", "-t", "list", "ruleset"]));
        assert!(is_look_only(&["firewall-cmd", "--policy=edgeallow", "--list-rich-rules"]));
        assert!(is_look_only(&["firewall-cmd", "--permanent", "--direct", "--get-all-rules"]));
        let apt = ["apt-cache", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "policy", "--"];
        assert!(is_look_only(&[&apt[..], &["nginx", "libssl3"]].concat()));
        assert!(!is_look_only(&[&apt[..], &["nginx", "x y"]].concat()));
        assert!(is_look_only(&["journalctl", "--no-pager", "--since=@1795363200", "--identifier=kernel"]));
        for refused in [
            &["journalctl", "--rotate"][..],
            &["journalctl", "--since=@1795363200", "--vacuum-time=1s"],
            &["journalctl", "--since=@"],
            &["iptables-legacy-save", "-t", "filter"],
            &["iptables-save", "-f", "/etc/passwd"],
            &["ipset", "save", "-file"],
            &["ipset", "destroy", "x"],
            &["cscli", "decisions", "delete", "--all"],
            &["iptables", "-F"],
            &["nft", "-f", "-"],
            &["nft", "-j", "list", "set", "inet", "t", "s; flush ruleset"],
            &["nft", "-j", "list", "set", "inet", "t"],
            &["nft", "-f", "list", "ruleset"],
            &["sh", "-c", "true"],
            &["nginx"],
            &["nginx", "-t", "-g", "daemon off;"],
            &["setpriv", "--reuid=0", "nginx", "-t"],
            &["apachectl", "graceful"],
            &["apt-cache", "policy", "--", "nginx"],
            &["apt-cache", "gencaches"],
            &["firewall-cmd"],
            &["firewall-cmd", "--reload"],
            &["firewall-cmd", "--ipset=edgeallow4", "--add-entry=10.0.0.0/8"],
            &[],
        ] {
            assert!(!is_look_only(refused), "{refused:?}");
        }
    }
}
