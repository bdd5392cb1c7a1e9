//! What each tool makes of packet filters: it is named, as one cause, and the command that is printed mends it.

use serde_json::Value;

use super::{doctor, expect_cause, expect_healthy, follow, site};
use crate::{
    conformance::{
        Kind as _,
        csf::{self, Csf},
        firewalld::{self, cmd},
        ufw::enable,
    },
    lab::{EDGE4, EDGE6, Lab, Reach},
    reach::named::bans::CROWDSEC,
};

fn healthy() -> Lab {
    let lab = Lab::without_listeners();
    site::site(&lab);
    lab
}

fn words(lab: &Lab, commands: &[&str]) {
    commands.iter().for_each(|command| drop(lab.run(command.split(' '))));
}

/// Something turns Cloudflare away.
struct Scene<'a> {
    /// Which gives this error.
    error: u16,
    /// It is said in these words.
    says: &'a str,
    /// And this is to be run.
    next: &'a str,
}

impl Scene<'_> {
    /// One finding, and no other, is the cause; the report.
    fn is_told(&self, lab: &Lab) -> Value {
        let report = doctor(lab, &[]);
        let cause = expect_cause(&report, "firewall.refused", self.error);
        let causes = |f: &&Value| f["verdict"] == "cause";
        assert_eq!(report["findings"].as_array().expect("findings").iter().filter(causes).count(), 1, "{report:#}");
        let text = cause["text"].as_str().expect("a text");
        assert!(text.starts_with(self.says), "{text:?}, not {:?}\n{:?}", self.says, lab.rules());
        assert_eq!(report["conclusion"]["next"], self.next, "{report:#}");
        report
    }

    /// And the command that is printed mends it.
    fn is_told_and_mended(&self, lab: &Lab) {
        follow(lab, &self.is_told(lab));
        assert!([EDGE4, EDGE6].iter().all(|edge| site::visit(lab, edge, true).contains(" 200 ")), "{:?}", lab.rules());
        expect_healthy(&doctor(lab, &[]));
    }
}

#[test]
fn csfs_denials_temporary_bans_and_ports() {
    let lab = healthy();
    csf::STAND_IN.install(&lab);
    for name in ["TCP_IN", "TCP6_IN"] {
        Csf::set(&lab, name, "22,80,443");
    }
    Csf::restart(&lab);
    expect_healthy(&doctor(&lab, &[]));

    let deny = "/etc/csf/csf.deny";
    let his = lab.read_file(deny);
    lab.write_file(deny, format!("{his}173.245.48.0/24 # lfd\n{EDGE6} # lfd: (mod_security)\n"));
    Csf::restart(&lab);
    assert_eq!(lab.connect(EDGE4, 443), Reach::Timeout);
    let says = "CSF drops Cloudflare's 173.245.48.0/24 and Cloudflare's 2400:cb00::9 on ports 80 and 443";
    Scene { error: 522, says, next: "csf -dr 173.245.48.0/24 && csf -dr 2400:cb00::9" }.is_told_and_mended(&lab);
    assert_eq!(lab.read_file(deny), his);

    words(&lab, &[&format!("csf -td {EDGE4}")]);
    Csf::restart(&lab);
    let says = "CSF drops Cloudflare's 173.245.48.29 on ports 80 and 443";
    Scene { error: 522, says, next: "csf -tr 173.245.48.29" }.is_told_and_mended(&lab);

    for name in ["TCP_IN", "TCP6_IN"] {
        Csf::set(&lab, name, "22");
    }
    Csf::restart(&lab);
    let says = "CSF drops all of Cloudflare on ports 80 and 443";
    Scene { error: 522, says, next: "edgeallow sync --backend csf" }.is_told_and_mended(&lab);
}

#[test]
fn firewallds_zones_and_rich_rules() {
    let lab = healthy();
    firewalld::POLICY.setup(&lab);
    let both = |args: &[&str]| {
        cmd(&lab, args);
        cmd(&lab, &[&["--permanent"], args].concat());
    };
    let scene = |error, says| Scene { error, says, next: "edgeallow sync --backend firewalld" };
    // The same command as below, which takes seconds each time.
    scene(521, "firewalld rejects all of Cloudflare on ports 80 and 443").is_told(&lab);
    both(&["--add-service=http", "--add-service=https"]);
    expect_healthy(&doctor(&lab, &[]));
    let rule = "rule family=ipv4 source address=173.245.48.0/20 reject";
    both(&[&format!("--add-rich-rule={rule}")]);
    scene(521, "firewalld rejects Cloudflare's 173.245.48.0/20 on ports 80 and 443").is_told_and_mended(&lab);
    both(&[&format!("--remove-rich-rule={rule}")]);
    lab.edgeallow(["remove"]).expect_ok();
    both(&["--zone=drop", "--add-source=173.245.48.0/20"]);
    scene(522, "firewalld drops Cloudflare's 173.245.48.0/20 on ports 80 and 443").is_told_and_mended(&lab);
}

/// Stands in for `cscli`, and for the bouncer that hears of what it does.
const CSCLI: &str = "#!/bin/sh
bans=/var/lib/crowdsec.bans
case $1-$2 in
    decisions-list)
        [ -s $bans ] || { echo null; exit; }
        first=
        printf '[{\"decisions\":['
        while read -r ip; do printf '%s{\"type\":\"ban\",\"value\":\"%s\",\"scenario\":\"x\"}' \"$first\" \"$ip\"; first=,; done <$bans
        echo ']}]' ;;
    decisions-delete)
        grep -vxF \"$4\" $bans >$bans.new; mv $bans.new $bans
        case $4 in
            *:*) exec nft delete element ip6 crowdsec6 crowdsec6-blacklists \"{ $4 }\" ;;
            *) exec nft delete element ip crowdsec crowdsec-blacklists \"{ $4 }\" ;;
        esac ;;
    *) exit 1 ;;
esac
";

#[test]
fn crowdsecs_bans() {
    let lab = healthy();
    lab.write_file("/usr/bin/cscli", CSCLI);
    lab.chmod("/usr/bin/cscli", 0o755);
    expect_healthy(&doctor(&lab, &[]));
    lab.feed(["nft", "-f", "-"], CROWDSEC);
    lab.write_file("/var/lib/crowdsec.bans", "173.245.48.29\n104.23.0.0/16\n2400:cb00::9\n203.0.113.9\n");
    assert_eq!(lab.connect(EDGE4, 443), Reach::Timeout);
    let next = "cscli decisions delete --range 104.23.0.0/16 && cscli decisions delete --ip 173.245.48.29 && cscli decisions \
                delete --ip 2400:cb00::9";
    let says = "CrowdSec drops Cloudflare's 104.23.0.0/16 and one more range and Cloudflare's 2400:cb00::9 on ports 80 and 443";
    Scene { error: 522, says, next }.is_told_and_mended(&lab);
}

#[test]
fn plain_sets_with_bans() {
    let lab = healthy();
    let sets = "table inet guard {\n set bans { type ipv4_addr; flags interval; elements = { 173.245.48.0/24 }; }\n \
                chain in { type filter hook input priority 0; ip saddr @bans drop; }\n}";
    lab.feed(["nft", "-f", "-"], sets);
    let says = "the administrator's own nftables rules drop Cloudflare's 173.245.48.0/24 on ports 80 and 443";
    Scene { error: 522, says, next: "nft delete element inet guard bans { 173.245.48.0/24 }" }.is_told_and_mended(&lab);
    words(&lab, &["nft flush ruleset", "ipset create bans hash:net", "ipset add bans 173.245.48.0/24"]);
    words(&lab, &["iptables -I INPUT -m set --match-set bans src -j DROP"]);
    assert_eq!(lab.connect(EDGE4, 443), Reach::Timeout);
    let says = "the administrator's own iptables rules drop Cloudflare's 173.245.48.0/24 on ports 80 and 443";
    Scene { error: 522, says, next: "ipset del bans 173.245.48.0/24" }.is_told_and_mended(&lab);
    // A wider one stands for others too.
    words(&lab, &["ipset add bans 173.245.0.0/16"]);
    let says = "the administrator's own iptables rules drop Cloudflare's 173.245.48.0/20 on ports 80 and 443";
    Scene { error: 522, says, next: "edgeallow sync --backend iptables" }.is_told_and_mended(&lab);
}

#[test]
fn what_one_tool_does_to_both_families_is_one_cause() {
    let lab = healthy();
    enable(&lab);
    let says = "UFW drops all of Cloudflare on ports 80 and 443";
    Scene { error: 522, says, next: "edgeallow sync --backend ufw" }.is_told_and_mended(&lab);
    // The range has two rules then, the administrator's and edgeallow's.
    words(&lab, &["ufw insert 1 deny from 173.245.48.0/20"]);
    let says = "UFW drops Cloudflare's 173.245.48.0/20 on ports 80 and 443";
    Scene { error: 522, says, next: "edgeallow sync --backend ufw" }.is_told_and_mended(&lab);

    let lab = healthy();
    let rule = |ip: &str| format!("{ip} -A INPUT -p tcp -m multiport --dports 80,443 -j REJECT");
    words(&lab, &[&rule("iptables"), &rule("ip6tables")]);
    let says = "the administrator's own iptables rules reject all of Cloudflare on ports 80 and 443 with \
                icmp-port-unreachable and icmp6-port-unreachable";
    Scene { error: 521, says, next: "edgeallow sync --backend iptables" }.is_told_and_mended(&lab);

    let lab = healthy();
    words(&lab, &[&rule("ip6tables")]);
    let says =
        "the administrator's own iptables rules reject all of Cloudflare's IPv6 ranges on ports 80 and 443 with ";
    Scene { error: 521, says, next: "edgeallow sync --backend iptables" }.is_told_and_mended(&lab);
}
