//! The one command to run next, for findings whose room has none of its own: what shows the place that is to be mended.
//!
//! Belongs here: from a finding's id and evidence to a command, and what stands for systemd's where there is no systemd.
//! Does not: what is wrong, and the fix in words (the rooms).

use std::path::{Path, PathBuf};

use super::directives::{Configs, Directive, Said, apache_lines};
use crate::{
    host::{ListenSocket, Look},
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
    /// What the configuration of the web server that it is about says of these directives, each by its first words; else
    /// as `Shown`.
    Configured(&'static [&'static str]),
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
    const LISTEN: Next = Configured(&["listen", "server_name", "SSLEngine", "<VirtualHost"]);
    const REDIRECTS: Next = Configured(&[
        "return 30",
        "return http",
        "rewrite",
        "Redirect",
        "RedirectMatch",
        "RedirectPermanent",
        "RedirectTemp",
        "RewriteRule",
    ]);
    [
        ("online.nothing-listens", Configured(&["listen"])),
        ("online.loopback-only", Configured(&["listen"])),
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
            Configured(&[
                "server_name",
                "ServerName",
                "ServerAlias",
                "ssl_certificate",
                "ssl_reject_handshake",
                "SSLCertificateFile",
            ]),
        ),
        ("tls.hangs-up", Logged),
        ("tls.handshake", Logged),
        ("tls.old-version", Configured(&["ssl_protocols", "SSLProtocol"])),
        ("tls.no-cipher", Configured(&["ssl_ciphers", "SSLCipherSuite"])),
        (
            "tls.client-certificate",
            Configured(&[
                "ssl_verify_client",
                "ssl_client_certificate",
                "SSLVerifyClient",
                "SSLCACertificateFile",
                "SSLCACertificatePath",
            ]),
        ),
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

/// So many files are named one by one.
const MOST_FILES: usize = 8;

/// Where web servers log errors.
const ERROR_LOGS: [&str; 4] = [
    "/var/log/nginx/error.log",
    "/var/log/apache2/error.log",
    "/var/log/httpd/error_log",
    "/usr/local/lsws/logs/error.log",
];

/// Gives each cause and warning its command, and all of them commands that this machine has. Of another machine, nothing
/// that lies here tells anything.
pub(super) fn complete(
    host: &dyn Look,
    configs: &Configs<'_>,
    listeners: &[ListenSocket],
    findings: &mut [Finding],
    another_machine: bool,
) {
    let systemd = host.exists(Path::new("/run/systemd/system"));
    for finding in findings.iter_mut().filter(|f| f.verdict >= Finds::Warning) {
        let missing = finding.fix.as_ref().is_none_or(|f| f.command.is_none());
        if let Some(command) = missing.then(|| next(host, (configs, listeners), finding, another_machine)).flatten() {
            let text = finding.fix.take().map_or_else(|| "look there first".to_owned(), |f| f.text);
            finding.fix = Some(Fix { text, command: Some(command) });
        }
        if let Some(fix) = finding.fix.as_mut().filter(|_| !systemd) {
            fix.text = without_systemd(&fix.text);
            fix.command = fix.command.as_deref().map(without_systemd);
        }
    }
}

fn next(
    host: &dyn Look,
    (configs, listeners): (&Configs<'_>, &[ListenSocket]),
    finding: &Finding,
    another_machine: bool,
) -> Option<String> {
    let there = |all: &[&'static str]| -> Vec<&'static str> {
        all.iter().copied().filter(|p| !another_machine && host.exists(Path::new(p))).collect()
    };
    let (_, next) = NEXT.iter().find(|(id, _)| *id == finding.id)?;
    match next {
        Next::Own => None,
        Next::Shown => shown(finding),
        Next::Edit(otherwise) => Some(edit(finding).unwrap_or_else(|| (*otherwise).to_owned())),
        Next::Configured(_) if another_machine => shown(finding),
        Next::Configured(what) => {
            let about = About::of(finding, listeners);
            let nginx = about.nginx.then(|| configs.nginx());
            let apache = about.apache.then(|| configs.apache_text());
            configured(host, nginx, apache, what).or_else(|| shown(finding))
        }
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

/// The web servers that a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct About {
    nginx: bool,
    apache: bool,
}

impl About {
    /// Those that its text names, and those that listen on a port that it names; all where that may not be seen.
    fn of(finding: &Finding, listeners: &[ListenSocket]) -> Self {
        let words: Vec<&str> = finding.text.split(' ').map(|w| w.trim_end_matches([',', ';', ':', '.'])).collect();
        let on: Vec<&ListenSocket> =
            listeners.iter().filter(|s| words.contains(&s.address.port().to_string().as_str())).collect();
        let programs: Vec<&str> = on.iter().flat_map(|s| &s.programs).map(|p| p.name.as_str()).collect();
        let unseen = finding.text.starts_with("a program ") || (!on.is_empty() && programs.is_empty());
        let is = |name: &str, processes: &[&str]| {
            unseen || words.contains(&name) || programs.iter().any(|p| processes.contains(p))
        };
        Self { nginx: is("nginx", &["nginx"]), apache: is("Apache", &["apache2", "httpd"]) }
    }
}

/// What shows these directives in the files that are read, as `include` and links lead to them.
fn configured(host: &dyn Look, nginx: Option<&Said>, apache: Option<&Said>, what: &[&str]) -> Option<String> {
    let (mut files, mut words): (Vec<PathBuf>, Vec<String>) = (Vec::new(), Vec::new());
    let mut add = |said: &Said| {
        for directive in &said.directives {
            let Some(first) = what.iter().find(|first| begins(directive, first)) else { continue };
            let word = if first.contains(' ') { first.replace(' ', "\\s+") } else { format!("{first}\\b") };
            if !words.contains(&word) {
                words.push(word);
            }
            if !files.contains(&directive.file) {
                files.push(directive.file.clone());
            }
        }
    };
    nginx.into_iter().chain(apache).for_each(&mut add);
    // What Apache reads when it is asked for a page.
    for root in apache.iter().flat_map(|said| &said.directives).filter(|d| d.is("DocumentRoot")) {
        let file = Path::new(root.value()).join(".htaccess");
        if let Ok(Some(seen)) = host.file(&file) {
            add(&apache_lines(&String::from_utf8_lossy(&seen.content), &file));
        }
    }
    let pattern = format!("(^|[{{;])\\s*({})", words.join("|"));
    if files.len() > MOST_FILES && nginx.is_some() {
        return Some(format!("nginx -T 2>/dev/null | grep -Ei '^# configuration file|{pattern}'"));
    }
    if files.len() > MOST_FILES {
        let folders: Vec<&str> = ["/etc/apache2", "/etc/httpd"]
            .into_iter()
            .filter(|f| files.iter().any(|file| file.starts_with(f)))
            .collect();
        return (!folders.is_empty()).then(|| format!("grep -RnEi '{pattern}' {}", folders.join(" ")));
    }
    let files: Vec<String> =
        files.iter().filter_map(|file| Some(shlex::try_quote(file.to_str()?).ok()?.into_owned())).collect();
    (!files.is_empty()).then(|| format!("grep -HnEi '{pattern}' {}", files.join(" ")))
}

/// Whether a directive begins with these words: the name alone, or with how its value begins.
fn begins(directive: &Directive, first: &str) -> bool {
    match first.split_once(' ') {
        Some((name, value)) => directive.is(name) && directive.value().starts_with(value),
        None => directive.is(first),
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
    use crate::{
        doctor::directives::tests::{said_by_apache, said_by_nginx},
        host::{Machine, Program},
        report::Room,
    };

    fn completed_of(finding: Finding, another_machine: bool) -> Option<Fix> {
        let (host, mut all) = (Machine::new(), [finding]);
        complete(&host, &Configs::new(&host), &[], &mut all, another_machine);
        all[0].fix.clone()
    }

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
        completed_of(finding, false).unwrap()
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
    fn what_is_read_is_shown_and_nothing_else() {
        let host = Machine::new();
        let nginx =
            said_by_nginx("http { server { listen 127.0.0.1:80; return 301 https://a/; } ssl_protocols TLSv1; }");
        let shown = |what: &[&str]| configured(&host, Some(&nginx), None, what);
        let grep = |what: &str| Some(format!("grep -HnEi '(^|[{{;])\\s*({what})' /etc/nginx/nginx.conf"));
        assert_eq!(shown(&["listen", "<VirtualHost"]), grep("listen\\b"));
        assert_eq!(shown(&["ssl_protocols", "listen"]), grep("listen\\b|ssl_protocols\\b"));
        assert_eq!(shown(&["return 30"]), grep("return\\s+30"));
        assert_eq!(shown(&["ssl_protocol"]), None);
        assert_eq!(shown(&["return 44", "rewrite"]), None);
        let apache = said_by_apache("<VirtualHost *:80>\nRedirect permanent / https://a/\n</VirtualHost>");
        let both = configured(&host, Some(&nginx), Some(&apache), &["return 30", "redirect"]).unwrap();
        assert!(both.ends_with("' /etc/nginx/nginx.conf /etc/apache2/apache2.conf"), "{both}");
        // nginx isn't to be looked at where Apache serves.
        assert_eq!(configured(&host, None, Some(&apache), &["return 30"]), None);
    }

    #[test]
    fn the_servers_that_it_is_about_are_named_or_listen_there() {
        let socket = |port: u16, name: &str| ListenSocket {
            address: ([0, 0, 0, 0], port).into(),
            both_families: false,
            waiting: 0,
            backlog: 1,
            inode: 5,
            programs: (!name.is_empty())
                .then(|| Program { pid: 7, name: name.into(), file: None })
                .into_iter()
                .collect(),
        };
        let about = |text: &str, listeners: &[ListenSocket]| {
            let finding = Finding::new(Room::Tls, "tls.old-version", Finds::Cause, text);
            let About { nginx, apache } = About::of(&finding, listeners);
            (nginx, apache)
        };
        let all = [socket(80, "python3"), socket(443, "apache2"), socket(8443, "")];
        for (text, expected) in [
            ("nginx listens on ports 80 and 443 of loopback addresses only", (true, true)),
            ("python3 redirects nginx.example to https://", (false, false)),
            ("the server on port 443 speaks nothing newer", (false, true)),
            ("python3 wants TLS on port 80, where", (false, false)),
            ("the server on port 8443 speaks", (true, true)),
            ("a program redirects shop.example to https://", (true, true)),
            ("nothing listens on port 81, though Apache runs", (false, true)),
        ] {
            assert_eq!(about(text, &all), expected, "{text}");
        }
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
            let command = completed_of(cause(id, curl, "no answer"), true).and_then(|f| f.command);
            assert_eq!(command.as_deref(), Some(curl), "{id}");
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
