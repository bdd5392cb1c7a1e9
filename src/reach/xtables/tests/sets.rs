//! Sets, and rules that test them.

use super::*;

/// As ipset 7.17 printed them, shortened.
const SAVED: &str = "\
create ipp hash:ip,port family inet hashsize 1024 maxelem 65536 timeout 100 bucketsize 12 initval 0x27ce8d3a
add ipp 1.2.3.4,tcp:80 timeout 99
add ipp 1.2.3.4,icmp:echo-request timeout 99
add ipp 1.2.3.9,tcp:80 timeout 99
add ipp 1.2.3.4,gre:0 timeout 99
create nets hash:net family inet hashsize 1024 maxelem 65536 timeout 0 counters comment bucketsize 12 initval 0x85343273
add nets 10.1.0.0/16 timeout 0 nomatch packets 0 bytes 0
add nets 10.0.0.0/8 timeout 0 packets 0 bytes 0 comment \"nomatch a b \\ c\"
add nets 10.1.2.0/24 timeout 0 packets 0 bytes 0
create cnt hash:ip family inet hashsize 1024 maxelem 65536 counters skbinfo bucketsize 12 initval 0x0e96e507
add cnt 1.1.1.1 packets 0 bytes 0 skbmark 0x1/0xff skbprio 1:2 skbqueue 3
add cnt 1.1.1.2 packets 0 bytes 0 skbmark 0x1/0xff skbprio 1:2 skbqueue 3
create ip24 hash:ip family inet hashsize 1024 maxelem 65536 netmask 24 bucketsize 12 initval 0x9e39c0b8
add ip24 1.2.3.0
create hn6 hash:net family inet6 hashsize 1024 maxelem 65536 bucketsize 12 initval 0xa181cf2b
add hn6 2001:db8::/32
create nif hash:net,iface family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0xb0d7ff17
add nif 11.0.0.0/8,eth wildcard
add nif 10.0.0.0/8,eth0
add nif 0.0.0.0/0,lo
create np hash:net,port family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x0ef9dc40
add np 10.0.0.0/8,tcp:22
add np 10.1.0.0/16,tcp:22 nomatch
add np 10.1.0.0/16,udp:22
create ipn hash:ip,port,net family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x0d9f9ae6
add ipn 1.2.3.4,tcp:80,5.6.7.0/24
create bi2 bitmap:ip range 10.0.0.0-10.0.255.255 netmask 24 timeout 100
add bi2 10.0.3.0 timeout 0
create bim bitmap:ip,mac range 10.0.0.0-10.0.0.255
add bim 10.0.0.5,00:11:22:33:44:55
create bp bitmap:port range 0-1024
add bp 80
add bp 443
create im hash:ip,mark family inet hashsize 1024 markmask 0xff maxelem 65536 bucketsize 12 initval 0xa03aa8e3
add im 1.2.3.4,0x00000063
create we ird hash:ip family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x0a6575d5
add we ird 9.9.9.9
create ls list:set size 8 timeout 20
add ls cnt timeout 19
add ls we ird timeout 19
create both list:set size 8
add both cnt
add both hn6
create mixed list:set size 8
add mixed cnt
add mixed np
add mixed bp
create empty list:set size 8
";

fn shown(name: &str) -> String {
    let Set::Plain(elements) = set(name, SAVED) else { panic!("{:?}", set(name, SAVED)) };
    let keys: &[Key] = &[if name.contains('6') { Field::Saddr6 } else { Field::Saddr4 }.into()];
    elements_of(keys, &elements)
}

#[test]
fn elements_are_what_they_let_match() {
    for (name, means) in [
        ("ipp", "{1.2.3.4,1.2.3.9+6+80 | 1.2.3.4+1+any | 1.2.3.4+47+any}"),
        ("nets", "10.0.0.0-10.0.255.255,10.1.2.0-10.1.2.255,10.2.0.0-10.255.255.255"),
        ("cnt", "1.1.1.1-1.1.1.2"),
        ("ip24", "1.2.3.0-1.2.3.255"),
        ("hn6", "2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("nif", "{11.0.0.0-11.255.255.255+eth* | 10.0.0.0-10.255.255.255+eth0 | 0.0.0.0-255.255.255.255+lo}"),
        ("np", "{10.0.0.0-10.0.255.255,10.2.0.0-10.255.255.255+6+22 | 10.1.0.0-10.1.255.255+17+22}"),
        ("ipn", "{1.2.3.4+6+80+84281088-84281343}"),
        ("bi2", "10.0.3.0-10.0.3.255"),
        ("bp", "{0.0.0.6,0.0.0.17+80,443}"),
        ("im", "{1.2.3.4+99}"),
        ("we ird", "9.9.9.9"),
        ("ls", "1.1.1.1-1.1.1.2,9.9.9.9"),
        ("both", "1.1.1.1-1.1.1.2"),
        ("both (inet6)", "2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("empty", ""),
    ] {
        assert_eq!(shown(name), means, "{name}");
    }
    assert!(matches!(set("bim", SAVED), Set::Puzzle(why) if why.starts_with("ipset bim: ")));
}

/// What a rule that tests a set becomes.
fn bound(test: &str, family: Family) -> String {
    let mut saved = rules_of("filter", &[&format!("-m set {test} -j DROP")], family);
    assert!(show(&saved.tables[0].chains["c"].rules[0].parts).starts_with("Puzzle("), "not before it is bound");
    assert_eq!(saved.ipsets_named().len(), 1);
    saved.bind(&ipsets(SAVED.as_bytes()).unwrap());
    show(&saved.tables[0].chains["c"].rules[0].parts).trim_end_matches("; Drop").to_owned()
}

#[test]
fn directions_mean_what_the_type_says() {
    for (test, means) in [
        ("--match-set ipp src,dst", "Saddr4+L4Proto+Dport=@ipp"),
        ("--match-set ipp dst,src", "Daddr4+L4Proto+Sport=@ipp"),
        ("! --match-set nets src", "!Saddr4=@nets"),
        ("--match-set nets src ! --update-counters", "Saddr4=@nets"),
        ("--match-set nets src,dst,dst", "Saddr4=@nets"),
        ("--match-set nif src,src", "Saddr4+Iif=@nif"),
        ("--match-set nif src,dst", "Saddr4+Oif=@nif"),
        ("--match-set ipn dst,dst,src", "Daddr4+L4Proto+Dport+Saddr4=@ipn"),
        ("--match-set bp dst", "L4Proto+Dport=@bp"),
        ("--match-set im src,src", "Saddr4+Mark&0xff=@im"),
        ("--match-set we ird src", "Saddr4=@we ird"),
        ("--match-set ls src", "Saddr4=@ls"),
        ("--match-set both src", "Saddr4=@both"),
        ("--match-set mixed src,dst", "Saddr4+Saddr4+L4Proto+Dport+L4Proto+Sport=@mixed"),
        // Too few directions, another family: nothing matches.
        ("--match-set ipp src", "NfProto="),
        ("! --match-set ipp src", "!NfProto="),
        ("--match-set hn6 src", "NfProto="),
        ("--match-set empty src", "NfProto="),
    ] {
        assert_eq!(bound(test, Family::V4), means, "{test}");
    }
    for (test, means) in [
        ("--match-set hn6 src", "Saddr6=@hn6"),
        ("--match-set both dst", "Daddr6=@both (inet6)"),
        ("--match-set nets src", "NfProto="),
        ("--match-set ls src", "NfProto="),
        ("--match-set bp dst", "L4Proto+Dport=@bp"),
        ("--match-set mixed src,dst", "L4Proto+Sport=@mixed (inet6)"),
    ] {
        assert_eq!(bound(test, Family::V6), means, "{test}");
    }
    for test in ["--match-set bim src,src", "--match-set nosuch src", "--match-set mixed src"] {
        assert!(bound(test, Family::V4).starts_with("Puzzle(\"-m set --match-set"), "{test}");
    }
}

#[test]
fn a_list_of_unlike_sets_asks_each() {
    assert_eq!(
        shown("mixed"),
        "{1.1.1.1-1.1.1.2+any+any+any+any+any | any+167772160-167837695,167903232-184549375+6+22+any+any | \
         any+167837696-167903231+17+22+any+any | any+any+any+any+6,17+80,443}"
    );
}

#[test]
fn what_is_not_understood_is_no_empty_set() {
    for save in [
        "create x hash:new family inet\n",
        "create x tree:ip family inet\ncreate y hash:ip\n",
        "create x hash:ip family inet bitmask 255.0.255.0\n",
        "create x hash:net,net family inet netmask 24\n",
        "create x hash:ip family inet newoption\n",
        "create x hash:ip\nadd x 1.2.3.4 newoption\n",
        "create x hash:ip\nadd x 1.2.3\n",
        "create x hash:ip,port\nadd x 1.2.3.4,nosuch:80\n",
        "create x hash:net,iface\nadd x 1.0.0.0/8,physdev:eth0\n",
        "create x hash:net,net\nadd x 1.0.0.0/8,2.0.0.0/8\nadd x 1.0.0.0/9,2.0.0.0/8 nomatch\n",
        "create x hash:ip family inet\ncreate l list:set size 8\nadd l nosuch\n",
    ] {
        match ipsets(save.as_bytes()) {
            Ok(read) => assert!(read.sets.values().any(|s| matches!(s, Set::Puzzle(_))), "{save}: {read:?}"),
            Err(e) => assert!(e.to_string().contains("line 1"), "{save}: {e}"),
        }
    }
    for save in ["add x 1.2.3.4\n", "create x\n", "nonsense\n", "create x hash:ip\ncreate x hash:ip\n"] {
        assert!(ipsets(save.as_bytes()).is_err(), "{save}");
    }
}
