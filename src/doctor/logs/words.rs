//! Finding words in a line. The search of the standard library makes itself ready anew for each question, which costs more
//! than the answer in a line of two hundred bytes: here, the first byte is looked for, many at once.
//!
//! Belongs here: text, whatever it means. Does not: what a line says ([`super::line`]).

use aho_corasick::{AhoCorasick, Input, Match, MatchKind, Span, packed};
use memchr::{memchr, memchr_iter, memrchr_iter};

/// Searches for several words at once.
pub(super) enum Searcher {
    /// Several bytes at once, where the processor can.
    Packed(packed::Searcher),
    Automaton(AhoCorasick),
}

impl Searcher {
    /// `None` if the search can't be prepared, which the tests rule out. The first four bytes of each are what is searched
    /// for first, and should be rare.
    pub fn new(words: &[&str]) -> Option<Self> {
        let kind = packed::MatchKind::LeftmostFirst;
        if let Some(searcher) = packed::Config::new().match_kind(kind).builder().extend(words).build() {
            return Some(Self::Packed(searcher));
        }
        AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(words).ok().map(Self::Automaton)
    }

    /// The next one.
    pub fn find(&self, text: &[u8], from: usize) -> Option<Match> {
        match self {
            Self::Packed(s) => s.find_in(text, Span::from(from..text.len())),
            Self::Automaton(s) => s.find(Input::new(text).span(from..text.len())),
        }
    }
}

/// As [`str::split_once`]. The mark begins with an ASCII character.
pub(super) fn cut<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let at = memchr_iter(first(mark)?, text.as_bytes()).find(|at| stands(text, *at, mark))?;
    Some((&text[..at], &text[at + mark.len()..]))
}

/// As [`str::rsplit_once`]. The mark begins with an ASCII character.
pub(super) fn cut_last<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let at = memrchr_iter(first(mark)?, text.as_bytes()).find(|at| stands(text, *at, mark))?;
    Some((&text[..at], &text[at + mark.len()..]))
}

fn first(mark: &str) -> Option<u8> {
    mark.bytes().next().filter(u8::is_ascii)
}

/// Whether the mark, whose first byte does, stands there. The third byte, or the last one, tells nearly always: many marks
/// begin with a comma and a blank.
fn stands(text: &str, at: usize, mark: &str) -> bool {
    let (text, mark) = (&text.as_bytes()[at..], mark.as_bytes());
    let telling = mark.len().min(3) - 1;
    telling == 0 || (text.get(telling) == mark.get(telling) && text.starts_with(mark))
}

/// As [`str::strip_prefix`] with an ASCII character.
pub(super) fn after(text: &str, byte: u8) -> Option<&str> {
    (byte.is_ascii() && text.as_bytes().first() == Some(&byte)).then(|| &text[1..])
}

/// What stands before the mark, or all of it.
pub(super) fn before<'a>(text: &'a str, mark: &str) -> &'a str {
    cut(text, mark).map_or(text, |(before, _)| before)
}

/// As `text.split(' ')`.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = memchr(b' ', text.as_bytes());
        rest = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

/// Without the digits that it begins with.
pub(super) fn after_digits(text: &str) -> &str {
    &text[text.bytes().take_while(u8::is_ascii_digit).count()..]
}

/// Whether it begins with this, in small or capital letters.
pub(super) fn begins(text: &[u8], small: &str) -> bool {
    text.get(..small.len()).is_some_and(|text| text.eq_ignore_ascii_case(small.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_the_standard_librarys(text in "[ab:, ü\\]]{0,30}", mark in "[ab:, \\]][ab:, ü\\]]{0,3}") {
            prop_assert_eq!(cut(&text, &mark), text.split_once(mark.as_str()));
            prop_assert_eq!(cut_last(&text, &mark), text.rsplit_once(mark.as_str()));
            prop_assert_eq!(before(&text, &mark), text.split(mark.as_str()).next().unwrap());
            prop_assert!(words(&text).eq(text.split(' ')));
            let byte = mark.as_bytes()[0];
            prop_assert_eq!(after(&text, byte), text.strip_prefix(char::from(byte)));
        }

        #[test]
        fn digits_go_and_letters_are_of_either_size(text in "[1aA9ü]{0,9}", small in "[1a9]{0,3}") {
            prop_assert_eq!(after_digits(&text), text.trim_start_matches(|c: char| c.is_ascii_digit()));
            prop_assert_eq!(begins(text.as_bytes(), &small), text.to_ascii_lowercase().starts_with(&small));
        }
    }
}
