//! Our one line in the distribution's configuration: always its last statement, and nothing else of it is touched.
//!
//! Belongs here: edits of bytes. The file may hold any bytes and any line ends. Does not: which file.

/// How the line begins; the rest of it is a comment.
const STATEMENT: &[u8] = b"include \"/etc/edgeallow/nftables/*.nft\"";
const LINE: &[u8] = b"include \"/etc/edgeallow/nftables/*.nft\" # edgeallow\n";
/// The line where the text before it had no final line end: taking it out takes that line end out again.
const LINE_AFTER_OUR_END: &[u8] =
    b"include \"/etc/edgeallow/nftables/*.nft\" # edgeallow, with the line end before it\n";
const OUR_END: &[u8] = b"# edgeallow, with the line end before it";

fn is_ours(line: &[u8]) -> bool {
    line.trim_ascii().starts_with(STATEMENT)
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|b| *b == b'\n')
}

/// Whether the line is there at all.
pub(super) fn has(text: &[u8]) -> bool {
    lines(text).any(is_ours)
}

/// Whether the line is there once, and only blank lines and comments follow.
pub(super) fn is_last(text: &[u8]) -> bool {
    let mut rest = lines(text).skip_while(|l| !is_ours(l));
    let idle = |line: &[u8]| line.trim_ascii().is_empty() || line.trim_ascii().starts_with(b"#");
    rest.next().is_some() && rest.all(idle)
}

/// Whether a line can be put behind the text: not if its last line goes on in the next.
pub(super) fn can_follow(text: &[u8]) -> bool {
    !without(text).trim_ascii_end().ends_with(b"\\")
}

/// The text without our line.
pub(super) fn without(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut end = false;
    for line in lines(text) {
        if is_ours(line) {
            end = line.trim_ascii().ends_with(OUR_END);
        } else {
            end = false;
            out.extend_from_slice(line);
        }
    }
    // With something behind our line, the line end before it has become his.
    if end && out.ends_with(b"\n") {
        out.pop();
    }
    out
}

/// The text with our line as the last statement.
pub(super) fn with(text: &[u8]) -> Vec<u8> {
    let mut out = without(text);
    if out.is_empty() || out.ends_with(b"\n") {
        out.extend_from_slice(LINE);
    } else {
        out.push(b'\n');
        out.extend_from_slice(LINE_AFTER_OUR_END);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_line_goes_last_and_comes_out_again() {
        for his in
            [&b""[..], b"\n", b"flush ruleset\n", b"table inet f {\r\n}\r\n", b"table inet f {}", b"# \xff\xfe\n# x"]
        {
            let edited = with(his);
            assert!(is_last(&edited) && edited.starts_with(his), "{edited:?}");
            assert!(edited.ends_with(b"\n"));
            assert_eq!(without(&edited), his);
            assert_eq!(with(&edited), edited);
        }
    }

    #[test]
    fn a_statement_behind_it_is_noticed_and_overtaken() {
        let mut text = with(b"flush ruleset");
        text.extend_from_slice(b"# a comment\n\n");
        assert!(is_last(&text));
        text.extend_from_slice(b"add table inet late\n");
        assert!(!is_last(&text));
        let mended = with(&text);
        assert!(is_last(&mended));
        assert_eq!(without(&mended), b"flush ruleset\n# a comment\n\nadd table inet late\n");
    }

    #[test]
    fn a_doubled_line_is_made_one() {
        let twice = [LINE, LINE].concat();
        assert!(has(&twice) && !is_last(&twice));
        assert_eq!(with(&twice), LINE);
    }

    #[test]
    fn nothing_follows_a_line_that_goes_on() {
        assert!(!can_follow(b"add table inet a \\\n"));
        assert!(can_follow(b"add table inet a\n"));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(his in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'#'), any::<u8>()], 0..200)) {
            let edited = with(&his);
            prop_assert!(edited.starts_with(&his));
            prop_assert!(is_last(&edited));
            prop_assert_eq!(without(&edited), his);
        }
    }
}
