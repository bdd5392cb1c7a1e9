//! From "is there any certificate?" to the exact encryption mode: a tree of questions with a yes and a no.
//!
//! The tree is data. The doctor walks it, and `docs/tls-modes.svg` is drawn from it, so the two can't disagree.
//!
//! Belongs here: the tree. Does not: finding out the answers.

use crate::doctor::Mode;

/// What is known of an origin, as far as it matters to the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Something takes connections on the HTTPS port.
    pub listens: bool,
    /// A handshake with what Cloudflare offers shows a certificate.
    pub handshake: bool,
    /// It is the word of a public authority with its whole chain, or of Cloudflare's Origin CA.
    pub trusted: bool,
    /// Today lies within its dates.
    pub in_time: bool,
    /// It is for the site's name, as far as that is known.
    pub named: bool,
}

/// A question that can be answered with yes or no.
#[derive(Debug)]
pub struct Question {
    /// As a person would ask.
    pub text: &'static str,
    /// The answer.
    pub answer: fn(&Facts) -> bool,
}

/// An answer's end of the tree.
#[derive(Debug, PartialEq, Eq)]
pub struct Choice {
    /// The mode to choose: the strictest that works.
    pub mode: Mode,
    /// The error that visitors see under Full; none where it works.
    pub full: Option<u16>,
    /// The same under Full (strict).
    pub strict: Option<u16>,
    /// What to do to get to a stricter one, in words.
    pub next: Option<&'static str>,
}

/// A place in the tree.
#[derive(Debug)]
pub enum Node {
    /// Another question.
    Ask {
        /// What is asked.
        question: Question,
        /// Where yes leads.
        yes: &'static Node,
        /// Where no leads.
        no: &'static Node,
    },
    /// The end.
    Choose(Choice),
}

/// The first question.
pub static TREE: Node = Node::Ask {
    question: Question { text: "Does anything take connections on port 443?", answer: |f| f.listens },
    yes: &HANDSHAKE,
    no: &Node::Choose(Choice {
        mode: Mode::Flexible,
        full: Some(521),
        strict: Some(521),
        next: Some("install a certificate and let the web server listen on port 443"),
    }),
};

static HANDSHAKE: Node = Node::Ask {
    question: Question { text: "Is there any certificate: does a TLS handshake succeed?", answer: |f| f.handshake },
    yes: &TRUSTED,
    no: &Node::Choose(Choice {
        mode: Mode::Flexible,
        full: Some(525),
        strict: Some(525),
        next: Some("install a certificate, and let the web server speak TLS 1.2 and 1.3"),
    }),
};

static TRUSTED: Node = Node::Ask {
    question: Question {
        text: "Is it of a public authority with its whole chain, or of Cloudflare's Origin CA?",
        answer: |f| f.trusted,
    },
    yes: &IN_TIME,
    no: &Node::Choose(Choice {
        mode: Mode::Full,
        full: None,
        strict: Some(526),
        next: Some("install a certificate of Cloudflare's Origin CA, or one of a public authority with its chain"),
    }),
};

static IN_TIME: Node = Node::Ask {
    question: Question { text: "Is today within its dates?", answer: |f| f.in_time },
    yes: &NAMED,
    no: &Node::Choose(Choice {
        mode: Mode::Full,
        full: None,
        strict: Some(526),
        next: Some("renew it, and see to it that it is renewed by itself"),
    }),
};

static NAMED: Node = Node::Ask {
    question: Question { text: "Is it for the site's name?", answer: |f| f.named },
    yes: &Node::Choose(Choice { mode: Mode::Strict, full: None, strict: None, next: None }),
    no: &Node::Choose(Choice {
        mode: Mode::Full,
        full: None,
        strict: Some(526),
        next: Some("have it made out for every name of the site"),
    }),
};

/// The name that Cloudflare's dashboard gives a mode.
#[must_use]
pub const fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Flexible => "Off or Flexible",
        Mode::Full => "Full",
        Mode::Strict => "Full (strict)",
        Mode::Unknown => "unknown",
    }
}

/// The way through the tree: the questions with their answers, and the choice.
#[must_use]
pub fn choose(facts: &Facts) -> (Vec<(&'static str, bool)>, &'static Choice) {
    let (mut node, mut way) = (&TREE, Vec::new());
    loop {
        match node {
            Node::Choose(choice) => return (way, choice),
            Node::Ask { question, yes, no } => {
                let answer = (question.answer)(facts);
                way.push((question.text, answer));
                node = if answer { yes } else { no };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Facts in which exactly these hold, from the first question on.
    fn facts(yes: u8) -> Facts {
        let bit = |n: u8| yes & 1 << n != 0;
        Facts { listens: bit(0), handshake: bit(1), trusted: bit(2), in_time: bit(3), named: bit(4) }
    }

    #[test]
    fn every_origin_gets_the_strictest_mode_that_works() {
        for yes in 0..32 {
            let facts = facts(yes);
            let (way, choice) = choose(&facts);
            let full = facts.listens && facts.handshake;
            let strict = full && facts.trusted && facts.in_time && facts.named;
            assert_eq!((choice.full.is_none(), choice.strict.is_none()), (full, strict), "{facts:?}");
            let best = if strict {
                Mode::Strict
            } else if full {
                Mode::Full
            } else {
                Mode::Flexible
            };
            assert_eq!(choice.mode, best, "{facts:?}");
            assert_eq!(choice.next.is_none(), strict, "{facts:?}");
            assert!(way.iter().rev().skip(1).all(|(_, answer)| *answer), "{way:?}");
        }
    }

    #[test]
    fn the_errors_are_those_of_the_first_thing_that_fails() {
        assert_eq!(choose(&facts(0b00000)).1.strict, Some(521));
        assert_eq!(choose(&facts(0b00001)).1.full, Some(525));
        assert_eq!(choose(&facts(0b01011)).1.strict, Some(526));
        assert_eq!(choose(&facts(0b11111)).1.strict, None);
    }
}
