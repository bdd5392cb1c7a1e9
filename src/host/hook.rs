//! The operator's own programs, run when the work is done: fed, timed, and ended with all that they have started.
//!
//! Belongs here: how such a program is started and ended, whatever it does. Does not: which one, and when
//! ([`crate::observe`]).

use std::{
    cell::RefCell,
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Child,
    time::{sleep, timeout},
};

use super::spawn::{FOLDERS, bare, begin, find};
use crate::error::{Error, ErrorKind, Result, io_reason};

/// How much of what it prints is kept of either stream; the rest is read and forgotten.
const KEPT: usize = 4096;
/// How long the pipes are read on after it has ended: a child that it left behind may hold them open for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How soon it is noticed that it shall be ended before its time.
const NOTICE: Duration = Duration::from_millis(50);
/// The longest piece of its output that is shown.
const SHOWN: usize = 200;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// The last line that it printed to standard error, or else to standard output, without control characters.
    pub said: String,
}

/// Runs a program of the operator's in a process group of its own.
///
/// It gets `input` on standard input, which it need not read, and an environment of `PATH`, `LC_ALL` and `env`. What it
/// prints goes nowhere but into [`Ended::said`]. After `limit`, and when `leave` becomes true, it is killed with everything
/// in its process group.
///
/// # Errors
/// `program`: it can't be found or started, or was killed.
pub fn run_hook(
    argv: &[String],
    env: &[(&str, String)],
    input: &[u8],
    limit: Duration,
    leave: &AtomicBool,
) -> Result<Ended> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(ErrorKind::Internal, format!("cannot wait for a program: {}", io_reason(&e))))?;
    runtime.block_on(async {
        let mut child = start(argv, env)?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let said = [RefCell::default(), RefCell::default()];
        let status = tokio::select! {
            status = talk(&mut child, input, &said) => Ok(status),
            () = sleep(limit) => Err(format!("did not finish within {} and was killed", crate::source::seconds(limit))),
            () = asked(leave) => Err("was killed because edgeallow was asked to end".to_owned()),
        };
        let status = match status {
            Ok(status) => status,
            Err(why) => {
                // It hasn't been waited for, so its number is still its own and no stranger's.
                if let Some(group) = group {
                    // Only a group that is gone already can't be killed.
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = child.wait().await;
                return Err(Error::new(ErrorKind::Program, format!("{} {why}", argv[0])));
            }
        };
        let status = status
            .map_err(|e| Error::new(ErrorKind::Program, format!("cannot wait for {}: {}", argv[0], io_reason(&e))))?;
        let [out, err] = said.map(|bytes| last_line(&bytes.into_inner()));
        Ok(Ended { status: status.code(), said: if err.is_empty() { out } else { err } })
    })
}

/// Ends soon after this has become true.
pub async fn asked(leave: &AtomicBool) {
    while !leave.load(Ordering::SeqCst) {
        sleep(NOTICE).await;
    }
}

/// The program that a command begins with.
///
/// # Errors
/// `program`: there is none that could be run.
pub fn find_hook(argv: &[String]) -> Result<PathBuf> {
    let name = argv.first().map_or("", String::as_str);
    find(name).ok_or_else(|| {
        let place = if name.contains('/') { String::new() } else { format!(" in {}", FOLDERS.join(":")) };
        Error::new(ErrorKind::Program, format!("there is no program {name}{place} that could be run"))
    })
}

fn start(argv: &[String], env: &[(&str, String)]) -> Result<Child> {
    let program = find_hook(argv)?;
    let mut command = bare(&program, argv[1..].iter().map(String::as_str), "C.UTF-8");
    command.envs(env.iter().map(|(name, value)| (name, value))).stdin(Stdio::piped()).process_group(0);
    begin(&mut command)
}

/// Feeds it and listens until it has ended.
async fn talk(
    child: &mut Child,
    input: &[u8],
    said: &[RefCell<Vec<u8>>; 2],
) -> std::io::Result<std::process::ExitStatus> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async move {
        if let Some(mut pipe) = stdin {
            // One that doesn't want to read it all closes the pipe, which is its right.
            let _ = pipe.write_all(input).await;
            let _ = pipe.shutdown().await;
        }
    };
    let pipes = async { tokio::join!(feed, tail(stdout, &said[0]), tail(stderr, &said[1])) };
    tokio::pin!(pipes);
    let mut open = true;
    loop {
        tokio::select! {
            status = child.wait() => {
                if open {
                    let _ = timeout(LAST_WORDS, &mut pipes).await;
                }
                return status;
            }
            _ = &mut pipes, if open => open = false,
        }
    }
}

/// Reads to the end and keeps the last of it.
async fn tail(pipe: Option<impl AsyncRead + Unpin>, kept: &RefCell<Vec<u8>>) {
    let Some(mut pipe) = pipe else { return };
    let mut piece = [0; KEPT];
    while let Ok(length @ 1..) = pipe.read(&mut piece).await {
        let mut kept = kept.borrow_mut();
        kept.extend_from_slice(&piece[..length]);
        let excess = kept.len().saturating_sub(KEPT);
        kept.drain(..excess);
    }
}

/// The last line with something in it, fit to be shown: what a program prints may be anything.
fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let clean = |line: &str| {
        let shown: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect();
        shown.trim().to_owned()
    };
    text.lines().rev().map(clean).find(|line| !line.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn sh(script: &str, input: &[u8], limit: Duration) -> Result<Ended> {
        let (argv, env) = (["/bin/sh".into(), "-c".into(), script.into()], [("EDGEALLOW_EVENT", "change".into())]);
        run_hook(&argv, &env, input, limit, &AtomicBool::new(false))
    }

    /// Longer than anything here takes on a machine however busy.
    const LONG: Duration = Duration::from_secs(120);

    #[test]
    fn it_is_fed_and_its_environment_is_small() {
        let ended = sh("cat; pwd; env | sort | tr '\\n' ' '", b"fed\n", LONG).unwrap();
        assert_eq!(ended.status, Some(0));
        assert!(ended.said.contains("EDGEALLOW_EVENT=change") && !ended.said.contains("HOME="), "{ended:?}");
        assert_eq!(sh("read line; echo \"got $line\" >&2", b"fed\n", LONG).unwrap().said, "got fed");
    }

    #[test]
    fn one_that_hangs_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("pid");
        let script = format!("trap '' TERM; sleep 300 & echo $! >{}; wait", mark.display());
        let began = Instant::now();
        // Long enough for the script to have begun.
        let error = sh(&script, b"", Duration::from_secs(5)).unwrap_err();
        assert!(error.message.contains("did not finish within 5 s and was killed"), "{error}");
        assert!(began.elapsed() < LONG);
        let child: i32 = std::fs::read_to_string(&mark).unwrap().trim().parse().unwrap();
        // It may be a zombie for the moment that its new parent needs.
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        while !gone() {
            assert!(began.elapsed() < LONG, "its child lives on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn one_that_hangs_is_ended_at_once_when_we_are() {
        let (leave, began) = (AtomicBool::new(false), Instant::now());
        let error = std::thread::scope(|scope| {
            let hook = scope.spawn(|| {
                let argv = ["/bin/sh".into(), "-c".into(), "trap '' TERM; sleep 300".into()];
                run_hook(&argv, &[], b"", LONG, &leave)
            });
            leave.store(true, Ordering::SeqCst);
            hook.join().unwrap().unwrap_err()
        });
        assert_eq!(error.message, "/bin/sh was killed because edgeallow was asked to end");
        assert!(began.elapsed() < LONG / 2);
    }

    #[test]
    fn one_that_does_not_read_or_reads_a_little_does_not_stop_us() {
        let much = vec![b'x'; 4 << 20];
        assert_eq!(sh("exit 3", &much, LONG).unwrap().status, Some(3));
        assert_eq!(sh("exec <&-; echo done", &much, LONG).unwrap().said, "done");
        assert_eq!(sh("head -c 5", &much, LONG).unwrap().said, "xxxxx");
    }

    #[test]
    fn garbage_is_read_forgotten_and_never_shown_raw() {
        let ended = sh("head -c 3000000 /dev/urandom; printf '\\033[31mred\\007\\n\\n' >&2", b"", LONG).unwrap();
        assert_eq!((ended.status, ended.said.as_str()), (Some(0), "[31mred"));
        let ended = sh("head -c 3000000 /dev/zero | tr '\\0' y", b"", LONG).unwrap();
        assert_eq!(ended.said.len(), SHOWN);
    }

    #[test]
    fn one_that_leaves_a_child_behind_is_not_waited_for() {
        let began = Instant::now();
        let ended = sh("sleep 300 & echo $!", b"", LONG).unwrap();
        let left = ended.said.parse().ok().and_then(Pid::from_raw).unwrap_or_else(|| panic!("{ended:?}"));
        rustix::process::kill_process(left, Signal::KILL).unwrap();
        assert_eq!(ended.status, Some(0));
        assert!(began.elapsed() < LONG);
    }

    #[test]
    fn a_signal_is_no_status_and_one_that_is_not_there_is_said_so() {
        assert_eq!(sh("kill -9 $$", b"", LONG).unwrap().status, None);
        let missing = run_hook(&["/no/such/hook".into()], &[], b"", LONG, &AtomicBool::new(false)).unwrap_err();
        assert_eq!(missing.message, "there is no program /no/such/hook that could be run");
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_str().unwrap().to_owned();
        assert!(run_hook(&[folder], &[], b"", LONG, &AtomicBool::new(false)).is_err());
    }
}
