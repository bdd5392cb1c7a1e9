//! Finding the few lines that matter in a log of any size: one pass over blocks, no copy of what doesn't matter.
//!
//! Belongs here: blocks, lines, what a line has to hold to be looked at. Does not: what a line says ([`super::line`]).

use std::io::{self, Read};

use memchr::{memchr, memrchr};

use super::words::Searcher;

/// How much is read at once, and the longest line that is looked at for what stands anywhere in it.
const BLOCK: usize = 1 << 20;

/// How much of a line is looked at closely: a log that somebody else may write in is no reason to hold more.
const LONGEST: usize = 16 << 10;

/// A line that has none of these says nothing that is looked for. Each begins with four bytes that are rare in logs,
/// because those are what is searched for first.
const NEEDLES: [&str; 29] = [
    "forbidden by rule",
    "limiting requests",
    "limiting connections",
    "connections are not enough",
    "client denied by",
    "ModSecurity: Access denied",
    "listing address ",
    " SRC=",
    "] Ban ",
    "] Restore Ban ",
    "] Increase Ban ",
    "] Unban ",
    "Blocked in csf",
    "SYN flooding on port",
    "table full, dropping",
    "many orphaned sockets",
    "Killed process ",
    "file-max limit",
    "many open files",
    "server reached ",
    "Access to context [",
    "] is over per client",
    "] Reached per client",
    "#Fields: ",
    " 403 1 ",
    " 403 6 ",
    " 403 50",
    "\" 444 ",
    "\"edgeallow/",
];

/// Looks through logs, one after the other.
pub(super) struct Scan {
    searcher: Searcher,
    block: Vec<u8>,
}

impl Scan {
    /// `None` if the search can't be prepared, which the tests rule out.
    pub fn new() -> Option<Self> {
        Some(Self { searcher: Searcher::new(&NEEDLES)?, block: vec![0; BLOCK] })
    }

    /// Hands over each line that has to be looked at, without its end and at most 16 KiB of it, and tells how much was
    /// read each time; says how many bytes there were.
    ///
    /// # Errors
    /// Those of the reader; what was read before them has been handed over.
    pub fn lines(
        &mut self,
        from: &mut dyn Read,
        line: &mut dyn FnMut(&[u8]),
        read: &mut dyn FnMut(usize),
    ) -> io::Result<u64> {
        let Self { searcher, block } = self;
        let (mut filled, mut total) = (0, 0_u64);
        // Within a line longer than a block, whose beginning was looked at.
        let mut beyond = false;
        loop {
            let n = match from.read(&mut block[filled..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            read(n);
            total += n as u64;
            filled += n;
            let mut start = 0;
            if beyond {
                match memchr(b'\n', &block[..filled]) {
                    Some(end) => (beyond, start) = (false, end + 1),
                    None => start = filled,
                }
            }
            let mut end = match memrchr(b'\n', &block[start..filled]) {
                _ if n == 0 => filled,
                Some(last) => start + last + 1,
                None => start,
            };
            if end == 0 && filled == block.len() {
                (beyond, end) = (true, filled);
            }
            candidates(searcher, &block[start..end], line);
            if n == 0 {
                return Ok(total);
            }
            block.copy_within(end..filled, 0);
            filled -= end;
        }
    }
}

fn candidates(searcher: &Searcher, lines: &[u8], line: &mut dyn FnMut(&[u8])) {
    let mut at = 0;
    while let Some(hit) = searcher.find(lines, at).map(|hit| hit.start()) {
        let start = memrchr(b'\n', &lines[at..hit]).map_or(at, |i| at + i + 1);
        let end = memchr(b'\n', &lines[hit..]).map_or(lines.len(), |i| hit + i);
        let whole = &lines[start..end];
        let whole = whole.strip_suffix(b"\r").unwrap_or(whole);
        line(&whole[..whole.len().min(LONGEST)]);
        at = (end + 1).min(lines.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &[u8]) -> Vec<String> {
        found_in(&mut { text })
    }

    fn found_in(from: &mut dyn Read) -> Vec<String> {
        let mut lines = Vec::new();
        let mut told = 0;
        let mut line = |l: &[u8]| lines.push(String::from_utf8_lossy(l).into_owned());
        let total = Scan::new().unwrap().lines(from, &mut line, &mut |n| told += n).unwrap();
        assert_eq!(told as u64, total);
        lines
    }

    /// A reader that gives a byte at a time.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(into.len()).min(1);
            into[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn a_line_is_found_once_wherever_it_stands() {
        let text = b"limiting requests\nnothing\r\na limiting requests, limiting connections b\r\n\n] Ban";
        let expected = ["limiting requests", "a limiting requests, limiting connections b"];
        assert_eq!(found(text), expected);
        assert_eq!(found_in(&mut Drip(text)), expected);
        assert_eq!(found(b"x ] Ban 1"), ["x ] Ban 1"], "the last line need not end");
        assert!(found(b"").is_empty());
    }

    #[test]
    fn every_needle_is_found() {
        for needle in NEEDLES {
            let text = format!("{}\n{needle}\n", "x".repeat(100));
            assert_eq!(found(text.as_bytes()), [needle]);
        }
    }

    #[test]
    fn lines_longer_than_a_block_are_looked_at_in_their_beginning() {
        for length in [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5] {
            let mut text = b"limiting requests ".to_vec();
            text.resize(length, b'x');
            text.extend_from_slice(b"\nlimiting connections\n");
            let found = found(&text);
            assert_eq!(found.len(), 2, "{length}");
            assert_eq!((found[0].len(), found[1].as_str()), (LONGEST, "limiting connections"));
        }
        let mut hidden = vec![b'x'; 2 * BLOCK];
        hidden.extend_from_slice(b"limiting requests\nlimiting connections");
        assert_eq!(found(&hidden), ["limiting connections"]);
    }

    #[test]
    fn lines_that_lie_across_blocks_are_whole() {
        let line = "some words before limiting requests and some after";
        let text = format!("{line}\n").repeat(2 * BLOCK / line.len());
        let found = found(text.as_bytes());
        assert_eq!(found.len(), 2 * BLOCK / line.len());
        assert!(found.iter().all(|l| l == line));
    }
}
