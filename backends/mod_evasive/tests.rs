//! Looks and plans against an Apache in memory.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

use super::*;
use crate::{
    host::{FileSeen, Look, Output},
    plan::{Check, Protocol, Step},
};

struct Apache {
    files: BTreeMap<PathBuf, Vec<u8>>,
    folders: BTreeSet<PathBuf>,
    words: &'static str,
    broken: bool,
}

impl Apache {
    fn debian(words: &'static str) -> Self {
        let folders = ["/etc/apache2/conf-available", "/etc/apache2/mods-enabled"].map(PathBuf::from).into();
        let mut apache = Self { files: BTreeMap::new(), folders, words, broken: false };
        apache.put("/etc/apache2/mods-enabled/evasive.load", "LoadModule evasive20_module x.so\n");
        apache.put("/run/apache2/apache2.pid", "42\n");
        apache.put("/proc/42/comm", "apache2\n");
        apache
    }

    fn put(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.files.insert(path.into(), content.into());
    }

    fn seen(&self) -> Seen {
        Seen::look(self).unwrap().unwrap()
    }

    fn plan(&self) -> Plan {
        let seen = self.seen();
        ModEvasive.steps(&seen, &ModEvasive.target(&wanted(), &seen).unwrap()).unwrap()
    }

    fn remove(&mut self) {
        let plan = ModEvasive.steps(&self.seen(), &Owned::default()).unwrap();
        self.apply(&plan);
    }

    fn apply(&mut self, plan: &Plan) {
        for change in &plan.changes {
            match &change.step {
                Step::Write(w) => drop(self.files.insert(w.path.clone(), w.content.to_vec())),
                Step::Remove(r) => drop(self.files.remove(&r.path)),
                Step::Run(run) => {
                    let folder = if run.argv[0].ends_with("conf") { "conf" } else { "sites" };
                    let path = format!("/etc/apache2/{folder}-enabled/{}.conf", run.argv[2]);
                    match run.argv[0].starts_with("a2en") {
                        true => self.put(&path, "link"),
                        false => drop(self.files.remove(Path::new(&path))),
                    }
                }
                other => panic!("{other}"),
            }
        }
    }
}

impl Look for Apache {
    fn file(&self, path: &Path) -> Result<Option<FileSeen>> {
        let seen = |c: &Vec<u8>| FileSeen { content: c.as_slice().into(), mode: 0o644, owner: (0, 0), symlink: false };
        Ok(self.files.get(path).map(seen))
    }
    fn folder(&self, path: &Path) -> Result<Vec<String>> {
        let inside = self.files.keys().filter(|f| f.parent() == Some(path));
        Ok(inside.filter_map(|f| Some(f.file_name()?.to_str()?.to_owned())).collect())
    }
    fn exists(&self, path: &Path) -> bool {
        self.folders.contains(path)
    }
    fn program(&self, name: &str) -> Option<PathBuf> {
        (name == "apachectl").then(|| name.into())
    }
    fn run(&self, argv: &[&str], _: Duration) -> Result<Output> {
        if self.broken && argv[1] == "-t" {
            let stderr = b"AH00558: apache2: name\nSyntax error on line 1 of /x:\nInvalid command 'y'\n".to_vec();
            return Ok(Output { status: Some(1), stdout: vec![], stderr });
        }
        let read = self.files.keys().filter(|p| {
            let path = p.to_string_lossy();
            path.contains("-enabled/") || path.contains("/conf.d/")
        });
        let includes: String = read.map(|p| format!("    (222) {}\n", p.display())).collect();
        let module = if self.words.is_empty() { "" } else { " evasive20_module (shared)\n" };
        let dump = format!(
            "Included configuration files:\n  (*) /etc/apache2/apache2.conf\n{includes}Loaded Modules:\n{module}"
        );
        let stdout = if argv[1] == "-t" { dump.into_bytes() } else { self.words.into() };
        Ok(Output { status: Some(0), stdout, stderr: vec![] })
    }
    fn may_administer(&self) -> bool {
        true
    }
}

const OLD: &str = "DOSPageCount (mod_evasive20.c)\n\tSet it\nDOSHTTPResponseCode (mod_evasive20.c)\n";
const V2: &str = "DOSEnabled (mod_evasive20.c)\n";
const V24: &str = "DOSEnabled (mod_evasive20.c)\nDOSBlocklistUri (mod_evasive20.c)\n";

fn wanted() -> Desired {
    Desired {
        prefixes: Arc::new(
            ["131.0.72.0/22", "2400:cb00::/32"].map(|n| n.parse::<IpNet>().unwrap()).into_iter().collect(),
        ),
        ports: [80, 443].into(),
        protocols: [Protocol::Tcp].into(),
    }
}

fn shown(plan: &Plan) -> Vec<String> {
    plan.changes.iter().map(|c| c.step.to_string()).collect()
}

#[test]
fn a_sync_writes_enables_and_reloads_and_a_second_one_has_nothing_to_do() {
    let mut apache = Apache::debian(OLD);
    let plan = apache.plan();
    let wanted = ["create /etc/apache2/conf-available/edgeallow-evasive.conf", "a2enconf -q edgeallow-evasive"];
    assert_eq!(shown(&plan), wanted);
    assert_eq!(plan.activate.iter().map(ToString::to_string).collect::<Vec<_>>(), ["apachectl graceful"]);
    assert!(matches!(&plan.checks[..], [Check::NotWorse { .. }]));
    let before = apache.files.clone();
    apache.apply(&plan);
    assert!(apache.plan().is_empty());
    apache.remove();
    assert_eq!(apache.files, before);
}

#[test]
fn the_variant_is_asked_of_apache() {
    let variant = |words| Apache::debian(words).seen().module.map(|m| m.variant);
    assert_eq!(variant(OLD), Some(Variant::Octets));
    assert_eq!(variant(V2), Some(Variant::Octets));
    assert_eq!(variant(V24), Some(Variant::Cidr));
    assert_eq!(variant(""), None);
    let limit = |words| ModEvasive.warnings(&Apache::debian(words).seen()).iter().any(|w| w.id == "mod-evasive-ipv6");
    assert!(limit(OLD) && !limit(V24));
}

#[test]
fn a_virtual_host_with_dos_directives_moves_the_list_behind_it() {
    let mut apache = Apache::debian(OLD);
    apache.apply(&apache.plan());
    apache.put("/etc/apache2/sites-enabled/shop.conf", "<VirtualHost *:80>\nDOSPageCount 5\n</VirtualHost>\n");
    let plan = apache.plan();
    let wanted = [
        "create /etc/apache2/sites-available/zzz-edgeallow-evasive.conf",
        "a2ensite -q zzz-edgeallow-evasive",
        "a2disconf -q edgeallow-evasive",
        "rm /etc/apache2/conf-available/edgeallow-evasive.conf",
    ];
    assert_eq!(shown(&plan), wanted);
    apache.apply(&plan);
    assert!(apache.plan().is_empty());
    let warnings = ModEvasive.warnings(&apache.seen());
    assert!(warnings.iter().any(|w| w.id == "mod-evasive-vhost" && w.message.contains("read last")), "{warnings:?}");
}

#[test]
fn from_2_4_0_the_virtual_host_is_told_to_include_the_list() {
    let mut apache = Apache::debian(V24);
    apache.put("/etc/apache2/sites-enabled/shop.conf", "<VirtualHost *:80>\nDOSPageCount 5\n</VirtualHost>\n");
    assert!(shown(&apache.plan())[0].contains("conf-available"));
    let warnings = ModEvasive.warnings(&apache.seen());
    assert!(warnings[0].message.contains("Include /etc/apache2/conf-available/edgeallow-evasive.conf"), "{warnings:?}");
}

#[test]
fn an_apache_that_fails_its_test_already_is_left_alone_and_ours_can_still_be_removed() {
    let mut apache = Apache::debian(OLD);
    let fresh = apache.files.clone();
    let probe = |host: &Apache| {
        ModEvasive.probe(&Context { host, applied: None, full_check: 100, deep: false, leave_stored: false })
    };
    apache.apply(&apache.plan());
    apache.broken = true;
    let e = ModEvasive.target(&wanted(), &apache.seen()).unwrap_err();
    assert_eq!(e.kind, ErrorKind::ToolConfig);
    assert!(e.message.ends_with("Syntax error on line 1 of /x: Invalid command 'y'"), "{e}");
    assert!(matches!(probe(&apache), Probe::Ready { .. }));
    let plan = ModEvasive.steps(&apache.seen(), &Owned::default()).unwrap();
    assert!(plan.activate.is_empty(), "graceful would fail");
    apache.remove();
    assert_eq!(apache.files, fresh);
    assert!(matches!(probe(&apache), Probe::Unusable(e) if e.kind == ErrorKind::ToolConfig));
}

#[test]
fn an_apache_that_is_stopped_is_not_started() {
    let mut apache = Apache::debian(OLD);
    apache.put("/proc/42/comm", "bash\n");
    let plan = apache.plan();
    assert!(plan.activate.is_empty() && !plan.is_empty());
    assert!(ModEvasive.pending(&apache.seen()).is_some());
}

#[test]
fn red_hat_has_one_folder_and_no_links() {
    let mut apache = Apache::debian(V24);
    apache.folders = [PathBuf::from("/etc/httpd/conf.d")].into();
    let plan = apache.plan();
    assert_eq!(shown(&plan), ["create /etc/httpd/conf.d/zzz-edgeallow-evasive.conf"]);
    apache.apply(&plan);
    assert!(apache.plan().is_empty());
    let cx = Context { host: &apache, applied: None, full_check: 100, deep: false, leave_stored: false };
    assert_eq!(ModEvasive.confirm(&cx, &apache.seen()), Ok(()));
    apache.remove();
    assert!(!apache.files.keys().any(|p| p.to_string_lossy().contains("edgeallow")));
}

#[test]
fn a_list_that_apache_does_not_read_is_not_confirmed() {
    let mut apache = Apache::debian(OLD);
    apache.put("/etc/apache2/conf-available/edgeallow-evasive.conf", "");
    let cx = Context { host: &apache, applied: None, full_check: 100, deep: false, leave_stored: false };
    assert_eq!(ModEvasive.confirm(&cx, &apache.seen()).unwrap_err().kind, ErrorKind::Unconfirmed);
}
