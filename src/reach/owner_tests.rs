//! Names as the tools really give them (seen in throwaway hosts: ufw 0.36.2, fail2ban 1.0.2, firewalld 1.3.3, CSF 15).

use super::*;
use crate::reach::model::{Rule, Table};

fn nft(table: &str, chain: &str) -> Place {
    Place {
        hook: Hook::Input,
        language: Language::Nft,
        family: TableFamily::Inet,
        table: table.into(),
        chain: chain.into(),
        base: "input".into(),
        position: Some(3),
        handle: Some(7),
        text: None,
        comment: None,
        sets: vec![],
    }
}

fn xt(chain: &str, position: Option<usize>) -> Place {
    Place {
        language: Language::IptablesNft,
        family: TableFamily::Ip,
        position,
        handle: None,
        base: "INPUT".into(),
        ..nft("filter", chain)
    }
}

/// A filter table of iptables with these chains, and these jumps from INPUT and FORWARD.
fn picture(jumps: &[&str], chains: &[&str]) -> Picture {
    let mut table = Table::new(TableFamily::Ip, "filter", Language::IptablesNft);
    let rule = |to: &&str| Rule { parts: vec![Part::Verdict(Verdict::Jump((*to).into()))], ..Rule::default() };
    let base = Chain { rules: jumps.iter().map(rule).collect(), ..Chain::default() };
    table.chains.insert("INPUT".into(), base.clone());
    table.chains.insert("FORWARD".into(), base);
    table.chains.extend(chains.iter().chain(jumps).map(|c| ((*c).to_owned(), Chain::default())));
    Picture { tables: vec![table], ..Picture::default() }
}

fn named(place: &Place) -> String {
    owner(place, &Picture::default()).to_string()
}

#[test]
fn each_tool_is_known_by_its_names() {
    let with_set = |place: Place, set: &str| Place { sets: vec![set.into()], ..place };
    let v6 = |place: Place| Place { family: TableFamily::Ip6, ..place };
    assert_eq!(named(&xt("ufw-user-input", Some(1))), "UFW");
    assert_eq!(named(&v6(xt("ufw6-user-limit", Some(1)))), "UFW");
    assert_eq!(named(&xt("f2b-apache-auth", Some(1))), "fail2ban (jail apache-auth)");
    assert_eq!(named(&with_set(nft("f2b-table", "f2b-chain"), "addr-set-sshd")), "fail2ban (jail sshd)");
    assert_eq!(named(&with_set(nft("f2b-table", "f2b-chain"), "addr6-set-sshd")), "fail2ban (jail sshd)");
    assert_eq!(named(&with_set(xt("INPUT", Some(1)), "f2b-nginx")), "fail2ban (jail nginx)");
    assert_eq!(named(&v6(with_set(xt("INPUT", Some(1)), "f2b-nginx6"))), "fail2ban (jail nginx)");
    assert_eq!(named(&nft("firewalld", "filter_INPUT")), "firewalld");
    assert_eq!(named(&with_set(nft("crowdsec", "crowdsec-chain"), "crowdsec-blacklists")), "CrowdSec");
    assert_eq!(named(&with_set(xt("INPUT", Some(2)), "crowdsec-blacklists-0")), "CrowdSec");
    assert_eq!(named(&xt("DOCKER-USER", Some(2))), "the administrator's own rules for Docker");
    assert_eq!(named(&xt("DOCKER-ISOLATION-STAGE-2", Some(2))), "Docker");
    assert_eq!(named(&xt("KUBE-FIREWALL", Some(1))), "Kubernetes");
    assert_eq!(named(&xt("LIBVIRT_INP", Some(1))), "libvirt");
    assert_eq!(named(&xt("INPUT", Some(1))), "the administrator's own iptables rules");
    assert_eq!(named(&nft("filter", "input")), "the administrator's own nftables rules");
    assert_eq!(named(&Place { comment: Some("edgeallow".into()), ..nft("filter", "input") }), "edgeallow");
    assert_eq!(named(&xt("EDGEALLOW", Some(4))), "edgeallow");
}

#[test]
fn bans_that_other_tools_carry_out_are_fail2bans() {
    let text = |t: &str| Some(t.to_owned());
    let carried =
        "-A INPUT -p tcp -m recent --update --seconds 3600 --name f2b-sshd --mask 255.255.255.255 --rsource -j REJECT";
    let place = Place { text: text(carried), ..xt("INPUT", Some(1)) };
    assert_eq!(named(&place), "fail2ban (jail sshd)");
    let place = Place { text: text(&carried.replace("f2b-sshd", "web")), ..place };
    assert_eq!(named(&place), "the administrator's own iptables rules");

    // As ufw 0.36.2 writes them for `ufw deny from 198.51.100.7` and for fail2ban's action.
    let comment: String =
        "by Fail2Ban after 5 attempts against nginx-botsearch".bytes().map(|b| format!("{b:02x}")).collect();
    let file = format!(
        "### tuple ### deny any any 0.0.0.0/0 any 198.51.100.7 in\n-A ufw-user-input -s 198.51.100.7 -j DROP\n\n\
         ### tuple ### reject any any 0.0.0.0/0 any 173.245.48.29 in comment={comment}\n\
         -A ufw-user-input -s 173.245.48.29 -j REJECT\n"
    );
    let rule = |from: &str| {
        let place =
            Place { text: Some(format!("-A ufw-user-input -s {from}/32 -j REJECT")), ..xt("ufw-user-input", Some(1)) };
        Place { comment: ufw_comment(&file, &place), ..place }
    };
    let ban = rule("173.245.48.29");
    assert_eq!(named(&ban), "fail2ban (jail nginx-botsearch)");
    assert_eq!(
        mended(&ban, &owner(&ban, &Picture::default()), &["173.245.48.29/32"], &["fail2ban"]),
        ["fail2ban-client set nginx-botsearch unbanip 173.245.48.29"]
    );
    assert_eq!(named(&rule("198.51.100.7")), "UFW");

    // `ufw deny from 173.245.48.0/20`, and what edgeallow allows from there.
    let file = "### tuple ### allow tcp 80,443 0.0.0.0/0 any 173.245.48.0/20 in comment=65646765616c6c6f77\n\
                ### tuple ### deny any any 0.0.0.0/0 any 173.245.48.0/20 in\n";
    let rule = |rest: &str| {
        let text = Some(format!("-A ufw-user-input -s 173.245.48.0/20 {rest}"));
        let place = Place { text, ..xt("ufw-user-input", Some(1)) };
        named(&Place { comment: ufw_comment(file, &place), ..place })
    };
    assert_eq!(
        (rule("-j DROP"), rule("-p tcp -m multiport --dports 80,443 -j ACCEPT")),
        ("UFW".into(), "edgeallow".into())
    );

    let odd = Place { text: ban.text.clone(), ..xt("ufw-user-input", Some(1)) };
    assert_eq!(ufw_comment("### tuple ### reject any any 0.0.0.0/0 any 173.245.48.29 in comment=6é", &odd), None);
}

#[test]
fn panic_is_firewallds_and_ends_as_it_began() {
    let panic = Place { position: None, handle: None, ..nft("firewalld_policy_drop", "filter_input") };
    assert_eq!(named(&panic), "firewalld");
    assert_eq!(mended(&panic, &Tool::Firewalld, &[], &[]), ["firewall-cmd --panic-off"]);
}

#[test]
fn a_policy_belongs_to_the_tool_that_sets_policies() {
    let policy = xt("INPUT", None);
    assert_eq!(owner(&policy, &picture(&["f2b-sshd", "ufw-before-input"], &[])), Tool::Ufw);
    assert_eq!(owner(&policy, &picture(&["f2b-sshd", "EDGEALLOW"], &[])), Tool::ByHand(Language::IptablesNft));
    assert_eq!(owner(&policy, &picture(&["LOCALINPUT"], &["DENYIN", "ALLOWIN"])), Tool::Csf);
    let forward = Place { hook: Hook::Forward, ..xt("FORWARD", None) };
    assert_eq!(owner(&forward, &picture(&["DOCKER-USER", "DOCKER-FORWARD"], &[])), Tool::Docker);
    assert_eq!(owner(&policy, &picture(&["DOCKER-USER"], &[])), Tool::ByHand(Language::IptablesNft));
}

#[test]
fn csf_and_firewalld_are_known_by_the_company_that_a_chain_keeps() {
    let csf = picture(&["LOCALINPUT"], &["DENYIN", "ALLOWIN", "LOGDROPIN"]);
    for chain in ["DENYIN", "LOGDROPIN", "CC_DENY", "INPUT"] {
        assert_eq!(owner(&xt(chain, Some(1)), &csf), Tool::Csf, "{chain}");
    }
    assert_eq!(owner(&xt("f2b-sshd", Some(1)), &csf), Tool::Fail2ban(Some("sshd".into())));
    let firewalld = picture(&["INPUT_direct", "INPUT_ZONES"], &["IN_public", "IN_public_deny"]);
    assert_eq!(owner(&xt("IN_public_deny", Some(1)), &firewalld), Tool::Firewalld);
    let text = Some("-A INPUT -j REJECT --reject-with icmp-host-prohibited".into());
    assert_eq!(owner(&Place { text, ..xt("INPUT", Some(9)) }, &firewalld), Tool::Firewalld);
    assert_eq!(owner(&xt("INPUT", Some(1)), &firewalld), Tool::ByHand(Language::IptablesNft));
}

fn mended(place: &Place, tool: &Tool, caught: &[&str], synced: &[&str]) -> Vec<String> {
    let caught: Vec<IpNet> = caught.iter().map(|n| n.parse().unwrap()).collect();
    mend(place, Leg::Syn, tool, (&caught, &[80, 443].into()), &synced.iter().copied().collect())
}

#[test]
fn bans_are_lifted_where_they_are_kept() {
    let f2b = Tool::Fail2ban(Some("sshd".into()));
    assert_eq!(
        mended(&xt("f2b-sshd", Some(1)), &f2b, &["173.245.48.29/32", "2400:cb00::9/128"], &[]),
        ["fail2ban-client set sshd unbanip 173.245.48.29 2400:cb00::9", "edgeallow sync --backend fail2ban"]
    );
    assert_eq!(
        mended(&nft("crowdsec", "x"), &Tool::Crowdsec, &["173.245.48.29/32", "104.16.0.0/13"], &[]),
        ["cscli decisions delete --ip 173.245.48.29", "cscli decisions delete --range 104.16.0.0/13"]
    );
    assert_eq!(mended(&xt("DENYIN", Some(1)), &Tool::Csf, &["173.245.48.29/32"], &["csf"]), ["csf -dr 173.245.48.29"]);
}

#[test]
fn a_sync_is_advised_where_it_would_help_and_has_not_been_done() {
    let by_hand = Tool::ByHand(Language::Nft);
    let rule = nft("filter", "input");
    let delete = "nft delete rule inet filter input handle 7";
    assert_eq!(mended(&rule, &by_hand, &[], &[]), ["edgeallow sync --backend nftables", delete]);
    assert_eq!(mended(&rule, &by_hand, &[], &["nftables"]), [delete]);
    let early = Place { hook: Hook::Prerouting, ..rule };
    assert_eq!(mended(&early, &by_hand, &[], &[]), [delete]);
    assert_eq!(mended(&xt("ufw-user-input", Some(1)), &Tool::Ufw, &[], &[]), ["edgeallow sync --backend ufw"]);
    assert_eq!(
        mended(&xt("ufw-before-input", Some(1)), &Tool::Ufw, &[], &[]),
        ["editor /etc/ufw/before.rules && ufw reload"]
    );
}

#[test]
fn a_rule_of_iptables_is_deleted_by_its_number_in_the_right_program() {
    let place = Place {
        hook: Hook::Prerouting,
        language: Language::IptablesLegacy,
        family: TableFamily::Ip6,
        table: "raw".into(),
        ..xt("PREROUTING", Some(2))
    };
    let tool = Tool::ByHand(place.language);
    assert_eq!(mended(&place, &tool, &[], &[]), ["ip6tables-legacy -t raw -D PREROUTING 2"]);
    let output = Place { hook: Hook::Output, ..xt("OUTPUT", None) };
    let tool = Tool::ByHand(output.language);
    assert_eq!(
        mend(&output, Leg::SynAck, &tool, (&[], &BTreeSet::new()), &BTreeSet::new()),
        ["iptables -I OUTPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"]
    );
}

#[test]
fn a_rule_of_iptables_is_deleted_by_what_it_says_where_that_is_compared() {
    let tool = Tool::ByHand(Language::IptablesNft);
    let of = |text: &str| {
        let place = Place { hook: Hook::Forward, text: Some(text.into()), ..xt("FORWARD", Some(2)) };
        mended(&place, &tool, &[], &[])
    };
    assert_eq!(
        of("-A FORWARD -p tcp -m multiport --dports 80,443 -m set --match-set bad src -j DROP"),
        ["iptables -D FORWARD -p tcp -m multiport --dports 80,443 -m set --match-set bad src -j DROP"]
    );
    // `-D` compares what these hold besides what they print, and finds nothing.
    assert_eq!(of("-A FORWARD -m recent --rcheck --name x --rsource -j DROP"), ["iptables -D FORWARD 2"]);
    assert_eq!(of("-A FORWARD -p tcp -m connlimit --connlimit-above 2 -j REJECT"), ["iptables -D FORWARD 2"]);
    assert_eq!(of(r#"-A FORWARD -m comment --comment "two words" -j DROP"#), ["iptables -D FORWARD 2"]);
}

#[test]
fn a_rule_that_lets_packets_in_is_not_advised_to_be_deleted() {
    let text = Some("tcp dport 443 limit rate 10/second accept".into());
    let place = Place { text, ..nft("filter", "input") };
    assert_eq!(mended(&place, &Tool::ByHand(Language::Nft), &[], &[]), ["edgeallow sync --backend nftables"]);
    let text = Some("-A INPUT -m limit --limit 9/sec -j ACCEPT".into());
    let place = Place { text, ..xt("INPUT", Some(4)) };
    assert_eq!(mended(&place, &Tool::ByHand(Language::IptablesNft), &[], &["iptables"]), Vec::<String>::new());
}

#[test]
fn csf_is_told_the_entry_of_its_list() {
    let text = Some("-A DENYIN -s 104.16.0.0/12 ! -i lo -j DROP".into());
    let place = Place { text, ..xt("DENYIN", Some(1)) };
    let caught = ["104.16.0.0/13", "104.24.0.0/14"];
    assert_eq!(mended(&place, &Tool::Csf, &caught, &["csf"]), ["csf -dr 104.16.0.0/12"]);
    let text = Some("-A DENYOUT -m set --match-set chain_DENY dst -j DROP".into());
    let place = Place { text, ..xt("DENYOUT", Some(1)) };
    assert_eq!(mended(&place, &Tool::Csf, &caught[..1], &["csf"]), ["csf -dr 104.16.0.0/13"]);
}

#[test]
fn an_element_of_a_set_is_taken_out_as_it_is() {
    let nets = |all: &[&str]| all.iter().map(|n| n.parse::<IpNet>().unwrap()).collect::<Vec<_>>();
    let set = |all: &[&str]| Set::Plain(Elements::Numbers(nets(all).iter().collect(), ()));
    let held = ["104.16.5.0/24", "104.17.0.9/32", "172.64.0.0/12"];
    let mut table = Table::new(TableFamily::Inet, "f", Language::Nft);
    table.sets.insert("bad".into(), set(&held));
    let mut picture = Picture { tables: vec![table], ..Picture::default() };
    picture.ipsets.insert("bl".into(), set(&held));
    let before = picture.clone();
    let of = |place: &Place, caught: &[&str]| {
        lifts(place, &before, &Tool::ByHand(place.language), &nets(caught)).unwrap_or_default()
    };
    let by_ipset = Place { sets: vec!["bl".into()], ..xt("INPUT", Some(1)) };
    let by_nft = Place { sets: vec!["bad".into()], ..nft("f", "input") };
    assert_eq!(of(&by_ipset, &held[..2]), "ipset del bl 104.16.5.0/24 && ipset del bl 104.17.0.9");
    assert_eq!(of(&by_nft, &held[..2]), "nft delete element inet f bad { 104.16.5.0/24, 104.17.0.9 }");
    // A part of what the set holds, what it doesn't hold (`! --match-set`), and too much.
    for caught in [&["172.64.0.0/13"][..], &["173.245.48.0/20"], &[]] {
        assert_eq!(of(&by_ipset, caught), "", "{caught:?}");
    }
    let many = ["10.0.0.0", "10.0.2.0", "10.0.4.0", "10.0.6.0", "10.0.8.0", "10.0.10.0"].map(|ip| format!("{ip}/24"));
    picture.ipsets.insert("bl".into(), set(&many.each_ref().map(String::as_str)));
    let lifted = |n: usize| {
        let caught = nets(&many.each_ref().map(String::as_str)[..n]);
        lifts(&by_ipset, &picture, &Tool::ByHand(by_ipset.language), &caught).is_some()
    };
    assert_eq!((lifted(5), lifted(6)), (true, false));
    let all = nets(&["10.0.0.0/24"]);
    assert!(lifts(&by_ipset, &picture, &Tool::Crowdsec, &all).is_none(), "CrowdSec puts it back");
}
