//! The real nft in a network namespace that a thread of the test makes for itself.
//!
//! Include it with `#[path]`. Without the privilege to make one, or without `nft`, a test fails and says so.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use edgeallow::host::netlink;

/// Runs a test in a network namespace of its own.
pub fn alone(test: impl FnOnce() + Send) {
    netlink::in_fresh_netns(|| {
        test();
        Ok(())
    })
    .expect("these tests need the privilege to make network namespaces: run them as root");
}

/// What nft prints, or its complaint.
pub fn nft(args: &[&str], script: &str) -> Result<String, String> {
    let mut command = Command::new("/usr/sbin/nft");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("these tests need nft: apt-get install nftables");
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if out.status.success() { Ok(text(out.stdout)) } else { Err(text(out.stderr)) }
}
