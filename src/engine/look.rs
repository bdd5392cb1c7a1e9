//! Short looks for whoever only watches: what drifted, and which addresses are this machine's. Nothing is changed, and no
//! connection is opened.

use std::net::IpAddr;

use super::{
    sync::{Options, Session},
    verify::Ask,
};
use crate::{
    allowlist::{Family, Prefixes, snapshot},
    error::Result,
    plan::Desired,
    report::{BackendReport, BackendState},
};

impl Session<'_> {
    /// The backends as `status` would see them against what was applied last, and what shall get in: where nothing is
    /// applied, the built-in list.
    pub(crate) fn drift(&self) -> (Vec<BackendReport>, Result<Desired>) {
        let options = Options { dry_run: true, restore: true, ..Options::default() };
        let (status, wanted) = self.sync_and_tell("watch", &options);
        let mut backends = status.backends;
        backends.retain(|b| b.state != BackendState::Skipped);
        let want =
            wanted.map_or_else(|| snapshot::built_in().map(|list| self.desired(&Prefixes::new(list.v4, list.v6))), Ok);
        (backends, want)
    }

    /// The addresses of this machine that Cloudflare could be told to use.
    ///
    /// # Errors
    /// `netlink`
    pub(crate) fn own_addresses(&self) -> Result<Vec<IpAddr>> {
        let links = self.host.links()?;
        let list = snapshot::built_in()?;
        let edge = self.desired(&Prefixes::new(list.v4, list.v6)).prefixes;
        let mut own = Vec::new();
        for family in Family::BOTH {
            if let Some(toward) = edge.family(family).next() {
                own.extend(self.addresses(&Ask::default(), &links, toward.network()).into_iter().map(|(ip, _)| ip));
            }
        }
        Ok(own)
    }
}
