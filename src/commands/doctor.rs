//! `edgeallow doctor`: why Cloudflare would answer with an error here.

use crate::{cli, doctor::Ask, engine::sync::Session, report::Report};

pub(super) fn run(session: &Session<'_>, args: &cli::Doctor) -> Report {
    let mut ports: std::collections::BTreeSet<u16> = args.ports.iter().copied().collect();
    if ports.is_empty() {
        ports.extend(args.hosts.iter().filter_map(|site| site.port));
    }
    session.doctor(&Ask {
        hosts: args.hosts.iter().map(|site| site.name.clone()).collect(),
        mode: args.mode,
        origin: args.origin,
        ports,
        since: args.since,
        logs: args.logs.clone(),
    })
}
