//! Running programs in the lab, as its administrator would.

use std::{
    fmt,
    io::{Seek as _, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    sync::mpsc,
    time::Duration,
};

use super::{Lab, namespace::EDGEALLOW};

/// Nothing in these tests takes longer unless it says so, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// Authorities that edgeallow is to take for public ones, if there are any.
const PUBLIC_ROOTS: &str = "/etc/ssl/public-roots.pem";
/// A system administrator's PATH, whatever that of the test is.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program about to be run in the lab.
pub struct Command<'a> {
    lab: &'a Lab,
    argv: Vec<String>,
    stdin: Option<Vec<u8>>,
    env: Vec<(String, String)>,
    internet: bool,
    patience: Duration,
}

/// What a program answered.
#[derive(Clone)]
pub struct Output {
    /// What was run.
    pub argv: Vec<String>,
    /// The exit status, if it exited.
    pub status: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Lab {
    /// A program with its arguments, to be completed and run.
    pub fn command<S: AsRef<str>>(&self, argv: impl IntoIterator<Item = S>) -> Command<'_> {
        let argv: Vec<_> = argv.into_iter().map(|a| a.as_ref().to_owned()).collect();
        Command { lab: self, argv, stdin: None, env: Vec::new(), internet: false, patience: PATIENCE }
    }

    /// Runs a program that has to succeed.
    pub fn run<S: AsRef<str>>(&self, argv: impl IntoIterator<Item = S>) -> Output {
        self.command(argv).run().expect_ok()
    }

    /// Runs a program on an input; it has to succeed.
    pub fn feed<S: AsRef<str>>(&self, argv: impl IntoIterator<Item = S>, stdin: &str) -> Output {
        self.command(argv).stdin(stdin).run().expect_ok()
    }

    /// Makes an authority a public one to edgeallow, whatever this machine's store says. PEM.
    pub fn publish(&self, authority: &str) {
        let before = if self.exists(PUBLIC_ROOTS) { self.read_file(PUBLIC_ROOTS) } else { String::new() };
        self.write_file(PUBLIC_ROOTS, before + authority);
    }

    /// edgeallow, the one under test, about to be run.
    pub fn edgeallow_command<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Command<'_> {
        let argv = std::iter::once(EDGEALLOW.to_owned()).chain(args.into_iter().map(|a| a.as_ref().to_owned()));
        self.command(argv).env("EDGEALLOW_PUBLIC_ROOTS", PUBLIC_ROOTS)
    }

    /// Runs edgeallow, the one under test.
    pub fn edgeallow<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.edgeallow_command(args).run()
    }
}

impl Command<'_> {
    /// With this standard input instead of none.
    pub fn stdin(mut self, stdin: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// With this in its environment, which otherwise holds nothing but PATH and LC_ALL.
    pub fn env(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.env.push((name.to_owned(), value.to_string()));
        self
    }

    /// On the far end of the wire.
    pub fn on_the_internet(mut self) -> Self {
        self.internet = true;
        self
    }

    /// Takes up to this long.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Output {
        let (started, start) = mpsc::channel();
        let (ended, end) = mpsc::channel();
        let Self { lab, argv, stdin, env, internet, patience } = self;
        let words = argv.clone();
        // The senders move into the closure, so that a panic in it ends the watchdog too.
        let work = move || {
            let argv = words;
            let mut command = std::process::Command::new(found(&argv[0]));
            command
                .arg0(&argv[0])
                .args(&argv[1..])
                .env_clear()
                .env("PATH", PATH)
                .env("LC_ALL", "C.UTF-8")
                .envs(env)
                .current_dir("/");
            command.stdin(stdin.map_or_else(Stdio::null, |bytes| in_memory(&bytes)));
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {}: {e}", argv[0]));
            started.send(child.id()).expect("the watchdog listens");
            let output = child.wait_with_output().unwrap_or_else(|e| panic!("cannot wait for {}: {e}", argv[0]));
            // Where it was too late, nobody listens any more.
            let _ = ended.send(());
            output
        };
        let output = std::thread::scope(|scope| {
            let watchdog = scope.spawn(move || {
                let Ok(pid) = start.recv() else { return false };
                let late = end.recv_timeout(patience).is_err_and(|e| e == mpsc::RecvTimeoutError::Timeout);
                if late && let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                late
            });
            let output = if internet { lab.namespaces.on_the_internet(work) } else { lab.inside(work) };
            assert!(!watchdog.join().expect("the watchdog"), "{} did not end within {patience:?}", argv.join(" "));
            output
        });
        Output {
            argv,
            status: output.status.code(),
            signal: output.status.signal(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Where a program lies. With a search along PATH left to it, the standard library copies the whole test process
/// (fork instead of posix_spawn), which took a tenth of all tests' time.
fn found(program: &str) -> PathBuf {
    let mut places = PATH.split(':').map(|folder| Path::new(folder).join(program));
    places.find(|path| path.is_file()).unwrap_or_else(|| program.into())
}

impl Output {
    /// Panics with everything the program said, unless it exited with 0.
    pub fn expect_ok(self) -> Self {
        self.expect(0)
    }

    /// Panics with everything the program said, unless it exited with this status.
    pub fn expect(self, status: i32) -> Self {
        assert!(self.status == Some(status), "expected exit status {status} of {self:?}");
        self
    }

    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not JSON ({e}): {self:?}"))
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "`{}`", self.argv.join(" "))?;
        writeln!(f, "exit status {:?}, signal {:?}", self.status, self.signal)?;
        write!(f, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr)
    }
}

/// Bytes as a standard input: no thread has to feed them, which couldn't be started in the lab.
fn in_memory(bytes: &[u8]) -> Stdio {
    let fd = rustix::fs::memfd_create("stdin", rustix::fs::MemfdFlags::CLOEXEC).expect("make a file in memory");
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes).expect("write to a file in memory");
    file.rewind().expect("rewind a file in memory");
    file.into()
}
