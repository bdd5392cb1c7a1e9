use super::*;
use crate::host::Address;

const OWN: &str = "198.51.100.7";
const RANGES: [&str; 3] = ["173.245.48.0/20", "104.16.0.0/13", "2400:cb00::/32"];

fn edge() -> Vec<IpNet> {
    RANGES.iter().map(|range| range.parse().unwrap()).collect()
}

fn link(name: &str, addresses: &[&str]) -> Link {
    let address = |text: &&str| {
        let net: IpNet = text.parse().unwrap();
        Address { ip: net.addr(), prefix: net.prefix_len(), global: true }
    };
    let tunnel = name.starts_with("tun");
    Link { name: name.to_owned(), addresses: addresses.iter().map(address).collect(), tunnel, ..Link::default() }
}

fn route(to: &str, gateway: Option<&str>, interface: &str) -> Route {
    Route { to: to.parse().unwrap(), gateway: gateway.map(|g| g.parse().unwrap()), interface: interface.to_owned() }
}

/// A host whose kernel answers so: from an address to a range, by an interface or nowhere.
fn judged(lists: &Lists, way: &dyn Fn(IpAddr, IpNet) -> Option<&'static str>) -> Vec<Finding> {
    judged_as(lists, way, None)
}

fn judged_as(lists: &Lists, way: &dyn Fn(IpAddr, IpNet) -> Option<&'static str>, chosen: Option<&str>) -> Vec<Finding> {
    let chosen = chosen.map(|ip| ip.parse().unwrap());
    let mut asked = Vec::new();
    for (link, address) in lists.links.iter().flat_map(|l| l.addresses.iter().map(move |a| (l, a))) {
        for (range, to) in targets(&edge(), lists, address.ip.is_ipv4()) {
            asked.push(Asked {
                from: address.ip,
                at: link.name.clone(),
                alone: [32, 128].contains(&address.prefix),
                range,
                to,
                way: way(address.ip, range).map(|i| Way { interface: i.to_owned(), source: None }),
                chosen,
            });
        }
    }
    [false, true].into_iter().flat_map(|v6| judge(&asked, v6, lists)).collect()
}

fn one(found: &[Finding]) -> (&'static str, Finds, String) {
    assert_eq!(found.len(), 1, "{found:#?}");
    (found[0].id, found[0].verdict, found[0].fix.as_ref().and_then(|f| f.command.clone()).unwrap_or_default())
}

fn on_eth0(more: Link) -> Lists {
    Lists { links: vec![link("eth0", &["198.51.100.7/24"]), more], ..Lists::default() }
}

fn is(range: IpNet, text: &str) -> bool {
    range == text.parse().unwrap()
}

#[test]
fn hosts_with_several_uplinks_are_well() {
    let eth0 = |_: IpAddr, _: IpNet| Some("eth0");
    // Containers, a second uplink's address without a way of its own, an address of a service on `lo`.
    for more in
        [link("docker0", &["172.17.0.1/16"]), link("eth1", &["203.0.113.7/24"]), link("lo", &["203.0.113.7/32"])]
    {
        assert_eq!(judged(&on_eth0(more), &eth0), []);
    }
    // A VPN has the default route, and a rule for the address its own table.
    let by_source = |from: IpAddr, _: IpNet| Some(if from.to_string() == OWN { "eth0" } else { "tun0" });
    assert_eq!(judged(&on_eth0(link("tun0", &["10.8.0.2/24"])), &by_source), []);
    // All that is public is behind the tunnel: its own address, or the one that the host chooses itself.
    let tunnel = |_: IpAddr, _: IpNet| Some("tun0");
    assert_eq!(judged(&on_eth0(link("tun0", &["203.0.113.7/24"])), &tunnel), []);
    assert_eq!(judged_as(&on_eth0(link("tun0", &["10.8.0.2/24"])), &tunnel, Some(OWN)), []);
    // IPv6 inside the house only, and IPv4 of which no route leads out.
    assert_eq!(judged(&on_eth0(link("br0", &["fd00::1/64"])), &|from, _| from.is_ipv4().then_some("eth0")), []);
    let only_v6 = Lists { links: vec![link("eth0", &["10.0.0.2/24", "2001:db8::1/64"])], ..Lists::default() };
    assert_eq!(judged(&only_v6, &|from, _| from.is_ipv6().then_some("eth0")), []);
}

#[test]
fn without_any_route_nobody_is_answered() {
    let nowhere = |_: IpAddr, _: IpNet| None;
    let (id, verdict, command) = one(&judged(&on_eth0(link("docker0", &["172.17.0.1/16"])), &nowhere));
    assert_eq!((id, verdict, command.as_str()), ("firewall.route", Finds::Cause, "ip route show table all"));
    let private = Lists { links: vec![link("eth0", &["10.0.0.2/24"])], ..Lists::default() };
    assert_eq!(one(&judged(&private, &nowhere)).1, Finds::Warning, "a load balancer may come from nearby");
    let both = Lists { links: vec![link("eth0", &["198.51.100.7/24", "2001:db8::1/64"])], ..Lists::default() };
    assert_eq!(one(&judged(&both, &|from, _| from.is_ipv4().then_some("eth0"))).1, Finds::Warning);
    assert_eq!(one(&judged(&both, &|from, _| from.is_ipv6().then_some("eth0"))).1, Finds::Cause);
}

#[test]
fn a_route_or_rule_that_refuses_is_taken_away_by_its_own_words() {
    let dead_ends = vec![("104.16.0.0/12".parse().unwrap(), "the route `blackhole 104.16.0.0/12`".to_owned())];
    let words = "pref 9 to 173.245.48.0/20 prohibit".to_owned();
    let everybody = "0.0.0.0/0".parse().unwrap();
    let rules = vec![RefusingRule { from: everybody, to: "173.245.48.0/20".parse().unwrap(), words }];
    let lists = Lists { dead_ends, rules, ..on_eth0(link("lo", &[])) };
    let found = judged(&lists, &|_, range| (!is(range, "104.16.0.0/13")).then_some("eth0"));
    assert_eq!(one(&found), ("firewall.route", Finds::Cause, "ip route delete blackhole 104.16.0.0/12".to_owned()));
    let found = judged(&lists, &|_, range| (!is(range, "173.245.48.0/20")).then_some("eth0"));
    assert_eq!(one(&found).2, "ip rule delete pref 9 to 173.245.48.0/20 prohibit");
    assert!(found[0].text.starts_with("the routing rule `pref 9"), "{}", found[0].text);
    // What doesn't count for the address, as the kernel says, is nobody's affair.
    assert_eq!(judged(&lists, &|_, _| Some("eth0")), []);
}

#[test]
fn a_route_of_ones_own_for_a_part_of_cloudflare_swallows_it() {
    let usual = [route("0.0.0.0/0", Some("198.51.100.1"), "eth0"), route("198.51.100.0/24", None, "eth0")];
    for to in ["104.16.0.0/12", "104.16.0.0/16"] {
        let routes = [&usual[..], &[route(to, Some("10.8.0.1"), "tun0")]].concat();
        let with = |more: Link| Lists { routes: routes.clone(), ..on_eth0(more) };
        let part = |_: IpAddr, range: IpNet| Some(if is(range, "104.16.0.0/13") { "tun0" } else { "eth0" });
        let (id, verdict, command) = one(&judged(&with(link("tun0", &["10.8.0.2/24"])), &part));
        assert_eq!((id, verdict), ("firewall.route", Finds::Cause));
        assert_eq!(command, format!("ip route delete {to} via 10.8.0.1 dev tun0"));
        // Another uplink's router may well take it.
        let (id, verdict, _) = one(&judged(&with(link("tun0", &["203.0.113.7/24"])), &part));
        assert_eq!((id, verdict), ("firewall.route-elsewhere", Finds::Skipped));
    }
    // By a rule and another table.
    let part = |_: IpAddr, range: IpNet| Some(if is(range, "104.16.0.0/13") { "tun0" } else { "eth0" });
    let lists = Lists { routes: usual.to_vec(), ..on_eth0(link("tun0", &["10.8.0.2/24"])) };
    assert_eq!(one(&judged(&lists, &part)).2, "ip rule && ip route show table all");
}

#[test]
fn a_tunnel_that_takes_every_answer_is_a_warning_and_another_interface_is_not() {
    let tunnel = |_: IpAddr, _: IpNet| Some("tun0");
    let found = judged(&on_eth0(link("tun0", &["10.8.0.2/24"])), &tunnel);
    assert_eq!((one(&found).0, one(&found).1), ("firewall.route-tunnel", Finds::Warning));
    let wire = |_: IpAddr, _: IpNet| Some("eth1");
    let found = judged(&on_eth0(link("eth1", &["10.8.0.2/24"])), &wire);
    assert_eq!((one(&found).0, one(&found).1), ("firewall.route-elsewhere", Finds::Skipped));
    // Behind somebody else's address translation visitors may come in by either.
    let links = vec![link("eth0", &["10.0.0.2/24"]), link("tun0", &["10.8.0.2/24"])];
    let found = judged(&Lists { links, ..Lists::default() }, &tunnel);
    assert_eq!((one(&found).0, one(&found).1), ("firewall.route-elsewhere", Finds::Skipped));
}
