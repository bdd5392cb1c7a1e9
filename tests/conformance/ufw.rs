//! Hosts guarded by ufw, as Debian packages it.

use super::{Drift, Kind};
use crate::{
    lab::{Lab, STRANGER4, STRANGER6},
    run::PUBLISHED,
};

/// ufw, active, with rules of the administrator's.
pub const UFW: Ufw = Ufw;

pub struct Ufw;

/// The rules files and how their chains begin.
pub const FILES: [(&str, &str); 2] = [("/etc/ufw/user.rules", "ufw"), ("/etc/ufw/user6.rules", "ufw6")];

/// How the tuples of ours end.
const TAG: &str = "comment=65646765616c6c6f77";

/// Prefixes that the suite lets in beside the published ones.
const MORE: [&str; 5] = ["9.9.9.0/24", "9.9.8.0/24", "2620:fe::/48", "20.0.0.0/24", "2a00::/32"];

/// Writes a rules file as ufw does, with a tuple and its rules for each of these pairs.
pub fn rules_file(prefix: &str, rules: &[(&str, &[&str])]) -> String {
    let mut out = String::from("*filter\n");
    for chain in ["user-input", "user-output", "user-forward", "user-logging-input", "user-limit", "user-limit-accept"]
    {
        out += &format!(":{prefix}-{chain} - [0:0]\n");
    }
    out += "### RULES ###\n";
    for (tuple, lines) in rules {
        out += &format!("\n### tuple ### {tuple}\n");
        for line in *lines {
            out += &format!("-A {prefix}-{line}\n");
        }
    }
    out + "\n### END RULES ###\nCOMMIT\n"
}

/// Writes these rules into one of [`FILES`], as the administrator's.
pub fn write_rules(lab: &Lab, file: (&str, &str), rules: &[(&str, &[&str])]) {
    lab.write_file(file.0, rules_file(file.1, rules));
    lab.chmod(file.0, 0o640);
}

/// Enables ufw, which writes its files anew, and loads them as a boot would: the package's own are shorter.
pub fn enable(lab: &Lab) {
    lab.run(["ufw", "--force", "enable"]);
    UFW.boot(lab);
}

fn administrators_rules(lab: &Lab) {
    let log = "user-logging-input -p tcp --dport 443 -m conntrack --ctstate NEW -m limit --limit 3/min --limit-burst 10 \
               -j LOG --log-prefix \"[UFW BLOCK] \"";
    let deny = [log, "user-logging-input -p tcp --dport 443 -j RETURN", "user-input -p tcp --dport 443 -j DROP"];
    let common = |all: &str, stranger: &str| {
        [
            format!("deny any any {all} any {stranger} in comment=62616e6e6564"),
            format!("allow tcp 22 {all} any {all} in"),
            format!("deny_log tcp 443 {all} any {all} in"),
            format!("route:allow tcp 80 {all} any {all} in_eth0!out_eth1"),
        ]
    };
    for (file, all, stranger) in [(FILES[0], "0.0.0.0/0", STRANGER4), (FILES[1], "::/0", STRANGER6)] {
        let [ban, ssh, log, route] = common(all, stranger);
        let banned = format!("user-input -s {stranger} -j DROP");
        write_rules(
            lab,
            file,
            &[
                (&ban, &[&banned]),
                (&ssh, &["user-input -p tcp --dport 22 -j ACCEPT"]),
                (&log, &deny),
                (&route, &["user-forward -i eth0 -o eth1 -p tcp --dport 80 -j ACCEPT"]),
            ],
        );
    }
}

/// The first of our rules in a family's chain, as words that `-D` takes.
fn first_of_ours(lab: &Lab, program: &str, chain: &str) -> Vec<String> {
    let saved = lab.run([&format!("{program}-save")]).stdout;
    let rule = saved
        .lines()
        .find(|l| l.starts_with(&format!("-A {chain} ")) && PUBLISHED.iter().any(|p| l.contains(&format!("-s {p} "))));
    let rule = rule.unwrap_or_else(|| panic!("none of our rules is in {chain}: {saved}"));
    rule.split_whitespace().skip(1).map(str::to_owned).collect()
}

impl Kind for Ufw {
    fn backend(&self) -> &'static str {
        "ufw"
    }

    fn folder(&self) -> &'static str {
        "/etc/ufw"
    }

    fn setup(&self, lab: &Lab) {
        administrators_rules(lab);
        enable(lab);
    }

    fn drifts(&self) -> Vec<Drift> {
        let delete = |program: &'static str, chain: &'static str| {
            move |lab: &Lab| {
                let rule = first_of_ours(lab, program, chain);
                lab.run([program, "-D"].into_iter().map(str::to_owned).chain(rule));
            }
        };
        vec![
            Drift::new("a rule is missing from the chain", delete("iptables", "ufw-user-input")),
            Drift::new("a rule is missing from the chain for IPv6", delete("ip6tables", "ufw6-user-input")),
            Drift::new("somebody puts a rule before ours in the kernel", |lab| {
                let rule = "-I ufw-user-input 1 -s 173.245.48.0/20 -p tcp --dport 443 -j DROP";
                lab.run([&["iptables"], rule.split(' ').collect::<Vec<_>>().as_slice()].concat());
            }),
            Drift::new("the administrator puts a deny before ours", |lab| {
                let rule = "prepend deny from 173.245.48.0/20 to any port 443";
                lab.run([&["ufw"], rule.split(' ').collect::<Vec<_>>().as_slice()].concat());
            }),
            Drift::new("a rule is deleted by ufw's own command", |lab| {
                let rule = "delete allow from 173.245.48.0/20 to any port 80,443 proto tcp comment edgeallow";
                lab.run([&["ufw"], rule.split(' ').collect::<Vec<_>>().as_slice()].concat());
            }),
            Drift::new("the rules files are written anew", administrators_rules),
            Drift::new("a stored rule doesn't say what its tuple says", |lab| {
                let (path, _) = FILES[0];
                let text = lab.read_file(path).replace("-s 173.245.48.0/20 -j ACCEPT", "-s 173.245.48.0/20 -j DROP");
                lab.write_file(path, text);
                lab.chmod(path, 0o640);
            }),
        ]
    }

    fn reload(&self, lab: &Lab) {
        lab.run(["ufw", "reload"]);
    }

    fn boot(&self, lab: &Lab) {
        lab.run(["nft", "flush", "ruleset"]);
        lab.run(["/lib/ufw/ufw-init", "start"]);
    }

    /// The kernel's rules carry no comment, ufw writes it in hexadecimal, and a blank line before each rule.
    fn ours_without_tag(&self, line: &str) -> bool {
        let address = |p: &&str| {
            let (address, _) = p.split_once('/').unwrap_or((p, ""));
            line.contains(p as &str) || line.contains(&format!("\"{address}\""))
        };
        line.is_empty() || line.contains(TAG) || PUBLISHED.iter().chain(&MORE).any(address)
    }
}
