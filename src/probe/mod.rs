//! Asking as Cloudflare would: connections, handshakes, requests and names.
//!
//! A probe is bounded in time and size, follows nothing that it isn't told to follow, sends nothing secret, and tells what
//! became of it as a value: a refusal is an answer here, not an error.
//!
//! Belongs here: client sockets to origins, edges and resolvers. Does not: what an answer means ([`crate::doctor`]); where
//! lists come from ([`crate::source`]).

pub mod dns;
pub mod edge;
pub mod http;
pub mod tcp;
pub mod tls;

use crate::error::{Error, ErrorKind, Result};

/// Waits for probes; those that are joined run beside each other.
///
/// # Errors
/// `internal` if the kernel gives no means to wait.
pub fn wait<T>(probes: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::new(ErrorKind::Internal, format!("cannot wait for answers: {e}")))?;
    let answers = runtime.block_on(probes);
    // The thread that resolves a name can't be stopped, and nobody waits for it any more.
    runtime.shutdown_background();
    Ok(answers)
}
