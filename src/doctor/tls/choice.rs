//! The mode to choose, with what each mode gives as evidence.
//!
//! Belongs here: what was seen, as answers to the tree's questions. Does not: the tree ([`super::modes`]).

use std::net::SocketAddr;

use jiff::Timestamp;

use super::{
    certificate::{Fault, Trust},
    finding,
    gather::{Asked, Look, Outcome, Place},
    judge::unnamed,
    modes::{self, Choice, Facts},
};
use crate::{
    doctor::Mode,
    probe::tls::{How, Version},
    report::{Finding, Finds},
};

/// The mode to choose for a name: what suits all of its origins and ports.
pub(super) fn choice(looks: &[Look], host: Option<&str>, mode: Mode, now: Timestamp) -> Option<Finding> {
    let all: Vec<&Look> = looks.iter().filter(|l| l.place.host.as_deref() == host).collect();
    let is_asked = |port: u16| all.iter().any(|l| l.place.at.port() == port && matches!(l.outcome, Outcome::Asked(_)));
    let judged = all.iter().filter_map(|look| {
        let at = look.place.at;
        let facts = match &look.outcome {
            Outcome::Asked(asked) => facts(&look.place, asked, now)?,
            // A port that nobody uses says nothing, and an address beside one that answers is for the names' room.
            Outcome::NotListening if at.port() == 443 && !is_asked(443) => {
                Facts { listens: false, handshake: false, trusted: false, in_time: false, named: false }
            }
            Outcome::NotListening | Outcome::Skipped(_) => return None,
        };
        let (way, choice) = modes::choose(&facts);
        Some((choice, way, look))
    });
    let rank = |c: &Choice| (matches!(c.mode, Mode::Strict), matches!(c.mode, Mode::Full));
    let (choice, way, look) = judged.min_by_key(|(choice, ..)| rank(choice))?;
    let place = &look.place;
    let name = modes::name(choice.mode);
    let site = host.map(|h| format!(" for {h}")).unwrap_or_default();
    let mut text = format!("the mode to choose{site} is {name}");
    if host.is_none() && choice.mode == Mode::Strict {
        text += ", if the certificate is for every name of the site";
    }
    let open = if choice.mode == Mode::Flexible { open(look) } else { None };
    if let Some(why) = &open {
        text = format!("which mode to choose{site} can't be told yet: {why}");
    }
    let verdict = match open {
        Some(_) => Finds::Skipped,
        None if choice.mode == mode => Finds::Ok,
        None => Finds::Note,
    };
    // The tree speaks of the port that nearly everybody has.
    let port = place.at.port().to_string();
    let answered =
        |(q, yes): &(&str, bool)| format!("{} {}.", q.replace("443", &port), if *yes { "Yes" } else { "No" });
    let way: Vec<String> = way.iter().map(answered).collect();
    let error = |e: Option<u16>| e.map_or_else(|| "works".to_owned(), |e| format!("Error {e}"));
    let flexible = match (place.at, place.plain) {
        (at, _) if at.port() != 443 => error(choice.full) + ": as Full, for it isn't port 443",
        (_, Some(true)) => "works, by plain HTTP over port 80".to_owned(),
        (_, Some(false)) => "Error 521: nothing listens on port 80".to_owned(),
        (_, None) => "needs a web server on port 80".to_owned(),
    };
    let best = finding("tls.mode", verdict, text)
        .seen(decided(place.at), way.join(" "))
        .seen("mode Off or Flexible", flexible)
        .seen("mode Full", error(choice.full))
        .seen("mode Full (strict)", error(choice.strict));
    Some(match choice.next {
        Some(next) => best.mend(format!("for the strictest mode, {next}")),
        None => best,
    })
}

/// Why the tree's Off or Flexible is not to be chosen as it stands: that is for a site with plain HTTP and no TLS at all, not
/// for one that is broken.
fn open(look: &Look) -> Option<String> {
    let port = look.place.at.port();
    let plain = match look.place.plain {
        Some(true) => None,
        Some(false) => Some("nothing listens on port 80 either, as Off and Flexible need it"),
        None => Some("whether port 80 serves plain HTTP, as Off and Flexible need it, can't be seen from here"),
    };
    match &look.outcome {
        Outcome::NotListening => plain.map(|why| format!("nothing listens on port {port}, and {why}")),
        Outcome::Asked(asked) => match asked.handshake.as_ref().err().map(|f| &f.how) {
            Some(How::NotTls { .. }) if port == 443 => plain.map(|why| format!("port {port} speaks no TLS, and {why}")),
            _ => Some(format!("no handshake succeeds on port {port}, see above")),
        },
        Outcome::Skipped(_) => None,
    }
}

fn decided(at: SocketAddr) -> String {
    format!("docs/tls-modes.svg, for {at}")
}

/// The answers to the tree's questions; none where they can't be given.
fn facts(place: &Place, asked: &Asked, now: Timestamp) -> Option<Facts> {
    let none = Facts { listens: true, handshake: false, trusted: false, in_time: false, named: false };
    if let Err(failure) = &asked.handshake {
        match &failure.how {
            How::Older { shown, offered } if *offered && shown.version >= Version::TLS12 => {}
            How::Alert(_) | How::Closed | How::Other(_) if failure.wants.is_some() => {}
            how if place.host.is_none() && unnamed(how, false).is_some() => return None,
            _ => return Some(none),
        }
    }
    let Some(Ok(certificate)) = &asked.certificate else { return Some(Facts { handshake: true, ..none }) };
    let faults = certificate.faults(place.host.as_deref(), now);
    Some(Facts {
        listens: true,
        handshake: true,
        trusted: matches!(certificate.trust, Trust::Known | Trust::OriginCa),
        in_time: !faults.iter().any(|f| matches!(f, Fault::Expired(_) | Fault::NotYetValid(_))),
        named: !faults.contains(&Fault::WrongName),
    })
}
