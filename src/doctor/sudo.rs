//! Commands to copy, for whoever is not root.
//!
//! Belongs here: which of them need root, and how a shell is told so. Does not: which command it is (the rooms,
//! [`super::commands`]).

use crate::report::Finding;

/// Programs that change the machine, or look at what only root may see.
const AS_ROOT: [&str; 27] = [
    "a2dissite",
    "a2ensite",
    "apachectl",
    "apt-get",
    "certbot",
    "cscli",
    "csf",
    "dnf",
    "edgeallow",
    "fail2ban-client",
    "firewall-cmd",
    "httpd",
    "ip6tables",
    "ipset",
    "iptables",
    "kill",
    "ln",
    "nft",
    "nginx",
    "prlimit",
    "rm",
    "sed",
    "service",
    "systemctl",
    "tail",
    "ufw",
    "${EDITOR:-vi}",
];

/// Lets `sudo` run what needs root.
pub(super) fn prefix(findings: &mut [Finding]) {
    for fix in findings.iter_mut().filter_map(|f| f.fix.as_mut()) {
        fix.command = fix.command.as_deref().map(prefixed);
    }
}

/// The same command line with `sudo` before each command that needs it.
fn prefixed(line: &str) -> String {
    let parts: Vec<&str> = line.split(" && ").collect();
    // One within quotes is no end of a command.
    let whole = parts.iter().all(|part| shlex::split(part).is_some());
    if line.starts_with("for ") || !whole {
        return if needs(line.rsplit(" do ").next().unwrap_or(line)) { in_a_shell(line) } else { line.to_owned() };
    }
    let each = parts.iter().map(|part| if needs(part) { format!("sudo {part}") } else { (*part).to_owned() });
    each.collect::<Vec<_>>().join(" && ")
}

fn needs(command: &str) -> bool {
    let mut words = command.split(' ');
    match words.next() {
        Some("ip") => words.any(|w| w == "delete"),
        Some("sysctl") => words.any(|w| w == "-w"),
        // What is in a site's own folder is its owner's.
        Some("${EDITOR:-vi}") => command.contains(" /etc/") || command.contains(" /usr/"),
        Some(program) => AS_ROOT.contains(&program),
        None => false,
    }
}

fn in_a_shell(line: &str) -> String {
    // Only a NUL can't be quoted.
    shlex::try_quote(line).map_or_else(|_| line.to_owned(), |quoted| format!("sudo sh -c {quoted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_root_gets_it_and_nothing_else() {
        for (plain, told) in [
            ("service nginx start", "sudo service nginx start"),
            ("sysctl -w fs.file-max=256", "sudo sysctl -w fs.file-max=256"),
            (
                "sed -i -E '5s/(worker_connections[^0-9]+)[0-9]+/\\132/' /etc/nginx/nginx.conf && nginx -t && nginx -s reload",
                "sudo sed -i -E '5s/(worker_connections[^0-9]+)[0-9]+/\\132/' /etc/nginx/nginx.conf && sudo nginx -t && sudo \
                 nginx -s reload",
            ),
            ("nginx -s stop && sleep 1 && nginx", "sudo nginx -s stop && sleep 1 && sudo nginx"),
            ("nginx -T 2>/dev/null | grep -n x", "sudo nginx -T 2>/dev/null | grep -n x"),
            ("ip route delete blackhole 104.16.0.0/13", "sudo ip route delete blackhole 104.16.0.0/13"),
            ("${EDITOR:-vi} +7 /etc/nginx/nginx.conf", "sudo ${EDITOR:-vi} +7 /etc/nginx/nginx.conf"),
            (
                "for p in 2 3; do prlimit --pid $p --nofile=9:9; done",
                "sudo sh -c 'for p in 2 3; do prlimit --pid $p --nofile=9:9; done'",
            ),
            ("sed -i 's/a && b/c/' x", "sudo sh -c \"sed -i 's/a && b/c/' x\""),
        ] {
            assert_eq!(prefixed(plain), told);
        }
        for plain in [
            "ip rule && ip route show table all",
            "ss -ltnp 'sport = :80'",
            "sudo edgeallow doctor",
            "sysctl net.core.somaxconn",
            "curl -si 'http://192.0.2.1/?a && b'",
            "${EDITOR:-vi} +7 /srv/shop/.htaccess",
            "grep -rnE '^\\s*listen' /etc/nginx",
        ] {
            assert_eq!(prefixed(plain), plain);
        }
    }
}
