//! Talking with fail2ban-client: what is asked, and what its answers mean.
//!
//! Belongs here: questions, answers, and the commands that change a jail. Does not: which changes are needed.
//!
//! Each start of the client costs about 70 ms, nearly all of it Python's. So all questions go to one client in its
//! interactive mode, beside one `fail2ban-client -d`. The server's socket is not spoken to directly: it talks
//! Python's pickle, with objects of fail2ban's own in the answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::IpNet;

use super::{file, jails::Jails};
use crate::{
    allowlist::short,
    error::{Error, ErrorKind, Result},
    host::{Look, Output},
    plan::Run,
};

const CLIENT: &str = "fail2ban-client";
const PATIENCE: Duration = Duration::from_secs(30);
/// What the client writes before it reads a command.
const PROMPT: &str = "fail2ban> ";
/// Addresses a command: far from the limit on a program's arguments.
const A_COMMAND: usize = 1000;

/// The running server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Server {
    /// Its version.
    pub version: String,
    /// Its jails.
    pub jails: BTreeMap<String, Jail>,
    /// Running jails that can't be asked, for their names.
    pub unasked: BTreeSet<String>,
}

/// A running jail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Jail {
    /// What it ignores; host names are left out.
    pub ignored: BTreeSet<IpNet>,
    /// What is banned, as fail2ban writes it.
    pub banned: BTreeSet<String>,
}

/// What the configuration on disk would make of the ignored addresses, for each enabled jail.
pub type Loads = BTreeMap<String, BTreeSet<IpNet>>;

/// What the programs said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// The server, or why there is none.
    pub server: Result<Server, String>,
    /// The effective configuration, or why it doesn't load.
    pub loads: Result<Loads, String>,
}

/// Asks everything at once.
///
/// # Errors
/// `no-privilege`, or `program` if the client can't be run.
pub fn ask(host: &dyn Look, jails: &Jails) -> Result<Answers> {
    let guess: Vec<&str> = jails.sections.keys().map(String::as_str).filter(|j| jails.enabled(j)).collect();
    let (asked, script) = questions(&guess);
    let both = host.run_fed(&[(vec![CLIENT, "-i"], Some(&script)), (vec![CLIENT, "-d"], None)], PATIENCE);
    let [said, dumped] =
        <[_; 2]>::try_from(both).map_err(|_| Error::new(ErrorKind::Internal, "two answers expected"))?;
    let (said, dumped) = (said?, dumped?);
    let loads = if dumped.ok() { Ok(loads(&dumped)) } else { Err(reason(&dumped)) };
    let mut server = server(&said, &asked)?;
    if let Ok(up) = &mut server {
        // A jail that runs although the files don't say so: they were changed and not reloaded.
        let missing: Vec<String> = up.unasked.iter().filter(|j| is_plain(j)).cloned().collect();
        if !missing.is_empty() {
            let (asked, script) = questions(&missing.iter().map(String::as_str).collect::<Vec<_>>());
            let said = host.run_fed(&[(vec![CLIENT, "-i"], Some(&script))], PATIENCE).pop();
            let said = said.unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "an answer expected")))?;
            if let Ok(more) = self::server(&said, &asked)? {
                up.unasked.retain(|j| more.unasked.contains(j) && !more.jails.contains_key(j));
                up.jails.extend(more.jails);
            }
        }
    }
    Ok(Answers { server, loads })
}

/// The version of the installed program, for when no server tells its own.
#[must_use]
pub fn installed(host: &dyn Look) -> Option<String> {
    let out = host.run(&[CLIENT, "--version"], PATIENCE).ok().filter(Output::ok)?;
    let text = String::from_utf8_lossy(&out.stdout);
    text.split_whitespace().find_map(|w| w.strip_prefix('v')).map(str::to_owned)
}

/// Whether a jail can be named in the client's interactive mode.
#[must_use]
pub fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('-') && name.chars().all(|c| c.is_alphanumeric() || "-_.:@+/".contains(c))
}

fn questions<'j>(jails: &[&'j str]) -> (Vec<&'j str>, String) {
    let asked: Vec<&str> = jails.iter().copied().filter(|j| is_plain(j)).collect();
    let mut script = "version\nstatus\n".to_owned();
    for jail in &asked {
        script.push_str(&format!("status {jail}\nget {jail} ignoreip\n"));
    }
    script.push_str("exit\n");
    (asked, script)
}

fn reason(out: &Output) -> String {
    let text = String::from_utf8_lossy(&out.stderr);
    let line = text.lines().find_map(|l| l.split_once(" ERROR ")).map(|(_, why)| why.trim().to_owned());
    line.unwrap_or_else(|| out.complaint())
}

/// Reads the answers of the interactive mode: one after each prompt.
fn server(said: &Output, asked: &[&str]) -> Result<Result<Server, String>> {
    let stdout = String::from_utf8_lossy(&said.stdout);
    let stderr = String::from_utf8_lossy(&said.stderr);
    if stderr.contains("Permission denied") {
        return Err(Error::new(ErrorKind::NoPrivilege, "fail2ban's socket can't be opened: permission denied")
            .hint("run edgeallow as root"));
    }
    let mut answers = stdout.split(PROMPT).skip(1).map(str::trim);
    let version = answers.next().unwrap_or_default().to_owned();
    let status = answers.next().unwrap_or_default();
    let Some(running) = status.lines().find_map(|l| l.split_once("Jail list:")).map(|(_, list)| list) else {
        // The client says so in these words when nobody listens, and in others when it can't ask at all.
        let down = ["Failed to access socket path", "Is fail2ban running", "Is it running"];
        if down.iter().any(|words| stderr.contains(words)) {
            return Ok(Err(reason(said)));
        }
        let why = format!("fail2ban-client gave an answer that can't be understood: {}", reason(said));
        return Err(Error::new(ErrorKind::Program, why).hint("look at `fail2ban-client status`"));
    };
    let running: BTreeSet<String> =
        running.split(',').map(str::trim).filter(|j| !j.is_empty()).map(str::to_owned).collect();
    let mut jails = BTreeMap::new();
    for name in asked {
        let (status, ignored) = (answers.next().unwrap_or_default(), answers.next().unwrap_or_default());
        if running.contains(*name)
            && let (Some(banned), Some(ignored)) = (banned(status), ignored_in(ignored))
        {
            jails.insert((*name).to_owned(), Jail { ignored, banned });
        }
    }
    let unasked = running.into_iter().filter(|j| !jails.contains_key(j)).collect();
    Ok(Ok(Server { version, jails, unasked }))
}

/// From `status JAIL`.
fn banned(answer: &str) -> Option<BTreeSet<String>> {
    let list = answer.lines().find_map(|l| l.split_once("Banned IP list:"))?.1;
    Some(list.split_whitespace().map(str::to_owned).collect())
}

/// From `get JAIL ignoreip`.
fn ignored_in(answer: &str) -> Option<BTreeSet<IpNet>> {
    if answer.starts_with("No IP address/network is ignored") {
        return Some(BTreeSet::new());
    }
    let list = answer.strip_prefix("These IP addresses/networks are ignored:")?;
    Some(list.lines().filter_map(|l| file::net(l.trim_start_matches(['|', '`', '-', ' ']))).collect())
}

/// The lines `['set', 'JAIL', 'addignoreip', 'ADDRESS', …]` of `-d`, and a jail without one ignores nothing.
fn loads(dumped: &Output) -> Loads {
    let text = String::from_utf8_lossy(&dumped.stdout);
    let mut out = Loads::new();
    for line in text.lines() {
        // An address or a name of a jail holds neither quote nor comma, so Python's list is split by its commas.
        let Some(inner) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) else { continue };
        let mut words = inner.split(", ").map(|w| w.trim_matches(['\'', '"']));
        match (words.next(), words.next(), words.next()) {
            (Some("add"), Some(jail), _) => drop(out.entry(jail.to_owned()).or_default()),
            (Some("set"), Some(jail), Some("addignoreip")) => {
                out.entry(jail.to_owned()).or_default().extend(words.filter_map(file::net));
            }
            _ => {}
        }
    }
    out
}

/// Makes a running jail ignore more.
#[must_use]
pub fn ignore(jail: &str, nets: &[IpNet]) -> Vec<Run> {
    set(jail, "addignoreip", &nets.iter().map(short).collect::<Vec<_>>())
}

/// Lifts bans.
#[must_use]
pub fn unban(jail: &str, banned: &[String]) -> Vec<Run> {
    set(jail, "unbanip", banned)
}

/// Makes a running jail ignore less. `delignoreip` takes its first argument only, so this is a dialogue.
#[must_use]
pub fn heed(jail: &str, nets: &[IpNet]) -> Run {
    let mut script: String = nets.iter().map(|n| format!("set {jail} delignoreip {}\n", short(n))).collect();
    script.push_str("exit\n");
    Run::new([CLIENT, "-i"]).stdin(script)
}

fn set(jail: &str, what: &str, words: &[String]) -> Vec<Run> {
    let run = |some: &[String]| {
        Run::new([CLIENT, "set", jail, what].map(str::to_owned).into_iter().chain(some.iter().cloned()))
    };
    words.chunks(A_COMMAND).map(run).collect()
}

/// Loads the configuration as the server would, and prints it.
#[must_use]
pub fn dump() -> Run {
    Run::new([CLIENT, "-d"])
}

/// fail2ban's own test of the configuration. It fails on a stock Debian, for want of a log file.
#[must_use]
pub fn test() -> Run {
    Run::new([CLIENT, "-t"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(stdout: &str, stderr: &str, status: i32) -> Output {
        Output { status: Some(status), stdout: stdout.into(), stderr: stderr.into() }
    }

    const UP: &str = "Fail2Ban v1.0.2 reads log file that contains password failure report\n\
        and bans the corresponding IP addresses using firewall rules.\n\nfail2ban> 1.0.2\nfail2ban> Status\n\
        |- Number of jail:\t2\n`- Jail list:\tsshd, web, odd one\nfail2ban> Sorry but the jail 'off' does not exist\n\
        fail2ban> Sorry but the jail 'off' does not exist\nfail2ban> Status for the jail: sshd\n|- Filter\n\
        |  |- Currently failed:\t0\n`- Actions\n   |- Currently banned:\t2\n   `- Banned IP list:\t203.0.113.9 2400:cb00::9\n\
        fail2ban> These IP addresses/networks are ignored:\n|- host.example\n|- 127.0.0.0/8\n`- ::1\n\
        fail2ban> Status for the jail: web\n`- Actions\n   `- Banned IP list:\t\n\
        fail2ban> No IP address/network is ignored\nfail2ban> ";

    #[test]
    fn the_interactive_answers_are_read_by_their_place() {
        let up = server(&out(UP, "NOK: ('off',)", 0), &["off", "sshd", "web"]).unwrap().unwrap();
        assert_eq!(up.version, "1.0.2");
        assert_eq!(up.jails.keys().collect::<Vec<_>>(), ["sshd", "web"]);
        assert_eq!(up.jails["sshd"].banned, ["2400:cb00::9", "203.0.113.9"].map(str::to_owned).into());
        assert_eq!(up.jails["sshd"].ignored, file::nets("127.0.0.1/8 ::1"));
        assert_eq!(up.jails["web"], Jail::default());
        assert_eq!(up.unasked, ["odd one".to_owned()].into());
    }

    #[test]
    fn a_server_that_is_down_is_no_error_and_lack_of_privilege_is() {
        let down =
            "2026-11-22 12:15:23,463 fail2ban  [78]: ERROR   Failed to access socket path: /x. Is fail2ban running?";
        let why = server(&out("fail2ban> fail2ban> ", down, 255), &[]).unwrap().unwrap_err();
        assert_eq!(why, "Failed to access socket path: /x. Is fail2ban running?");
        let denied = out("fail2ban> ", "ERROR   Permission denied to socket: /x, (you must be root)", 255);
        assert_eq!(server(&denied, &[]).unwrap_err().kind, ErrorKind::NoPrivilege);
        for odd in [out("what?", "", 0), out("", "ERROR   Readline not available", 255)] {
            assert_eq!(server(&odd, &[]).unwrap_err().kind, ErrorKind::Program);
        }
    }

    #[test]
    fn the_effective_configuration_is_read_from_the_dump() {
        let dump = "2026 WARNING x\n['set', 'loglevel', 'INFO']\n['add', 'sshd', 'polling']\n['add', 'web', 'auto']\n\
                    ['set', 'web', 'addignoreip', '192.0.2.1', 'host.example', '1.2.3.0/24']\n";
        let loads = loads(&out(dump, "", 0));
        assert_eq!(loads["web"], file::nets("192.0.2.1 1.2.3.0/24"));
        assert!(loads["sshd"].is_empty());
    }

    #[test]
    fn one_client_is_asked_everything_and_odd_names_are_left_out() {
        let (asked, script) = questions(&["sshd", "a b", "x;y", "--"]);
        assert_eq!(asked, ["sshd"]);
        assert_eq!(script, "version\nstatus\nstatus sshd\nget sshd ignoreip\nexit\n");
    }
}
