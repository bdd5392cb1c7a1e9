//! What nginx's variables hold for a client's address: `geo`, `map`, and the few that are known by themselves.
//!
//! A value that hangs on anything else isn't known. Sources: the manual of ngx_http_geo_module and ngx_http_map_module;
//! what a real nginx makes of them is tested (tests/doctor/servers.rs).
//!
//! Belongs here: values. Does not: what is asked of them (`script`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Subnets};

use super::super::{
    access::net,
    conditions::{Pattern, Visit},
};
use crate::doctor::directives::{Directive, Said};

/// The variables that hold a client's address, in text.
const ADDRESSES: [&str; 2] = ["remote_addr", "realip_remote_addr"];
/// A map of maps of maps ends here.
const DEEPEST: usize = 8;

/// Who asks, and by which listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub visit: Visit,
    pub tls: bool,
    /// Whether IPv4 addresses are written as IPv6 ones, because one socket takes both.
    pub mapped: bool,
}

/// How much of an address a text is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Holds {
    /// It hangs on an address at most.
    #[default]
    Nothing,
    /// It is one.
    Address,
    /// It has one in it.
    More,
}

/// What a variable holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Value<'s> {
    /// `None` where it can't be told.
    pub text: Option<String>,
    pub holds: Holds,
    /// The blocks and lines that it comes from.
    pub by: Vec<(&'s Directive, &'s Directive)>,
}

impl Value<'_> {
    pub(super) fn plain(text: &str) -> Self {
        Self { text: Some(text.to_owned()), ..Self::default() }
    }

    /// Whether it is this text. Of a stretch of addresses one that has more than an address in it can't be told.
    pub(super) fn is(&self, other: &str, visit: Visit) -> Option<bool> {
        let text = self.text.as_ref().filter(|_| !(visit.stretch && self.holds == Holds::More))?;
        Some(text == other)
    }

    /// Whether an expression is found in it.
    pub(super) fn has(&self, pattern: &Pattern, visit: Visit) -> Option<bool> {
        let text = self.text.as_ref().filter(|_| !(visit.stretch && self.holds != Holds::Nothing))?;
        pattern.is_in(text)
    }
}

/// The names of the variables in a text: `$name`, `${name}`.
pub(super) fn named(text: &str) -> impl Iterator<Item = &str> {
    text.split('$').skip(1).map(|rest| split_name(rest).0)
}

/// A name, and what follows.
fn split_name(rest: &str) -> (&str, &str) {
    if let Some((name, after)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        return (name, after);
    }
    rest.split_at(rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len()))
}

/// A text with what its variables hold in their places.
pub(super) fn expand<'s>(text: &str, look: &dyn Fn(&str) -> Value<'s>) -> Value<'s> {
    let mut parts = text.split('$');
    let begin = parts.next().unwrap_or_default();
    let parts: Vec<(&str, &str)> = parts.map(split_name).collect();
    if let ("", [(name, "")]) = (begin, parts.as_slice()) {
        return look(name);
    }
    let mut whole = Value::plain(begin);
    for (name, after) in parts {
        let value = look(name);
        whole.text = whole.text.zip(value.text).map(|(text, more)| text + &more + after);
        if value.holds != Holds::Nothing {
            whole.holds = Holds::More;
        }
        whole.by.extend(value.by);
    }
    whole
}

/// `geo [$address] $variable { … }`
#[derive(Debug)]
struct Geo<'s> {
    /// Whose address it looks up.
    address: &'s str,
    ranges: bool,
    proxies: Vec<IpNet>,
    entries: HashMap<IpNet, &'s Directive>,
    /// The lengths of the nets in it, the longest first.
    lengths: [Vec<u8>; 2],
}

impl<'s> Geo<'s> {
    /// `None` where a line isn't understood.
    fn of(said: &'s Said, head: &'s Directive) -> Option<Self> {
        let address = if head.words.len() > 2 { named(head.value()).next()? } else { "remote_addr" };
        let is = |d: &Directive, name: &str| d.words.len() == 1 && d.is(name);
        let ranges = said.inside(Some(head)).any(|d| is(d, "ranges"));
        let mut geo = Self { address, ranges, proxies: vec![], entries: HashMap::new(), lengths: [vec![], vec![]] };
        for line in said.inside(Some(head)) {
            match line.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["ranges" | "proxy_recursive" | "volatile"] => {}
                ["proxy", proxy] => geo.proxies.push(net(proxy)?),
                ["delete", gone] => {
                    for net in geo.nets(gone)? {
                        geo.entries.remove(&net);
                    }
                }
                [name, _] => {
                    for net in geo.nets(name)? {
                        geo.entries.insert(net, line);
                    }
                }
                _ => return None,
            }
        }
        for (family, lengths) in geo.lengths.iter_mut().enumerate() {
            let of = geo.entries.keys().filter(|net| usize::from(net.network().is_ipv6()) == family);
            let all: BTreeSet<u8> = of.map(IpNet::prefix_len).collect();
            lengths.extend(all.into_iter().rev());
        }
        Some(geo)
    }

    /// What a line is about: a net, or from one address to another.
    fn nets(&self, word: &str) -> Option<Vec<IpNet>> {
        if word == "default" {
            return ["0.0.0.0/0", "::/0"].into_iter().map(net).collect();
        }
        if !self.ranges {
            return Some(vec![net(word)?.trunc()]);
        }
        let (first, last) = word.split_once('-')?;
        let (first, last): (Ipv4Addr, Ipv4Addr) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then(|| Ipv4Subnets::new(first, last, 0).map(IpNet::from).collect())
    }

    fn of_address(&self, ip: IpAddr) -> Option<&'s Directive> {
        // Ranges know no IPv6, which is looked up as what no address is.
        let ip = if self.ranges && ip.is_ipv6() { IpAddr::V4(Ipv4Addr::BROADCAST) } else { ip };
        let lengths = self.lengths.get(usize::from(ip.is_ipv6()))?;
        lengths.iter().find_map(|length| self.entries.get(&IpNet::new(ip, *length).ok()?.trunc()).copied())
    }
}

/// `map SOURCE $variable { … }`
#[derive(Debug)]
struct Map<'s> {
    source: &'s str,
    /// In small letters: nginx doesn't tell them from capitals.
    texts: HashMap<String, &'s Directive>,
    patterns: Vec<(Pattern, &'s Directive)>,
    default: Option<&'s Directive>,
}

impl<'s> Map<'s> {
    /// `None` where a line isn't understood.
    fn of(said: &'s Said, head: &'s Directive) -> Option<Self> {
        let mut map = Self { source: head.value(), texts: HashMap::new(), patterns: Vec::new(), default: None };
        for line in said.inside(Some(head)) {
            match line.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["volatile"] => {}
                ["default", _] => map.default = Some(line),
                [key, _] => {
                    if let Some(pattern) = key.strip_prefix("~*") {
                        map.patterns.push((Pattern::new(pattern, true), line));
                    } else if let Some(pattern) = key.strip_prefix('~') {
                        map.patterns.push((Pattern::new(pattern, false), line));
                    } else {
                        map.texts.insert(key.strip_prefix('\\').unwrap_or(key).to_ascii_lowercase(), line);
                    }
                }
                // `hostnames` too.
                _ => return None,
            }
        }
        Some(map)
    }
}

/// The variables of a whole configuration.
#[derive(Debug)]
pub(super) struct Tables<'s> {
    geos: BTreeMap<&'s str, (&'s Directive, Option<Geo<'s>>)>,
    maps: BTreeMap<&'s str, (&'s Directive, Option<Map<'s>>)>,
    /// The variables whose values hang on a client's address, as far as may be seen.
    about: BTreeSet<&'s str>,
    /// Those that `set` makes, which may hold one thing now and another then.
    assigned: BTreeSet<&'s str>,
}

impl<'s> Tables<'s> {
    pub(super) fn of(said: &'s Said) -> Self {
        // In `stream` they are others.
        let http = |d: &&Directive| !said.around_of(d).any(|head| head.is("stream") || head.is("mail"));
        let heads = |name: &'static str| {
            let all = said.directives.iter().filter(move |d| d.is(name) && d.opens.is_some()).filter(http);
            all.filter_map(|d| Some((named(d.words.last()?).next()?, d)))
        };
        let mut tables = Self {
            geos: heads("geo").map(|(name, d)| (name, (d, Geo::of(said, d)))).collect(),
            maps: heads("map").map(|(name, d)| (name, (d, Map::of(said, d)))).collect(),
            about: ADDRESSES.into(),
            assigned: BTreeSet::new(),
        };
        let sets: Vec<&Directive> = said.directives.iter().filter(|d| d.is("set")).collect();
        tables.assigned = sets.iter().filter_map(|d| named(d.value()).next()).collect();
        loop {
            let before = tables.about.len();
            let geos = tables
                .geos
                .iter()
                .filter(|(_, (_, geo))| geo.as_ref().is_some_and(|g| tables.about.contains(g.address)));
            let maps = tables.maps.iter().filter(|(_, (head, _))| tables.is_about(head.value()));
            let set = |d: &&&Directive| {
                let conditions = said.around_of(d).filter(|head| head.is("if"));
                d.words.get(2).is_some_and(|value| tables.is_about(value))
                    || conditions.flat_map(|head| &head.words).any(|word| tables.is_about(word))
            };
            let sets = sets.iter().filter(set).filter_map(|d| named(d.value()).next());
            let found: Vec<&str> = geos.map(|(n, _)| *n).chain(maps.map(|(n, _)| *n)).chain(sets).collect();
            tables.about.extend(found);
            if tables.about.len() == before {
                return tables;
            }
        }
    }

    /// Whether a text names a variable that hangs on a client's address.
    pub(super) fn is_about(&self, text: &str) -> bool {
        named(text).any(|name| self.about.contains(name))
    }

    /// Every net that they name, or that an expression in them does.
    pub(super) fn nets(&self) -> Vec<IpNet> {
        let geos = self.geos.values().filter_map(|(_, geo)| geo.as_ref());
        let geos = geos.flat_map(|geo| geo.entries.keys().copied().chain(geo.proxies.iter().copied()));
        let maps = self.maps.iter().filter(|(name, _)| self.about.contains(*name));
        let maps = maps.filter_map(|(_, (_, map))| map.as_ref()).flat_map(|map| {
            map.texts.keys().filter_map(|key| net(key)).chain(map.patterns.iter().flat_map(|(p, _)| p.named()))
        });
        geos.chain(maps).filter(|net| net.prefix_len() > 0).collect()
    }

    /// Whether an expression is held against an address.
    pub(super) fn tries(&self) -> bool {
        let mut maps = self.maps.iter().filter(|(name, _)| self.about.contains(*name));
        maps.any(|(_, (_, map))| map.as_ref().is_some_and(|map| !map.patterns.is_empty()))
    }

    /// What a variable holds that isn't set.
    pub(super) fn value(&self, name: &str, ask: Ask) -> Value<'s> {
        self.value_at(name, ask, 0)
    }

    fn value_at(&self, name: &str, ask: Ask, depth: usize) -> Value<'s> {
        let address = |ip: Option<IpAddr>| {
            let text = ip.filter(|ip| !(ask.mapped && ip.is_ipv4())).map(|ip| ip.to_string());
            Value { text, holds: Holds::Address, by: Vec::new() }
        };
        if depth > DEEPEST {
            return Value::default();
        }
        if let Some((head, geo)) = self.geos.get(name) {
            return geo.as_ref().map_or_else(Value::default, |geo| self.of_geo(head, geo, ask, depth));
        }
        if let Some((head, map)) = self.maps.get(name) {
            return map.as_ref().map_or_else(Value::default, |map| self.of_map(head, map, ask, depth));
        }
        match name {
            "remote_addr" => address(ask.visit.shown),
            "realip_remote_addr" => address(ask.visit.peer),
            "request_method" => Value::plain("GET"),
            "request_uri" => Value::plain("/"),
            "scheme" => Value::plain(if ask.tls { "https" } else { "http" }),
            "https" => Value::plain(if ask.tls { "on" } else { "" }),
            _ => Value::default(),
        }
    }

    /// What a source of a map or geo holds: what is set may be one thing now and another then.
    fn source(&self, name: &str, ask: Ask, depth: usize) -> Value<'s> {
        if self.assigned.contains(name) { Value::default() } else { self.value_at(name, ask, depth + 1) }
    }

    fn of_geo(&self, head: &'s Directive, geo: &Geo<'s>, ask: Ask, depth: usize) -> Value<'s> {
        let ip = match geo.address {
            "remote_addr" => ask.visit.shown,
            "realip_remote_addr" => ask.visit.peer,
            name => self.source(name, ask, depth).text.and_then(|text| text.parse().ok()),
        };
        // From such a one `X-Forwarded-For` is believed.
        let Some(ip) = ip.filter(|ip| !geo.proxies.iter().any(|proxy| proxy.contains(ip))) else {
            return Value::default();
        };
        let entry = geo.of_address(ip);
        let text = entry.and_then(|entry| entry.words.get(1)).cloned().unwrap_or_default();
        Value { text: Some(text), holds: Holds::Nothing, by: vec![(head, entry.unwrap_or(head))] }
    }

    fn of_map(&self, head: &'s Directive, map: &Map<'s>, ask: Ask, depth: usize) -> Value<'s> {
        let look = |name: &str| self.source(name, ask, depth);
        let source = expand(map.source, &look);
        let Some(text) = source.text.as_ref().filter(|_| !(ask.visit.stretch && source.holds == Holds::More)) else {
            return Value::default();
        };
        let mut entry = map.texts.get(&text.to_ascii_lowercase()).copied();
        for (pattern, line) in if entry.is_some() { &[][..] } else { &map.patterns } {
            match source.has(pattern, ask.visit) {
                Some(true) => {
                    entry = Some(line);
                    break;
                }
                Some(false) => {}
                None => return Value::default(),
            }
        }
        let entry = entry.or(map.default);
        // `$1` is a part of what an expression has found.
        let mut value = expand(entry.and_then(|entry| entry.words.get(1)).map_or("", String::as_str), &look);
        value.by.splice(0..0, source.by.into_iter().chain([(head, entry.unwrap_or(head))]));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::directives::tests::said_by_nginx;

    const EDGE: &str = "173.245.48.29";

    /// What `$v` holds for a client, by `from` and `shown`.
    fn held(config: &str, peer: &str, shown: &str) -> Option<String> {
        let said = said_by_nginx(&format!("http {{ {config} }}"));
        let visit = Visit { shown: shown.parse().ok(), peer: peer.parse().ok(), stretch: false };
        Tables::of(&said).value("v", Ask { visit, tls: false, mapped: false }).text
    }

    #[test]
    fn geo_finds_the_narrowest_net() {
        for (config, edge, over6, other) in [
            ("geo $v { default 0; 173.245.48.0/20 1; }", "1", "0", "0"),
            ("geo $v { 173.245.48.0/20 1; }", "1", "", ""),
            ("geo $v { default 0; 173.245.48.0/20 1; 173.245.48.29 2; 2400:cb00::/32 3; }", "2", "3", "0"),
            ("geo $v { default 0; 173.245.48.29/20 1; delete 173.245.48.0/20; }", "0", "0", "0"),
            (
                "geo $v { ranges; default 0; 173.245.0.0-173.245.63.255 1; 173.245.48.29-173.245.48.30 2; }",
                "2",
                "0",
                "0",
            ),
            ("geo $v { ranges; default a; 203.0.112.255-203.0.113.9 1; }", "a", "a", "1"),
            ("geo $remote_addr $v { default 0; 173.0.0.0/8 1; }", "1", "0", "0"),
            ("geo $realip_remote_addr $v { default 0; 173.0.0.0/8 1; }", "1", "0", "0"),
            ("stream { geo $v { default 1; } } geo $v { default 0; }", "0", "0", "0"),
        ] {
            let all = [EDGE, "2400:cb00::9", "203.0.113.9"].map(|ip| held(config, ip, ip));
            assert_eq!(all.each_ref().map(Option::as_deref), [Some(edge), Some(over6), Some(other)], "{config}");
        }
        for config in [
            "geo $http_x $v { default 0; 173.0.0.0/8 1; }",
            "geo $v { default 0; proxy 173.245.48.0/20; 173.0.0.0/8 1; }",
            "geo $v { default 0; cloudflare.example 1; }",
            "geo $v { ranges; default 0; 173.245.48.0/20 1; }",
        ] {
            assert_eq!(held(config, EDGE, EDGE), None, "{config}");
        }
        let peers = "geo $realip_remote_addr $v { default 0; 173.0.0.0/8 1; }";
        assert_eq!(held(peers, EDGE, "203.0.113.9").as_deref(), Some("1"));
        assert_eq!(held(peers, "", "203.0.113.9"), None);
        let shown = "geo $v { default 0; 173.0.0.0/8 1; }";
        assert_eq!(held(shown, EDGE, "203.0.113.9").as_deref(), Some("0"));
        assert_eq!(held(shown, EDGE, ""), None, "whoever the visitor is");
    }

    #[test]
    fn map_takes_texts_before_expressions() {
        for (config, value) in [
            (r"map $remote_addr $v { default 0; ~^173\.245\. 1; }", Some("1")),
            (r"map $remote_addr $v { default 0; ~^173\. 1; 173.245.48.29 2; }", Some("2")),
            (r"map $remote_addr $v { default 0; ~^10\. 1; ~*^173 3; }", Some("3")),
            (r"map $remote_addr $v { ~^10\. 1; }", Some("")),
            (r"map $remote_addr $v { ~^(?=173) 1; }", None),
            (r"map $remote_addr $v { ~^(\d+) $1; }", None),
            ("geo $g { default 0; 173.0.0.0/8 1; } map $g $v { default out; 0 in; }", Some("out")),
            ("geo $g { default 0; 173.0.0.0/8 1; } map $g$scheme $v { 1http plain; 1https tls; }", Some("plain")),
            ("geo $g { default 0; 173.0.0.0/8 1; } map $http_x $v { default $g; }", None),
            ("map $remote_addr $v { default $scheme; }", Some("http")),
            ("map $http_user_agent $v { default 0; ~bot 1; }", None),
            ("map $host $v { hostnames; default 0; }", None),
            ("map $v $v { default 0; }", None),
            ("map $x $v { default 0; } server { set $x 1; }", None),
        ] {
            assert_eq!(held(config, EDGE, EDGE).as_deref(), value, "{config}");
        }
    }

    #[test]
    fn a_stretch_of_addresses_has_no_text() {
        let of = |config: &str, stretch| {
            let said = said_by_nginx(&format!("http {{ {config} }}"));
            let visit = Visit { shown: EDGE.parse().ok(), peer: None, stretch };
            Tables::of(&said).value("v", Ask { visit, tls: false, mapped: false }).text
        };
        let pattern = r"map $remote_addr $v { default 0; ~^173\.245\. 1; 9.9.9.9 2; }";
        assert_eq!((of(pattern, false).as_deref(), of(pattern, true)), (Some("1"), None));
        let more = "map $remote_addr$scheme $v { default 0; 173.245.48.29http 1; }";
        assert_eq!((of(more, false).as_deref(), of(more, true)), (Some("1"), None));
        let net = "geo $v { default 0; 173.0.0.0/8 1; }";
        assert_eq!((of(net, false).as_deref(), of(net, true).as_deref()), (Some("1"), Some("1")));
    }

    #[test]
    fn what_hangs_on_an_address_is_known_by_its_name() {
        let said = said_by_nginx(
            "http { geo $g { default 0; } geo $arg_x $other { default 0; } map $g$host $m { default 0; } map $host $h { \
             default 0; } server { set $s 0; if ($m) { set $s 1; } set $t ${s}x; set $u 1; } }",
        );
        let tables = Tables::of(&said);
        for (text, is) in [
            ("$remote_addr", true),
            ("$g", true),
            ("($m", true),
            ("x${s}", true),
            ("$t", true),
            ("$other", false),
            ("$h", false),
            ("$u", false),
            ("g", false),
        ] {
            assert_eq!(tables.is_about(text), is, "{text}");
        }
    }
}
