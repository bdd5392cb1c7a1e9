//! A gigabyte of log, looked through by `doctor`, beside grep with the same words.
//!
//! Belongs here: the time and memory that a log costs. Does not: the other rooms of `doctor`, which one row shows alone.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
};

use crate::{
    measure::{Contestant, compare, run},
    workloads::{EDGEALLOW, prepare, quiet},
};

const LOG: &str = "/run/bench/access.log";
const SIZE: usize = 1_000_000_000;
/// What `doctor` looks for, as a regular expression.
const WORDS: &str = "forbidden by rule|limiting requests|limiting connections|connections are not enough|client denied by|\
                     ModSecurity: Access denied|listing address | SRC=|\\] Ban |\\] Restore Ban |\\] Increase Ban |\
                     \\] Unban |Blocked in csf|SYN flooding on port|table full, dropping|many orphaned sockets|\
                     Killed process |file-max limit|many open files|server reached |Access to context \\[|\\] is over per client|\
                     #Fields: | 403 1 | 403 6 | 403 50|\" 444 ";

/// An access log of nginx with ordinary statuses, in which one line in a thousand is worth a look.
fn ordinary(n: u32) -> String {
    let status = match n % 1000 {
        0 => 444,
        1..=20 => 404,
        21..=25 => 403,
        26..=100 => 304,
        _ => 200,
    };
    format!(
        "173.245.{}.{} - - [22/Nov/2026:{} +0000] \"GET /articles/{n}/a-page-of-the-site.html?page={} \
         HTTP/1.1\" {status} {} \"https://example.com/articles/{}\" \"Mozilla/5.0 (X11; Linux x86_64) \
         AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36\"\n",
        48 + n % 16,
        n % 251,
        time(n),
        n % 7,
        1000 + n % 50_000,
        n / 3,
    )
}

/// Logs of which every line has to be looked at, about an address: what they are, and the line of this number.
type Dense = (&'static str, fn(u32, &str) -> String);

const DENSE: [Dense; 8] = [
    ("a refused packet (`kern.log`)", |n, ip| {
        format!(
            "Nov 22 {} web kernel: [{n}.678901] [UFW BLOCK] IN=eth0 OUT= MAC=00:11:22:33:44:55:66:77:88:99:aa:bb:08:00 \
             SRC={ip} DST=192.0.2.1 LEN=60 TOS=0x00 PREC=0x00 TTL=50 ID={} DF PROTO=TCP SPT={} DPT=443 WINDOW=64240 \
             RES=0x00 SYN URGP=0\n",
            time(n),
            n % 65_536,
            1024 + n % 60_000,
        )
    }),
    ("denied by nginx", |n, ip| {
        format!(
            "2026/11/22 {} [error] 1234#1234: *{n} access forbidden by rule, client: {ip}, server: example.com, request: \
             \"GET /articles/{n}/page HTTP/1.1\", host: \"example.com\"\n",
            time(n),
        )
    }),
    ("limited by nginx", |n, ip| {
        format!(
            "2026/11/22 {} [error] 1234#1234: *{n} limiting requests, excess: 5.020 by zone \"one\", client: {ip}, \
             server: example.com, request: \"GET /articles/{n}/page HTTP/1.1\", host: \"example.com\"\n",
            time(n),
        )
    }),
    ("denied by Apache", |n, ip| {
        format!(
            "[Sun Nov 22 {}.123456 2026] [authz_core:error] [pid 12:tid 140] [client {ip}:{}] AH01630: client denied by \
             server configuration: /var/www/html/articles/{n}\n",
            time(n),
            1024 + n % 60_000,
        )
    }),
    ("denied by ModSecurity", |n, ip| {
        format!(
            "2026/11/22 {} [error] 9#9: *{n} [client {ip}] ModSecurity: Access denied with code 403 (phase 2). Matched \
             \"Operator `Ge' with parameter `5' against variable `TX:ANOMALY_SCORE' (Value: `5' ) [file \"/etc/nginx/\
             modsec/REQUEST-949-BLOCKING-EVALUATION.conf\"] [line \"80\"] [id \"949110\"] [msg \"Inbound Anomaly Score \
             Exceeded\"] [uri \"/a/{n}\"], client: {ip}, server: a, request: \"GET /a/{n} HTTP/1.1\"\n",
            time(n),
        )
    }),
    ("a ban of fail2ban", |n, ip| {
        format!("2026-11-22 {},123 fail2ban.actions        [1234]: NOTICE  [nginx-http-auth] Ban {ip}\n", time(n))
    }),
    ("an access without an answer (444)", |n, ip| {
        format!(
            "{ip} - - [22/Nov/2026:{} +0000] \"GET /articles/{n} HTTP/1.1\" 444 0 \"-\" \"Mozilla/5.0 (X11; Linux x86_64) \
             AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36\"\n",
            time(n),
        )
    }),
    ("an access with 403, 499, 502 or 520", |n, ip| {
        format!(
            "{ip} - - [22/Nov/2026:{} +0000] \"GET /articles/{n} HTTP/1.1\" {} 153 \"-\" \"Mozilla/5.0 (X11; Linux x86_64) \
             AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36\"\n",
            time(n),
            [403, 499, 502, 520][n as usize % 4],
        )
    }),
];

/// A hundred lines a second.
fn time(n: u32) -> String {
    format!("{:02}:{:02}:{:02}", n / 360_000 % 24, n / 6000 % 60, n / 100 % 60)
}

fn write_log(size: usize, line: impl Fn(u32) -> String) {
    let mut log = BufWriter::with_capacity(1 << 20, File::create(LOG).unwrap());
    let (mut written, mut n) = (0, 0_u32);
    while written < size {
        n = n.wrapping_add(1);
        let line = line(n);
        log.write_all(line.as_bytes()).unwrap();
        written += line.len();
    }
    log.flush().unwrap();
}

/// The least that it took of a few runs, computing.
fn user(doctor: &Contestant<'_>) -> f64 {
    let costs = (0..5).map(|_| run(&doctor.argv, None).user.as_secs_f64());
    costs.fold(f64::MAX, f64::min)
}

/// How fast logs are of which every line has to be looked at.
fn dense(doctor: impl Fn(&str, &str) -> Contestant<'static>) {
    println!("## Logs of which every line has to be looked at\n\nCPU time of the program, the least of five.\n");
    println!("| each line is | from strangers, GB/s | from Cloudflare, GB/s |\n|---|---:|---:|");
    let without = user(&doctor("", ""));
    for (name, line) in DENSE {
        let speed = |ip: fn(u32) -> String| {
            write_log(SIZE / 4, |n| line(n, &ip(n)));
            #[allow(clippy::cast_precision_loss)]
            let gigabytes = SIZE as f64 / 4e9;
            gigabytes / (user(&doctor("", &format!("--log {LOG}"))) - without)
        };
        let strangers = speed(|n| format!("{}.{}.{}.{}", 11 + n % 80, n / 7 % 250, n / 3 % 250, n % 251));
        let edge = speed(|n| match n % 3 {
            0 => format!("2400:cb00:{:x}:1024::ac{:x}:{:x}", 10 + n % 9, 16 + n % 7, 4096 + n % 2 * 77),
            _ => format!("173.245.{}.{}", 48 + n % 16, n % 11),
        });
        println!("| {name} | {strangers:.2} | {edge:.2} |");
    }
    println!();
}

/// Everything that is measured of it.
pub fn all() {
    prepare();
    write_log(SIZE, ordinary);
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
    dense(doctor);
}
