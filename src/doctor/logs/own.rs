//! What doctor itself caused: it asks the site, from this machine, and is turned away like anybody else.
//!
//! Where a log names the agent, that decides. An error log names none: there, a line about one of this machine's own
//! addresses, or the one of the visitor whom doctor names as Cloudflare would ([`crate::probe::http::VISITOR`]), is doctor's if it was written since doctor began, or when an access log shows doctor asking from that address.
//! The rest is somebody else's, such as a web server's behind a proxy of this machine.
//!
//! Belongs here: telling doctor's own lines from others. Does not: recognising the agent ([`super::line`]).

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use jiff::Timestamp;

use super::symptom::{Kind, Symptom};

/// So many seconds may lie between a line in an access log and one about the same request in an error log.
const APART: i64 = 2;
/// How many lines may wait to be told apart, and how many seconds of asking are known.
const MOST: usize = 2000;

/// A line that may be of doctor's doing.
pub(super) struct Line {
    pub found: Symptom<'static>,
    pub text: String,
    pub file: Arc<str>,
    pub given: bool,
}

/// Tells doctor's own lines from others.
pub(super) struct Own<'a> {
    addresses: &'a BTreeSet<IpAddr>,
    began: i64,
    /// When doctor asked, in seconds, and from where.
    asked: BTreeSet<(IpAddr, i64)>,
    waiting: Vec<Line>,
}

impl<'a> Own<'a> {
    /// `addresses` are those that doctor may be logged with, but for loopback; doctor began at `began`.
    pub fn new(addresses: &'a BTreeSet<IpAddr>, began: Timestamp) -> Self {
        Self { addresses, began: began.as_second(), asked: BTreeSet::new(), waiting: Vec::new() }
    }

    /// Whether it need not be counted now: it is no symptom, is doctor's own, or waits for [`Own::others`].
    pub fn takes(&mut self, found: &Symptom<'_>, text: &str, file: &Arc<str>, given: bool) -> bool {
        // What doctor asks itself ([`Kind::Own`]) is always ours.
        if !found.ours && !found.kind.is_of_a_request() {
            return false;
        }
        let here = |ip: &IpAddr| ip.is_loopback() || self.addresses.contains(ip);
        match found.client.filter(here) {
            Some(client) if found.ours => {
                if self.asked.len() < MOST {
                    self.asked.insert((client, found.at.as_second()));
                }
                true
            }
            Some(_) if found.kind.is_of_a_request() && self.waiting.len() < MOST => {
                // An example is far shorter.
                let text = text.chars().take(4096).collect();
                self.waiting.push(Line { found: found.clone().into_owned(), text, file: Arc::clone(file), given });
                true
            }
            _ => found.kind == Kind::Own,
        }
    }

    /// The lines that waited and are somebody else's, once everything is read.
    pub fn others(&mut self) -> Vec<Line> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|line| {
            let at = line.found.at.as_second();
            let near = |ip| self.asked.range((ip, at - APART)..=(ip, at + APART)).next().is_some();
            at < self.began && !line.found.client.is_some_and(near)
        });
        waiting
    }
}
