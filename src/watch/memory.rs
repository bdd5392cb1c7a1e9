//! What a watch remembers from one round to the next, also in a file of the state folder: after a restart, or from one
//! `--once` to another, neither the failures in a row nor the limits on acts begin anew.
//!
//! Belongs here: the shape, reading and writing. Does not: what follows from it ([`super::rules`]).

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{judge::Trouble, rules::Held};
use crate::{
    backends::Warning,
    engine::{lock, state::make_folder},
    error::{Error, ErrorKind, Result},
    host::replace_own,
};

/// The file's name in the state folder.
const NAME: &str = "watch.json";
/// How long a page is remembered that is no longer asked for.
const FORGET: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The pages of which there is something to remember, by what is shown of their addresses.
    pub sites: BTreeMap<String, Site>,
    /// When something was done, within the last hour or cooldown.
    pub acts: Vec<Timestamp>,
    /// How many there were, as long as anything is remembered.
    pub acts_total: usize,
    /// When it was last found that the acts until then aren't known: each of them is a guess, so that nothing is done too
    /// soon.
    pub unsure: Option<Timestamp>,
    /// Why an act is held back, as it was told.
    pub held: Option<Held>,
    /// When the firewalls were last looked at.
    pub looked: Option<Timestamp>,
    /// Whether they refused some of Cloudflare's addresses then.
    pub refused: bool,
    /// Whether that could not be told then.
    pub reach_unknown: bool,
    /// The backends that held something else then than was applied.
    pub drift: Vec<String>,
}

/// What is remembered of a page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Site {
    /// Failures in a row.
    pub failures: u32,
    /// When the first of them was; while it is down, when that began.
    pub since: Option<Timestamp>,
    /// As what it was told to be down.
    pub down: Option<Trouble>,
    /// Whether the origin alone told so, because the edge was not seen.
    pub straight: bool,
    /// How often in a row the edge was not seen; not counted beyond what is news.
    pub unseen: u32,
    /// Whether the page was well through the edge while the origin, asked straight, wasn't.
    pub odd: bool,
    /// When any of this last changed.
    pub changed: Option<Timestamp>,
}

impl Site {
    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        Self { changed: None, ..self.clone() } == Self::default()
    }
}

/// Where it is kept, and that nobody else does so meanwhile.
#[derive(Debug)]
pub struct Keeper {
    file: PathBuf,
    /// As it is in the file.
    stored: Option<Memory>,
    // Dropping it releases the lock.
    _lock: File,
}

impl Keeper {
    /// Takes the place of the one that watches with this state folder.
    ///
    /// # Errors
    /// `locked` if somebody does already; `state`, `no-privilege` if the folder can't be used.
    pub fn take(state_dir: &Path) -> Result<Self> {
        make_folder(state_dir).map_err(privilege)?;
        let path = state_dir.join("watch.lock");
        let file = lock::open(&path).map_err(|e| privilege(Error::io(ErrorKind::State, "open the lock", &path, &e)))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file: state_dir.join(NAME), stored: None, _lock: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let what = format!("another edgeallow watches already (it holds {})", path.display());
                Err(Error::new(ErrorKind::Locked, what).hint("end that one, or give another --state-dir"))
            }
            Err(e) => Err(Error::io(ErrorKind::State, "lock", &path, &e.into())),
        }
    }

    /// Reads what is remembered. What can't be read is set aside, and said; the time of an hour is then waited for before
    /// anything is done, because it isn't known what was done before.
    pub fn load(&mut self, now: Timestamp) -> (Memory, Option<Warning>) {
        let bytes = match fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return (Memory::default(), None),
            Err(e) => return self.lost(&crate::error::io_reason(&e), now),
        };
        match serde_json::from_slice::<Memory>(&bytes) {
            Ok(memory) => {
                self.stored = Some(memory.clone());
                (memory.without_old(now), None)
            }
            Err(e) => self.lost(&e.to_string(), now),
        }
    }

    fn lost(&self, why: &str, now: Timestamp) -> (Memory, Option<Warning>) {
        let aside = self.file.with_extension("json.corrupt");
        #[allow(clippy::disallowed_methods)] // a file of the state folder, ours alone
        let moved = fs::rename(&self.file, &aside).is_ok();
        let where_to = if moved { format!("; it was set aside as {}", aside.display()) } else { String::new() };
        let what = format!(
            "{} can't be used ({why}){where_to}; nothing is done until the cooldown is over, because it isn't known what \
             was done before",
            self.file.display()
        );
        (
            Memory { acts: vec![now], unsure: Some(now), ..Memory::default() },
            Some(Warning::new("watch-memory-lost", what)),
        )
    }

    /// Stores what is remembered, if it isn't what is stored.
    ///
    /// # Errors
    /// `io`, `file-refused`.
    pub fn keep(&mut self, memory: &Memory) -> Result<()> {
        if self.stored.as_ref() == Some(memory) {
            return Ok(());
        }
        let mut json = serde_json::to_string_pretty(memory)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("cannot write what is remembered as JSON: {e}")))?;
        json.push('\n');
        replace_own(&self.file, json.as_bytes(), 0o644)?;
        self.stored = Some(memory.clone());
        Ok(())
    }
}

impl Memory {
    fn without_old(mut self, now: Timestamp) -> Self {
        self.sites.retain(|_, site| site.changed.is_some_and(|at| now.duration_since(at) < FORGET));
        self
    }
}

fn privilege(e: Error) -> Error {
    let hint = "run edgeallow as root, or give a --state-dir that may be written";
    if e.message.ends_with("ermission denied") { e.hint(hint) } else { e }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests lay out files by hand")]
mod tests {
    use super::*;
    use crate::watch::judge::Whose;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn memory() -> Memory {
        let trouble = Trouble { whose: Whose::Cloudflare, status: 521 };
        let site =
            Site { failures: 4, since: Some(at(5)), down: Some(trouble), changed: Some(at(9)), ..Site::default() };
        Memory { sites: [("https://a.example/".to_owned(), site)].into(), acts: vec![at(9)], ..Memory::default() }
    }

    #[test]
    fn what_is_kept_comes_back_and_is_written_only_when_it_changed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(NAME);
        let mut keeper = Keeper::take(dir.path()).unwrap();
        assert_eq!(keeper.load(at(10)), (Memory::default(), None));
        keeper.keep(&memory()).unwrap();
        drop(keeper);
        let mut keeper = Keeper::take(dir.path()).unwrap();
        assert_eq!(keeper.load(at(10)), (memory(), None));
        std::fs::remove_file(&file).unwrap();
        keeper.keep(&memory()).unwrap();
        assert!(!file.exists(), "it was written though nothing changed");
        keeper.keep(&Memory::default()).unwrap();
        assert!(file.exists());
        let week = FORGET.as_secs() + 10;
        assert_eq!(memory().without_old(at(week)).sites.len(), 0);
    }

    #[test]
    fn only_one_watches_with_a_state_folder() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::take(dir.path()).unwrap();
        assert_eq!(Keeper::take(dir.path()).unwrap_err().kind, ErrorKind::Locked);
        drop(keeper);
        assert!(Keeper::take(dir.path()).is_ok());
    }

    #[test]
    fn what_can_t_be_read_is_set_aside_and_nothing_is_done_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), "{nonsense").unwrap();
        let mut keeper = Keeper::take(dir.path()).unwrap();
        let (memory, warning) = keeper.load(at(7));
        assert_eq!((memory.acts, memory.unsure), (vec![at(7)], Some(at(7))));
        assert_eq!(warning.unwrap().id, "watch-memory-lost");
        assert!(dir.path().join("watch.json.corrupt").exists());
    }
}
