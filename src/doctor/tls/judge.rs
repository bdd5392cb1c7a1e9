//! What handshakes mean for visitors.
//!
//! Belongs here: from what was seen to findings. Pure. Does not: seeing.

use jiff::{SignedDuration, Timestamp};

use super::{
    certificate::{Certificate, Fault, Trust, authority, day, is_origin_pull},
    choice::choice,
    finding,
    gather::{Asked, Look, Outcome, Place},
};
use crate::{
    doctor::Mode,
    probe::tls::{Answer, How, Version, Wants},
    report::{Finding, Finds},
};

/// A certificate that has this long to go is about to expire; one that is made out for less than three times this long,
/// when two thirds of its time are over.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);
/// What mends most of it.
const ORIGIN_CA: &str = "install a certificate of Cloudflare's Origin CA (in the dashboard: SSL/TLS, Origin Server, \
                         Create certificate) or one of a public authority for every name of the site";

/// What is told of the zone's settings at Cloudflare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Zone {
    /// The encryption mode.
    pub mode: Mode,
    /// Authenticated Origin Pulls are on, with the certificate that the server wants.
    pub origin_pulls: bool,
}

/// What Cloudflare does with TLS at this port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// No handshake is made.
    No,
    /// Any certificate will do.
    Full,
    /// The certificate is verified.
    Strict,
    /// One of these, most likely one of the latter two.
    Unknown,
}

impl Use {
    /// Flexible holds for visitors on port 443; the other HTTPS ports fall back to Full (CLOUDFLARE.md, "Encryption modes").
    const fn of(mode: Mode, port: u16) -> Self {
        match mode {
            Mode::Flexible if port == 443 => Self::No,
            Mode::Flexible | Mode::Full => Self::Full,
            Mode::Strict => Self::Strict,
            Mode::Unknown => Self::Unknown,
        }
    }

    /// What a handshake that fails is.
    const fn broken(self) -> Finds {
        match self {
            Self::No => Finds::Note,
            Self::Full | Self::Strict | Self::Unknown => Finds::Cause,
        }
    }

    /// What a certificate is that only Full (strict) objects to.
    const fn unverified(self) -> Finds {
        match self {
            Self::No | Self::Full => Finds::Note,
            Self::Unknown => Finds::Warning,
            Self::Strict => Finds::Cause,
        }
    }

    /// What follows from that, for the end of a sentence.
    const fn consequence(self) -> &'static str {
        match self {
            Self::No => ": nothing looks at it under Off or Flexible, but Full (strict) would give Error 526",
            Self::Full => ": Full takes it as it is, Full (strict) would give Error 526",
            Self::Unknown => ": if the zone's mode is Full (strict), visitors see Error 526",
            Self::Strict => "",
        }
    }
}

/// All that is to be said about these.
pub(super) fn judge(looks: &[Look], zone: Zone, now: Timestamp) -> Vec<Finding> {
    if looks.is_empty() {
        let why = "no port on which Cloudflare speaks TLS is asked about, or this machine has no address to ask";
        return vec![finding("tls.unseen", Finds::Skipped, why)];
    }
    let mut found: Vec<Finding> = Vec::new();
    for look in looks {
        let elsewhere = looks
            .iter()
            .any(|l| l.place.at.port() == look.place.at.port() && !matches!(l.outcome, Outcome::NotListening));
        for one in judge_one(look, elsewhere, zone, now) {
            // IPv4 and IPv6 most often show the same: it is said once.
            match found.iter_mut().find(|f| (f.id, &f.text, f.verdict) == (one.id, &one.text, one.verdict)) {
                Some(same) => same.evidence.extend(one.evidence),
                None => found.push(one),
            }
        }
    }
    let mut hosts: Vec<Option<&str>> = looks.iter().map(|l| l.place.host.as_deref()).collect();
    hosts.dedup();
    found.extend(hosts.into_iter().filter_map(|host| choice(looks, host, zone.mode, now)));
    found
}

/// `elsewhere`: another address takes connections on the same port.
fn judge_one(look: &Look, elsewhere: bool, zone: Zone, now: Timestamp) -> Vec<Finding> {
    let place = &look.place;
    let port = place.at.port();
    match &look.outcome {
        Outcome::NotListening => {
            let family = if place.at.is_ipv4() { "IPv4" } else { "IPv6" };
            let over = if elsewhere { format!(" over {family}") } else { String::new() };
            let text = format!("nothing takes connections on port {port}{over}, so there is no certificate to look at");
            vec![finding("tls.not-listening", Finds::Skipped, text).seen("ss -ltn", format!("no {}", place.at))]
        }
        Outcome::Skipped(why) => {
            let text = format!("no handshake on port {port}: {why}");
            vec![finding("tls.unseen", Finds::Skipped, text).seen(command(place), "not run")]
        }
        Outcome::Asked(asked) => judge_asked(place, asked, zone, now),
    }
}

/// How somebody else could look there too.
fn command(place: &Place) -> String {
    let name = match &place.host {
        Some(host) => format!("-servername {host}"),
        None => "-noservername".to_owned(),
    };
    format!("openssl s_client -connect {} {name} -showcerts", place.at)
}

fn judge_asked(place: &Place, asked: &Asked, zone: Zone, now: Timestamp) -> Vec<Finding> {
    let usage = Use::of(zone.mode, place.at.port());
    if let Some(broken) = broken(place, asked, usage) {
        return vec![broken];
    }
    let mut found = Vec::new();
    match &asked.certificate {
        Some(Ok(certificate)) => found.extend(judge_certificate(place, certificate, usage, now)),
        Some(Err(why)) => {
            let text =
                format!("the certificate on port {} is of no use: {why}{}", place.at.port(), usage.consequence());
            let bad = finding("tls.untrusted", usage.unverified(), text).seen(command(place), why.clone());
            found.push(bad.gives(&[526]).mend(ORIGIN_CA));
        }
        None => {}
    }
    let wants = client_certificate(place, asked, usage, zone.origin_pulls);
    // Cloudflare ends the handshake over what it is shown before it has shown a certificate of its own.
    let first = if found.iter().any(|f| f.verdict == Finds::Cause) { found.len() } else { 0 };
    match &asked.handshake {
        Ok(shown) => {
            let alpn = shown.alpn.as_deref();
            let talk = format!("{}, {}, ALPN {}", shown.version, shown.cipher, alpn.unwrap_or("none"));
            if let Some(last) = found.pop() {
                found.push(last.seen(command(place), talk.clone()));
            }
            if asked.only_http2 {
                let text = format!(
                    "the server on port {} speaks HTTP/2 only, so what it answers was not asked for here: `HTTP/2 to Origin` \
                     has to be on in the zone, as it is unless somebody turned it off",
                    place.at.port()
                );
                found.push(finding("tls.only-http2", Finds::Skipped, text).seen(command(place), talk));
            } else if alpn != Some("h2") {
                let text = format!(
                    "the server on port {} offers no HTTP/2; Cloudflare uses HTTP/1.1 then, which is no fault",
                    place.at.port()
                );
                found.push(finding("tls.no-http2", Finds::Note, text).seen(command(place), talk));
            }
        }
        Err(failure) => {
            if let How::Older { shown, .. } = &failure.how {
                let text = format!(
                    "the server on port {} takes none of today's cipher suites, only older ones that Cloudflare still \
                     offers",
                    place.at.port()
                );
                found.push(
                    finding("tls.old-cipher", Finds::Note, text)
                        .seen(command(place), format!("{}, {}", shown.version, shown.cipher))
                        .mend("let the web server offer ECDHE with AES-GCM, as its default is"),
                );
            }
        }
    }
    found.splice(first..first, wants);
    found
}

/// A handshake with which Cloudflare's would fail as well, for a reason of the server's.
fn broken(place: &Place, asked: &Asked, usage: Use) -> Option<Finding> {
    let failure = asked.handshake.as_ref().err()?;
    let port = place.at.port();
    let site = place.host.as_deref();
    let shows = |what: &str| (command(place), what.to_owned());
    if site.is_none()
        && let Some(text) = unnamed(&failure.how, failure.wants.is_some())
    {
        let text = format!("the server on port {port} {text}");
        let skipped = finding("tls.unseen", Finds::Skipped, text).seen(command(place), failed(&failure.how));
        return Some(skipped.mend_by("name the site", "edgeallow doctor HOST"));
    }
    let (id, text, (source, shows), fix) = match &failure.how {
        How::NotTls { http } => {
            let what = if *http { "speaks plain HTTP, no TLS: it has no certificate" } else { "doesn't speak TLS" };
            let fix = format!("{ORIGIN_CA}, and turn TLS on for port {port} in the web server");
            ("tls.no-tls", format!("the server on port {port} {what}"), shows(&failed(&failure.how)), fix)
        }
        How::Older { shown, offered } if shown.version < Version::TLS12 => {
            // Cloudflare's page "Cipher suites — Origin" has a column for TLS 1.0 and 1.1.
            let still = if *offered { ", which Cloudflare's page still lists for origins" } else { "" };
            (
                "tls.old-version",
                format!("the server on port {port} speaks nothing newer than {}, which RFC 8996 forbids", shown.version),
                shows(&format!("{}, {}{still}", shown.version, shown.cipher)),
                "let the web server speak TLS 1.2 and 1.3: `ssl_protocols TLSv1.2 TLSv1.3;` in nginx, `SSLProtocol -all \
                 +TLSv1.2 +TLSv1.3` in Apache; it may need a newer OpenSSL"
                    .to_owned(),
            )
        }
        How::Older { shown, offered: false } => (
            "tls.no-cipher",
            format!("the server on port {port} takes no cipher suite that Cloudflare offers to origins"),
            shows(&format!("{}, {}", shown.version, shown.cipher)),
            "let the web server offer ECDHE with AES-GCM, as its default is".to_owned(),
        ),
        How::Alert(_) | How::Closed | How::Other(_) if failure.wants.is_some() => return None,
        How::Alert(name) if name == "unrecognized_name" => {
            let site = site.unwrap_or_default();
            (
                "tls.no-certificate",
                format!("the server on port {port} has no certificate for {site} and ends the handshake"),
                shows(&failed(&failure.how)),
                format!("{ORIGIN_CA}, and give it to the web server for {site}"),
            )
        }
        how @ (How::Alert(_) | How::Closed | How::Other(_)) => (
            // A server that has run out of something hangs up as well.
            if *how == How::Closed { "tls.hangs-up" } else { "tls.handshake" },
            format!("no handshake succeeds on port {port}: {}", failed(how)),
            shows(&failed(how)),
            "look into the web server's error log for the handshake: most often a certificate or key is missing for the \
             name, or protocols and cipher suites are narrowed down too far"
                .to_owned(),
        ),
        How::Older { .. }
        | How::Refused
        | How::Unanswered
        | How::NoRoute
        | How::Unconnected(_)
        | How::Silent => return None,
    };
    let unless = match usage {
        Use::No => "; Off and Flexible make no handshake",
        Use::Unknown => "; only Off and Flexible would do without",
        Use::Full | Use::Strict => "",
    };
    Some(finding(id, usage.broken(), text + unless).seen(source, shows).gives(&[525]).mend(fix))
}

/// Why nothing follows from a failure where no site was named: whether this port is a site's isn't known.
pub(super) const fn unnamed(how: &How, wants_certificate: bool) -> Option<&'static str> {
    match how {
        How::Alert(_) | How::Closed | How::Other(_) if !wants_certificate => {
            Some("wants to hear a name before it shows a certificate")
        }
        How::NotTls { http: false } => Some("speaks neither TLS nor HTTP"),
        _ => None,
    }
}

/// The way in which a handshake failed, as a piece of a sentence.
fn failed(how: &How) -> String {
    match how {
        How::Alert(name) => format!("the server sends the alert {name}"),
        How::Closed => "the server ends the connection".to_owned(),
        How::Other(why) => why.clone(),
        How::NotTls { .. } => "what answers is no TLS record".to_owned(),
        other => format!("{other:?}"),
    }
}

/// What is to be said of a server that wants a client certificate.
fn client_certificate(place: &Place, asked: &Asked, usage: Use, pulls: bool) -> Option<Finding> {
    let port = place.at.port();
    let wants: &Wants = match &asked.handshake {
        Ok(shown) => shown.wants.as_ref()?,
        Err(failure) => match &failure.how {
            How::Older { shown, .. } => shown.wants.as_ref()?,
            _ => failure.wants.as_ref()?,
        },
    };
    let whose: Vec<String> = wants.authorities.iter().map(|a| authority(a)).collect();
    let whose = if whose.is_empty() { "any authority".to_owned() } else { whose.join(", ") };
    let (refused, errors): (String, &[u16]) = match (&asked.handshake, &asked.without) {
        (Err(failure), _) if matches!(failure.how, How::Older { .. }) => return None,
        (Err(failure), _) => (failed(&failure.how), &[525, 520]),
        (Ok(_), Some(Answer::Needs(status))) => (format!("HTTP {status}: No required SSL certificate was sent"), &[]),
        (Ok(_), Some(Answer::Alert(name))) => (failed(&How::Alert(name.clone())), &[525, 520]),
        (Ok(_), Some(Answer::Closed)) => (failed(&How::Closed), &[525, 520]),
        (Ok(_), Some(Answer::Status(status))) => {
            let text = format!("the server on port {port} asks for a client certificate, and goes on without one");
            let shows = format!("certificate request for {whose}; HTTP {status} without one");
            return Some(finding("tls.origin-pull", Finds::Note, text).seen(command(place), shows));
        }
        (Ok(_), Some(Answer::Silent) | None) => return None,
    };
    let shows = format!("certificate request for {whose}; without one, {refused}");
    if wants.authorities.iter().any(|a| is_origin_pull(a)) {
        let zone = if pulls {
            "as you say, Authenticated Origin Pulls are on in the zone"
        } else {
            "Authenticated Origin Pulls have to be on in the zone, and its mode Full or Full (strict)"
        };
        let text = format!("the server on port {port} lets in only clients with a certificate of Cloudflare's: {zone}");
        return Some(finding("tls.origin-pull", Finds::Note, text).seen(command(place), shows));
    }
    if pulls {
        let text = format!(
            "the server on port {port} lets in only clients with a certificate of {whose}: as you say, Authenticated Origin \
             Pulls are on in the zone with one"
        );
        return Some(finding("tls.origin-pull", Finds::Note, text).seen(command(place), shows));
    }
    let page = if errors.is_empty() { ", and answers them with a 400 of its own" } else { "" };
    let (verdict, text) = if wants.authorities.is_empty() {
        let unsaid =
            "doesn't say of which authority: if Authenticated Origin Pulls are off in the zone, that is everybody";
        (
            Finds::Warning,
            format!("the server on port {port} turns away clients without a certificate{page}, and {unsaid}"),
        )
    } else {
        let whom = "Cloudflare has none, unless you uploaded one for Authenticated Origin Pulls, which can't be seen from \
                    here: say --origin-pulls then";
        let text =
            format!("the server on port {port} turns away clients without a certificate of {whose}{page}; {whom}");
        (Finds::Cause, text)
    };
    let verdict = if usage == Use::No { Finds::Note } else { verdict };
    Some(
        finding("tls.client-certificate", verdict, text).seen(command(place), shows).gives(errors).mend(
            "turn Authenticated Origin Pulls on in the zone, and either upload a certificate of your authority for them at \
             Cloudflare, or let the web server ask for Cloudflare's authority instead (`ssl_client_certificate` in nginx, \
             `SSLCACertificateFile` in Apache); or ask for none (`ssl_verify_client off`, `SSLVerifyClient none`)",
        ),
    )
}

fn judge_certificate(place: &Place, certificate: &Certificate, usage: Use, now: Timestamp) -> Vec<Finding> {
    let port = place.at.port();
    let site = place.host.as_deref().map(|h| format!("for {h} ")).unwrap_or_default();
    let seen = |f: Finding| f.seen(command(place), certificate.to_string());
    let faults = certificate.faults(place.host.as_deref(), now);
    let mut found = Vec::new();
    if certificate.edwards {
        let text = format!(
            "the certificate on port {port} has a key of Ed25519's kind, which no public authority signs; whether \
             Cloudflare takes it can't be told from here, and if it doesn't, the handshake ends (Error 525)"
        );
        let odd = finding("tls.key", Finds::Note, text).gives(&[525]);
        found.push(seen(odd.mend("give the web server a certificate with a key of RSA or ECDSA P-256")));
    }
    if let Some(first) = faults.first() {
        let said: Vec<String> = faults.iter().map(|f| said(f, certificate, place.host.as_deref())).collect();
        let text = format!("the certificate shown {site}on port {port} {}{}", said.join(" and "), usage.consequence());
        let bad = seen(finding(first.id(), usage.unverified(), text)).gives(&[526]);
        found.push(mended(bad, first, certificate, usage));
        return found;
    }
    let lifetime = certificate.not_after.duration_since(certificate.not_before);
    let left = certificate.not_after.duration_since(now);
    let until = day(certificate.not_after);
    if left <= SOON.min(lifetime / 3) {
        let text = format!(
            "the certificate shown {site}on port {port} expires in {} days, on {until}, and nothing has renewed it yet",
            certificate.days_left(now)
        );
        let verdict = if usage.unverified() == Finds::Note { Finds::Note } else { Finds::Warning };
        let soon = seen(finding("tls.expires-soon", verdict, text)).gives(&[526]);
        found.push(mended(soon, &Fault::Expired(certificate.not_after), certificate, usage));
    } else {
        let text =
            format!("the certificate shown {site}on port {port} comes from {}, good until {until}", certificate.issuer);
        found.push(seen(finding("tls.certificate", Finds::Ok, text)));
    }
    if certificate.trust == Trust::OriginCa {
        let text = format!(
            "the certificate on port {port} comes from Cloudflare's Origin CA, by its issuer's name: good for Full (strict), \
             and trusted by nobody but Cloudflare, so visitors who come past it are warned"
        );
        found.insert(0, seen(finding("tls.origin-ca", Finds::Note, text)));
    }
    found
}

/// A fault, as the end of a sentence about the certificate.
fn said(fault: &Fault, certificate: &Certificate, host: Option<&str>) -> String {
    match fault {
        Fault::Expired(at) => format!("expired on {}", day(*at)),
        Fault::NotYetValid(at) => format!("is not valid before {}", day(*at)),
        Fault::WrongName => {
            format!("is not for {} but for {}", host.unwrap_or("this name"), certificate.names_told())
        }
        Fault::SelfSigned => "is self-signed".to_owned(),
        Fault::UnknownIssuer => format!("comes from an authority that nobody knows, {}", certificate.issuer),
        Fault::PrivateIssuer => format!(
            "comes from {}, an authority that this machine trusts and the public doesn't know",
            certificate.issuer
        ),
        Fault::Incomplete => format!("comes without that of its authority, {}", certificate.issuer),
        Fault::Bad(why) => format!("can't be trusted: {why}"),
    }
}

fn mended(finding: Finding, fault: &Fault, certificate: &Certificate, usage: Use) -> Finding {
    let until = if usage == Use::Strict { "; until then the mode Full works" } else { "" };
    match fault {
        Fault::Expired(_) if certificate.issuer.contains("Let's Encrypt") => {
            finding.mend("renew it and reload the web server, which doesn't read a new file by itself")
        }
        Fault::Expired(_) => finding.mend(format!(
            "renew it and reload the web server, which doesn't read a new file by itself; or {ORIGIN_CA}{until}"
        )),
        Fault::NotYetValid(_) => finding
            .mend_by("see whether this machine's clock is right; if it is, have a new one made out", "date -u"),
        Fault::Incomplete => finding
            .mend(format!("give the web server the whole chain (fullchain.pem), not the certificate alone{until}")),
        Fault::PrivateIssuer => finding.mend(format!(
            "{ORIGIN_CA}; or upload your authority to the zone's custom origin trust store, which takes Advanced Certificate \
             Manager{until}"
        )),
        Fault::WrongName | Fault::SelfSigned | Fault::UnknownIssuer | Fault::Bad(_) => {
            finding.mend(format!("{ORIGIN_CA}{until}"))
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
