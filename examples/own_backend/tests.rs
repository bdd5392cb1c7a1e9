//! What must hold for every backend, tried without a machine: files in memory, and lists that nobody thought of.

use std::{cell::RefCell, collections::BTreeMap, path::PathBuf, time::Duration};

use edgeallow::host::{FileSeen, Look, Output};
use proptest::prelude::*;

use super::*;

/// Files in memory.
#[derive(Debug, Default, Clone, PartialEq)]
struct Disk(RefCell<BTreeMap<PathBuf, Arc<[u8]>>>);

impl Look for Disk {
    fn file(&self, path: &Path) -> Result<Option<FileSeen>> {
        let content = self.0.borrow().get(path).cloned();
        Ok(content.map(|content| FileSeen { content, mode: 0o644, owner: (0, 0), symlink: false }))
    }
    fn folder(&self, _: &Path) -> Result<Vec<String>> {
        Ok(vec![])
    }
    fn exists(&self, path: &Path) -> bool {
        self.0.borrow().contains_key(path)
    }
    fn program(&self, name: &str) -> Option<PathBuf> {
        Some(Path::new("/usr/sbin").join(name)).filter(|p| self.exists(p))
    }
    fn run(&self, argv: &[&str], _: Duration) -> Result<Output> {
        Err(Error::new(ErrorKind::Internal, format!("{argv:?} is not needed to look")))
    }
    fn may_administer(&self) -> bool {
        true
    }
}

impl Disk {
    fn with(files: &[(&str, &[u8])]) -> Self {
        Self(RefCell::new(files.iter().map(|(path, content)| (PathBuf::from(path), Arc::from(*content))).collect()))
    }

    /// Carries a plan out, and is as strict as the real executor: a file must be what was looked at.
    fn carry_out(&self, plan: &Plan) {
        for change in &plan.changes {
            let mut files = self.0.borrow_mut();
            match &change.step {
                Step::Write(w) => {
                    assert!(META.files.iter().any(|f| w.path == Path::new(f)), "{w:?} is no file of ours");
                    assert_eq!(files.insert(w.path.clone(), w.content.clone()), w.was);
                }
                Step::Remove(r) => assert_eq!(files.remove(&r.path).as_ref(), Some(&r.was)),
                other => panic!("{other} was not to be expected"),
            }
        }
    }

    fn seen(&self) -> Seen {
        let cx = Context { host: self, applied: None, full_check: 10_000, deep: false, leave_stored: false };
        Nginx.observe(&cx).unwrap()
    }

    fn probe(&self) -> Probe {
        Nginx.probe(&Context { host: self, applied: None, full_check: 10_000, deep: false, leave_stored: false })
    }
}

fn wanted(prefixes: Prefixes) -> Desired {
    let ports = BTreeSet::from([443]);
    Desired { prefixes: Arc::new(prefixes), ports, protocols: BTreeSet::from([Protocol::Tcp]) }
}

/// The plan for these prefixes.
fn plan(disk: &Disk, prefixes: &Prefixes) -> Plan {
    let seen = disk.seen();
    Nginx.steps(&seen, &Nginx.target(&wanted(prefixes.clone()), &seen).unwrap()).unwrap()
}

fn lists() -> impl Strategy<Value = Prefixes> {
    let v4 = prop::collection::vec((any::<u32>(), 8u8..=32), 0..40);
    let v6 = prop::collection::vec((any::<u128>(), 16u8..=128), 0..40);
    (v4, v6).prop_map(|(v4, v6)| {
        let v4 = v4.into_iter().map(|(a, n)| ipnet::Ipv4Net::new(a.into(), n).unwrap().trunc()).collect();
        let v6 = v6.into_iter().map(|(a, n)| ipnet::Ipv6Net::new(a.into(), n).unwrap().trunc()).collect();
        Prefixes::new(v4, v6)
    })
}

proptest! {
    /// Whatever was there: after a sync there is nothing left to plan, and what is held is what was wanted.
    #[test]
    fn after_a_sync_there_is_nothing_to_do(found in prop::option::of(any::<Vec<u8>>()), list in lists()) {
        let disk = Disk::default();
        disk.0.borrow_mut().extend(found.map(|bytes| (PathBuf::from(FILE), bytes.into())));
        disk.carry_out(&plan(&disk, &list));
        prop_assert!(plan(&disk, &list).is_empty());
        prop_assert_eq!(Nginx.held(&disk.seen()), list);
    }

    /// From one list to another, and back to what was there: undoing is planning.
    #[test]
    fn undoing_brings_back_what_was_there(found in prop::option::of(any::<Vec<u8>>()), list in lists()) {
        let disk = Disk::default();
        disk.0.borrow_mut().extend(found.map(|bytes| (PathBuf::from(FILE), bytes.into())));
        let (before, was) = (disk.clone(), Nginx.owned(&disk.seen()));
        disk.carry_out(&plan(&disk, &list));
        disk.carry_out(&Nginx.steps(&disk.seen(), &was).unwrap());
        prop_assert_eq!(disk, before);
    }

    /// Removing leaves what a machine had before edgeallow came, to the byte.
    #[test]
    fn removing_restores_the_machine(list in lists()) {
        let disk = Disk::with(&[("/etc/nginx/nginx.conf", b"include /etc/nginx/edgeallow*.allow;\n")]);
        let before = disk.clone();
        disk.carry_out(&plan(&disk, &list));
        disk.carry_out(&Nginx.steps(&disk.seen(), &None).unwrap());
        prop_assert_eq!(&disk, &before);
        prop_assert!(Nginx.steps(&disk.seen(), &None).unwrap().is_empty());
    }

    /// No garbage in the file makes a look fail.
    #[test]
    fn any_bytes_can_be_looked_at(bytes in any::<Vec<u8>>()) {
        let disk = Disk::with(&[(FILE, &bytes)]);
        Nginx.held(&disk.seen());
    }
}

#[test]
fn nginx_reads_what_is_written() {
    let disk = Disk::with(&[(PID, b"1\n")]);
    let list = Prefixes::new(vec!["173.245.48.0/20".parse().unwrap()], vec!["2400:cb00::/32".parse().unwrap()]);
    let plan = plan(&disk, &list);
    disk.carry_out(&plan);
    let text = "# Written by edgeallow. Changes made here are undone.\nallow 173.245.48.0/20;\nallow 2400:cb00::/32;\n";
    assert_eq!(disk.0.borrow()[Path::new(FILE)].as_ref(), text.as_bytes());
    assert_eq!(plan.activate.iter().map(ToString::to_string).collect::<Vec<_>>(), ["nginx -s reload"]);
    assert_eq!(Nginx.pending(&disk.seen()), None);
}

#[test]
fn it_is_for_machines_that_have_nginx() {
    assert_eq!(Disk::default().probe(), Probe::Absent("nginx is not installed".to_owned()));
    assert!(matches!(Disk::with(&[("/usr/sbin/nginx", b"")]).probe(), Probe::Ready { auto: Auto::Yes(_), .. }));
}
