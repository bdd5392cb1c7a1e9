//! The one command to run next, for findings whose room has none of its own: what shows the place that is to be mended.
//!
//! Belongs here: from a finding's id and evidence to a command, and what stands for systemd's where there is no systemd.
//! Does not: what is wrong, and the fix in words (the rooms).

use std::path::Path;

use crate::{
    host::Look,
    report::{Finding, Finds, Fix},
};

/// Where a finding's command comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Its room always gives one.
    Own,
    /// The first of its evidence that is a command shows more than the line that was taken from it.
    Shown,
    /// An editor at the line of a configuration that is its evidence; where there is none, this.
    Edit(&'static str),
    /// What the web servers' configurations say of this (an extended regular expression); else as `Shown`.
    Configured(&'static str),
    /// The end of the web servers' logs of errors; else as `Shown`.
    Logged,
    /// What the certificate says that is shown; certbot, where it is installed and renews this one.
    Certificate,
    /// What the DNS says of the name.
    Dns,
}

/// By the finding's id. Every cause is here.
static NEXT: [(&str, Next); 43] = {
    use Next::{Certificate, Configured, Dns, Edit, Logged, Own, Shown};
    const LISTEN: Next = Configured("^\\s*(listen|server_name|SSLEngine|<VirtualHost)\\b");
    const REDIRECTS: Next = Configured("^\\s*(return\\s+30[1278]|rewrite|Redirect|RewriteRule)");
    [
        ("online.nothing-listens", Shown),
        ("online.loopback-only", Shown),
        ("online.sent-to-nothing", Own),
        ("online.origin-refuses", Shown),
        ("online.redirects-to-nothing", LISTEN),
        ("online.redirect-loop", REDIRECTS),
        ("online.empty", Logged),
        ("online.garbled", Shown),
        ("online.head-too-long", Shown),
        ("online.stalls", Logged),
        ("online.tls-on-http-port", LISTEN),
        ("firewall.refused", Edit("edgeallow verify")),
        ("firewall.route", Own),
        ("firewall.nginx-denies", Edit("nginx -T | grep -nE '^\\s*(allow|deny|geo|map|if)\\b'")),
        (
            "firewall.apache-denies",
            Edit("grep -rnEi '^\\s*(Require|Deny|RewriteCond|SetEnvIf)\\b' /etc/apache2 /etc/httpd"),
        ),
        ("firewall.mod-evasive", Own),
        ("tls.no-tls", LISTEN),
        (
            "tls.no-certificate",
            Configured("^\\s*(server_name|ServerName|ServerAlias|ssl_certificate|ssl_reject|SSLCert)"),
        ),
        ("tls.hangs-up", Logged),
        ("tls.handshake", Logged),
        ("tls.old-version", Configured("^\\s*(ssl_protocols|SSLProtocol)\\b")),
        ("tls.no-cipher", Configured("^\\s*(ssl_ciphers|SSLCipherSuite)\\b")),
        ("tls.client-certificate", Configured("^\\s*(ssl_verify_client|ssl_client_cert|SSLVerifyClient|SSLCACert)")),
        ("tls.expired", Certificate),
        ("tls.not-yet-valid", Own),
        ("tls.wrong-name", Certificate),
        ("tls.self-signed", Certificate),
        ("tls.unknown-issuer", Certificate),
        ("tls.private-issuer", Certificate),
        ("tls.incomplete-chain", Certificate),
        ("tls.untrusted", Certificate),
        ("tls.expires-soon", Certificate),
        ("dns.no-such-name", Dns),
        ("dns.no-address", Dns),
        ("dns.aaaa-without-listener", LISTEN),
        ("dns.port-not-proxied", Own),
        ("resources.open-files-full", Edit("ulimit -n")),
        ("resources.file-max-full", Own),
        ("resources.conntrack-full", Own),
        ("resources.accept-queue-full", Own),
        ("resources.nginx-connections-full", Edit("nginx -T | grep -n worker_connections")),
        ("resources.fpm-children-full", Edit("grep -rn pm.max_children /etc/php /etc/php-fpm.d")),
        ("resources.apache-workers-full", Edit("grep -rn MaxRequestWorkers /etc/apache2 /etc/httpd")),
    ]
};

/// Where web servers are configured, and where they log errors.
const CONFIGURATIONS: [&str; 4] = ["/etc/nginx", "/etc/apache2", "/etc/httpd", "/usr/local/lsws/conf"];
const ERROR_LOGS: [&str; 4] = [
    "/var/log/nginx/error.log",
    "/var/log/apache2/error.log",
    "/var/log/httpd/error_log",
    "/usr/local/lsws/logs/error.log",
];

/// Gives each cause and warning its command, and all of them commands that this machine has. Of another machine, nothing
/// that lies here tells anything.
pub(super) fn complete(host: &dyn Look, findings: &mut [Finding], another_machine: bool) {
    let systemd = host.exists(Path::new("/run/systemd/system"));
    for finding in findings.iter_mut().filter(|f| f.verdict >= Finds::Warning) {
        let missing = finding.fix.as_ref().is_none_or(|f| f.command.is_none());
        if let Some(command) = missing.then(|| next(host, finding, another_machine)).flatten() {
            let text = finding.fix.take().map_or_else(|| "look there first".to_owned(), |f| f.text);
            finding.fix = Some(Fix { text, command: Some(command) });
        }
        if let Some(fix) = finding.fix.as_mut().filter(|_| !systemd) {
            fix.text = without_systemd(&fix.text);
            fix.command = fix.command.as_deref().map(without_systemd);
        }
    }
}

fn next(host: &dyn Look, finding: &Finding, another_machine: bool) -> Option<String> {
    let there = |all: &[&'static str]| -> Vec<&'static str> {
        all.iter().copied().filter(|p| !another_machine && host.exists(Path::new(p))).collect()
    };
    let (_, next) = NEXT.iter().find(|(id, _)| *id == finding.id)?;
    match next {
        Next::Own => None,
        Next::Shown => shown(finding),
        Next::Edit(otherwise) => Some(edit(finding).unwrap_or_else(|| (*otherwise).to_owned())),
        Next::Configured(what) => match there(&CONFIGURATIONS).as_slice() {
            [] => shown(finding),
            folders => Some(format!("grep -rnEi '{what}' {}", folders.join(" "))),
        },
        Next::Logged => match there(&ERROR_LOGS).as_slice() {
            [] => shown(finding),
            logs => Some(format!("tail -n 50 {}", logs.join(" "))),
        },
        Next::Certificate => {
            let issued = |by: &str| finding.evidence.iter().any(|e| e.shows.contains(by));
            let old = matches!(finding.id, "tls.expired" | "tls.expires-soon");
            if old && !another_machine && issued("Let's Encrypt") && host.program("certbot").is_some() {
                return Some("certbot renew".to_owned());
            }
            let asked = shown(finding)?;
            let asked = asked.replace(" -showcerts", "");
            Some(format!("{asked} 2>/dev/null | openssl x509 -noout -subject -issuer -dates -ext subjectAltName"))
        }
        Next::Dns => {
            let dig = shown(finding)?;
            let name = dig.split(' ').rev().nth(1)?;
            Some(if host.program("dig").is_some() { dig.clone() } else { format!("getent ahosts {name}") })
        }
    }
}

/// The first piece of evidence that is a command, so that it comes to an end by itself.
fn shown(finding: &Finding) -> Option<String> {
    const PROGRAMS: [&str; 4] = ["ss ", "curl ", "dig ", "openssl "];
    let command = finding.evidence.iter().map(|e| &e.source).find(|s| PROGRAMS.iter().any(|p| s.starts_with(p)))?;
    Some(if command.starts_with("openssl ") { format!("{command} </dev/null") } else { command.clone() })
}

/// An editor at the first line of a file that is evidence.
fn edit(finding: &Finding) -> Option<String> {
    finding.evidence.iter().find_map(|e| edit_at(&e.source))
}

/// An editor at a line of a file, as a directive's place has it: `/etc/nginx/sites-enabled/shop line 7`.
pub(super) fn edit_at(place: &str) -> Option<String> {
    let (file, line) = place.rsplit_once(" line ")?;
    let line: u32 = line.parse().ok()?;
    let file = shlex::try_quote(file).ok().filter(|_| file.starts_with('/'))?;
    Some(format!("${{EDITOR:-vi}} +{line} {file}"))
}

/// The same words with each `systemctl VERB SERVICE` as it is said where systemd doesn't run, such as in a container.
fn without_systemd(text: &str) -> String {
    let mut parts = text.split("systemctl ");
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (verb, rest) = part.split_once(' ').unwrap_or((part, ""));
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.@".contains(c))).unwrap_or(rest.len());
        let (service, after) = rest.split_at(end);
        match verb {
            "start" | "stop" | "reload" | "restart" if !service.is_empty() => {
                all += &own_command(verb, service);
                all += after;
            }
            _ => {
                all += "systemctl ";
                all += part;
            }
        }
    }
    all
}

/// What the service's own program takes for it.
fn own_command(verb: &str, service: &str) -> String {
    match (verb, service.trim_end_matches(".service")) {
        ("reload", "nginx") => "nginx -s reload".to_owned(),
        ("restart", "nginx") => "nginx -s stop && sleep 1 && nginx".to_owned(),
        ("reload", "apache2" | "httpd") => "apachectl graceful".to_owned(),
        (verb, "apache2" | "httpd") => format!("apachectl {verb}"),
        (verb, service) => format!("service {service} {verb}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::Machine, report::Room};

    /// The ids of the page's rows that can be a cause.
    fn causes() -> Vec<&'static str> {
        let page = include_str!("../../docs/doctor.md");
        let rows = page.lines().filter_map(|l| l.strip_prefix("| `")?.split_once("` |"));
        let causes = rows.filter(|(id, rest)| {
            id.contains('.') && rest.split('|').next().is_some_and(|v| v.split(',').any(|v| v.trim() == "cause"))
        });
        causes.map(|(id, _)| id).collect()
    }

    fn cause(id: &'static str, source: &str, shows: &str) -> Finding {
        Finding::new(Room::Tls, id, Finds::Cause, "it is").seen(source, shows).mend("mend it")
    }

    fn completed(finding: Finding) -> Fix {
        let mut all = [finding];
        complete(&Machine::new(), &mut all, false);
        all[0].fix.clone().unwrap()
    }

    #[test]
    fn every_cause_has_a_command() {
        let causes = causes();
        assert!(causes.len() > 30, "the page is not read as it is written: {causes:?}");
        let lacking: Vec<_> = causes.iter().filter(|id| !NEXT.iter().any(|(known, _)| known == *id)).collect();
        assert!(lacking.is_empty(), "causes without a command: {lacking:?}");
        let soon = "tls.expires-soon";
        let gone: Vec<_> = NEXT.iter().filter(|(id, _)| *id != soon && !causes.contains(id)).collect();
        assert!(gone.is_empty(), "commands for what is no cause: {gone:?}");
        for (id, next) in NEXT {
            let source = if next == Next::Dns { "dig @192.0.2.53 shop.example A" } else { "ss -ltnp" };
            let command = completed(cause(id, source, "x")).command;
            assert_eq!(command.is_none(), next == Next::Own, "{id}: {command:?}");
        }
    }

    #[test]
    fn a_line_of_a_configuration_is_opened_there() {
        let of = |source: &str| completed(cause("firewall.nginx-denies", source, "deny all")).command.unwrap();
        assert_eq!(of("/etc/nginx/sites-enabled/shop line 7"), "${EDITOR:-vi} +7 /etc/nginx/sites-enabled/shop");
        assert_eq!(of("/etc/nginx/my site line 7"), "${EDITOR:-vi} +7 '/etc/nginx/my site'");
        assert!(of("nginx's own").starts_with("nginx -T"));
    }

    #[test]
    fn a_certificate_is_shown_by_a_command_that_ends() {
        let source = "openssl s_client -connect 192.0.2.1:443 -servername shop.example -showcerts";
        assert_eq!(
            completed(cause("tls.self-signed", source, "subject x")).command.unwrap(),
            "openssl s_client -connect 192.0.2.1:443 -servername shop.example </dev/null 2>/dev/null | openssl x509 -noout \
             -subject -issuer -dates -ext subjectAltName"
        );
    }

    #[test]
    fn nothing_that_lies_here_is_shown_of_another_machine() {
        let curl = "curl -sik --connect-to '::198.51.100.7:443' https://shop.example/";
        for id in ["online.stalls", "tls.no-certificate", "online.redirect-loop"] {
            let mut all = [cause(id, curl, "no answer")];
            complete(&Machine::new(), &mut all, true);
            assert_eq!(all[0].fix.as_ref().and_then(|f| f.command.as_deref()), Some(curl), "{id}");
        }
    }

    #[test]
    fn a_command_of_the_rooms_own_stays() {
        let own =
            Finding::new(Room::Online, "online.stalls", Finds::Cause, "it is").mend_by("see", "tail -n 50 /var/x");
        assert_eq!(completed(own).command.unwrap(), "tail -n 50 /var/x");
        let note = Finding::new(Room::Tls, "tls.expired", Finds::Note, "it is").seen("ss -l", "").mend("mend it");
        assert_eq!(completed(note).command, None, "a note asks for nothing");
    }

    #[test]
    fn where_systemd_does_not_run_a_server_is_told_by_its_own_program() {
        for (with, without) in [
            ("sed x && systemctl reload nginx", "sed x && nginx -s reload"),
            ("then `apachectl -t` and `systemctl reload apache2`", "then `apachectl -t` and `apachectl graceful`"),
            ("systemctl restart nginx", "nginx -s stop && sleep 1 && nginx"),
            ("systemctl restart httpd.service", "apachectl restart"),
            ("systemctl start lsws", "service lsws start"),
            ("of the unit (`systemctl edit`), and restart it", "of the unit (`systemctl edit`), and restart it"),
            ("nothing of it", "nothing of it"),
        ] {
            assert_eq!(without_systemd(with), without);
        }
    }
}
