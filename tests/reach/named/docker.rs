//! A container behind a published port, in chains and rules named as Docker names them.

use super::{Host, advice, culprits, follow, verify};
use crate::lab::{EDGE4, EDGE6, Lab, Reach, STRANGER4};

/// What the daemon makes for `-p 443:8443`, and a container that listens there.
fn publish(lab: &Lab) {
    lab.run(["ip", "netns", "add", "container"]);
    let wire = "link add docker0 type bridge
addr add 172.17.0.1/16 dev docker0
link set docker0 up
link add veth0 type veth peer name eth0 netns container
link set veth0 master docker0 up
netns exec container ip link set lo up
netns exec container ip link set eth0 up
netns exec container ip addr add 172.17.0.2/16 dev eth0
netns exec container ip route add default via 172.17.0.1
route add default via 192.0.2.2
";
    for line in wire.lines() {
        lab.run(std::iter::once("ip").chain(line.split(' ')));
    }
    lab.listen_in("/run/netns/container", 8443);
    lab.write_file("/proc/sys/net/ipv4/ip_forward", "1");
    lab.feed(
        ["iptables-restore"],
        "*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 8443 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 443 -j DNAT --to-destination 172.17.0.2:8443
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 8443 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
",
    );
}

#[test]
fn a_published_port_is_followed_into_the_container() {
    let lab = Lab::new();
    publish(&lab);
    // The container is who answers.
    lab.run(["iptables", "-I", "INPUT", "-p", "tcp", "--dport", "443", "-j", "DROP"]);
    assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted);
    assert_eq!(super::verify(&lab, 0, &[])["reach"]["verdict"], "accepted");
}

#[test]
fn the_administrators_rules_for_docker() {
    let host = Host {
        setup: &|lab| {
            publish(lab);
            let drop = "iptables -I DOCKER-USER -i s0 -p tcp -m conntrack --ctorigdstport 443 --ctdir ORIGINAL -j DROP";
            lab.run(drop.split(' '));
        },
        before: &[(EDGE4, 443, Reach::Timeout)],
        says: &[
            "refused by the administrator's own rules for Docker: ip filter DOCKER-USER: -A DOCKER-USER -i s0 -p tcp -m conntrack --ctorigdstport 443 --ctdir ORIGINAL -j DROP → 522; all on 443/tcp",
        ],
    };
    host.is_told_and_mended(7);
    // Through the host's own door it is another matter.
    assert_eq!(host.make().connect(EDGE6, 443), Reach::Accepted);
}

#[test]
fn strangers_stay_out_where_only_an_office_may_come_in() {
    for rule in ["-i s0 ! -s 192.0.2.0/24 -j DROP", "! -s 192.0.2.0/24 -j DROP"] {
        let lab = Lab::new();
        publish(&lab);
        lab.run(format!("iptables -I DOCKER-USER {rule}").split(' '));
        assert_eq!(lab.connect(EDGE4, 443), Reach::Timeout);
        // The answers meet a rule without an interface too.
        let steps = if rule.starts_with('!') { 2 } else { 1 };
        for _ in 0..steps {
            let report = verify(&lab, 7, &[]);
            follow(&lab, &advice(&culprits(&report)[0])[0]);
        }
        assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted, "{:?}", lab.rules());
        assert_eq!(lab.connect(STRANGER4, 443), Reach::Timeout, "{:?}", lab.rules());
        assert_eq!(verify(&lab, 0, &[])["reach"]["verdict"], "accepted");
    }
}

#[test]
fn dockers_own_policy() {
    let (_, report) = Host {
        setup: &|lab| {
            publish(lab);
            lab.run(["iptables", "-F", "DOCKER"]);
        },
        before: &[(EDGE4, 443, Reach::Timeout)],
        says: &["refused by Docker: ip filter FORWARD: policy → 522; all on 443/tcp"],
    }
    .is_told(7);
    assert_eq!(culprits(&report)[0]["mend"], serde_json::json!([]), "there is no single command: {report:#}");
}
