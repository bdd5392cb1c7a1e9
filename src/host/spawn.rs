//! Programs: found in the system's folders, started with a clean environment and a time limit.
//!
//! Belongs here: how a program is found, started, fed and timed. Does not: which ones.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
    time::timeout,
};

use super::Output;
use crate::error::{Error, ErrorKind, Result, io_reason};

/// Where programs are looked for: the caller's PATH is not to be trusted with root's firewall.
pub(super) const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

pub(super) fn find(name: &str) -> Option<PathBuf> {
    let executable = |p: &PathBuf| p.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(executable);
    }
    FOLDERS.iter().map(|f| Path::new(f).join(name)).find(executable)
}

/// The name under which a program is the same program: `iptables-save` is a link to one of its variants, such as
/// `iptables-nft-save`, and whoever has asked the one has asked the other. Any other name stays what it is.
pub(super) fn known_as(name: &str) -> String {
    let family = ["iptables", "ip6tables"].into_iter().find(|f| name.strip_prefix(f) == Some("-save"));
    let mut path = family.and_then(|_| find(name));
    // By way of /etc/alternatives there are two links.
    for _ in 0..4 {
        let Some(target) = path.as_ref().and_then(|p| Some(p.parent()?.join(p.read_link().ok()?))) else { break };
        let variant = target.file_name().and_then(|n| n.to_str()).filter(|n| {
            let inner = family.and_then(|f| n.strip_prefix(f));
            inner.is_some_and(|i| matches!(i, "-nft-save" | "-legacy-save")) && find(n).as_ref() == Some(&target)
        });
        if let Some(variant) = variant {
            return variant.to_owned();
        }
        path = Some(target);
    }
    name.to_owned()
}

/// Runs programs side by side; the answers come in the order of the questions.
pub(super) fn run(
    runtime: &tokio::runtime::Runtime,
    commands: &[(Vec<&str>, Option<&[u8]>)],
    limit: Duration,
) -> Vec<Result<Output>> {
    runtime.block_on(async {
        // All are started before the first is waited for, so they take as long as the slowest one.
        let started: Vec<_> =
            commands.iter().map(|(argv, stdin)| (argv[0], start(argv, stdin.is_some()), *stdin)).collect();
        let mut answers = Vec::with_capacity(started.len());
        for (name, child, stdin) in started {
            answers.push(match child {
                Ok(child) => finish(name, child, stdin, limit).await,
                Err(e) => Err(e),
            });
        }
        answers
    })
}

/// A program with nothing of this process's own: no environment but `PATH` and a locale, no folder, its output piped. It
/// is killed when it is forgotten.
#[allow(clippy::disallowed_methods)] // this is the one place
pub(super) fn bare<'w>(program: &Path, args: impl IntoIterator<Item = &'w str>, locale: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("PATH", FOLDERS.join(":"))
        .env("LC_ALL", locale)
        .current_dir("/")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Starts it.
pub(super) fn begin(command: &mut Command) -> Result<Child> {
    command.spawn().map_err(|e| {
        let program = Path::new(command.as_std().get_program());
        Error::new(ErrorKind::Program, format!("cannot start {}: {}", program.display(), io_reason(&e)))
    })
}

fn start(argv: &[&str], fed: bool) -> Result<Child> {
    let name = argv[0];
    let program = find(name).ok_or_else(|| {
        Error::new(ErrorKind::Program, format!("there is no program {name} in {}", FOLDERS.join(":")))
            .hint(format!("install the package that brings {name}"))
    })?;
    let stdin = if fed { Stdio::piped() } else { Stdio::null() };
    begin(bare(&program, argv[1..].iter().copied(), "C").stdin(stdin))
}

async fn finish(name: &str, mut child: Child, stdin: Option<&[u8]>, limit: Duration) -> Result<Output> {
    let pipe = child.stdin.take();
    let feed = async move {
        if let (Some(mut pipe), Some(text)) = (pipe, stdin) {
            // A program that stops reading says why by its exit status and on stderr.
            let _ = pipe.write_all(text).await;
            let _ = pipe.shutdown().await;
        }
    };
    let (_, done) = match timeout(limit, async { tokio::join!(feed, child.wait_with_output()) }).await {
        Ok(done) => done,
        Err(_) => {
            return Err(Error::new(
                ErrorKind::Program,
                format!("{name} did not finish within {} s and was ended", limit.as_secs()),
            )
            .hint("something may be holding its lock; look with `ps`"));
        }
    };
    let done =
        done.map_err(|e| Error::new(ErrorKind::Program, format!("cannot wait for {name}: {}", io_reason(&e))))?;
    Ok(Output { status: done.status.code(), stdout: done.stdout, stderr: done.stderr })
}
