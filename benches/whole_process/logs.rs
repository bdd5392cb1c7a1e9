//! A gigabyte of log, looked through by `doctor`, beside grep with the same words.
//!
//! Belongs here: the time and memory that a log costs. Does not: the other rooms of `doctor`, which one row shows alone.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
};

use crate::{
    measure::{Contestant, compare},
    workloads::{EDGEALLOW, prepare, quiet},
};

const LOG: &str = "/run/bench/access.log";
const SIZE: usize = 1_000_000_000;
/// What `doctor` looks for, as a regular expression.
const WORDS: &str = "forbidden by rule|limiting requests|limiting connections|connections are not enough|client denied by|\
                     ModSecurity: Access denied|listing address | SRC=|\\] Ban |\\] Restore Ban |\\] Increase Ban |\
                     \\] Unban |Blocked in csf|SYN flooding on port|table full, dropping|many orphaned sockets|\
                     file-max limit|many open files|server reached |Access to context \\[|\\] is over per client|\
                     #Fields: | 403 1 | 403 6 | 403 50|\" 444 ";

/// An access log of nginx with ordinary statuses, in which one line in a thousand is worth a look.
fn write_log() {
    let mut log = BufWriter::with_capacity(1 << 20, File::create(LOG).unwrap());
    let (mut written, mut n) = (0, 0_u32);
    while written < SIZE {
        n = n.wrapping_add(1);
        let status = match n % 1000 {
            0 => 444,
            1..=20 => 404,
            21..=25 => 403,
            26..=100 => 304,
            _ => 200,
        };
        let line = format!(
            "173.245.{}.{} - - [22/Nov/2026:18:{:02}:{:02} +0000] \"GET /articles/{n}/a-page-of-the-site.html?page={} \
             HTTP/1.1\" {status} {} \"https://example.com/articles/{}\" \"Mozilla/5.0 (X11; Linux x86_64) \
             AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36\"\n",
            48 + n % 16,
            n % 251,
            n / 60_000 % 60,
            n / 1000 % 60,
            n % 7,
            1000 + n % 50_000,
            n / 3,
        );
        log.write_all(line.as_bytes()).unwrap();
        written += line.len();
    }
    log.flush().unwrap();
}

/// Everything that is measured of it.
pub fn all() {
    prepare();
    write_log();
    // Whether there is a cause is not what is measured.
    let doctor = |name: &str, more: &str| {
        let words = format!("{EDGEALLOW} -q doctor --offline --since 36500d {more}; [ $? -le 7 ]");
        Contestant::new(name, &["sh", "-c", &words])
    };
    // Where its answer goes to /dev/null, grep ends at the first line that matches.
    let grep = |name: &str, locale: &str| {
        let words = format!("LC_ALL={locale} grep -cE \"$0\" {LOG} | cat");
        Contestant::new(name, &["sh", "-c", &words, WORDS])
    };
    quiet(&["cat", LOG]);
    compare(
        "An access log of 1 GB, in memory",
        5,
        &[
            doctor("`edgeallow doctor --offline --log FILE`", &format!("--log {LOG}")),
            doctor("`edgeallow doctor --offline`, without it", ""),
            grep("`grep -cE` of the same words, C locale", "C"),
            grep("`grep -cE` of the same words, UTF-8 locale", "C.UTF-8"),
            Contestant::new("`wc -l`", &["wc", "-l", LOG]),
        ],
    );
}
