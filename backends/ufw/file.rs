//! `user.rules` and `user6.rules`: what is ours in them, and the same file with other rules of ours.
//!
//! Belongs here: cutting ours out and putting ours in, so that every other byte stays. Does not: which rules
//! ([`super::target`]).
//!
//! ufw reads the tuples and writes the whole file anew from them; `iptables-restore` reads the other lines, at boot
//! and on reload. So both must say the same, in the form that ufw itself writes.

use std::sync::Arc;

use super::{
    rule::{Allow, Placed, chain},
    tuple::{MARK, Tuple},
};
use crate::{allowlist::Family, backends::iptables::save::split_words};

const RULES: &[u8] = b"### RULES ###";

/// A rules file, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The family.
    pub family: Family,
    /// The file as it is.
    pub content: Arc<[u8]>,
    /// What is ours, in order.
    pub ours: Vec<Placed>,
    /// One of ours isn't written as ufw would write it: its tuple says one thing and its rule another.
    pub spoiled: bool,
    /// Every tuple that isn't ours, in order; `None` where ufw couldn't read it either.
    pub foreign: Vec<Option<Tuple>>,
    /// The rules of others in the chain that ours go into, as far as they are of our form.
    pub alike: Vec<Allow>,
    /// Why the file can't be edited by us, if so: ufw itself can still change it.
    pub foreign_form: Option<&'static str>,
    /// The file without ours.
    rest: Vec<u8>,
    /// Where in [`Self::rest`] a rule goes that stands after so many rules of others.
    anchors: Vec<usize>,
}

impl Document {
    /// Takes a file apart.
    #[must_use]
    pub fn parse(content: Arc<[u8]>, family: Family) -> Self {
        let lines: Vec<&[u8]> = content.split_inclusive(|&b| b == b'\n').collect();
        let mut out = Self {
            family,
            ours: Vec::new(),
            spoiled: false,
            foreign: Vec::new(),
            alike: Vec::new(),
            foreign_form: form(&lines, family),
            rest: Vec::with_capacity(content.len()),
            anchors: Vec::new(),
            content: content.clone(),
        };
        let mut at = 0;
        while at < lines.len() {
            let line = lines[at];
            // A blank line belongs to the rule of ours that follows it.
            let blank = usize::from(trimmed(line).is_empty() && at + 1 < lines.len());
            let Some(tuple) = tuple(lines[at + blank]) else {
                out.keep(line);
                if trimmed(line) == RULES {
                    out.anchors.push(out.rest.len());
                }
                at += 1;
                continue;
            };
            let after = at + blank + 1;
            let first = at;
            if let Some(rule) = tuple.as_ref().and_then(|t| t.ours(family)) {
                // No line but the very one that we wrote: what else stands there may be somebody's.
                let block = rule.block();
                let mine = lines.get(after).is_some_and(|l| block.as_bytes().ends_with(l) && l.starts_with(b"-A "));
                at = after + usize::from(mine);
                out.spoiled |= lines[first..at].concat() != block.as_bytes();
                out.ours.push(Placed { after: out.foreign.len(), rule });
            } else {
                at = after + lines[after..].iter().take_while(|l| l.starts_with(b"-A ")).count();
                lines[first..at].iter().for_each(|line| out.keep(line));
                out.foreign.push(tuple);
                out.anchors.push(out.rest.len());
            }
        }
        out
    }

    fn keep(&mut self, line: &[u8]) {
        self.rest.extend_from_slice(line);
        let Some(rule) = line.strip_prefix(b"-A ") else { return };
        let words = split_words(&String::from_utf8_lossy(rule));
        if words.first().is_some_and(|c| c == chain(self.family)) {
            self.alike.extend(Allow::read(&words[1..], self.family));
        }
    }

    /// The file with these rules of ours instead of those that are in it. Only for a file that may be edited.
    #[must_use]
    pub fn with(&self, ours: &[Placed]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.content.len() + ours.len() * 200);
        let mut written = 0;
        for placed in ours {
            // Whatever is out of order goes where its neighbour went.
            let anchor = self.anchors.get(placed.after.min(self.foreign.len())).copied().unwrap_or(written);
            if anchor > written {
                out.extend_from_slice(&self.rest[written..anchor]);
                written = anchor;
            }
            out.extend_from_slice(placed.rule.block().as_bytes());
        }
        out.extend_from_slice(&self.rest[written..]);
        out
    }

    /// The first rule of others before this place that turns away some of what the rule lets in.
    #[must_use]
    pub fn refused_before(&self, after: usize, rule: &Allow) -> Option<&Tuple> {
        let before = self.foreign.iter().take(after).flatten();
        before.into_iter().find(|t| t.refuses(self.family).is_some_and(|scope| scope.touches_any(rule)))
    }
}

/// Whether this is the shape that ufw and its package give the file: then it is safe to put a rule into it.
fn form(lines: &[&[u8]], family: Family) -> Option<&'static str> {
    let at = |what: &dyn Fn(&[u8]) -> bool| {
        lines.iter().enumerate().filter(|(_, l)| what(trimmed(l))).map(|(i, _)| i).collect::<Vec<_>>()
    };
    let declared = format!(":{} ", chain(family));
    let (tables, commits) = (at(&|l| l.starts_with(b"*")), at(&|l| l == b"COMMIT"));
    let (rules, chains) = (at(&|l| l == RULES), at(&|l| l.starts_with(declared.as_bytes())));
    let ([table], [commit]) = (&tables[..], &commits[..]) else {
        return Some("it doesn't hold exactly one table");
    };
    if trimmed(lines[*table]) != b"*filter" {
        return Some("it isn't about the table filter");
    }
    let ([rules], [declared]) = (&rules[..], &chains[..]) else {
        return Some("it has no line `### RULES ###`, or doesn't declare ufw's chain");
    };
    let outside = |i: &usize| i < rules || i > commit;
    if !(table < declared && declared < rules && rules < commit) || at(&is_tuple).iter().any(outside) {
        return Some("its parts are out of order");
    }
    if !lines[*rules].ends_with(b"\n") || lines.iter().any(|l| l.starts_with(b"-A ") && !l.ends_with(b"\n")) {
        return Some("a line of it is cut off");
    }
    None
}

fn is_tuple(line: &[u8]) -> bool {
    line.starts_with(MARK.as_bytes())
}

/// `Some` for a tuple's line; inside it `None` if the tuple can't be read.
fn tuple(line: &[u8]) -> Option<Option<Tuple>> {
    let text = line.strip_prefix(MARK.as_bytes())?;
    Some(Tuple::read(String::from_utf8_lossy(text).trim()))
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.trim_ascii()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::Protocol;

    /// The file of the package, before ufw has ever written it.
    const FRESH: &str = "*filter\n:ufw-user-input - [0:0]\n:ufw-user-output - [0:0]\n### RULES ###\n\
        -A ufw-user-limit -j REJECT\nCOMMIT\n";

    fn parse(text: impl AsRef<[u8]>) -> Document {
        Document::parse(text.as_ref().into(), Family::V4)
    }

    fn placed(after: usize, from: &str) -> Placed {
        Placed { after, rule: Allow { from: from.parse().unwrap(), protocol: Protocol::Tcp, ports: vec![80, 443] } }
    }

    #[test]
    fn ours_goes_in_behind_the_heading_and_comes_out_again() {
        let fresh = parse(FRESH);
        assert_eq!((fresh.foreign_form, fresh.ours.len(), fresh.foreign.len()), (None, 0, 0));
        let ours = [placed(0, "10.0.0.0/8"), placed(0, "11.0.0.0/8")];
        let with = fresh.with(&ours);
        let text = String::from_utf8(with.clone()).unwrap();
        assert!(text.contains("### RULES ###\n\n### tuple ### allow tcp 80,443 0.0.0.0/0 any 10.0.0.0/8 in comment="));
        let again = parse(&with);
        assert_eq!((again.ours.as_slice(), again.spoiled, again.alike.len()), (&ours[..], false, 0));
        assert_eq!(again.with(&[]), FRESH.as_bytes());
    }

    #[test]
    fn a_rule_that_says_something_else_than_its_tuple_is_spoiled() {
        let good = parse(FRESH).with(&[placed(0, "10.0.0.0/8")]);
        let good = String::from_utf8(good).unwrap();
        for bad in [
            good.replace("-s 10.0.0.0/8 -j ACCEPT", "-s 10.0.0.0/8 -j DROP"),
            good.replace("-A ufw-user-input -p tcp -m multiport --dports 80,443 -s 10.0.0.0/8 -j ACCEPT\n", ""),
        ] {
            let seen = parse(&bad);
            assert!(seen.spoiled, "{bad}");
            let mended = parse(seen.with(&seen.ours));
            assert!(!mended.spoiled && mended.ours == seen.ours, "{bad}");
            assert!(
                String::from_utf8_lossy(&mended.content).starts_with(good.split("-A ufw-user-limit").next().unwrap())
            );
        }
    }

    #[test]
    fn a_file_of_another_shape_is_left_to_ufw() {
        for odd in ["", "COMMIT\n", &FRESH.replace("### RULES ###\n", ""), &FRESH.replace("COMMIT\n", "")] {
            assert!(parse(odd).foreign_form.is_some(), "{odd}");
        }
        let tail = format!("{FRESH}### tuple ### deny any 443 0.0.0.0/0 any 0.0.0.0/0 in\n");
        assert!(parse(&tail).foreign_form.is_some());
        assert_eq!(parse(&tail).foreign.len(), 1, "and yet its rules are seen");
    }

    /// A piece of somebody else's, as ufw writes it or as a person might.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(b"\n### tuple ### deny any 443 0.0.0.0/0 any 0.0.0.0/0 in\n-A ufw-user-input -p tcp --dport 443 -j DROP\n\
                   -A ufw-user-input -p udp --dport 443 -j DROP\n".to_vec()),
            Just(b"\n### tuple ### allow tcp 80,443 0.0.0.0/0 any 10.0.0.0/8 in comment=68c3b66d\n\
                   -A ufw-user-input -p tcp -m multiport --dports 80,443 -s 10.0.0.0/8 -j ACCEPT\n".to_vec()),
            Just(b"\n### tuple ### route:allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 in_eth0!out_eth1\r\n\
                   -A ufw-user-forward -i eth0 -o eth1 -p tcp --dport 80 -j ACCEPT\r\n".to_vec()),
            Just(b"### tuple ### nonsense\n".to_vec()),
            Just(b"\n\n# a remark\xff\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(|mut b| {
                b.retain(|c| *c != b'*' && *c != b'#' && *c != b'\n' && *c != b'-');
                b.push(b'\n');
                b
            }),
        ]
    }

    fn file() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(piece(), 0..6).prop_map(|pieces| {
            let head: &[u8] = b"*filter\n:ufw-user-input - [0:0]\n### RULES ###\n";
            [head, &pieces.concat(), b"\n### END RULES ###\nCOMMIT\n"].concat()
        })
    }

    proptest! {
        #[test]
        fn every_byte_of_others_stays(file in file(), places in proptest::collection::vec((0_usize..6, 1_u8..9), 0..6)) {
            let before = parse(&file);
            prop_assume!(before.foreign_form.is_none());
            let mut ours: Vec<_> =
                places.iter().map(|(after, n)| placed((*after).min(before.foreign.len()), &format!("{n}.0.0.0/8"))).collect();
            ours.sort_by_key(|p| p.after);
            let with = parse(before.with(&ours));
            prop_assert_eq!(&with.ours, &ours);
            prop_assert_eq!(&with.foreign, &before.foreign);
            prop_assert!(!with.spoiled);
            prop_assert_eq!(with.with(&[]), file);
            prop_assert_eq!(with.with(&ours), with.content.to_vec());
        }

        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(parse(&bytes).with(&[placed(3, "10.0.0.0/8")]).len() > bytes.len());
        }
    }
}
