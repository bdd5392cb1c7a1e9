//! How ports, addresses and answers are put.
//!
//! Belongs here: wording that several findings share. Does not: findings.

use std::fmt::Display;

use super::{
    gather::{Port, Socket},
    patience::LONGER,
    servers,
    visit::{PATIENCE, Visit},
};
use crate::probe::http::{Outcome, Rest, Scheme};

/// `a`, `a and b`, `a, b and c`
pub(super) fn list(items: impl IntoIterator<Item = impl Display>, last: &str) -> String {
    let items: Vec<String> = items.into_iter().map(|i| i.to_string()).collect();
    match items.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., end] => format!("{} {last} {end}", first.join(", ")),
    }
}

/// `port 80`, `ports 80 and 443`
pub(super) fn ports(numbers: &[u16], last: &str) -> String {
    format!("port{} {}", if numbers.len() == 1 || last == "or" { "" } else { "s" }, list(numbers, last))
}

/// The origin's addresses of these ports, the first few.
pub(super) fn addresses<'a>(ports: impl IntoIterator<Item = &'a Port>) -> String {
    const FEW: usize = 4;
    let mut all: Vec<String> = Vec::new();
    for door in ports.into_iter().flat_map(|p| &p.doors) {
        let ip = door.ip.to_string();
        if !all.contains(&ip) {
            all.push(ip);
        }
    }
    if all.len() > FEW {
        let more = all.len() - FEW;
        all.truncate(FEW);
        return format!("{} and {more} more addresses", all.join(", "));
    }
    list(all, "and")
}

/// The programs that listen on a port: `nginx`, or that it can't be told.
pub(super) fn who(port: &Port) -> String {
    let mut names: Vec<&str> = Vec::new();
    for program in port.sockets.iter().flat_map(|s| &s.programs) {
        let name = servers::by_process(program).map_or(program.as_str(), |s| s.name);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() { "a program".to_owned() } else { list(names, "and") }
}

/// The command that shows who listens on these ports.
pub(super) fn ss(numbers: &[u16]) -> String {
    let ports: Vec<String> = numbers.iter().map(|p| format!("sport = :{p}")).collect();
    format!("ss -ltnp '{}'", ports.join(" or "))
}

/// A socket as it is listed: `127.0.0.1:80 nginx (pid 12)`.
pub(super) fn socket(socket: &Socket) -> String {
    match (socket.programs.first(), socket.pid) {
        (Some(name), Some(pid)) => format!("{} {name} (pid {pid})", socket.address),
        _ => socket.address.to_string(),
    }
}

/// The command that would ask the same, but for what only Cloudflare adds.
pub(super) fn curl(visit: &Visit) -> String {
    curl_for(visit, "/")
}

/// The same for another path.
pub(super) fn curl_for(visit: &Visit, path: &str) -> String {
    let door = visit.door.to_string();
    let host = &visit.host;
    if visit.tls {
        let port = if visit.door.port() == 443 { String::new() } else { format!(":{}", visit.door.port()) };
        let is_address = door.strip_suffix(&format!(":{}", visit.door.port())) == Some(host);
        let to = if is_address { String::new() } else { format!("--connect-to '::{door}' ") };
        return format!("curl -sik {to}https://{host}{port}{path}");
    }
    let visitor = match visit.visitor {
        Scheme::Http => "",
        Scheme::Https => " -H 'X-Forwarded-Proto: https'",
    };
    let door = door.strip_suffix(":80").unwrap_or(&door);
    format!("curl -si -H 'Host: {host}'{visitor} http://{door}{path}")
}

/// Where a redirect leads, without what may be secret: name and password, question, fragment.
fn told(location: &str) -> String {
    let place = location.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = place.split_once("//") else { return place.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}//{host}{path}")
}

/// What a visit came to, in short.
pub(super) fn came_to(visit: &Visit) -> String {
    if visit.loops {
        return visit.trail.join(" → ");
    }
    let waited = if visit.other.is_some() { LONGER } else { PATIENCE };
    match &visit.outcome {
        Outcome::Answered(answer) => {
            let to = answer.location.as_deref().map(|l| format!(" to {}", told(l))).unwrap_or_default();
            let cut = if answer.rest == Rest::Broken { ", and the connection ends before the answer does" } else { "" };
            format!("{}{to} after {} ms{cut}", answer.status, visit.slowest.as_millis())
        }
        Outcome::Refused => "connection refused".to_owned(),
        Outcome::Silent => "no connection".to_owned(),
        Outcome::NoRoute => "no route to it".to_owned(),
        Outcome::Closed => "the connection was closed without an answer".to_owned(),
        Outcome::Garbled(first) => format!("the answer begins with `{first}`"),
        Outcome::Oversized => "the head of the answer is longer than 128 KB".to_owned(),
        Outcome::Stalled if visit.mute => format!("no TLS handshake within {} s", PATIENCE.as_secs()),
        Outcome::Stalled => format!("no answer within {} s", waited.as_secs()),
        Outcome::Failed(why) => why.clone(),
    }
}

/// What became of another path, in short.
pub(super) fn other_came_to(other: &Outcome) -> String {
    match other {
        Outcome::Answered(answer) => format!("{} after {} ms", answer.status, answer.took.as_millis()),
        Outcome::Stalled => format!("no answer within {} s", LONGER.as_secs()),
        _ => "the connection was closed without an answer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_redirect_leads_is_told_without_what_may_be_secret() {
        for (location, shown) in [
            ("https://shop.example/a?sid=1#x", "https://shop.example/a"),
            ("https://user:word@shop.example", "https://shop.example"),
            ("//user:w@rd@shop.example:8443/a@b", "//shop.example:8443/a@b"),
            ("/login?next=/a", "/login"),
        ] {
            assert_eq!(told(location), shown);
        }
    }
}
