//! `edgeallow doctor`: why Cloudflare would answer with an error here.

use crate::{cli, doctor::Ask, engine::sync::Session, report::Report};

pub(super) fn run(session: &Session<'_>, args: &cli::Doctor) -> Report {
    session.doctor(&Ask {
        hosts: args.hosts.clone(),
        mode: args.mode,
        origin: args.origin,
        ports: args.ports.iter().copied().collect(),
        since: args.since,
        logs: args.logs.clone(),
    })
}
