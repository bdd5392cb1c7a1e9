//! Looks and plans against fail2ban's files in memory, and a client that answers as the real one does.

use std::{cell::RefCell, path::Path, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    host::{FileSeen, Look, Output},
    plan::{Check, Protocol, Reversible, Run, Step},
};

const JAIL_CONF: &str = "[INCLUDES]\nbefore = paths-debian.conf\n[DEFAULT]\nbantime = 10m\n#ignoreip = 127.0.0.1/8\n\
    ignorecommand =\nenabled = false\n[sshd]\nport = ssh\n[apache-auth]\nport = http\n";
const PATHS: &str = "[INCLUDES]\nbefore = paths-common.conf\nafter = paths-overrides.local\n[DEFAULT]\nx = 1\n";
const COMMON: &str = "[INCLUDES]\nafter = paths-overrides.local\n[DEFAULT]\ny = 1\n";

/// A machine with fail2ban on it.
struct Host {
    files: RefCell<BTreeMap<PathBuf, Vec<u8>>>,
    jails: RefCell<BTreeMap<String, Jail>>,
    up: bool,
}

use super::client::Jail;

impl Host {
    /// A stock Debian whose administrator has written this `jail.local`.
    fn new(jail_local: impl Into<Vec<u8>>) -> Self {
        let host = Self { files: RefCell::default(), jails: RefCell::default(), up: true };
        host.put("/etc/fail2ban/jail.conf", JAIL_CONF);
        host.put("/etc/fail2ban/paths-debian.conf", PATHS);
        host.put("/etc/fail2ban/paths-common.conf", COMMON);
        host.put("/etc/fail2ban/jail.local", jail_local);
        host.jail("sshd", "127.0.0.0/8", &[]);
        host
    }

    fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.files.borrow_mut().insert(path.into(), content.into());
    }

    fn jail(&self, name: &str, ignored: &str, banned: &[&str]) {
        let jail = Jail { ignored: file::nets(ignored), banned: banned.iter().map(|&b| b.to_owned()).collect() };
        self.jails.borrow_mut().insert(name.to_owned(), jail);
    }

    fn text(&self) -> String {
        String::from_utf8(self.files.borrow()[Path::new(file::PATH)].clone()).unwrap()
    }

    fn seen(&self) -> Seen {
        Seen::look(self).unwrap()
    }

    fn plan(&self, want: &[&str]) -> Plan {
        let seen = self.seen();
        Fail2ban.steps(&seen, &Fail2ban.target(&wanted(want), &seen).unwrap()).unwrap()
    }

    fn remove(&self) {
        let plan = Fail2ban.steps(&self.seen(), &Owned::default()).unwrap();
        self.apply(&plan);
    }

    fn sync(&self, want: &[&str]) {
        self.apply(&self.plan(want));
        let left = self.plan(want);
        assert!(left.is_empty(), "{left:#?}");
    }

    fn apply(&self, plan: &Plan) {
        for change in &plan.changes {
            match &change.step {
                Step::Write(w) => {
                    assert_eq!(self.files.borrow().get(&w.path).map(Vec::as_slice), w.was.as_deref());
                    self.files.borrow_mut().insert(w.path.clone(), w.content.to_vec());
                }
                Step::Remove(r) => drop(self.files.borrow_mut().remove(&r.path)),
                Step::Run(run) => self.change(run),
                other => panic!("{other}"),
            }
        }
    }

    fn change(&self, run: &Run) {
        let mut lines = vec![run.argv[1..].join(" ")];
        if let Some(stdin) = &run.stdin {
            lines = String::from_utf8_lossy(stdin).lines().map(str::to_owned).collect();
        }
        for line in lines.iter().filter(|l| *l != "exit") {
            let words: Vec<&str> = line.split(' ').collect();
            let mut jails = self.jails.borrow_mut();
            let jail = jails.get_mut(words[1]).unwrap();
            match words[2] {
                "addignoreip" => jail.ignored.extend(words[3..].iter().map(|w| file::net(w).unwrap())),
                // As the real one: the first argument only.
                "delignoreip" => drop(jail.ignored.remove(&file::net(words[3]).unwrap())),
                "unbanip" => jail.banned.retain(|b| !words[3..].contains(&b.as_str())),
                other => panic!("{other}"),
            }
        }
    }

    fn answer(&self, line: &str) -> String {
        let jails = self.jails.borrow();
        let gone = "Sorry but the jail does not exist".to_owned();
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["version"] => "1.0.2".to_owned(),
            ["status"] => format!("Status\n`- Jail list:\t{}", jails.keys().cloned().collect::<Vec<_>>().join(", ")),
            ["status", jail] => jails.get(jail).map_or(gone, |j| {
                format!("`- Banned IP list:\t{}", j.banned.iter().cloned().collect::<Vec<_>>().join(" "))
            }),
            ["get", jail, "ignoreip"] => jails.get(jail).map_or(gone, |j| {
                let lines: String = j.ignored.iter().map(|n| format!("\n|- {n}")).collect();
                format!("These IP addresses/networks are ignored:{lines}")
            }),
            _ => String::new(),
        }
    }
}

impl Look for Host {
    fn file(&self, path: &Path) -> Result<Option<FileSeen>> {
        let seen = |c: &Vec<u8>| FileSeen { content: c.as_slice().into(), mode: 0o644, owner: (0, 0), symlink: false };
        Ok(self.files.borrow().get(path).map(seen))
    }
    fn folder(&self, path: &Path) -> Result<Vec<String>> {
        let files = self.files.borrow();
        let inside = files.keys().filter(|f| f.parent() == Some(path));
        Ok(inside.filter_map(|f| Some(f.file_name()?.to_str()?.to_owned())).collect())
    }
    fn exists(&self, _: &Path) -> bool {
        true
    }
    fn program(&self, name: &str) -> Option<PathBuf> {
        Some(name.into())
    }
    fn run(&self, argv: &[&str], _: Duration) -> Result<Output> {
        let mut dump = String::new();
        for (name, jail) in self.jails.borrow().iter() {
            let ignored: String = jail.ignored.iter().map(|n| format!(", '{n}'")).collect();
            dump.push_str(&format!("['add', '{name}', 'auto']\n['set', '{name}', 'addignoreip'{ignored}]\n"));
        }
        let stdout = if argv.contains(&"-d") { dump.into_bytes() } else { b"Fail2Ban v1.0.2\n".to_vec() };
        Ok(Output { status: Some(0), stdout, stderr: vec![] })
    }
    fn run_fed(&self, commands: &[(Vec<&str>, Option<&str>)], limit: Duration) -> Vec<Result<Output>> {
        let one = |(argv, stdin): &(Vec<&str>, Option<&str>)| match stdin {
            None => self.run(argv, limit),
            Some(_) if !self.up => Ok(Output {
                status: Some(255),
                stdout: b"fail2ban> ".to_vec(),
                stderr: b"ERROR   Failed to access socket path: /x. Is fail2ban running?\n".to_vec(),
            }),
            Some(stdin) => {
                let answers: String = stdin.lines().map(|l| format!("fail2ban> {}\n", self.answer(l))).collect();
                Ok(Output { status: Some(0), stdout: format!("banner\n{answers}").into(), stderr: vec![] })
            }
        };
        commands.iter().map(one).collect()
    }
    fn may_administer(&self) -> bool {
        true
    }
}

fn wanted(nets: &[&str]) -> Desired {
    Desired {
        prefixes: Arc::new(nets.iter().map(|n| n.parse::<IpNet>().unwrap()).collect()),
        ports: [80, 443].into(),
        protocols: [Protocol::Tcp].into(),
    }
}

const LIST: [&str; 2] = ["173.245.48.0/20", "2400:cb00::/32"];

#[test]
fn stock_jails_that_are_enabled_later_are_covered_and_the_default_is_followed() {
    let host = Host::new("[sshd]\nenabled = true\n");
    host.sync(&LIST);
    let text = host.text();
    assert!(text.contains("edgeallow_ips =\n    173.245.48.0/20\n    2400:cb00::/32\n"), "{text}");
    let ours = "\nignoreip = %(default/ignoreip)s\n    %(edgeallow_ips)s\n";
    assert!(text.contains(&format!("[sshd]{ours}")) && text.contains(&format!("[apache-auth]{ours}")), "{text}");
    host.put("/etc/fail2ban/jail.local", "[sshd]\nenabled = true\n[mine]\nenabled = true\n");
    assert!(!host.plan(&LIST).is_empty(), "a new section has to be covered");
}

#[test]
fn ignoreip_defined_nowhere_gets_an_empty_default_that_everything_overrides() {
    let host = Host::new("");
    let plan = host.plan(&LIST);
    let Step::Write(first) = &plan.changes[0].step else { panic!("{plan:?}") };
    assert_eq!(first.path, Path::new("/etc/fail2ban/paths-overrides.local"), "before the file that needs it");
    assert!(first.content.ends_with(b"[DEFAULT]\nignoreip =\n"));
    host.put("/etc/fail2ban/paths-overrides.local", "[DEFAULT]\nz = 1\n");
    host.sync(&LIST);
    assert!(host.files.borrow().contains_key(Path::new("/etc/fail2ban/paths-common.local")));
    host.put("/etc/fail2ban/paths-debian.local", "");
    host.put("/etc/fail2ban/paths-common.local", "");
    let e = Fail2ban.target(&wanted(&LIST), &host.seen()).unwrap_err();
    assert_eq!(e.kind, ErrorKind::ToolConfig);
    host.put("/etc/fail2ban/jail.local", "[DEFAULT]\nignoreip = 192.0.2.1\n");
    host.sync(&LIST);
}

#[test]
fn a_default_set_at_the_lowest_place_is_not_overridden() {
    let host = Host::new("");
    host.put("/etc/fail2ban/paths-common.conf", format!("{COMMON}ignoreip = 192.0.2.9\n"));
    host.sync(&LIST);
    assert!(!host.files.borrow().contains_key(Path::new("/etc/fail2ban/paths-overrides.local")));
}

#[test]
fn a_jail_with_its_own_ignoreip_keeps_it_and_is_planned_again_when_it_changes() {
    let host = Host::new("[sshd]\nenabled = true\nignoreip = 192.0.2.1 ; home\r\n  192.0.2.2,\r\n\thost.example\r\n");
    host.sync(&LIST);
    let ours = "[sshd]\nignoreip = 192.0.2.1\n    192.0.2.2,\n    host.example\n    %(edgeallow_ips)s\n";
    assert!(host.text().contains(ours), "{}", host.text());
    host.put("/etc/fail2ban/jail.local", "[sshd]\nenabled = true\nignoreip = 192.0.2.7\n");
    host.sync(&LIST);
    assert!(host.text().contains("[sshd]\nignoreip = 192.0.2.7\n    %(edgeallow_ips)s\n"), "{}", host.text());
}

#[test]
fn a_jail_that_uses_known_ignoreip_is_spelled_out_so_that_nothing_recurses() {
    let host = Host::new("[sshd]\nenabled = true\nignoreip = %(known/ignoreip)s 192.0.2.1\n");
    host.put("/etc/fail2ban/jail.d/a.local", "[sshd]\nignoreip = %(known/ignoreip)s 192.0.2.2\n");
    host.sync(&LIST);
    let text = host.text();
    assert!(!text.contains("known/"), "{text}");
    assert!(
        text.contains("[sshd]\nignoreip = %(default/ignoreip)s 192.0.2.1 192.0.2.2\n    %(edgeallow_ips)s"),
        "{text}"
    );
}

#[test]
fn bans_inside_are_lifted_after_the_addresses_are_ignored_and_others_stay() {
    let host = Host::new("[sshd]\nenabled = true\n");
    host.jail("sshd", "", &["173.245.48.29", "2400:cb00::9", "203.0.113.9", "173.245.49.0/24", "173.245.0.0/16"]);
    let plan = host.plan(&LIST);
    let shown: Vec<String> = plan.changes.iter().map(|c| c.step.to_string()).collect();
    assert_eq!(
        shown[2..],
        [
            "fail2ban-client set sshd addignoreip 173.245.48.0/20 2400:cb00::/32",
            "fail2ban-client set sshd unbanip 173.245.48.29 173.245.49.0/24 2400:cb00::9",
        ]
    );
    assert!(matches!(plan.changes[3].reversible, Reversible::No(_)));
    assert!(plan.checks.iter().all(|c| matches!(c, Check::NotWorse { .. })) && plan.checks.len() == 2);
    host.sync(&LIST);
    assert_eq!(host.jails.borrow()["sshd"].banned.len(), 2);
    let warnings = Fail2ban.warnings(&host.seen());
    assert!(warnings.iter().any(|w| w.id == "fail2ban-wide-ban" && w.message.contains("173.245.0.0/16")));
}

#[test]
fn what_a_reload_forgets_is_drift_and_needs_no_file_written() {
    let host = Host::new("[sshd]\nenabled = true\n");
    host.sync(&LIST);
    host.jail("sshd", "127.0.0.0/8", &[]);
    let plan = host.plan(&LIST);
    assert_eq!(plan.changes.len(), 1, "{plan:?}");
    assert!(plan.checks.is_empty(), "no file, nothing to test");
}

#[test]
fn a_server_that_is_down_gets_the_files_only_and_is_pending() {
    let host = Host { up: false, ..Host::new("[sshd]\nenabled = true\n") };
    assert!(host.plan(&LIST).changes.iter().all(|c| matches!(c.step, Step::Write(_))));
    host.sync(&LIST);
    assert!(Fail2ban.pending(&host.seen()).unwrap().contains("Failed to access socket path"));
    let cx = Context { host: &host, applied: None, full_check: 100, deep: false, leave_stored: false };
    assert!(matches!(Fail2ban.probe(&cx), Probe::Ready { version, auto: Auto::Yes(_) } if version == "1.0.2"));
}

#[test]
fn a_range_that_left_goes_live_before_our_file_forgets_it_and_his_own_stays() {
    let host = Host::new("[DEFAULT]\nignoreip = 198.41.128.0/17\n[sshd]\nenabled = true\n");
    let before = ["173.245.48.0/20", "131.0.72.0/22", "198.41.128.0/17"];
    host.sync(&before);
    let plan = host.plan(&["173.245.48.0/20"]);
    let Step::Run(run) = &plan.changes[0].step else { panic!("{plan:?}") };
    assert_eq!(run.stdin.as_deref(), Some(&b"set sshd delignoreip 131.0.72.0/22\nexit\n"[..]));
    assert!(matches!(plan.changes[1].step, Step::Write(_)));
    host.sync(&["173.245.48.0/20"]);
    assert_eq!(host.jails.borrow()["sshd"].ignored, file::nets("127.0.0.0/8 173.245.48.0/20 198.41.128.0/17"));
}

#[test]
fn a_jail_that_runs_though_no_file_names_it_is_asked_too() {
    let host = Host::new("");
    host.jail("old", "", &["173.245.48.29"]);
    host.sync(&LIST);
    assert!(host.jails.borrow()["old"].banned.is_empty());
}

#[test]
fn a_file_read_after_ours_is_warned_of() {
    let host = Host::new("[sshd]\nenabled = true\n");
    host.put("/etc/fail2ban/jail.d/zzz.local", "[sshd]\nignoreip = 192.0.2.1\n");
    host.sync(&LIST);
    host.jail("sshd", "192.0.2.1", &[]);
    let seen = host.seen();
    assert!(Fail2ban.warnings(&seen).iter().any(|w| w.id == "fail2ban-overridden"));
    let cx = Context { host: &host, applied: None, full_check: 100, deep: false, leave_stored: false };
    assert_eq!(Fail2ban.confirm(&cx, &seen), Ok(()), "his own doing is no reason to undo ours");
    host.files.borrow_mut().remove(Path::new("/etc/fail2ban/jail.d/zzz.local"));
    assert_eq!(Fail2ban.confirm(&cx, &host.seen()).unwrap_err().kind, ErrorKind::Unconfirmed);
}

#[test]
fn a_file_that_is_not_utf8_is_left_out_as_fail2ban_does_and_said() {
    let host = Host::new(b"# caf\xe9\n[sshd]\nignoreip = 192.0.2.1\n".as_slice());
    host.sync(&LIST);
    assert!(!host.text().contains("192.0.2.1"));
    assert!(
        Fail2ban.warnings(&host.seen()).iter().any(|w| w.id == "fail2ban-file" && w.message.contains("jail.local"))
    );
}

#[test]
fn undoing_brings_the_state_before_back() {
    let host = Host::new("[sshd]\nenabled = true\n");
    host.sync(&["131.0.72.0/22"]);
    let (files, jails) = (host.files.borrow().clone(), host.jails.borrow().clone());
    let before = Fail2ban.owned(&host.seen());
    host.sync(&LIST);
    let back = Fail2ban.steps(&host.seen(), &before).unwrap();
    host.apply(&back);
    assert_eq!((&*host.files.borrow(), &*host.jails.borrow()), (&files, &jails));
}

fn his_line() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\[(sshd|web|DEFAULT|x y)\\]",
        "ignoreip = (192\\.0\\.2\\.1|%\\(known/ignoreip\\)s|%\\(default/ignoreip\\)s 1\\.1\\.1\\.1)",
        "  (198\\.51\\.100\\.0/24|# note|host\\.example ; c)",
        "enabled *[:=] *(true|false)",
        "",
    ]
}

proptest! {
    #[test]
    fn after_a_sync_nothing_is_left_to_plan_and_removing_restores_every_byte(
        lines in proptest::collection::vec(his_line(), 0..14),
        eol in prop_oneof![Just("\n"), Just("\r\n")],
        last in any::<bool>(),
    ) {
        let mut text = lines.join(eol);
        if last {
            text.push_str(eol);
        }
        let host = Host::new(text);
        let before = (host.files.borrow().clone(), host.jails.borrow().clone());
        host.sync(&LIST);
        host.remove();
        prop_assert_eq!((host.files.borrow().clone(), host.jails.borrow().clone()), before);
    }
}
