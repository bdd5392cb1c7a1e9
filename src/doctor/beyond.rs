//! Beyond the list: what an allowlist doesn't do, and what needs no rule at all. Notes, never causes.
//!
//! Belongs here: that. Does not: whether a handshake works with a client certificate (the room `tls`).

use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::{
    Context,
    directives::{Configs, Directive},
};
use crate::{
    host::Look,
    report::{Finding, Finds, Room},
};

/// How many of the files that can't be read are named.
const MOST_UNREAD: usize = 5;

pub(super) fn look(cx: &Context<'_>) -> Vec<Finding> {
    let host = cx.session.host;
    let mut found = pulls(host, &cx.configs);
    found.push(http3(udp_443(host)));
    found.push(
        note(
            "beyond.health-checks",
            "the health checks of Cloudflare's load balancing come from the same ranges: they need no rule of their own",
        )
        .seen("https://www.cloudflare.com/ips", ""),
    );
    if !host.may_administer() {
        found.push(ask_the_hoster(cx));
    }
    found
}

fn note(id: &'static str, text: impl Into<String>) -> Finding {
    Finding::new(Room::Beyond, id, Finds::Note, text)
}

/// What a web server wants of a client certificate, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wants {
    /// It asks for one, and goes on without.
    Asks,
    /// It goes on without none, whoever signed it: the authority's file can't be read, or isn't named there.
    Some,
    /// One that Cloudflare's shared authority has signed: every zone's connections have that.
    Shared,
    /// One that somebody else's authority has signed.
    Own,
}

/// Authenticated Origin Pulls.
fn pulls(host: &dyn Look, configs: &Configs<'_>) -> Vec<Finding> {
    let (nginx, apache) = (configs.nginx(), configs.apache());
    let directives = [&nginx.directives[..], &apache.directives].concat();
    let unread = [&nginx.unread[..], &apache.unread].concat();
    let mut found = vec![judge_pulls(wants(&directives, &|path| is_shared(host, path)), &directives)];
    if !unread.is_empty() {
        let text = "not all of the web server's configuration could be read, so it may require a client certificate";
        let skipped = Finding::new(Room::Beyond, "beyond.unread", Finds::Skipped, text);
        found.push(unread.into_iter().take(MOST_UNREAD).fold(skipped, |f, why| f.seen("not read", why)));
    }
    found
}

/// The most that is wanted anywhere, and where. `shared` tells whether a file holds Cloudflare's shared authority.
fn wants<'a>(directives: &'a [Directive], shared: &dyn Fn(&Path) -> Option<bool>) -> Option<(Wants, &'a Directive)> {
    let wanting = directives.iter().enumerate().filter(|(_, d)| d.is("ssl_verify_client") || d.is("SSLVerifyClient"));
    let each = wanting.filter_map(|(n, d)| {
        let wants = match d.value().to_ascii_lowercase().as_str() {
            "on" | "require" => signer(directives, n)
                .and_then(|file| shared(&file))
                .map_or(Wants::Some, |shared| if shared { Wants::Shared } else { Wants::Own }),
            "optional" | "optional_no_ca" => Wants::Asks,
            _ => return None,
        };
        Some((wants, d))
    });
    each.max_by_key(|(wants, _)| *wants)
}

/// The authority's file that is named nearest to a directive, in the same file.
fn signer(directives: &[Directive], at: usize) -> Option<PathBuf> {
    let of = directives.get(at)?;
    let names = |d: &Directive| d.is("ssl_client_certificate") || d.is("SSLCACertificateFile");
    let same = directives.iter().enumerate().filter(|(_, d)| names(d) && d.file == of.file);
    let (_, nearest) = same.min_by_key(|(n, _)| n.abs_diff(at))?;
    // Both languages take a path without a slash before it as beside the main file, where this one most often is too.
    Some(of.file.parent()?.join(nearest.value()))
}

/// Whether the file holds the authority of Cloudflare's shared client certificate; `None` where it can't be read.
fn is_shared(host: &dyn Look, path: &Path) -> Option<bool> {
    /// Its common name, in Cloudflare's `authenticated_origin_pull_ca.pem`.
    const NAME: &[u8] = b"origin-pull.cloudflare.net";
    let pem = host.file(path).ok()??;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem.content).flatten().collect();
    if certificates.is_empty() {
        return None;
    }
    Some(certificates.iter().any(|der| der.windows(NAME.len()).any(|w| w == NAME)))
}

fn judge_pulls(wanted: Option<(Wants, &Directive)>, directives: &[Directive]) -> Finding {
    const ON: &str = "for more, turn on Authenticated Origin Pulls with a certificate of your own authority: upload it at \
                      Cloudflare, and let the web server require it (nginx: `ssl_client_certificate` and \
                      `ssl_verify_client on`, Apache: `SSLCACertificateFile` and `SSLVerifyClient require`)";
    const BUT: &str = "the list proves that a connection comes from Cloudflare, not that it comes from your zone: any \
                       customer of Cloudflare can point a zone of theirs here";
    let Some((wants, at)) = wanted else {
        let files = directives.iter().map(|d| &d.file).collect::<std::collections::BTreeSet<_>>().len();
        let found = note("beyond.any-customer", format!("{BUT}, and no client certificate is asked for"));
        let shows = match files {
            0 => "no configuration of nginx or Apache to be read here".to_owned(),
            1 => "not required in the one file of the web server's configuration".to_owned(),
            n => format!("not required in any of the {n} files of the web server's configuration"),
        };
        return found.seen("ssl_verify_client, SSLVerifyClient", shows).mend(ON);
    };
    let seen = |f: Finding| f.seen(at.place(), at.words.join(" "));
    match wants {
        Wants::Own => seen(note(
            "beyond.origin-pulls",
            "a client certificate of an authority of your own is required: other customers of Cloudflare don't get in, and \
             your zone does if you uploaded one at Cloudflare, see TLS",
        )),
        Wants::Some => seen(note(
            "beyond.origin-pulls",
            "a client certificate is required; whose authority signs it can't be told here. With Cloudflare's shared one \
             any customer of Cloudflare gets in",
        )),
        Wants::Shared => seen(note(
            "beyond.any-customer",
            format!("{BUT}, and the client certificate that is required is the one that all of them share"),
        ))
        .mend(ON),
        Wants::Asks => seen(note(
            "beyond.any-customer",
            format!(
                "{BUT}; a client certificate is asked for, and none is good enough unless the site itself looks at it"
            ),
        ))
        .mend(ON),
    }
}

/// Whether something is bound to UDP port 443; `None` where that can't be told. Layout: net/ipv4/udp.c, proc(5).
fn udp_443(host: &dyn Look) -> Option<bool> {
    let tables = ["/proc/net/udp", "/proc/net/udp6"].map(|path| host.file(Path::new(path)).ok().flatten());
    // A kernel without IPv6 has only the first.
    tables[0].as_ref()?;
    Some(tables.into_iter().flatten().any(|table| binds_443(&String::from_utf8_lossy(&table.content))))
}

fn binds_443(table: &str) -> bool {
    table.lines().filter_map(|l| l.split_ascii_whitespace().nth(1)).any(|local| local.ends_with(":01BB"))
}

fn http3(listens: Option<bool>) -> Finding {
    const SOURCE: &str = "ss -ulnH 'sport = :443'";
    match listens {
        Some(true) => note(
            "beyond.http3",
            "something takes HTTP/3 on UDP port 443, where Cloudflare never comes: it speaks TCP to origins, and HTTP/3 \
             with visitors by itself",
        )
        .seen(SOURCE, "a socket")
        .mend("UDP port 443 can be closed, and HTTP/3 be left to Cloudflare (Speed, Settings, Protocol)"),
        _ => note(
            "beyond.http3",
            "HTTP/3 ends at Cloudflare, which speaks TCP to origins: UDP port 443 need not be open",
        )
        .seen(SOURCE, if listens.is_some() { "nothing" } else { "can't be told" }),
    }
}

/// A hoster's control panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Panel {
    Cpanel,
    Plesk,
    DirectAdmin,
}

impl Panel {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Cpanel, "/usr/local/cpanel"),
        (Self::Plesk, "/usr/local/psa"),
        (Self::DirectAdmin, "/usr/local/directadmin"),
    ];

    /// Where its pages take a list, one range a line.
    const fn takes(self) -> &'static str {
        match self {
            Self::Cpanel => {
                "With cPanel: WHM, ConfigServer Security & Firewall: into csf.allow and, so that lfd doesn't ban them, \
                 into csf.ignore; with cPHulk or Imunify360 into their white \
                 lists. Please see that none of them is in csf.deny or the site's \"IP Blocker\"."
            }
            Self::Plesk => {
                "With Plesk: Tools & Settings, Firewall, the rule for the web server: \"Allow from selected sources\"; and \
                 Tools & Settings, IP Address Banning (Fail2Ban): \"Trusted IP Addresses\"."
            }
            Self::DirectAdmin => {
                "With DirectAdmin: ConfigServer Security & Firewall: into csf.allow and csf.ignore; and please see that \
                 the Brute Force Monitor doesn't block them."
            }
        }
    }
}

fn ask_the_hoster(cx: &Context<'_>) -> Finding {
    let panel =
        Panel::ALL.into_iter().find(|(_, path)| cx.session.host.exists(Path::new(path))).map(|(panel, _)| panel);
    let list = cx.edge.minus(&cx.session.config.extra);
    let ranges: Vec<String> = list.iter().map(|net| net.to_string()).collect();
    let ports: Vec<String> = cx.ports.iter().map(u16::to_string).collect();
    note(
        "beyond.ask-hoster",
        "without root the firewall can be neither looked at nor changed here: with -v there is a text to send to whoever \
         can, with the list",
    )
    .seen("text to send", letter(&cx.ask.hosts, &ports.join(" and "), panel))
    .seen("list, one range a line", format!("\n{}", ranges.join("\n")))
}

fn letter(hosts: &[String], ports: &str, panel: Option<Panel>) -> String {
    let site = if hosts.is_empty() { "My site".to_owned() } else { hosts.join(" and ") };
    let mut text = format!(
        "\nHello,\n\n{site} is behind Cloudflare. All its visitors reach your server from Cloudflare's addresses, so where \
         those are turned away or banned, visitors see Error 521 or 522. Please\n\n\
         - let these ranges connect to TCP ports {ports}, in every firewall on the server and before it;\n\
         - keep them from being banned or slowed down (fail2ban, CSF and lfd, Imunify360, mod_evasive, rate limits), and \
         lift the bans that are there.\n\n\
         The list is Cloudflare's own, https://www.cloudflare.com/ips, one range a line.\n"
    );
    for (other, _) in Panel::ALL {
        if panel.is_none_or(|panel| panel == other) {
            text.push_str(other.takes());
            text.push('\n');
        }
    }
    text + "\nThank you."
}

#[cfg(test)]
mod tests;
