//! What nginx's access module lets in: `allow` and `deny`, of which the first that matches decides.
//!
//! They are inherited where a block has none of its own, as are the nets whose word is taken for the visitor's address.
//!
//! Belongs here: that. Does not: conditions (`script`), what it comes to (`access`, `super`).

mod script;
mod variables;

use std::{net::IpAddr, rc::Rc};

use ipnet::IpNet;

use self::{script::Script, variables::Tables};
use super::access::{Client, Fate, Mend, Shown, Site, is_about_all, net};
use crate::{
    allowlist::Prefixes,
    doctor::directives::{Directive, Said},
};

/// What may stand in a block, from the inside out, up to the whole configuration.
type Scope<'s> = Vec<Option<&'s Directive>>;

/// The header fields in which Cloudflare tells the visitor's address.
pub(super) const TELLING: [&str; 3] = ["CF-Connecting-IP", "X-Forwarded-For", "True-Client-IP"];

pub(super) fn sites(said: &Said) -> Vec<Site<'_>> {
    // In `upstream` a server has an address, and in `stream` and `mail` it speaks no HTTP.
    let is_site = |d: &&Directive| {
        d.is("server") && d.words.len() == 1 && !said.around_of(d).any(|head| head.is("stream") || head.is("mail"))
    };
    let tables = Rc::new(Tables::of(said));
    said.directives.iter().filter(is_site).map(|head| site(said, &tables, head)).collect()
}

fn site<'s>(said: &'s Said, tables: &Rc<Tables<'s>>, server: &'s Directive) -> Site<'s> {
    let of = |name: &'s str| said.inside(Some(server)).filter(move |d| d.is(name));
    let listens: Vec<&Directive> = of("listen").collect();
    let at = listens.iter().filter_map(|d| listen(d.value())).map(|(ip, port)| (ip, Some(port)));
    let at = if listens.is_empty() { vec![(None, Some(80))] } else { at.collect() };
    let location = location(said, server);
    let scope: Scope<'_> =
        location.into_iter().chain([server]).chain(said.around_of(server)).map(Some).chain([None]).collect();
    let rules: Vec<&Directive> = nearest(said, &scope, |d| d.is("allow") || d.is("deny"));
    let first_match: Vec<(bool, Option<IpNet>)> = rules.iter().filter_map(|d| rule(d)).collect();
    // A password is as good as an address then.
    let any = nearest(said, &scope, |d| d.is("satisfy")).first().is_some_and(|d| d.value() == "any");
    let redirects = scope.iter().take(1 + usize::from(location.is_some()));
    let denies = rules.iter().filter(|d| d.is("deny")).take(3);
    let file = rules.first().unwrap_or(&server).file.clone();
    let script = Script::new(said, Rc::clone(tables), server, location);
    let conditional = script.refuses;
    let mut nets: Vec<IpNet> = first_match.iter().filter_map(|(_, net)| *net).collect();
    if conditional {
        nets.extend(tables.nets().into_iter().chain(script.nets()));
    }
    Site {
        names: names(said, server),
        at,
        default: listens.iter().any(|d| d.words.iter().any(|w| w == "default_server" || w == "default")),
        sends_away: redirects.flat_map(|head| said.inside(*head)).any(|d| d.is("return")),
        shown: shown(said, &scope),
        nets,
        conditional,
        tried: conditional && (script.tries() || tables.tries()),
        seen: denies.map(|d| (d.place(), d.words.join(" "))).collect(),
        mend: Box::new(move |_| Mend {
            what: format!(
                "take the line out of {}, or let Cloudflare's ranges in before it (`allow`, one a line; `edgeallow fetch` \
                 prints them)",
                file.display()
            ),
            file: file.clone(),
        }),
        conditions: Box::new(move |visit| script.verdict(visit)),
        rules: Box::new(move |client: Client| {
            let decides = |(_, net): &&(bool, Option<IpNet>)| net.is_none_or(|net| net.contains(&client.ip));
            match first_match.iter().find(decides) {
                Some((false, _)) if any => Fate::Unknown,
                Some((false, _)) => Fate::Out,
                _ => Fate::In,
            }
        }),
    }
}

fn rule(directive: &Directive) -> Option<(bool, Option<IpNet>)> {
    let allows = directive.is("allow");
    match directive.value() {
        "all" => Some((allows, None)),
        word => Some((allows, Some(net(word)?))),
    }
}

/// `80`, `192.0.2.1:80`, `[::]:443`, `192.0.2.1`; none for a socket in the file system.
fn listen(word: &str) -> Option<(Option<IpAddr>, u16)> {
    if word.starts_with("unix:") {
        return None;
    }
    if let Ok(port) = word.parse() {
        return Some((None, port));
    }
    let (address, port) = match word.rsplit_once(':') {
        Some((address, port)) if !port.ends_with(']') => (address, port.parse().ok()?),
        _ => (word, 80),
    };
    let ip = address.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    Some((ip.filter(|ip| !ip.is_unspecified()), port))
}

/// The location that `/` belongs to.
fn location<'s>(said: &'s Said, server: &Directive) -> Option<&'s Directive> {
    let fits = |d: &&Directive| match d.words.get(1..).unwrap_or_default() {
        [how, expression] if how.starts_with('~') => is_about_all(expression),
        [how, path] => path == "/" && (how == "=" || how == "^~"),
        [path] => path == "/",
        _ => false,
    };
    // `=` comes before expressions, and those before what is only a beginning, but for `^~`.
    let rank = |d: &&Directive| match d.value() {
        "=" => 0,
        "^~" => 1,
        how if how.starts_with('~') => 2,
        _ => 3,
    };
    said.inside(Some(server)).filter(|d| d.is("location")).filter(fits).min_by_key(rank)
}

/// What the innermost block says that says anything of it.
fn nearest<'s>(said: &'s Said, scope: &Scope<'s>, is: impl Fn(&Directive) -> bool) -> Vec<&'s Directive> {
    let each = scope.iter().map(|head| said.inside(*head).filter(|d| is(d)).collect::<Vec<_>>());
    each.into_iter().find(|found| !found.is_empty()).unwrap_or_default()
}

/// Whose address nginx shows there. Without a net to trust it believes nobody.
pub(super) fn shown(said: &Said, scope: &Scope<'_>) -> Shown {
    let header = nearest(said, scope, |d| d.is("real_ip_header")).first().map(|d| d.value().to_owned());
    let from = nearest(said, scope, |d| d.is("set_real_ip_from"));
    match header {
        _ if from.is_empty() => Shown::connections(),
        // X-Real-IP, which Cloudflare doesn't send.
        None => Shown::connections(),
        Some(header) if TELLING.iter().any(|t| t.eq_ignore_ascii_case(&header)) => {
            let named = from.iter().map(|d| d.value()).filter(|word| !word.starts_with("unix:"));
            // A name may stand for any address.
            named.map(net).collect::<Option<_>>().map_or(Shown::Unknown, Shown::Visitors)
        }
        Some(_) => Shown::Unknown,
    }
}

/// The blocks around a directive, from the inside out, and the whole.
pub(super) fn scope_of<'s>(said: &'s Said, directive: &Directive) -> Scope<'s> {
    said.around_of(directive).map(Some).chain([None]).collect()
}

/// A `geo` block that names all of Cloudflare's ranges, and the names of the sites that ask in an `if` what it says: what
/// they make of it can't be told.
pub(super) fn tells_apart<'s>(said: &'s Said, edge: &Prefixes) -> Option<(&'s Directive, Vec<Vec<String>>)> {
    let names_all = |head: &&Directive| {
        let named: Prefixes = said.inside(Some(head)).filter_map(|d| net(d.words.first()?)).collect();
        !edge.is_empty() && edge.iter().all(|range| named.covers(&range))
    };
    let geo = said.directives.iter().filter(|d| d.is("geo")).find(names_all)?;
    let variable = geo.words.last()?;
    // `map $edge $refused { … }`
    let mapped = said.directives.iter().filter(|d| d.is("map") && d.value().contains(variable.as_str()));
    let variables: Vec<&String> = mapped.filter_map(|d| d.words.last()).chain([variable]).collect();
    let asks = |d: &&Directive| {
        d.is("if") && d.words.iter().any(|word| variables.contains(&&word.trim_matches(['(', ')']).to_owned()))
    };
    let servers = said.directives.iter().filter(asks).filter_map(|d| said.around_of(d).find(|head| head.is("server")));
    Some((geo, servers.map(|server| names(said, server)).collect()))
}

fn names(said: &Said, server: &Directive) -> Vec<String> {
    let named = said.inside(Some(server)).filter(|d| d.is("server_name"));
    named.flat_map(|d| d.words.iter().skip(1).filter(|w| *w != "_").cloned()).collect()
}
