//! What can be said of a document before it is parsed: that it is text at all, and not a web page.
//!
//! Belongs here: that first look, and words of a stranger made fit to be shown. Does not: lines and prefixes
//! ([`crate::allowlist`]).

use crate::error::{Error, ErrorKind, Result};

/// The longest piece of somebody else's text that a message repeats, in characters.
const QUOTE: usize = 160;

/// Refuses what can't be a list of any shape: nothing, a web page, binary data.
///
/// # Errors
/// `list-not-a-list`.
pub fn check(bytes: &[u8]) -> Result<()> {
    let visible = visible(bytes);
    if visible.is_empty() {
        return Err(not_a_list("it is empty"));
    }
    if visible.first() == Some(&b'<') {
        return Err(Error::new(ErrorKind::ListNotAList, "this is not a list: it is a web page")
            .hint("a proxy or a login page may stand between this machine and the server"));
    }
    match std::str::from_utf8(bytes) {
        Err(e) => Err(not_a_list(&format!("it is not text (byte {})", e.valid_up_to()))),
        Ok(text) => match text.find(|c: char| c.is_control() && !c.is_ascii_whitespace()) {
            Some(at) => Err(not_a_list(&format!("it is not text (byte {at})"))),
            None => Ok(()),
        },
    }
}

/// The bytes without a byte order mark and blanks around.
pub(super) fn visible(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii()
}

pub(super) fn not_a_list(why: &str) -> Error {
    Error::new(ErrorKind::ListNotAList, format!("this is not a list: {why}"))
        .hint("look at the document itself; nothing was changed")
}

/// Somebody else's words without what could move a cursor, and not endless.
pub(super) fn clean(text: &str) -> String {
    let mut out: String = text.chars().take(QUOTE).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(QUOTE).is_some() {
        out.push('…');
    }
    out
}

/// The same between quotation marks.
pub(super) fn quoted(text: &str) -> String {
    format!("“{}”", clean(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_passes_and_nothing_else() {
        for good in [&b"1.2.3.0/24"[..], b"\xef\xbb\xbf# c\r\n1.2.3.0/24\r\n", b"anything, for now\t\x0c"] {
            assert_eq!(check(good), Ok(()));
        }
        for bad in [&b""[..], b"\xef\xbb\xbf \r\n", b" <html>", b"\x1f\x8b\x08", b"1.2.3.0/24\n\0", b"caf\xe9", b"\x7f"]
        {
            assert_eq!(check(bad).unwrap_err().kind, ErrorKind::ListNotAList, "{bad:?}");
        }
    }

    #[test]
    fn quotes_are_short_and_tame() {
        assert_eq!(quoted("a\x1b[2Jb"), "“a [2Jb”");
        assert_eq!(clean(&"é".repeat(QUOTE + 1)), format!("{}…", "é".repeat(QUOTE)));
        assert_eq!(clean(&"é".repeat(QUOTE)), "é".repeat(QUOTE));
    }
}
