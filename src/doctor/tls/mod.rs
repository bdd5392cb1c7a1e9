//! Does what the origin shows in a TLS handshake fit the zone's encryption mode, and which mode should it be?
//!
//! A handshake for each origin, HTTPS port and name, as Cloudflare would make it ([`crate::probe::tls`]); without a name
//! none is sent and none is judged. What fails a handshake (525) is a cause unless the mode is known to be one that
//! makes none. What only Full (strict) objects to (526) is a cause under strict, a note under Full, and a warning where
//! the mode isn't known. That nothing listens, or that a packet filter is in the way, is for other rooms to say.
//!
//! # Client certificates
//!
//! A server that turns away clients without a certificate does so for Authenticated Origin Pulls, or by mistake. Where it
//! wants one of Cloudflare's own authority, that is as it should be, and a note: the switch in the zone can't be seen
//! from here. Where it wants one of another authority, Cloudflare has none unless the operator has uploaded it, so that
//! is named as a cause, unless the operator says that it is (`--origin-pulls`). Where it doesn't say whose, it is a warning.
//!
//! Belongs here: what is asked, and what the answers mean. Does not: reading a chain ([`certificate`], [`roots`]), the choice of a
//! mode ([`choice`], [`modes`]).

mod certificate;
mod choice;
mod gather;
mod judge;
pub mod modes;
mod roots;

use super::Context;
use crate::report::{Finding, Finds, Room};

pub(super) fn look(cx: &Context<'_>) -> Vec<Finding> {
    let looks = match gather::gather(cx) {
        Ok(looks) => looks,
        Err(e) => return vec![finding("tls.unseen", Finds::Skipped, e.message)],
    };
    let zone = judge::Zone { mode: cx.ask.mode, origin_pulls: cx.ask.origin_pulls };
    judge::judge(&looks, zone, cx.session.now)
}

fn finding(id: &'static str, verdict: Finds, text: impl Into<String>) -> Finding {
    Finding::new(Room::Tls, id, verdict, text)
}
