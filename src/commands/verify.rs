//! `edgeallow verify`: whether Cloudflare gets through, or what refuses it.

use crate::{
    cli,
    engine::{
        sync::{LOOKS_WAIT, Options, Session},
        verify::Ask,
    },
    report::Report,
};

pub(super) fn run(session: &Session<'_>, args: &cli::Verify) -> Report {
    let options = Options {
        dry_run: true,
        lists: args.lists.lists.clone(),
        allow_shrink: args.lists.allow_shrink,
        fetch_limit: Some(LOOKS_WAIT),
        ..Options::default()
    };
    let ask = Ask {
        to: args.to,
        ports: args.ports.iter().copied().collect(),
        interface: args.interface.clone(),
        address: args.address,
    };
    session.verify(&options, &ask)
}
