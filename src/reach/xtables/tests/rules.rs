//! Rules.

use super::*;
use crate::{
    nft::TableFamily,
    reach::model::{ChainKind, Hook, Verdict},
};

const SYN: &str = "-m tcp --tcp-flags FIN,SYN,RST,ACK SYN";

#[test]
fn matches_are_facts() {
    let table: &[(&str, &str)] = &[
        ("-s 10.0.0.0/8 -j ACCEPT", "Saddr4=10.0.0.0-10.255.255.255; Accept"),
        ("-s 10.0.0.1/32 ! -d 10.0.0.2/32", "Saddr4=10.0.0.1; !Daddr4=10.0.0.2"),
        ("! -s 10.0.0.0/255.0.255.0 -j DROP", "!Saddr4&0xff00ff00=10.0.0.0; Drop"),
        ("-s 10.1.2.3/255.255.0.0", "Saddr4=10.1.0.0-10.1.255.255"),
        ("-s 0.0.0.0/0", "Saddr4=0.0.0.0-255.255.255.255"),
        ("-i lo ! -o eth+ -j RETURN", "Iif={lo}; !Oif={eth*}; Return"),
        ("! -i +", "!Iif={*}"),
        ("-p tcp", "L4Proto=6"),
        ("! -p gre", "!L4Proto=47"),
        ("-p 99", "L4Proto=99"),
        ("-p all -f", "Fragment=1"),
        ("! -f", "!Fragment=1"),
        ("-p tcp -m tcp --sport 1024:65535 --dport 80", "L4Proto=6; Sport=1024-65535; Dport=80"),
        ("-p tcp -m tcp ! --sport 0:1023 ! --dport 80", "L4Proto=6; !Sport=0-1023; !Dport=80"),
        (&format!("-p tcp {SYN}"), "L4Proto=6; TcpFlags&0x17=2"),
        ("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE", "L4Proto=6; !TcpFlags&0x3f=0"),
        ("-p udp -m udp --sport 53 ! --dport 1:65535", "L4Proto=17; Sport=53; !Dport=1-65535"),
        ("-p tcp -m multiport ! --dports 80,443,1000:2000", "L4Proto=6; !Dport=80,443,1000-2000"),
        ("-m multiport --ports 80,443:444", "Sport+Dport={80,443-444+any | any+80,443-444}"),
        ("-m state --state RELATED,ESTABLISHED", "CtState=2,4"),
        ("-m conntrack ! --ctstate INVALID", "!CtState=1"),
        ("-m conntrack --ctstate NEW,DNAT", "CtState+CtStatus&0x20={8+any | any+1-32}"),
        ("-m conntrack --ctstate SNAT,DNAT", "CtStatus&0x30=1-48"),
        (
            "-m conntrack --ctstate NEW ! --ctproto 6 ! --ctorigsrc 1.2.3.0/24 --ctorigdst 1.2.3.4 --ctorigsrcport 1:9 \
             --ctorigdstport 443 --ctstatus EXPECTED,CONFIRMED --ctdir ORIGINAL",
            "CtState=8; !CtProto=6; !CtOriginalSaddr=16909056-16909311; CtOriginalDaddr=16909060; CtOriginalSport=1-9; \
             CtOriginalDport=443; CtStatus&0x9=1-9; CtDirection=0",
        ),
        ("-m conntrack --ctstatus NONE", "CtStatus&0x0="),
        ("-m mark ! --mark 0x1/0xff", "!Mark&0xff=1"),
        ("-m connmark --mark 0x1", "CtMark=1"),
        ("-m addrtype ! --src-type LOCAL --dst-type BROADCAST,MULTICAST", "!SaddrType=2; DaddrType=3,5"),
        ("-m pkttype ! --pkt-type unicast", "!PktType=0"),
        (
            "-m iprange ! --src-range 1.2.3.4-1.2.3.9 --dst-range 5.0.0.0-6.0.0.0",
            "!Saddr4=1.2.3.4-1.2.3.9; Daddr4=5.0.0.0-6.0.0.0",
        ),
        ("-m length ! --length 60:100", "!Length=60-100"),
        ("-m ttl --ttl-lt 5 -m ttl --ttl-gt 2 -m ttl ! --ttl-eq 3", "Ttl=0-4; Ttl=3-255; !Ttl=3"),
        ("-m ttl --ttl-lt 0", "Ttl="),
        ("-m rt --rt-type 0", "L4Proto="),
        ("-m ttl --ttl-gt 255", "Ttl="),
        ("-p icmp -m icmp --icmp-type any", "L4Proto=1"),
        ("-m comment --comment -j -j DROP", "Drop"),
        ("-m recent --set --name web --mask 255.255.255.255 --rsource", ""),
        ("-m recent ! --set --name web --mask 255.255.255.255 --rsource", "NfProto="),
        ("-c 5 300 -j DROP", "Drop"),
    ];
    for (line, means) in table {
        assert_eq!(parts(line, Family::V4), *means, "{line}");
    }
    let table: &[(&str, &str)] = &[
        ("-p ipv6-icmp -m hl --hl-gt 5", "L4Proto=58; Ttl=6-255"),
        ("-s 2001:db8::/32", "Saddr6=2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("! -d ffff::1/ffff::ffff", "!Daddr6&0xffff000000000000000000000000ffff=ffff::1"),
        ("-s ::/0", "Saddr6=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("-j REJECT", "Reject(\"icmp6-port-unreachable\")"),
    ];
    for (line, means) in table {
        assert_eq!(parts(line, Family::V6), *means, "{line}");
    }
}

#[test]
fn rates_say_their_rate() {
    for (line, rate) in [
        ("-m limit --limit 3/min --limit-burst 10 -j LOG", "--limit 3/min --limit-burst 10"),
        (
            "-m connlimit --connlimit-above 20 --connlimit-mask 24 --connlimit-saddr",
            "--connlimit-above 20 --connlimit-mask 24 --connlimit-saddr",
        ),
        (
            "-m hashlimit --hashlimit-above 10/min --hashlimit-burst 5 --hashlimit-name \"a b\"",
            "--hashlimit-above 10/min --hashlimit-burst 5 --hashlimit-name \"a b\"",
        ),
        ("-m recent --update --seconds 60 --hitcount 10 --name web", "--update --seconds 60 --hitcount 10 --name web"),
    ] {
        assert_eq!(
            rules_of("filter", &[line], Family::V4).tables[0].chains["c"].rules[0].parts,
            [Part::Rate(rate.to_owned())]
        );
    }
    let drop = parts("-m limit --limit 1/sec -p tcp -m tcp --dport 80 -j DROP", Family::V4);
    assert_eq!(drop, r#"L4Proto=6; Dport=80; Rate("--limit 1/sec"); Drop"#, "tests stand before rates");
}

#[test]
fn what_is_not_understood_is_named() {
    for line in [
        "-m quota --quota 1000",
        "-m statistic --mode random --probability 0.50000000000",
        "-m recent --rcheck --seconds 60 --name web --mask 255.255.255.255 --rsource",
        "-m recent --remove --name DEFAULT",
        "-m mac --mac-source 00:11:22:33:44:55",
        "-m time --timestart 10:00:00 --weekdays Mon",
        "-m string --string \"-j DROP\" --algo bm",
        "-m owner --socket-exists ! --gid-owner 0-100",
        "-m bpf --bytecode \"4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0\"",
        "-m socket",
        "-m geoip --source-country CN,US",
        "-m addrtype ! --src-type LOCAL --limit-iface-in",
        "-m conntrack --ctexpire 1:100",
        "-m conntrack --ctstate INVALID --ctdir ORIGINAL",
        "-m conntrack ! --ctstate NEW --ctdir ORIGINAL",
        "-m conntrack ! --ctstate DNAT",
        "-m conntrack --ctstate UNTRACKED,DNAT",
        "-m set --match-set x src --return-nomatch",
        "-m set --match-set x src ! --bytes-eq 5",
        "-m tcp --tcp-option 5",
        "-m tcp --dport 443",
        "-m udp",
        "-m ttl ! --ttl-lt 5",
        "-m mark --mark 0x1g",
        "-m multiport --dports 80,,443",
        "-s 1.2.3.4,5.6.7.8",
        "-s 300.1.1.1",
        "-p nosuch",
        "-i \"eth*\"",
        "-i \"\"",
        "--dport 80",
        "-m state",
        "-m limit",
        "-x",
    ] {
        assert_eq!(parts(line, Family::V4), format!("Puzzle({line:?})"), "{line}");
    }
    let partly = parts("-m conntrack --ctreplsrc 4.4.4.4 --ctdir REPLY", Family::V4);
    assert_eq!(partly, r#"Puzzle("-m conntrack --ctreplsrc 4.4.4.4"); CtDirection=1"#);
    for line in ["80 -j DROP", "-s 1.2.3.4 ! -j", "-s", "-j", "!", "-m tcp x --dport 80 ! ! -j DROP"] {
        let shown = parts(line, Family::V4);
        assert!(shown.contains("Puzzle(") || shown.contains("Elsewhere("), "{line}: {shown}");
        assert!(!shown.contains("Drop") && !shown.contains("Accept"), "{line}: {shown}");
    }
    let strange =
        tables(b"*filter\n:c - [0:0]\n-A c -i \xff -j DROP\nCOMMIT\n", Family::V4, Language::IptablesNft).unwrap();
    assert!(show(&strange.tables[0].chains["c"].rules[0].parts).contains("Puzzle"));
}

#[test]
fn targets_decide_or_do_not() {
    let bits = |to: &str, of: &str, and: u32, xor: u32| format!("{to}:=Bits {{ of: {of}, and: {and}, xor: {xor} }}");
    for (line, means) in [
        ("-j d", "Jump(\"d\")".to_owned()),
        ("-g d", "Goto(\"d\")".to_owned()),
        ("-g nosuch", "Elsewhere(\"nosuch\")".to_owned()),
        ("-j REJECT --reject-with tcp-reset", "Reject(\"tcp-reset\")".to_owned()),
        ("-j LOG --log-prefix \"-j ACCEPT \" --log-level 7", String::new()),
        ("-j SET --add-set x src --exist", r#"Feed(Ipset("x"))"#.to_owned()),
        ("-j TTL --ttl-set 64", String::new()),
        ("-j TTL --ttl-inc 1", String::new()),
        ("-j TTL --ttl-set 1", r#"Elsewhere("TTL --ttl-set 1")"#.to_owned()),
        ("-j TTL --ttl-dec 1", r#"Elsewhere("TTL --ttl-dec 1")"#.to_owned()),
        ("-j TCPMSS --clamp-mss-to-pmtu", String::new()),
        ("-j NFQUEUE --queue-num 3 --queue-bypass", "Elsewhere(\"NFQUEUE --queue-num 3 --queue-bypass\")".to_owned()),
        ("-j SYNPROXY --sack-perm", "Elsewhere(\"SYNPROXY --sack-perm\")".to_owned()),
        ("-j TARPIT", "Drop".to_owned()),
        ("-j NOSUCH --what", "Elsewhere(\"NOSUCH --what\")".to_owned()),
        ("-j ACCEPT --what", "Elsewhere(\"ACCEPT --what\")".to_owned()),
        ("-j d --what", "Elsewhere(\"d --what\")".to_owned()),
        ("-j NOTRACK", "Notrack".to_owned()),
        ("-j CT --notrack", "Notrack".to_owned()),
        ("-j CT --helper ftp", String::new()),
        ("-j CT --zone 3", "Elsewhere(\"CT --zone 3\")".to_owned()),
        ("-j MARK --set-xmark 0x1/0xff", bits("Mark", "Mark", !0xff, 1)),
        ("-j MARK --set-mark 0x10/0xf", bits("Mark", "Mark", !0x1f, 0x10)),
        ("-j MARK --and-mark 0xf0", bits("Mark", "Mark", 0xf0, 0)),
        ("-j MARK --or-mark 0xf", bits("Mark", "Mark", !0xf, 0xf)),
        ("-j MARK --xor-mark 3", bits("Mark", "Mark", u32::MAX, 3)),
        ("-j CONNMARK --set-xmark 0x7/0xffffffff", bits("CtMark", "CtMark", 0, 7)),
        ("-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xffffffff", bits("CtMark", "Mark", 0xff, 0)),
        ("-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xf", bits("Mark", "CtMark", 0xf, 0)),
        ("-j DNAT --to-destination 172.17.0.2:8080", "Dnat(172.17.0.2, 8080)".to_owned()),
        ("-j DNAT --to-destination 172.17.0.2", "Dnat(172.17.0.2, -)".to_owned()),
        ("-j DNAT --to-destination :81 --random --persistent", "Dnat(-, 81)".to_owned()),
        ("-j DNAT --to-destination 1.1.1.1-1.1.1.9:80-90", "Dnat(?, ?)".to_owned()),
        ("-j DNAT --to-destination 1.1.1.1:84-94/84", "Dnat(1.1.1.1, ?)".to_owned()),
        ("-j DNAT --to-destination 1.1.1.1 --to-destination 1.1.1.2", "Dnat(?, ?)".to_owned()),
        ("-j DNAT", "Dnat(?, ?)".to_owned()),
        ("-j REDIRECT", "Dnat(-, -, here)".to_owned()),
        ("-j REDIRECT --to-ports 8888", "Dnat(-, 8888, here)".to_owned()),
        ("-j REDIRECT --to-ports 8888-8999 --random", "Dnat(-, ?, here)".to_owned()),
        ("-j SNAT --to-source 1.2.3.4:1024-2000 --random", "Snat".to_owned()),
        ("-j MASQUERADE", "Snat".to_owned()),
        ("-j NETMAP --to 10.8.0.0/16", "Elsewhere(\"NETMAP --to 10.8.0.0/16\")".to_owned()),
    ] {
        assert_eq!(parts(line, Family::V4), means, "{line}");
    }
    for line in ["--save-mark --nfmask 0xff --ctmask 0xff", "--set-mark 1 --what", "--left-shift-mark 3"] {
        assert!(parts(&format!("-j CONNMARK {line}"), Family::V4).starts_with("CtMark:=Operand(Puzzle("), "{line}");
    }
    for (to, means) in [
        ("2001:db8::1", "Dnat(2001:db8::1, -)"),
        ("[2001:db8::1]:80", "Dnat(2001:db8::1, 80)"),
        ("[2001:db8::1-2001:db8::9]:80-90", "Dnat(?, ?)"),
        ("[2001:db8::1]", "Dnat(2001:db8::1, -)"),
        ("2001:db8::1:x", "Dnat(?, ?)"),
    ] {
        assert_eq!(parts(&format!("-j DNAT --to-destination {to}"), Family::V6), means);
    }
}

#[test]
fn tables_hang_where_the_kernel_hangs_them() {
    let save = b"# Generated by iptables-nft-save v1.8.9 (nf_tables) on Sun Nov 22 14:43:09 2026\n\
        *mangle\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [5:300]\nCOMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n\
        :POSTROUTING ACCEPT [0:0]\nCOMMIT\n*raw\n:PREROUTING DROP [0:0]\nCOMMIT\n*security\n:INPUT ACCEPT [0:0]\nCOMMIT\n\
        *filter\n:INPUT DROP [12:3400]\n:mine - [0:0]\n[5:300] -A INPUT -m comment --comment \"it\\'s \\\"mine\\\"\" -j mine\n\
        [0:0] -A INPUT -j DROP\nCOMMIT\n# Completed on Sun Nov 22 14:43:09 2026\n\
        # Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n";
    let saved = tables(save, Family::V6, Language::IptablesLegacy).unwrap();
    let base = |t: usize, chain: &str| {
        let base = saved.tables[t].chains[chain].base.clone().unwrap();
        (base.hook, base.priority, base.kind, base.drops)
    };
    assert_eq!(base(0, "PREROUTING"), (Hook::Prerouting, -150, ChainKind::Filter, false));
    assert_eq!(base(0, "OUTPUT"), (Hook::Output, -150, ChainKind::Route, false));
    assert_eq!(base(1, "PREROUTING"), (Hook::Prerouting, -100, ChainKind::Nat, false));
    assert_eq!(base(1, "INPUT"), (Hook::Input, 100, ChainKind::Nat, false));
    assert_eq!(base(1, "POSTROUTING"), (Hook::Postrouting, 100, ChainKind::Nat, false));
    assert_eq!(base(2, "PREROUTING"), (Hook::Prerouting, -300, ChainKind::Filter, true));
    assert_eq!(base(3, "INPUT"), (Hook::Input, 50, ChainKind::Filter, false));
    assert_eq!(base(4, "INPUT"), (Hook::Input, 0, ChainKind::Filter, true));
    let filter = &saved.tables[4];
    assert_eq!(
        (filter.family, filter.name.as_str(), filter.language),
        (TableFamily::Ip6, "filter", Language::IptablesLegacy)
    );
    assert!(filter.chains["mine"].base.is_none());
    let rules = &filter.chains["INPUT"].rules;
    assert_eq!(rules[0].comment.as_deref(), Some("it's \"mine\""));
    assert_eq!(rules[0].text.as_deref(), Some(r#"-A INPUT -m comment --comment "it\'s \"mine\"" -j mine"#));
    assert_eq!(rules[0].parts, [Part::Verdict(Verdict::Jump("mine".to_owned()))]);
    assert_eq!((rules[0].position, rules[1].position, rules[1].text.as_deref()), (1, 2, Some("-A INPUT -j DROP")));
    assert!(saved.unreadable.is_empty());
}

#[test]
fn netmap_changes_what_its_hook_says() {
    let save = b"*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n-A PREROUTING -j NETMAP --to 10.8.0.0/16\n\
        -A POSTROUTING -j NETMAP --to 10.8.0.0/16\nCOMMIT\n";
    let saved = tables(save, Family::V4, Language::IptablesNft).unwrap();
    assert_eq!(show(&saved.tables[0].chains["PREROUTING"].rules[0].parts), "Dnat(?, -)");
    assert_eq!(show(&saved.tables[0].chains["POSTROUTING"].rules[0].parts), "Snat");
}

#[test]
fn comments_may_hold_line_ends() {
    let saved = rules_of("filter", &["-m comment --comment \"a\n-A c -j ACCEPT\" -j DROP", "-j d"], Family::V4);
    let rules = &saved.tables[0].chains["c"].rules;
    assert_eq!((rules.len(), rules[0].comment.as_deref()), (2, Some("a\n-A c -j ACCEPT")));
    assert_eq!((show(&rules[0].parts).as_str(), show(&rules[1].parts).as_str()), ("Drop", "Jump(\"d\")"));
}

#[test]
fn tables_that_are_not_shown_truthfully_are_named() {
    let read = |text: &str| tables(text.as_bytes(), Family::V4, Language::IptablesNft).unwrap();
    let none = read("# Table `filter' is incompatible, use 'nft' tool.\n*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n");
    assert_eq!((none.unreadable.as_slice(), none.tables.len()), (["filter".to_owned()].as_slice(), 1));
    let hooks = read(
        "# Table `filter' contains incompatible base-chains, use 'nft' tool to list them.\n*filter\n:INPUT ACCEPT [0:0]\n\
         :foo - [0:0]\nCOMMIT\n",
    );
    assert_eq!((hooks.unreadable.as_slice(), hooks.tables.len()), (["filter".to_owned()].as_slice(), 0));
    let unhooked = read("*filter\n:INPUT ACCEPT [0:0]\n:INPUT - [0:0]\nCOMMIT\n");
    assert_eq!((unhooked.unreadable.as_slice(), unhooked.tables.len()), (["filter".to_owned()].as_slice(), 0));
    assert_eq!(read("*broute\n:BROUTING ACCEPT [0:0]\nCOMMIT\n").unreadable, ["broute"]);
    assert_eq!(read(""), Saved::default());
}

#[test]
fn what_is_no_save_file_is_an_error_with_its_line() {
    for (text, line) in [
        ("*filter\n:INPUT ACCEPT [0:0]\n", "line 2"),
        ("-A INPUT -j DROP\n", "line 1"),
        ("*filter\n-A INPUT -j DROP\nCOMMIT\n", "line 2"),
        ("*filter\n:INPUT ACCEPT [0:0]\nnonsense\nCOMMIT\n", "line 3"),
        ("*filter\n:INPUT ACCEPT [0:0]\n-D INPUT -j DROP\nCOMMIT\n", "line 3"),
        ("*filter\n:INPUT QUEUE [0:0]\nCOMMIT\n", "line 2"),
        ("*filter\n:mine ACCEPT [0:0]\nCOMMIT\n", "line 2"),
        ("*filter\n*nat\nCOMMIT\n", "line 2"),
        ("*filter\nCOMMIT\n*filter\nCOMMIT\n", "line 3"),
        ("*filter\n:c - [0:0]\n-A c -i a\"b -j DROP\nCOMMIT\n", "line 3"),
        ("*filter\n:c - [0:0]\n-A c -i a\"b -j DROP\n-A c -i a\"b -j DROP\nCOMMIT\n", "line 3"),
        ("COMMIT\n", "line 1"),
    ] {
        let said = tables(text.as_bytes(), Family::V4, Language::IptablesNft).unwrap_err().to_string();
        assert!(said.contains(line), "{text:?}: {said}");
    }
}
