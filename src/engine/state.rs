//! What is remembered between runs: the last good list, what each backend was confirmed to hold, a short history.
//!
//! Lists lie beside `state.json` as text files named by their SHA-256, written before the state that names them and
//! removed after. So one atomic rename decides between the old state and the new one, however big the lists.
//!
//! Belongs here: reading and writing that folder. Does not: what follows from it.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    allowlist::{Prefixes, parse, removal::PendingRemoval},
    backends::Warning,
    error::{Error, ErrorKind, Result},
    host::{self, read_bounded, replace_own},
    plan::Protocol,
};

/// The state folder of the host's own instance.
pub const FOLDER: &str = "/var/lib/edgeallow";

/// How many changes the history keeps.
const HISTORY: usize = 50;

/// The largest state that is read: what it names lies beside it.
const LARGEST: u64 = 64 << 20;

/// The state as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Layout of this file; a higher one is from a newer edgeallow.
    pub schema: u32,
    /// The last good list.
    pub list: Option<StoredList>,
    /// What is held: the list and the vanished ranges that wait, without the operator's extra prefixes.
    pub held: Option<Digest>,
    /// Vanished ranges that wait for their removal.
    #[serde(default)]
    pub pending: Vec<PendingRemoval>,
    /// What each backend was last confirmed to hold.
    #[serde(default)]
    pub backends: BTreeMap<String, Applied>,
    /// The latest changes, oldest first.
    #[serde(default)]
    pub history: Vec<Event>,
}

/// The last good list and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredList {
    /// Its prefixes.
    pub digest: Digest,
    /// `api`, `text` or `file`.
    pub origin: String,
    /// Cloudflare's own mark of this version.
    pub etag: Option<String>,
    /// What lets the server say "not modified".
    pub validator: Option<crate::source::Validator>,
    /// When it was last read from its source.
    pub fetched_at: Timestamp,
}

/// What a backend was last confirmed to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The prefixes.
    pub digest: Digest,
    /// To which ports.
    pub ports: Vec<u16>,
    /// By which protocols.
    pub protocols: Vec<Protocol>,
    /// Since when.
    pub since: Timestamp,
    /// Whether it is live only: what should be stored for the next boot could not be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_stored: bool,
    /// Whether the configuration had it stored for the next boot: what is stored is then this state's, to be taken out
    /// when the configuration has it stored no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stored: bool,
}

/// One run that changed something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// `sync` or `remove`.
    pub command: String,
    /// Prefixes that were new in the list.
    pub added: usize,
    /// Prefixes that were removed.
    pub removed: usize,
    /// Which backends changed.
    pub backends: Vec<String>,
}

/// The SHA-256 of a list's text, in hex: the name of its file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

/// The state folder.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    /// Lists that were read and checked in this run: the last good one, what is held and what each backend holds are
    /// most often the same.
    read: RefCell<BTreeMap<Digest, Prefixes>>,
}

/// What was found in the state folder.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The state, empty where there was none.
    pub state: State,
    /// Whether there was a usable state: without one nothing is removed this time.
    pub known: bool,
    /// What was wrong with it.
    pub warnings: Vec<Warning>,
}

impl Store {
    /// A state folder; nothing is read or made yet.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), read: RefCell::default() }
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn file(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    fn list_file(&self, digest: &Digest) -> PathBuf {
        self.dir.join("lists").join(format!("{}.txt", digest.0))
    }

    /// Reads the state. A corrupt one is set aside if `may_write`, and never an error.
    ///
    /// # Errors
    /// `state` when the folder can't be read for lack of permission, or is of a newer edgeallow.
    pub fn load(&self, may_write: bool) -> Result<Loaded> {
        let path = self.file();
        if fs::symlink_metadata(&path).is_ok_and(|m| m.is_symlink()) {
            let what = format!("{} is a symbolic link where a file of edgeallow's own belongs", path.display());
            return Err(
                Error::new(ErrorKind::State, what).hint("look where it leads, remove it, and run edgeallow again")
            );
        }
        let bytes = match read_bounded(&path, LARGEST, false) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Loaded::default()),
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(Error::io(ErrorKind::NoPrivilege, "read", &path, &e));
            }
            Err(e) => {
                let hint = "move it out of the way, or give another --state-dir";
                return Err(Error::io(ErrorKind::State, "read", &path, &e).hint(hint));
            }
        };
        match serde_json::from_slice::<State>(&bytes) {
            Ok(state) if state.schema > 1 => Err(Error::new(
                ErrorKind::State,
                format!("{} was written by a newer edgeallow (schema {})", path.display(), state.schema),
            )
            .hint("upgrade edgeallow, or give another --state-dir")),
            Ok(state) => Ok(Loaded { state, known: true, warnings: Vec::new() }),
            Err(e) => {
                Ok(Loaded { warnings: vec![self.set_aside(&path, &e.to_string(), may_write)], ..Loaded::default() })
            }
        }
    }

    fn set_aside(&self, path: &Path, why: &str, may_write: bool) -> Warning {
        let aside = path.with_extension("json.corrupt");
        #[allow(clippy::disallowed_methods)] // a file of the state folder, ours alone
        let moved = may_write && fs::rename(path, &aside).is_ok();
        let where_to = if moved { format!("; it was set aside as {}", aside.display()) } else { String::new() };
        Warning::new(
            "state-corrupt",
            format!("{} can't be used ({why}){where_to}; what was held before is not known", path.display()),
        )
    }

    /// Reads a list by its digest. A missing or damaged one is a warning, not an error.
    ///
    /// # Errors
    /// The warning to give.
    pub fn list(&self, digest: &Digest) -> Result<Prefixes, Warning> {
        if let Some(list) = self.read.borrow().get(digest) {
            return Ok(list.clone());
        }
        let list = self.read_list(digest)?;
        self.read.borrow_mut().insert(digest.clone(), list.clone());
        Ok(list)
    }

    fn read_list(&self, digest: &Digest) -> Result<Prefixes, Warning> {
        let path = self.list_file(digest);
        let damaged = |why: String| Warning::new("state-corrupt", format!("{} can't be used: {why}", path.display()));
        let bytes = fs::read(&path).map_err(|e| damaged(crate::error::io_reason(&e)))?;
        if digest_of(&bytes) != *digest {
            return Err(damaged("its content is not what its name says".into()));
        }
        if bytes.is_empty() {
            return Ok(Prefixes::default());
        }
        let raw = parse::text(&path.display().to_string(), &bytes).map_err(|e| damaged(e.message))?;
        Ok(Prefixes::new(raw.v4, raw.v6))
    }

    /// Stores a list and returns its digest; one that is there already is not written again.
    ///
    /// # Errors
    /// `io` when the folder can't be written.
    pub fn put_list(&self, prefixes: &Prefixes) -> Result<Digest> {
        let text = text(prefixes);
        let digest = digest_of(text.as_bytes());
        let path = self.list_file(&digest);
        if fs::metadata(&path).is_ok_and(|m| m.len() == text.len() as u64) {
            return Ok(digest);
        }
        make_folder(&self.dir.join("lists"))?;
        replace_own(&path, text.as_bytes(), 0o644)?;
        Ok(digest)
    }

    /// Stores the state and drops the lists that it no longer names.
    ///
    /// # Errors
    /// `io` when the folder can't be written; the old state is then still there.
    pub fn save(&self, state: &State) -> Result<()> {
        make_folder(&self.dir)?;
        let mut json = serde_json::to_string_pretty(state)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("cannot write the state as JSON: {e}")))?;
        json.push('\n');
        replace_own(&self.file(), json.as_bytes(), 0o644)?;
        if state.backends.is_empty() {
            self.drop_configuration();
        }
        self.sweep(state);
        Ok(())
    }

    /// Deletes the state, and with it what counts as applied. Takes no space on the disk. Says whether it is gone.
    #[must_use]
    pub fn forget(&self) -> bool {
        #[allow(clippy::disallowed_methods)] // a file of the state folder, ours alone
        let gone = match fs::remove_file(self.file()) {
            Ok(()) => true,
            Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        };
        if gone {
            self.drop_configuration();
            self.sweep(&State::default());
        }
        gone
    }

    fn configuration_file(&self) -> PathBuf {
        self.dir.join("applied.toml")
    }

    /// By what nothing is applied any more need not be known.
    pub(super) fn drop_configuration(&self) {
        #[allow(clippy::disallowed_methods)] // a file of the state folder, ours alone
        let _ = fs::remove_file(self.configuration_file());
    }

    /// Keeps the text of the configuration by which was applied, if it is another than before: what is applied can be
    /// put back by it when the operator's own can't be read. For root alone, as there may be secrets in it.
    ///
    /// # Errors
    /// `io` when the folder can't be written.
    pub fn put_configuration(&self, text: &str) -> Result<()> {
        if self.configuration().as_deref() == Some(text) {
            return Ok(());
        }
        make_folder(&self.dir)?;
        replace_own(&self.configuration_file(), text.as_bytes(), 0o600)
    }

    /// The text of the configuration by which was applied, if it is known.
    #[must_use]
    pub fn configuration(&self) -> Option<String> {
        String::from_utf8(read_bounded(&self.configuration_file(), LARGEST, false).ok()?).ok()
    }

    /// A leftover list costs a little disk and nothing else, so failures here are not worth a word.
    fn sweep(&self, state: &State) {
        let named = |name: &str| {
            let mut digests = state.list.iter().map(|l| &l.digest).chain(&state.held);
            digests.any(|d| name.starts_with(&d.0)) || state.backends.values().any(|a| name.starts_with(&a.digest.0))
        };
        for entry in fs::read_dir(self.dir.join("lists")).into_iter().flatten().flatten() {
            if !entry.file_name().to_str().is_some_and(named) {
                #[allow(clippy::disallowed_methods)] // a file of the state folder, ours alone
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl State {
    /// Notes a change, forgetting the oldest beyond fifty.
    pub fn remember(&mut self, event: Event) {
        self.history.push(event);
        let excess = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..excess);
    }
}

/// A list as the text that is stored: one canonical prefix a line.
#[must_use]
pub fn text(prefixes: &Prefixes) -> String {
    let mut text = String::with_capacity(prefixes.len() * 19);
    for net in prefixes.iter() {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{net}");
    }
    text
}

fn digest_of(bytes: &[u8]) -> Digest {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        let _ = write!(hex, "{byte:02x}");
    }
    Digest(hex)
}

/// Makes the state folder, readable by everybody: nothing in it is secret.
pub(crate) fn make_folder(dir: &Path) -> Result<()> {
    host::make_folder(dir).map_err(|e| Error::io(ErrorKind::State, "make the state folder", dir, &e))
}

/// What an [`Applied`] record says, read back; `None` if its list is gone or damaged.
#[must_use]
pub fn applied_prefixes(store: &Store, state: &State, backend: &str) -> Option<Arc<Prefixes>> {
    let applied = state.backends.get(backend)?;
    store.list(&applied.digest).ok().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&dir.path().join("state"));
        (dir, store)
    }

    fn prefixes() -> Prefixes {
        ["8.8.8.0/24", "2400:cb00::/32"].iter().map(|n| n.parse::<ipnet::IpNet>().unwrap()).collect()
    }

    #[test]
    fn what_is_saved_is_read_back_and_unnamed_lists_go() {
        let (_dir, store) = store();
        assert!(!store.load(true).unwrap().known);
        let old = store.put_list(&Prefixes::default()).unwrap();
        let digest = store.put_list(&prefixes()).unwrap();
        let state = State { schema: 1, held: Some(digest.clone()), ..State::default() };
        store.save(&state).unwrap();
        let loaded = store.load(true).unwrap();
        assert_eq!((loaded.state, loaded.known, loaded.warnings), (state, true, vec![]));
        assert_eq!(store.list(&digest).unwrap(), prefixes());
        assert_eq!(store.list(&old).unwrap_err().id, "state-corrupt");
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_corrupt_state_is_set_aside_and_a_damaged_list_is_noticed() {
        let (_dir, store) = store();
        let digest = store.put_list(&prefixes()).unwrap();
        fs::write(store.list_file(&digest), "8.8.8.0/24\n").unwrap();
        assert_eq!(store.list(&digest).unwrap_err().id, "state-corrupt");
        for garbage in ["", "{", "[]", "{\"schema\":\"x\"}", "\0"] {
            fs::write(store.file(), garbage).unwrap();
            let loaded = store.load(true).unwrap();
            assert_eq!((loaded.known, loaded.warnings[0].id.as_str()), (false, "state-corrupt"), "{garbage:?}");
            assert!(!store.file().exists());
        }
        fs::write(store.file(), "{\"schema\":2}").unwrap();
        assert_eq!(store.load(true).unwrap_err().kind, ErrorKind::State);
    }

    #[test]
    fn the_configuration_is_kept_for_root_alone_as_long_as_something_is_applied_by_it() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let (_dir, store) = store();
        let inode = || fs::metadata(store.configuration_file()).map(|m| (m.ino(), m.permissions().mode() & 0o777));
        assert_eq!(store.configuration(), None);
        store.put_configuration("ports = [443]\n").unwrap();
        let first = inode().unwrap();
        assert_eq!(first.1, 0o600);
        store.put_configuration("ports = [443]\n").unwrap();
        assert_eq!(inode().unwrap(), first, "the same is not written again");
        store.put_configuration("").unwrap();
        assert_eq!(store.configuration().as_deref(), Some(""), "the defaults are a configuration as well");
        store.save(&State { schema: 1, ..State::default() }).unwrap();
        assert_eq!(store.configuration(), None);
        store.put_configuration("").unwrap();
        assert!(store.forget() && store.configuration().is_none());
    }

    #[test]
    fn what_is_forgotten_counts_no_more() {
        let (_dir, store) = store();
        assert!(store.forget(), "there is none");
        let digest = store.put_list(&prefixes()).unwrap();
        store.save(&State { schema: 1, held: Some(digest.clone()), ..State::default() }).unwrap();
        assert!(store.forget() && !store.load(true).unwrap().known);
        assert!(!store.list_file(&digest).exists());
    }

    #[test]
    fn the_history_stays_short() {
        let mut state = State::default();
        for n in 0..80 {
            state.remember(Event {
                at: Timestamp::UNIX_EPOCH,
                command: "sync".into(),
                added: n,
                removed: 0,
                backends: vec![],
            });
        }
        assert_eq!((state.history.len(), state.history[0].added), (HISTORY, 30));
    }
}
