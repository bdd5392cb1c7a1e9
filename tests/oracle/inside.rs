//! The lab as the engine looks at a machine, from a thread of the test.
//!
//! Belongs here: what such a thread sees otherwise than a process in the lab would. Does not: anything else.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use edgeallow::{
    error::Result,
    host::{FileSeen, Look, Machine, Output},
    nft::{Ruleset, TableId},
};

/// The machine that the calling thread is in.
pub struct Inside(pub Machine);

impl Look for Inside {
    /// A thread in the lab is no process of the lab, so `/proc/net`, which is `/proc/self/net`, leads nowhere for it. A program that it
    /// starts is one.
    fn file(&self, path: &Path) -> Result<Option<FileSeen>> {
        if !path.starts_with("/proc/net") {
            return self.0.file(path);
        }
        let output = std::process::Command::new("/bin/cat").arg(path).env_clear().output().expect("start cat");
        let seen =
            || FileSeen { content: Arc::from(output.stdout.clone()), mode: 0o440, owner: (0, 0), symlink: false };
        Ok(output.status.success().then(seen))
    }

    fn folder(&self, path: &Path) -> Result<Vec<String>> {
        self.0.folder(path)
    }

    fn exists(&self, path: &Path) -> bool {
        if path.starts_with("/proc/net") {
            return self.file(path).is_ok_and(|f| f.is_some());
        }
        self.0.exists(path)
    }

    fn program(&self, name: &str) -> Option<PathBuf> {
        self.0.program(name)
    }

    fn run(&self, argv: &[&str], timeout: Duration) -> Result<Output> {
        self.0.run(argv, timeout)
    }

    fn run_all(&self, commands: &[Vec<&str>], timeout: Duration) -> Vec<Result<Output>> {
        self.0.run_all(commands, timeout)
    }

    fn may_administer(&self) -> bool {
        self.0.may_administer()
    }

    fn nft_generation(&self) -> Result<Option<u32>> {
        self.0.nft_generation()
    }

    fn nft_has_table(&self, table: &TableId) -> Result<Option<bool>> {
        self.0.nft_has_table(table)
    }

    fn has_ipset(&self, name: &str) -> Result<Option<bool>> {
        self.0.has_ipset(name)
    }

    fn nft_ruleset(&self) -> Result<Ruleset> {
        self.0.nft_ruleset()
    }
}
