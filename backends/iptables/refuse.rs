//! Whether an iptables filter table can turn a connection away by itself, and whose work that is.
//!
//! Belongs here: following INPUT through its chains, and the names by which other programs' chains are known. Does
//! not: what to do about it ([`super::target`]).

use std::collections::BTreeSet;

use super::{rules::CHAIN, save::Filter};

/// What a table does to a connection that no rule lets in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What of the administrator's own can refuse, in words; `None` if nothing can.
    pub refuses: Option<String>,
    /// The programs whose chains INPUT leads into.
    pub others: BTreeSet<&'static str>,
}

/// Targets that end a connection's hopes. The last four are those of xtables-addons.
const REFUSALS: [&str; 6] = ["DROP", "REJECT", "TARPIT", "DELUDE", "CHAOS", "STEAL"];

/// Programs that put chains into INPUT: how the names begin. What is in such a chain is that program's.
const CHAINS: [(&str, &str); 12] = [
    ("ufw-", "ufw"),
    ("ufw6-", "ufw"),
    ("f2b-", "fail2ban"),
    ("fail2ban-", "fail2ban"),
    ("DOCKER", "docker"),
    ("LIBVIRT_", "libvirt"),
    ("KUBE-", "kubernetes"),
    ("sshguard", "sshguard"),
    ("CROWDSEC", "crowdsec"),
    ("crowdsec", "crowdsec"),
    ("INPUT_ZONES", "firewalld"),
    ("INPUT_direct", "firewalld"),
];

/// Chains that only CSF makes, and hooks into INPUT: then the whole of the table is CSF's.
const CSF: [&str; 3] = ["LOCALINPUT", "ALLOWIN", "DENYIN"];

fn owner(chain: &str) -> Option<&'static str> {
    if CSF.contains(&chain) {
        return Some("csf");
    }
    CHAINS.iter().find(|(start, _)| chain.starts_with(start)).map(|(_, program)| *program)
}

/// Follows INPUT. The chain of our name is looked into only if it is `taken` by somebody else.
#[must_use]
pub fn verdict(filter: &Filter, taken: bool) -> Verdict {
    let mut out = Verdict::default();
    let Some(input) = filter.chains.get("INPUT") else { return out };
    let mut refusing = None;
    let (mut to_do, mut seen) = (vec!["INPUT"], BTreeSet::from(["INPUT"]));
    if !taken {
        seen.insert(CHAIN);
    }
    while let Some(name) = to_do.pop() {
        let Some(chain) = filter.chains.get(name) else { continue };
        for rule in &chain.rules {
            let Some(target) = target(rule) else { continue };
            if let Some(program) = owner(target) {
                out.others.insert(program);
            } else if let Some((next, _)) = filter.chains.get_key_value(target) {
                if seen.insert(next) {
                    to_do.push(next);
                }
            } else if REFUSALS.contains(&target) && !only_loopback(rule) && refusing.is_none() {
                refusing = Some(format!("{name} has a rule that says {target}"));
            }
        }
    }
    let policy_is_others = out.others.contains("ufw");
    if let Some(policy) = input.policy.as_deref().filter(|p| *p != "ACCEPT" && !policy_is_others) {
        refusing = Some(format!("INPUT has policy {policy}"));
    }
    // These two own the table as a whole, also the rules that stand in INPUT itself.
    if !out.others.contains("csf") && !out.others.contains("firewalld") {
        out.refuses = refusing;
    }
    out
}

/// Where a rule leads: its `-j` or `-g`.
fn target(rule: &[String]) -> Option<&str> {
    rule.windows(2).find(|w| matches!(w[0].as_str(), "-j" | "-g" | "--jump" | "--goto")).map(|w| w[1].as_str())
}

/// No connection from outside comes by `lo`.
fn only_loopback(rule: &[String]) -> bool {
    rule.windows(2).enumerate().any(|(i, w)| w[0] == "-i" && w[1] == "lo" && (i == 0 || rule[i - 1] != "!"))
}

#[cfg(test)]
mod tests {
    use super::{super::save, *};

    fn of(text: &str) -> Verdict {
        verdict(&save::parse(format!("*filter\n{text}\nCOMMIT\n").as_bytes()).filter.unwrap(), false)
    }

    #[test]
    fn a_policy_or_a_rule_refuses() {
        assert_eq!(of(":INPUT DROP [0:0]").refuses.as_deref(), Some("INPUT has policy DROP"));
        assert!(of(":INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j REJECT --reject-with tcp-reset").refuses.is_some());
        assert_eq!(of(":INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j ACCEPT").refuses, None);
        assert_eq!(of(":INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]").refuses, None);
        assert_eq!(of(":INPUT ACCEPT [0:0]\n-A INPUT -s 127.0.0.0/8 -i lo -j DROP").refuses, None);
        assert!(of(":INPUT ACCEPT [0:0]\n-A INPUT -s 127.0.0.0/8 ! -i lo -j DROP").refuses.is_some());
    }

    #[test]
    fn jumps_and_gotos_are_followed_and_loops_end() {
        let tail = ":INPUT ACCEPT [0:0]\n:A - [0:0]\n:B - [0:0]\n-A A -g B\n-A B -j A\n-A B -j DROP";
        assert_eq!(of(&format!("{tail}\n-A INPUT -j A")).refuses.as_deref(), Some("B has a rule that says DROP"));
        assert_eq!(of(tail).refuses, None);
    }

    #[test]
    fn what_other_programs_put_there_is_theirs() {
        let ufw = of(
            ":INPUT DROP [0:0]\n:ufw-before-input - [0:0]\n-A INPUT -j ufw-before-input\n-A ufw-before-input -j DROP",
        );
        assert_eq!((ufw.refuses, ufw.others), (None, BTreeSet::from(["ufw"])));
        let csf = of(":INPUT DROP [0:0]\n:LOCALINPUT - [0:0]\n-A INPUT ! -i lo -j LOCALINPUT\n-A INPUT -j DROP");
        assert_eq!((csf.refuses, csf.others), (None, BTreeSet::from(["csf"])));
        assert_eq!(
            of(":INPUT ACCEPT [0:0]\n:f2b-sshd - [0:0]\n-A INPUT -j f2b-sshd\n-A f2b-sshd -j REJECT").refuses,
            None
        );
    }

    #[test]
    fn his_own_beside_theirs_still_counts() {
        assert!(of(":INPUT DROP [0:0]\n:f2b-sshd - [0:0]\n-A INPUT -j f2b-sshd").refuses.is_some());
        assert!(
            of(":INPUT DROP [0:0]\n:ufw-user-input - [0:0]\n-A INPUT -j ufw-user-input\n-A INPUT -j DROP")
                .refuses
                .is_some()
        );
        // Chains of ufw's that nothing leads into change nothing.
        assert!(of(":INPUT DROP [0:0]\n:ufw-user-input - [0:0]").refuses.is_some());
    }

    #[test]
    fn our_own_chain_is_not_looked_into() {
        let text = ":INPUT ACCEPT [0:0]\n:EDGEALLOW - [0:0]\n-A INPUT -j EDGEALLOW\n-A EDGEALLOW -j DROP";
        assert_eq!(of(text).refuses, None);
        let filter = save::parse(format!("*filter\n{text}\nCOMMIT\n").as_bytes()).filter.unwrap();
        assert!(verdict(&filter, true).refuses.is_some());
    }
}
