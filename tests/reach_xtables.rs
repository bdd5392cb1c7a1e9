//! What the real iptables, both variants, and the real ipset print, read into the model.
//!
//! The test starts itself again in a network namespace of its own, loads rules of every kind that the model knows and of those
//! that it doesn't, and reads back what the programs save: no puzzle where there is nothing to puzzle over, one
//! wherever there is, and the same meaning from both variants.

#![allow(clippy::unwrap_used, reason = "a failing step of a test shall end it")]
#![allow(clippy::disallowed_methods, reason = "the lab starts programs; the rule is about the tool itself")]

#[path = "support/again.rs"]
mod again;

use again::{is_inside, sh};
use edgeallow::{
    allowlist::Family,
    reach::{
        model::{Among, Language, Operand, Part, Set, Verdict},
        xtables::{Ipsets, Saved, ipsets, tables},
    },
};

const SETS: &str = "\
create nets hash:net counters comment timeout 0
add nets 10.0.0.0/8 comment \"nomatch or not\"
add nets 10.1.0.0/16 nomatch
create ips hash:ip skbinfo
add ips 1.1.1.0/30 skbmark 0x1/0xff
create ipp hash:ip,port timeout 100
add ipp 1.2.3.4,tcp:80-90
add ipp 1.2.3.4,icmp:8/0
add ipp 1.2.3.4,47:0
create np hash:net,port
add np 10.0.0.0/8,udp:53
create nif hash:net,iface
add nif 10.0.0.0/8,eth0
create ipi hash:ip,port,ip
add ipi 1.2.3.4,tcp:80,5.6.7.8
create ipn hash:ip,port,net
add ipn 1.2.3.4,tcp:80,5.6.7.0/24
create bits bitmap:ip range 10.0.0.0/16 netmask 24
add bits 10.0.3.0/24
create ports bitmap:port range 0-1024
add ports 80-443
create six hash:net family inet6
add six 2001:db8::/32
create odd name hash:ip
create list list:set
add list nets
add list ips
add list six
";

/// Rules of chain `clear`, each known in every word.
const CLEAR: &str = "\
-s 10.0.0.1 -d 10.0.0.2 -i eth+ ! -o lo
! -s 10.0.0.0/255.0.255.0 -f
! -p gre
-p tcp ! --sport :1023 --dport 80 --syn
-p tcp ! --tcp-flags ALL NONE
-p udp -m multiport ! --ports 53,67:68
-m state --state NEW,ESTABLISHED
-m conntrack ! --ctstate INVALID
-m conntrack --ctstate NEW,SNAT,DNAT
-m conntrack ! --ctproto tcp --ctorigsrc 1.2.3.0/24 ! --ctorigdstport 443 --ctstatus ASSURED,CONFIRMED --ctdir ORIGINAL
-m mark ! --mark 0x1/0xff -m connmark --mark 7
-m addrtype ! --src-type LOCAL --dst-type BROADCAST,MULTICAST
-m pkttype ! --pkt-type unicast -m length --length 60:
-m iprange ! --src-range 1.2.3.4-1.2.3.9 --dst-range 5.0.0.0-6.0.0.0
-m ttl --ttl-lt 5 -m ttl ! --ttl-eq 3
-m limit --limit 3/min --limit-burst 10
-m hashlimit --hashlimit-above 10/min --hashlimit-mode srcip --hashlimit-name bar --hashlimit-srcmask 24
-p tcp -m connlimit --connlimit-above 20 --connlimit-mask 24
-m recent --name web --set
-m recent --name web --update --seconds 60 --hitcount 10
-m comment --comment \"it's \\\"-j DROP\\\"\"
-m set --match-set nets src -m set ! --match-set ips dst ! --update-counters
-m set --match-set ipp src,dst -m set --match-set np src,src
-m set --match-set nif src,src -m set --match-set ipi src,dst,dst
-m set --match-set ipn src,dst,dst -m set --match-set bits src -m set ! --match-set ports dst
-m set --match-set list src
-j LOG --log-prefix \"[-j ACCEPT] \" --log-uid
-p tcp -j REJECT --reject-with tcp-reset
-j SET --add-set ips src --exist
-g other
-j other
-j RETURN
";

/// Rules of chain `unclear`, each with something that can't be told.
const UNCLEAR: &str = "\
-m quota --quota 1000
-m statistic --mode nth --every 3 --packet 1
-m recent --rcheck --seconds 60 --name web
-m mac --mac-source 00:11:22:33:44:55
-m time --timestart 10:00 --timestop 12:00
-p tcp -m string --string \"-j ACCEPT\" --algo bm
-m u32 --u32 0&0xf=5
-m socket
-m policy --dir in --pol none
-m conntrack --ctexpire 1:100
-m addrtype --dst-type LOCAL --limit-iface-in
-m set --match-set nets src --return-nomatch
-m set --match-set ips src --packets-lt 5
-p tcp --tcp-option 5
-p icmp --icmp-type echo-request
-j NFQUEUE --queue-num 3 --queue-bypass
-p tcp -j SYNPROXY --sack-perm
";

fn load(variant: &str) {
    let mut text = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp --dport 9 -j CT --notrack\nCOMMIT\n*mangle\n\
        :PREROUTING ACCEPT [0:0]\n-A PREROUTING -j MARK --set-mark 0x10/0xf0\n-A PREROUTING -j CONNMARK --save-mark\nCOMMIT\n\
        *nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
        -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 172.17.0.2:8080\n\
        -A PREROUTING -p tcp --dport 81 -j REDIRECT --to-ports 8888\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n\
        *filter\n:INPUT DROP [0:0]\n:clear - [0:0]\n:unclear - [0:0]\n:other - [0:0]\n"
        .to_owned();
    for (chain, rules) in [("clear", CLEAR), ("unclear", UNCLEAR)] {
        text.extend(rules.lines().map(|rule| format!("-A {chain} {rule}\n")));
    }
    sh(&format!("iptables-{variant}-restore <<'X'\n{text}COMMIT\nX"));
}

fn read(variant: &str, language: Language, sets: &Ipsets) -> Saved {
    let plain = sh(&format!("iptables-{variant}-save"));
    let mut saved = tables(plain.as_bytes(), Family::V4, language).unwrap();
    let counted = tables(sh(&format!("iptables-{variant}-save -c")).as_bytes(), Family::V4, language).unwrap();
    assert_eq!(saved, counted, "counters change nothing");
    assert_eq!(saved.ipsets_named().len(), 10, "{:?}", saved.ipsets_named());
    saved.bind(sets);
    saved
}

fn is_unclear(part: &Part) -> bool {
    match part {
        Part::Puzzle(_) | Part::Verdict(Verdict::Elsewhere(_)) => true,
        Part::Dnat { address, port, .. } => matches!(address, Operand::Puzzle(_)) || matches!(port, Operand::Puzzle(_)),
        _ => false,
    }
}

#[test]
fn both_variants_of_the_real_programs_are_read_alike() {
    if !is_inside("both_variants_of_the_real_programs_are_read_alike") {
        return;
    }
    let odd = SETS.replace("create odd name hash:ip\n", "");
    sh(&format!("ipset restore <<'X'\n{odd}X\nipset create 'odd name' hash:ip"));
    let sets = ipsets(sh("ipset save").as_bytes()).unwrap();
    for (name, set) in &sets.sets {
        assert!(!matches!(set, Set::Puzzle(_)), "{name}: {set:?}");
    }
    assert!(sets.sets.contains_key("odd name") && sets.sets.contains_key("list (inet6)"));

    load("nft");
    load("legacy");
    let nft = read("nft", Language::IptablesNft, &sets);
    let legacy = read("legacy", Language::IptablesLegacy, &sets);
    for saved in [&nft, &legacy] {
        assert!(saved.unreadable.is_empty());
        for table in &saved.tables {
            for (name, chain) in &table.chains {
                for rule in &chain.rules {
                    let unclear = rule.parts.iter().any(is_unclear);
                    assert_eq!(unclear, name == "unclear", "{:?}: {:?}", rule.text, rule.parts);
                    for part in &rule.parts {
                        if let Part::Test(test) = part
                            && let Among::Ipset(set) = &test.among
                        {
                            assert!(sets.sets.contains_key(set), "{set}");
                        }
                    }
                }
            }
        }
        let filter = saved.tables.iter().find(|t| t.name == "filter").unwrap();
        assert_eq!(filter.chains["clear"].rules.len(), CLEAR.lines().count());
        assert_eq!(filter.chains["unclear"].rules.len(), UNCLEAR.lines().count());
        assert!(filter.chains["INPUT"].base.as_ref().unwrap().drops);
    }
    for table in &nft.tables {
        let other = legacy.tables.iter().find(|t| t.name == table.name).unwrap();
        for (name, chain) in &table.chains {
            let rules = chain.rules.iter().zip(&other.chains[name].rules);
            for (a, b) in rules.filter(|(a, _)| !a.text.as_deref().unwrap_or_default().contains("--sport")) {
                // `! --sport 0:1023` is `--sport 1024:65535` to the nft variant; all else is word for word the same.
                assert_eq!((&a.parts, &a.comment), (&b.parts, &b.comment));
            }
        }
    }

    // What nft puts into such a table is printed in part, wrongly, or not at all; what is told is told on.
    sh("iptables-nft -F; iptables-nft -X; iptables-nft -P INPUT ACCEPT; nft delete table ip filter
        nft 'table ip filter { chain INPUT { type filter hook input priority 10; policy drop; }; }'");
    let hooks = tables(sh("iptables-nft-save").as_bytes(), Family::V4, Language::IptablesNft).unwrap();
    assert_eq!(hooks.unreadable, ["filter"]);
    sh("nft add rule ip filter INPUT ct state new drop; nft delete table ip filter
        nft 'table ip filter { chain INPUT { type filter hook input priority 0; policy drop; ct state new drop; }; }'");
    let rule = tables(sh("iptables-nft-save").as_bytes(), Family::V4, Language::IptablesNft).unwrap();
    assert_eq!(rule.unreadable, ["filter"]);
    sh("nft flush chain ip filter INPUT; nft add rule ip filter INPUT meta skuid 0 drop");
    let cut = tables(sh("iptables-nft-save || true").as_bytes(), Family::V4, Language::IptablesNft);
    assert!(cut.unwrap_err().to_string().contains("ends within table filter"));
}
