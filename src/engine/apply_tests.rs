//! The executor against a machine made of one file, which can be told to fail, to race, and to lie.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::*;
use crate::{
    backends::{Auto, Backend, Meta, Probe},
    host::{Address, FileSeen, Guard, Judge, Link, Look, Output, Way},
    plan::{Desired, LockOn, Protocol, Remove, Run, Write},
};

/// One file in memory, and what goes wrong with it.
#[derive(Default)]
pub(in crate::engine) struct Toy {
    content: RefCell<Vec<u8>>,
    writes: Cell<u32>,
    runs: Cell<u32>,
    /// Which write fails (from 1), having written half.
    fail_at: Cell<u32>,
    /// Whether every write after that fails too.
    fail_undo: Cell<bool>,
    /// How many writes lose a race.
    races: Cell<u32>,
    /// Writes answer "done" and do nothing.
    deaf: Cell<bool>,
    /// The tool's own test fails from this run on (from 1).
    test_fails_from: Cell<Option<u32>>,
    /// What somebody else puts there before the lock is given.
    meanwhile: RefCell<Option<Vec<u8>>>,
    /// Whether its routes can't be read.
    pub hides_routes: Cell<bool>,
}

impl Look for Toy {
    fn file(&self, _: &Path) -> Result<Option<FileSeen>> {
        Ok(Some(FileSeen { content: self.content.borrow().clone().into(), mode: 0, owner: (0, 0), symlink: false }))
    }
    fn folder(&self, _: &Path) -> Result<Vec<String>> {
        Ok(vec![])
    }
    fn exists(&self, _: &Path) -> bool {
        true
    }
    fn program(&self, _: &str) -> Option<PathBuf> {
        None
    }
    fn run(&self, _: &[&str], _: Duration) -> Result<Output> {
        Err(Error::new(ErrorKind::Internal, "nothing to run"))
    }
    fn may_administer(&self) -> bool {
        true
    }
    fn links(&self) -> Result<Vec<Link>> {
        let address = Address { ip: [192, 0, 2, 1].into(), prefix: 24, global: true };
        Ok(vec![Link { name: "eth0".into(), addresses: vec![address], ..Link::default() }])
    }
    fn route(&self, _: Option<IpAddr>, _: IpAddr) -> Result<Option<Way>> {
        Ok(Some(Way { interface: "eth0".into(), source: None }))
    }
    fn dead_ends(&self) -> Result<Vec<(ipnet::IpNet, String)>> {
        if self.hides_routes.get() { Err(Error::new(ErrorKind::RaceLost, "they change")) } else { Ok(vec![]) }
    }
}

struct Unlocked;
impl Guard for Unlocked {}

impl Act for Toy {
    fn write(&self, w: &Write) -> Result<()> {
        self.writes.set(self.writes.get() + 1);
        if self.races.get() > 0 {
            self.races.set(self.races.get() - 1);
            return Err(Error::new(ErrorKind::RaceLost, "changed by somebody else"));
        }
        if self.writes.get() == self.fail_at.get() {
            *self.content.borrow_mut() = w.content[..w.content.len() / 2].to_vec();
            return Err(Error::new(ErrorKind::Io, "the disk is full"));
        }
        if self.fail_undo.get() {
            return Err(Error::new(ErrorKind::Io, "the disk is still full"));
        }
        if !self.deaf.get() {
            *self.content.borrow_mut() = w.content.to_vec();
        }
        Ok(())
    }
    fn remove(&self, _: &Remove) -> Result<()> {
        Ok(())
    }
    fn mkdir(&self, _: &Path) -> Result<()> {
        Ok(())
    }
    fn touch(&self, _: &Path) -> Result<()> {
        Ok(())
    }
    fn rmdir(&self, _: &Path) -> Result<()> {
        Ok(())
    }
    fn execute(&self, run: &Run) -> Result<Output> {
        self.runs.set(self.runs.get() + 1);
        if run.argv[0] == "test" && self.test_fails_from.get().is_some_and(|n| self.runs.get() >= n) {
            return Err(Error::new(ErrorKind::Program, "line 3: syntax error"));
        }
        Ok(Output { status: Some(0), stdout: vec![], stderr: vec![] })
    }
    fn nft(&self, _: &crate::nft::NftBatch) -> Result<()> {
        Ok(())
    }
    fn lock(&self, _: &LockOn) -> Result<Box<dyn Guard>> {
        if let Some(theirs) = self.meanwhile.take() {
            *self.content.borrow_mut() = theirs;
        }
        Ok(Box::new(Unlocked))
    }
    fn rehearse(&self, _: &[Arc<[u8]>], _: usize, _: Judge<'_>) -> Result<Vec<Warning>> {
        Ok(vec![])
    }
}

/// Owns the whole file: one prefix a line.
struct Lines {
    activates: bool,
    tested: bool,
    locks: bool,
}

impl Backend for Lines {
    type Owned = Vec<u8>;
    type Seen = Vec<u8>;
    fn meta(&self) -> &'static Meta {
        &Meta { name: "lines", summary: "", files: &[], packet_filter: true }
    }
    fn probe(&self, _: &Context<'_>) -> Probe {
        Probe::Ready { version: String::new(), auto: Auto::Yes(String::new()) }
    }
    fn observe(&self, cx: &Context<'_>) -> Result<Vec<u8>> {
        Ok(cx.host.file(Path::new("/f"))?.map(|f| f.content.to_vec()).unwrap_or_default())
    }
    fn owned(&self, seen: &Vec<u8>) -> Vec<u8> {
        seen.clone()
    }
    fn target(&self, want: &Desired, _: &Vec<u8>) -> Result<Vec<u8>> {
        Ok(crate::engine::state::text(&want.prefixes).into_bytes())
    }
    fn steps(&self, seen: &Vec<u8>, to: &Vec<u8>) -> Result<Plan> {
        let mut plan = Plan::default();
        if seen != to {
            plan.change("it differs", Step::Write(Write::ours("/f", to.clone().into(), Some(seen.clone().into()))));
        }
        if self.tested {
            plan.checks.push(Check::NotWorse { what: "it loads".into(), run: Run::new(["test"]) });
        }
        if self.locks && !plan.is_empty() {
            plan.locks.push(LockOn::Flock("/f".into()));
        }
        if self.activates {
            plan.activate.push(Step::Run(Run::new(["reload"])));
        }
        Ok(plan)
    }
    fn held(&self, _: &Vec<u8>) -> Prefixes {
        Prefixes::default()
    }
}

struct Bench {
    toy: Toy,
    lines: Lines,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            toy: Toy::default(),
            lines: Lines { activates: false, tested: false, locks: false },
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn marks(&self) -> Marks {
        Marks::new(self.dir.path())
    }

    fn apply(&self) -> Outcome {
        let want = Desired {
            prefixes: Arc::new(["8.8.8.0/24"].iter().map(|n| n.parse::<ipnet::IpNet>().unwrap()).collect()),
            ports: BTreeSet::from([80]),
            protocols: BTreeSet::from([Protocol::Tcp]),
        };
        let cx = Context { host: &self.toy, applied: None, full_check: 10, deep: false, leave_stored: false };
        let marks = self.marks();
        Job { host: &self.toy, backend: &self.lines, cx, will_hold: None, marks: &marks }.apply(Goal::Hold(&want))
    }

    fn content(&self) -> String {
        String::from_utf8(self.toy.content.borrow().clone()).unwrap()
    }
}

#[test]
fn applied_then_in_sync_without_another_write() {
    let b = Bench::new();
    assert_eq!(b.apply().end, End::Applied);
    assert_eq!(b.content(), "8.8.8.0/24\n");
    assert_eq!(b.apply().end, End::InSync);
    assert_eq!(b.toy.writes.get(), 1);
}

#[test]
fn a_step_that_fails_half_way_is_undone() {
    let b = Bench::new();
    *b.toy.content.borrow_mut() = b"old\n".to_vec();
    b.toy.fail_at.set(1);
    assert!(matches!(b.apply().end, End::Undone(e) if e.kind == ErrorKind::Io));
    assert_eq!(b.content(), "old\n");
}

#[test]
fn what_ignores_a_change_is_found_out_by_the_second_look() {
    let b = Bench::new();
    *b.toy.content.borrow_mut() = b"old\n".to_vec();
    b.toy.deaf.set(true);
    assert!(matches!(b.apply().end, End::Undone(e) if e.kind == ErrorKind::Unconfirmed));
    assert_eq!(b.content(), "old\n");
}

#[test]
fn an_undo_that_fails_says_both() {
    let b = Bench::new();
    *b.toy.content.borrow_mut() = b"old\n".to_vec();
    b.toy.fail_at.set(1);
    b.toy.fail_undo.set(true);
    let End::Failed(e) = b.apply().end else { panic!("it can't have been undone") };
    assert_eq!(e.kind, ErrorKind::UndoFailed);
    assert_eq!(e.message, "the disk is full; and undoing it failed too: the disk is still full");
}

#[test]
fn a_lost_race_is_run_again_three_times_at_most() {
    let b = Bench::new();
    b.toy.races.set(2);
    assert_eq!(b.apply().end, End::Applied);
    assert_eq!(b.toy.writes.get(), 3);
    let b = Bench::new();
    b.toy.races.set(3);
    assert!(matches!(b.apply().end, End::Failed(e) if e.kind == ErrorKind::RaceLost));
    assert_eq!(b.content(), "");
}

#[test]
fn activation_runs_once_a_change_and_again_after_a_crash() {
    let mut b = Bench::new();
    b.lines.activates = true;
    assert_eq!(b.apply().end, End::Applied);
    assert_eq!((b.toy.runs.get(), b.marks().is_set("lines")), (1, false));
    assert_eq!(b.apply().end, End::InSync);
    assert_eq!(b.toy.runs.get(), 1, "nothing changed, nothing is activated");
    b.marks().set("lines").unwrap();
    assert_eq!(b.apply().end, End::InSync);
    assert_eq!((b.toy.runs.get(), b.marks().is_set("lines")), (2, false));
}

#[test]
fn what_makes_the_tools_own_test_fail_goes_back_before_it_is_activated() {
    let mut b = Bench::new();
    (b.lines.activates, b.lines.tested) = (true, true);
    *b.toy.content.borrow_mut() = b"old\n".to_vec();
    b.toy.test_fails_from.set(Some(2));
    let End::Undone(e) = b.apply().end else { panic!("it was worse") };
    assert_eq!(e.kind, ErrorKind::ToolConfig);
    assert_eq!(e.message, "before the change it loads, after it not: line 3: syntax error");
    assert_eq!(b.content(), "old\n");
    // Twice the test; the one activation is that of the way back.
    assert_eq!(b.toy.runs.get(), 3);
}

#[test]
fn a_test_that_fails_before_anything_is_changed_proves_nothing() {
    let mut b = Bench::new();
    b.lines.tested = true;
    b.toy.test_fails_from.set(Some(1));
    assert_eq!(b.apply().end, End::Applied);
    assert_eq!(b.toy.runs.get(), 1, "and isn't asked again");
}

#[test]
fn what_was_planned_is_planned_again_under_the_lock() {
    for (meanwhile, end, writes) in [("8.8.8.0/24\n", End::InSync, 0), ("theirs\n", End::Applied, 1)] {
        let mut b = Bench::new();
        b.lines.locks = true;
        *b.toy.content.borrow_mut() = b"old\n".to_vec();
        *b.toy.meanwhile.borrow_mut() = Some(meanwhile.into());
        assert_eq!(b.apply().end, end);
        assert_eq!((b.content().as_str(), b.toy.writes.get()), ("8.8.8.0/24\n", writes));
    }
}
