//! The administrator's stored rules: what is ours in them, and the same bytes with that put right.
//!
//! Belongs here: reading and editing the text of `rules.v4` and its like. Does not: which file, and whether it is
//! used ([`super::seen`]), what should be ours ([`super::target`]).
//!
//! Only three kinds of lines are ever touched, all in the `*filter` section: the declaration of our chain, its rules,
//! and our jump in INPUT. Every other byte stays, be it a counter, a missing final newline or not UTF-8.
//!
//! A file that iptables-restore can't read as it stands is left alone: what is added to it would never be loaded.

use super::{
    rules::{CHAIN, JUMP, Part, Rule, is_jump, leads_into_ours},
    save::{Line, classify},
};

/// What a stored rule set holds of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Our chain and our jumps.
    pub part: Part,
    /// How many rules of others INPUT has.
    pub foreign: usize,
}

/// One line, with what it means to us.
struct Classified<'a> {
    bytes: &'a [u8],
    line: Line,
    ours: bool,
}

/// The lines before the filter section, its own from `*filter` up to but without `COMMIT`, and the rest.
struct Split<'a> {
    before: &'a [u8],
    section: Vec<Classified<'a>>,
    after: &'a [u8],
}

/// Reads what is ours.
///
/// # Errors
/// In words, why the text can't be edited safely.
pub fn read(text: &[u8]) -> Result<Found, &'static str> {
    let split = split(text)?;
    let mut part = Part::default();
    let (mut foreign, mut held) = (0, false);
    for line in &split.section {
        match &line.line {
            Line::Chain { name, .. } | Line::NewChain(name) if name == CHAIN => {
                part.chain.get_or_insert_default();
            }
            Line::Append { chain, rule } if chain == CHAIN => {
                part.chain.get_or_insert_default().push(Rule::read(rule.clone()));
            }
            Line::Append { chain, .. } | Line::Edit { chain, .. } if chain == "INPUT" && line.ours => {
                part.jumps.push(foreign + part.jumps.len());
            }
            Line::Append { chain, rule } => {
                foreign += usize::from(chain == "INPUT");
                held |= leads_into_ours(rule);
            }
            // Where such a line puts its rule depends on all before it: not worth a guess about a firewall.
            Line::Edit { chain, .. } if chain == "INPUT" || chain == CHAIN => {
                return Err("it inserts, deletes or replaces rules of INPUT by -I, -D or -R");
            }
            _ => {}
        }
    }
    if part.is_somebody_elses() {
        return Err("its chain EDGEALLOW is not edgeallow's");
    }
    Ok(Found { part: part.or_nothing_if_only_held(held), foreign })
}

/// The same text with another state of what is ours.
///
/// # Errors
/// Those of [`read`].
pub fn edit(text: &[u8], to: &Part) -> Result<Vec<u8>, &'static str> {
    let found = read(text)?;
    let split = split(text)?;
    let to = to.within(found.foreign);
    let his: Vec<&Classified<'_>> = split.section.iter().filter(|l| !l.ours).collect();
    let held = his.iter().any(|l| matches!(&l.line, Line::Append { rule, .. } if leads_into_ours(rule)));

    // His rule that leads into our chain fails to load without the chain: then it stays, empty.
    let declared = to.chain.is_some() || held;
    let last_declaration = his.iter().rposition(|l| matches!(l.line, Line::Chain { .. })).unwrap_or(0);
    let mut rules = to.chain.as_deref();
    let mut jumps = to.jumps.iter().copied().peekable();
    let mut out = Vec::with_capacity(text.len() + 4096);
    out.extend_from_slice(split.before);
    let mut place = 0;
    let mut enter = |out: &mut Vec<u8>| {
        out.extend_from_slice(format!("-A INPUT {}\n", JUMP.join(" ")).as_bytes());
        for rule in rules.take().unwrap_or_default() {
            out.extend_from_slice(format!("-A {CHAIN} {}\n", rule.text()).as_bytes());
        }
    };
    for (index, line) in his.iter().enumerate() {
        if matches!(&line.line, Line::Append { chain, .. } if chain == "INPUT") {
            while jumps.next_if_eq(&place).is_some() {
                enter(&mut out);
                place += 1;
            }
            place += 1;
        }
        out.extend_from_slice(line.bytes);
        if declared && index == last_declaration {
            out.extend_from_slice(format!(":{CHAIN} - [0:0]\n").as_bytes());
        }
    }
    for _ in jumps {
        enter(&mut out);
    }
    for rule in rules.take().unwrap_or_default() {
        out.extend_from_slice(format!("-A {CHAIN} {}\n", rule.text()).as_bytes());
    }
    out.extend_from_slice(split.after);
    Ok(out)
}

fn split(text: &[u8]) -> Result<Split<'_>, &'static str> {
    if text.split(|b| *b == b'\n').any(|line| line.ends_with(b"\r") && !line.starts_with(b"#")) {
        return Err("it has lines that end in CR LF, which iptables-restore can't read");
    }
    let mut lines = Vec::new();
    let mut offset = 0;
    for bytes in text.split_inclusive(|b| *b == b'\n') {
        lines.push((offset, bytes, classify(&String::from_utf8_lossy(bytes))));
        offset += bytes.len();
    }
    let mut sections = lines.iter().enumerate().filter(|(_, l)| matches!(&l.2, Line::Table(t) if t == "filter"));
    let Some((start, _)) = sections.next() else { return Err("it has no *filter section") };
    if sections.next().is_some() {
        return Err("it has more than one *filter section");
    }
    let length = lines[start..].iter().position(|l| l.2 == Line::Commit);
    let Some(end) = length.map(|n| start + n) else { return Err("its *filter section has no COMMIT") };
    if lines[start + 1..end].iter().any(|l| matches!(l.2, Line::Table(_))) {
        return Err("its *filter section has no COMMIT");
    }
    let (from, to) = (lines[start].0, lines[end].0);
    let section = lines.drain(start..end).map(|(_, bytes, line)| Classified { ours: is_ours(&line), bytes, line });
    Ok(Split { before: &text[..from], section: section.collect(), after: &text[to..] })
}

fn is_ours(line: &Line) -> bool {
    match line {
        Line::Chain { name, .. } | Line::NewChain(name) => name == CHAIN,
        Line::Append { chain, rule } => chain == CHAIN || (chain == "INPUT" && is_jump(rule)),
        // `-I INPUT -m …` and `-I INPUT 1 -m …`, as an administrator may have copied it.
        Line::Edit { chain, rule } => {
            chain == "INPUT" && (is_jump(rule) || (rule.len() > 1 && rule[0] == "1" && is_jump(&rule[1..])))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{rules, save},
        *,
    };

    const HIS: &str = "# mine\n*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n*filter\n:INPUT DROP [7:420]\n\
        :FORWARD ACCEPT [0:0]\n:f2b - [0:0]\n[3:180] -A INPUT -i lo -j ACCEPT\n# ssh\n\
        -A INPUT -p tcp -m tcp --dport 22 -m comment --comment \"it's \\\"mine\\\"\" -j ACCEPT\nCOMMIT\n# end\n";

    fn rule(port: u16) -> Rule {
        Rule::read(save::split_words(&format!(
            "-s 10.0.0.0/8 -p tcp -m multiport --dports {port} -m comment --comment edgeallow -j ACCEPT"
        )))
    }

    fn good() -> Part {
        Part::holding(vec![rule(80), rule(443)], vec![0])
    }

    fn edited(text: &str, to: &Part) -> String {
        String::from_utf8(edit(text.as_bytes(), to).unwrap()).unwrap()
    }

    #[test]
    fn ours_is_put_in_order_and_taken_out_to_the_byte() {
        let with = edited(HIS, &good());
        let expected = HIS
            .replace(":f2b - [0:0]\n", ":f2b - [0:0]\n:EDGEALLOW - [0:0]\n")
            .replace("[3:180] -A INPUT -i lo", &format!(
                "-A INPUT -m comment --comment edgeallow -j EDGEALLOW\n-A EDGEALLOW {}\n-A EDGEALLOW {}\n[3:180] -A INPUT -i lo",
                rule(80).text(), rule(443).text()
            ));
        assert_eq!(with, expected);
        assert_eq!(read(with.as_bytes()).unwrap(), Found { part: good(), foreign: 2 });
        assert_eq!(edited(&with, &Part::default()), HIS);
    }

    #[test]
    fn displaced_doubled_and_stale_ones_are_healed() {
        let jump = format!("-A INPUT {}\n", rules::JUMP.join(" "));
        let broken = HIS.replace("# ssh\n", &format!("# ssh\n{jump}")).replace(
            "COMMIT\n# end",
            &format!("[1:2] {jump}-A EDGEALLOW -p tcp -m set --match-set edgeallow4 src -j ACCEPT\nCOMMIT\n# end"),
        );
        let found = read(broken.as_bytes()).unwrap();
        assert_eq!(found.part.jumps, [1, 3]);
        assert_eq!(found.part.set_rules(crate::allowlist::Family::V4), 1);
        assert_eq!(edited(&broken, &good()), edited(HIS, &good()));
        assert_eq!(edited(&broken, &Part::default()), HIS);
    }

    #[test]
    fn an_inserted_jump_of_ours_is_known() {
        let hand =
            HIS.replace("COMMIT\n# end", "-I INPUT 1 -m comment --comment edgeallow -j EDGEALLOW\nCOMMIT\n# end");
        assert_eq!(read(hand.as_bytes()).unwrap().part.jumps, [2]);
        assert_eq!(edited(&hand, &good()), edited(HIS, &good()));
    }

    #[test]
    fn no_final_newline_odd_bytes_and_cr_in_comments_stay() {
        let mut his = HIS.replace("# ssh\n", "# ssh\r\n").into_bytes();
        his.truncate(his.len() - b"\n# end\n".len());
        let at = his.windows(4).position(|w| w == b"mine").unwrap();
        his[at] = 0xff;
        let with = edit(&his, &good()).unwrap();
        assert!(with.ends_with(b"COMMIT"));
        assert_eq!(edit(&with, &Part::default()).unwrap(), his);
    }

    #[test]
    fn a_chain_that_his_rule_needs_stays_declared() {
        let his = HIS.replace("COMMIT\n# end", "-A FORWARD -j EDGEALLOW\nCOMMIT\n# end");
        let with = edited(&his, &good());
        let without = edited(&with, &Part::default());
        assert!(without.contains(":EDGEALLOW - [0:0]\n") && !without.contains("-A EDGEALLOW"));
        assert_eq!(read(without.as_bytes()).unwrap().part, Part::default());
    }

    #[test]
    fn a_section_without_input_rules_and_without_chains_works() {
        assert_eq!(
            edited("*filter\nCOMMIT", &Part::holding(vec![], vec![0])),
            "*filter\n:EDGEALLOW - [0:0]\n-A INPUT -m comment --comment edgeallow -j EDGEALLOW\nCOMMIT"
        );
    }

    #[test]
    fn what_cannot_be_edited_safely_is_left() {
        for text in [
            "",
            "*nat\nCOMMIT\n",
            "*filter\n:INPUT DROP [0:0]\n",
            "*filter\n*nat\nCOMMIT\n",
            "*filter\nCOMMIT\n*filter\nCOMMIT\n",
            "*filter\n-I INPUT -j DROP\nCOMMIT\n",
            // What iptables-restore can't read, in whatever line and section.
            "*filter\r\n-A INPUT -j DROP\r\nCOMMIT\r\n",
            "*filter\n-A INPUT -j DROP\r\nCOMMIT\n",
            "*filter\n-A INPUT -j DROP\nCOMMIT\r",
            // A chain of our name that somebody else made.
            "*filter\n:EDGEALLOW - [0:0]\n-A EDGEALLOW -s 203.0.113.9 -j ACCEPT\nCOMMIT\n",
            "*nat\n-A OUTPUT -j ACCEPT\r\nCOMMIT\n*filter\nCOMMIT\n",
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
            assert!(edit(text.as_bytes(), &good()).is_err(), "{text}");
        }
    }

    fn his_line() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(b"-A INPUT -p tcp -j ACCEPT".to_vec()),
            Just(b"[1:2] -A INPUT -j DROP".to_vec()),
            Just(b"-A FORWARD -j DROP".to_vec()),
            Just(b":his - [0:0]".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..12).prop_map(|v| [
                b"# ".to_vec(),
                v.into_iter().filter(|b| *b != b'\n').collect()
            ]
            .concat()),
        ]
    }

    proptest! {
        #[test]
        fn his_bytes_never_change(
            lines in proptest::collection::vec(his_line(), 0..12),
            jumps in proptest::collection::btree_set(0_usize..8, 0..3),
            ports in proptest::collection::vec(1_u16.., 0..4),
        ) {
            let mut his = b"*filter\n".to_vec();
            for line in &lines {
                his.extend_from_slice(line);
                his.push(b'\n');
            }
            his.extend_from_slice(b"COMMIT");
            let to = Part::holding(ports.into_iter().map(rule).collect(), jumps.into_iter().collect());
            let with = edit(&his, &to).unwrap();
            let found = read(&with).unwrap();
            prop_assert_eq!(&found.part, &to.within(found.foreign));
            prop_assert_eq!(&edit(&with, &to).unwrap(), &with);
            prop_assert_eq!(edit(&with, &Part::default()).unwrap(), his.clone());
            let healed = edit(&with, &good()).unwrap();
            prop_assert_eq!(healed, edit(&his, &good()).unwrap());
        }

        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let _ = edit(&bytes, &good());
        }
    }
}
