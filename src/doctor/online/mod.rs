//! Is the site up: who listens where Cloudflare knocks, and what is answered there?
//!
//! What is asked for goes from this host to its own addresses, through `lo`. So an answer proves that the program
//! serves, but nothing about packet filters; and a connection that fails though something listens proves nothing about
//! Cloudflare's, because a rule may catch the one and not the other. Who listens is read from the kernel, and holds for
//! everybody. Therefore "nothing listens" and "it answers wrongly" can be causes here, and a failed connection can't.
//!
//! Belongs here: listening sockets, stopped web servers, requests over plain HTTP and over TLS, also those for which a
//! server doesn't even say hello. Does not: packet filters (`firewall`), handshakes that fail (`tls`), which address a name points to (`dns`), why a server has no room (`resources`).

mod answers;
mod astray;
mod elsewhere;
mod gather;
mod judge;
mod lacking;
mod limits;
mod patience;
mod promised;
mod servers;
mod strangers;
mod tested;
mod visit;
mod words;

use std::{cmp::Reverse, net::IpAddr};

use self::gather::{Seen, Way};
use super::Context;
use crate::{
    probe::http::Outcome,
    report::{Finding, Finds, Room},
};

/// What was seen, for who waits longer.
pub(super) struct Answers(Seen);

pub(super) fn look(cx: &Context<'_>) -> Vec<Finding> {
    (cx.session.progress)("asking the web server");
    match gather::gather(cx) {
        Ok(seen) => {
            let Answers(seen) = cx.asked.get_or_init(|| Answers(seen));
            // Asked only once.
            let _ = cx.unanswered.set(unanswered(seen));
            judge(seen)
        }
        Err(e) => {
            let skipped = Finding::new(
                Room::Online,
                "online.unseen",
                Finds::Skipped,
                format!("whether anything listens can't be told: {}", e.message),
            );
            vec![skipped.mend_if(e.hint)]
        }
    }
}

fn judge(seen: &Seen) -> Vec<Finding> {
    let mut found = judge::judge(seen);
    found.extend(limits::judge(seen));
    found.sort_by_key(|f| Reverse(f.verdict));
    found
}

/// Whether this host's own connections to where nothing listens are taken all the same, as the web server's room has found:
/// a rule sends them to a container.
pub(super) fn is_sent_on(cx: &Context<'_>, ip: IpAddr, port: u16) -> bool {
    let ports = cx.asked.get().map_or(&[][..], |Answers(seen)| &seen.ports);
    let mut doors = ports.iter().filter(|p| p.number == port).flat_map(|p| &p.doors);
    doors.any(|door| door.ip == ip && door.way == Way::SentOn(None))
}

/// Waits longer for what wasn't answered, where no room says why, and judges anew by what comes.
pub(super) fn wait_longer(cx: &mut Context<'_>, findings: &mut Vec<Finding>) {
    let is_open = |f: &Finding| f.id == answers::STALLS && f.verdict == Finds::Warning;
    let Some(Answers(seen)) = cx.asked.get_mut().filter(|_| findings.iter().any(is_open)) else { return };
    (cx.session.progress)("waiting up to 30 s longer for a page that was not answered");
    if let Err(e) = patience::ask_again(seen) {
        tracing::warn!("{}", e.message);
        return;
    }
    findings.retain(|f| f.room != Room::Online);
    findings.splice(0..0, judge(seen));
    give_way(findings);
}

/// A request of doctor's own that a server took and did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unanswered {
    pub port: u16,
    /// Whether there was not even a handshake; else the server may be at work for it.
    pub mute: bool,
}

fn unanswered(seen: &Seen) -> Vec<Unanswered> {
    let visits = seen.ports.iter().flat_map(|p| p.doors.iter().flat_map(|d| &d.visits).map(|v| (p.number, v)));
    let stalled = visits.filter(|(_, v)| v.outcome == Outcome::Stalled);
    stalled.map(|(port, v)| Unanswered { port, mute: v.mute }).collect()
}

/// A server that has run out of something answers late, wrongly or not at all: where that is known, it is the cause, and
/// what was seen here is its effect.
pub(super) fn give_way(findings: &mut [Finding]) {
    const EFFECTS: [&str; 5] =
        ["online.stalls", "online.empty", "online.slow", "online.application-error", "tls.hangs-up"];
    const LISTS: [&str; 3] = ["firewall.nginx-denies", "firewall.apache-denies", "firewall.own-denied"];
    if let Some(cause) = findings.iter().find(|f| f.room == Room::Resources && f.verdict == Finds::Cause).map(|f| f.id)
    {
        explain(findings, &EFFECTS, cause);
    }
    // Whom a web server lets in by its address is looked at in its own room.
    let lists = |f: &&Finding| LISTS.contains(&f.id);
    if let Some((list, hangs_up)) = findings.iter().find(lists).map(|f| (f.id, f.cloudflare_errors.contains(&520))) {
        // A condition that hangs up on strangers goes by the same list; whatever hangs up on everybody doesn't.
        let by_condition = |f: &Finding| f.id == "online.empty" && f.verdict == Finds::Warning;
        if (hangs_up || list == "firewall.own-denied") && findings.iter().any(by_condition) {
            explain(findings, &["online.empty"], list);
        }
        // Whether visitors are refused too is what the list says, and not what may be thought without it.
        for answer in findings.iter_mut().filter(|f| f.id == "online.forbidden") {
            if let Some(end) = answer.text.find(answers::OWN_REQUEST) {
                answer.text.truncate(end + answers::OWN_REQUEST.len());
            }
        }
        explain(findings, &["online.forbidden"], list);
    }
}

/// Calls none of these what is wrong, because another finding says why.
fn explain(findings: &mut [Finding], effects: &[&str], cause: &str) {
    for effect in findings.iter_mut().filter(|f| effects.contains(&f.id) && f.verdict != Finds::Skipped) {
        effect.verdict = Finds::Skipped;
        effect.text.push_str(&format!(", which {cause} explains"));
        effect.cloudflare_errors.clear();
        effect.fix = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_list_says_whom_it_lets_in_nothing_is_thought_of_visitors() {
        let text = format!("nginx answers 403{}: it turns it away, and likely visitors too", answers::OWN_REQUEST);
        let mut found = [
            Finding::new(Room::Online, "online.forbidden", Finds::Warning, text),
            Finding::new(Room::Firewall, "firewall.own-denied", Finds::Note, "only this machine is denied"),
        ];
        give_way(&mut found);
        assert_eq!(found[0].verdict, Finds::Skipped);
        assert_eq!(
            found[0].text,
            "nginx answers 403 to this machine's own request, which firewall.own-denied explains"
        );
    }

    #[test]
    fn a_condition_that_refuses_without_an_answer_explains_that_there_is_none() {
        let empty = |by: Finding| {
            let mut found = [Finding::new(Room::Online, "online.empty", Finds::Warning, "it answers nothing"), by];
            give_way(&mut found);
            found[0].verdict
        };
        let denied = |errors: &[u16]| {
            let finding =
                Finding::new(Room::Firewall, "firewall.nginx-denies", Finds::Cause, "nginx denies Cloudflare");
            finding.gives(errors)
        };
        assert_eq!((empty(denied(&[520])), empty(denied(&[]))), (Finds::Skipped, Finds::Warning));
    }

    #[test]
    fn what_a_lack_explains_is_no_cause() {
        let cause = |room, id| Finding::new(room, id, Finds::Cause, "it stalls").gives(&[524]);
        let mut alone = [cause(Room::Online, "online.stalls")];
        give_way(&mut alone);
        assert_eq!(alone[0].verdict, Finds::Cause);
        let mut both = [
            cause(Room::Online, "online.stalls"),
            cause(Room::Online, "online.nothing-listens"),
            cause(Room::Resources, "resources.workers"),
        ];
        give_way(&mut both);
        assert_eq!(both.each_ref().map(|f| f.verdict), [Finds::Skipped, Finds::Cause, Finds::Cause]);
        assert!(both[0].text.contains("resources.workers") && both[0].cloudflare_errors.is_empty());
    }
}
