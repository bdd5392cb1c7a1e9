//! A trustworthy list, from the first source that has one.
//!
//! Order: the files that the operator names, and nothing else; or else the JSON API, the text lists, the last good
//! copy, the built-in list. A source that can't be reached makes way for the next and is named in a warning; one that
//! answers with something that can't be trusted ends the run.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

use super::{
    fetched,
    state::{State, StoredList},
    sync::{Options, Session},
};
use crate::{
    allowlist::{Prefixes, RawList, parse, snapshot, vet},
    backends::Warning,
    error::{Error, ErrorKind, Result},
    report::SourceReport,
    source::{self, Document, Fault, Validator, json},
};

/// How old the last good copy may be when the network fails.
const OLDEST_COPY: SignedDuration = SignedDuration::from_hours(30 * 24);

/// By how much two looks at the clock of one machine may differ.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_secs(60);

/// The largest list file that is read: a million prefixes have 20 MB.
const LARGEST_FILE: u64 = 256 << 20;

/// Where a list came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From the network.
    Network(source::Origin),
    /// The last good copy on disk.
    Cache,
    /// The list in the binary.
    BuiltIn,
    /// Files that the operator named.
    File,
    /// What another process has fetched.
    Fetched,
}

impl Origin {
    /// `api`, `text`, `cache`, `built-in`, `file` or `fetched`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Network(origin) => origin.as_str(),
            Self::Cache => "cache",
            Self::BuiltIn => "built-in",
            Self::File => "file",
            Self::Fetched => "fetched",
        }
    }
}

/// A vetted list and how it was come by.
#[derive(Debug, Clone)]
pub struct Acquired {
    /// The prefixes.
    pub list: Prefixes,
    /// Where they came from.
    pub origin: Origin,
    /// Whose list it is.
    pub name: String,
    /// Cloudflare's own mark of this version.
    pub etag: Option<String>,
    /// For the next If-None-Match.
    pub validator: Option<Validator>,
    /// When the source was read.
    pub fetched_at: Timestamp,
    /// Whether a source was read anew in this run.
    pub fresh_read: bool,
}

impl Acquired {
    /// The same for the report.
    #[must_use]
    pub fn report(&self) -> SourceReport {
        SourceReport {
            name: self.name.clone(),
            origin: self.origin.as_str().to_owned(),
            etag: self.etag.clone(),
            fetched_at: Some(self.fetched_at),
            v4: self.list.v4().len(),
            v6: self.list.v6().len(),
        }
    }
}

/// Gets the list. What was stepped over is added to `warnings`, also when the end is an error.
///
/// # Errors
/// A kind of exit 3, naming the source or the rule that refused its list.
pub fn acquire(
    session: &Session<'_>,
    options: &Options,
    state: &State,
    warnings: &mut Vec<Warning>,
) -> Result<Acquired> {
    let last = last_good(session, state, warnings);
    // After a first run from the built-in list there is no last good one, but there is what it opened.
    let held = match (&last, &state.held) {
        (None, Some(digest)) => session.store.list(digest).ok(),
        _ => None,
    };
    let from = Trust { session, options, last: last.as_ref().map(|(list, _)| list).or(held.as_ref()) };
    if !options.lists.is_empty() {
        return from.files(last.as_ref().map(|(_, stored)| stored.fetched_at), warnings);
    }
    if !session.offline {
        match from.network(state, warnings)? {
            Some(got) => return Ok(got),
            None if last.is_none() && state.list.is_some() => {
                warnings.push(Warning::new("list-lost", "the last good copy is lost; the built-in list is used"));
            }
            None => {}
        }
    }
    if let Some(path) = &options.fetched
        && let Some(got) = from.fetched(path, state, warnings)?
    {
        return Ok(got);
    }
    match last {
        Some((list, stored)) => copy(session, list, stored, warnings),
        None => from.built_in(warnings),
    }
}

fn in_future(time: Timestamp, now: Timestamp) -> bool {
    time.duration_since(now) > CLOCKS_DIFFER
}

/// The last good copy, read and vetted again as if it came from a stranger.
fn last_good<'s>(
    session: &Session<'_>,
    state: &'s State,
    warnings: &mut Vec<Warning>,
) -> Option<(Prefixes, &'s StoredList)> {
    let stored = state.list.as_ref()?;
    if in_future(stored.fetched_at, session.now) {
        let what = format!(
            "the last good copy was stored at {}, which this machine's clock has yet to reach: it was wrong then, or is now",
            stored.fetched_at
        );
        warnings.push(Warning::new("clock-set-back", what));
    }
    let checked = session.store.list(&stored.digest).and_then(|list| {
        let raw = RawList { v4: list.v4().to_vec(), v6: list.v6().to_vec() };
        vet(raw, None, &session.config.policy(true))
            .map_err(|e| Warning::new("list-lost", format!("the last good copy is not to be trusted any more: {e}")))
    });
    match checked {
        Ok(list) => Some((list.into_prefixes(), stored)),
        Err(warning) => {
            warnings.push(warning);
            None
        }
    }
}

fn copy(session: &Session<'_>, list: Prefixes, stored: &StoredList, warnings: &mut Vec<Warning>) -> Result<Acquired> {
    let age = session.now.duration_since(stored.fetched_at);
    if age > OLDEST_COPY {
        let days = age.as_hours() / 24;
        // Asked to work offline, an old list is better than a closed door; when the network fails it isn't known
        // why, and what is applied stays as it is.
        if !session.offline {
            return Err(Error::new(
                ErrorKind::ListUnreachable,
                format!("no source could be reached, and the last good copy is {days} days old; nothing was changed"),
            )
            .hint("see the warnings for what each source said; --offline uses the old copy all the same"));
        }
        warnings.push(Warning::new("list-old", format!("the list is {days} days old; run a sync with network access")));
    }
    Ok(Acquired {
        list,
        origin: Origin::Cache,
        name: "cloudflare".into(),
        etag: stored.etag.clone(),
        validator: stored.validator.clone(),
        fetched_at: stored.fetched_at,
        fresh_read: false,
    })
}

/// What a list is judged by.
struct Trust<'a> {
    session: &'a Session<'a>,
    options: &'a Options,
    last: Option<&'a Prefixes>,
}

impl Trust<'_> {
    fn vetted(&self, raw: RawList) -> Result<Prefixes> {
        let policy = self.session.config.policy(self.options.allow_shrink);
        vet(raw, self.last, &policy).map(crate::allowlist::Vetted::into_prefixes)
    }

    fn network(&self, state: &State, warnings: &mut Vec<Warning>) -> Result<Option<Acquired>> {
        let config = &self.session.config.source;
        (self.session.progress)("fetching the list");
        let stored = state.list.as_ref().filter(|_| self.last.is_some());
        let mut stepped_over = Vec::new();
        let validator = stored.and_then(|s| s.validator.as_ref());
        let fetched = source::fetch_within(config, validator, &mut stepped_over, self.options.fetch_limit);
        // The fault's own kind is the warning's id: a script sees why, not only that.
        let unreachable = |e: &Error| Warning::new(e.kind.as_str(), format!("{e}; it was stepped over"));
        warnings.extend(stepped_over.iter().map(unreachable));
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(Fault::Bad(e)) => return Err(e),
            Err(Fault::Unreachable(e)) => {
                warnings.push(unreachable(&e));
                return Ok(None);
            }
        };
        let got = |list, etag| Acquired {
            list,
            origin: Origin::Network(fetched.origin),
            name: "cloudflare".into(),
            etag,
            validator: fetched.validator.clone(),
            fetched_at: self.session.now,
            fresh_read: true,
        };
        let mut raw = RawList::default();
        let etag = match &fetched.document {
            Document::NotModified => {
                // Only asked for when there is a stored list; what it says is that this list is current.
                let list = self.last.cloned().unwrap_or_default();
                return Ok(Some(got(list, stored.and_then(|s| s.etag.clone()))));
            }
            Document::Json(list) => {
                raw.extend(parse::entries(&source::shown(&config.api_url), &list.v4)?);
                raw.extend(parse::entries(&source::shown(&config.api_url), &list.v6)?);
                raw.extend(parse::entries(&source::shown(&config.api_url), &list.jdcloud)?);
                list.etag.clone()
            }
            Document::Text { v4, v6 } => {
                raw.extend(parse::text(&source::shown(&config.v4_url), v4)?);
                raw.extend(parse::text(&source::shown(&config.v6_url), v6)?);
                None
            }
        };
        Ok(Some(got(self.vetted(raw)?, etag)))
    }

    /// What another process has fetched, if it is newer than the last good copy. Judged like an answer from the network:
    /// that process may have been taken over.
    fn fetched(&self, path: &Path, state: &State, warnings: &mut Vec<Warning>) -> Result<Option<Acquired>> {
        let config = self.session.config;
        let Some(saved) = fetched::read(path, config.limits.max_prefixes)? else {
            let what = format!("{}: nothing has been fetched from the network yet", path.display());
            warnings.push(Warning::new("nothing-fetched", what));
            return Ok(None);
        };
        let now = self.session.now;
        if in_future(saved.fetched_at, now) {
            let what = format!(
                "{} says that it was fetched at {}, which this machine's clock has yet to reach; it was stepped over",
                path.display(),
                saved.fetched_at
            );
            warnings.push(Warning::new("fetched-in-future", what));
            return Ok(None);
        }
        // A copy from the future was stored before the clock was set back, so it says nothing about which is newer.
        let last =
            state.list.as_ref().filter(|_| self.last.is_some()).map(|s| s.fetched_at).filter(|at| !in_future(*at, now));
        if last.is_some_and(|last| saved.fetched_at <= last) {
            return Ok(None);
        }
        let mut raw = parse::entries(&path.display().to_string(), &saved.v4)?;
        raw.extend(parse::entries(&path.display().to_string(), &saved.v6)?);
        Ok(Some(Acquired {
            list: self.vetted(raw)?,
            origin: Origin::Fetched,
            name: path.display().to_string(),
            etag: saved.etag,
            validator: None,
            fetched_at: saved.fetched_at,
            fresh_read: true,
        }))
    }

    /// Lists that the operator names, each as old as it says itself. `held` is the time of the last good copy.
    fn files(&self, held: Option<Timestamp>, warnings: &mut Vec<Warning>) -> Result<Acquired> {
        let now = self.session.now;
        let mut raw = RawList::default();
        let mut names = Vec::new();
        let mut etag = None;
        let mut oldest = now;
        for path in &self.options.lists {
            let (name, bytes) = read(path)?;
            if json::looks_like_it(&bytes) {
                let list = json::parse_file(&bytes).map_err(|e| Error { message: format!("{name}: {e}"), ..e })?;
                for part in [&list.v4, &list.v6, &list.jdcloud] {
                    raw.extend(parse::entries(&name, part)?);
                }
                etag = list.etag;
                oldest = list.fetched_at.map_or(oldest, |at| at.min(oldest));
            } else {
                raw.extend(parse::text(&name, &bytes)?);
            }
            names.push(name);
        }
        let name = names.join(", ");
        if let Some(held) = held.filter(|held| oldest < *held && !in_future(*held, now)) {
            let what = format!(
                "{name} was fetched on {}, before the last good copy of {}: what Cloudflare has opened since is not in it",
                oldest.strftime("%Y-%m-%d"),
                held.strftime("%Y-%m-%d")
            );
            warnings.push(Warning::new("older-list", what));
        }
        Ok(Acquired {
            list: self.vetted(raw)?,
            origin: Origin::File,
            name,
            etag,
            validator: None,
            fetched_at: oldest,
            fresh_read: true,
        })
    }

    fn built_in(&self, warnings: &mut Vec<Warning>) -> Result<Acquired> {
        warnings.push(Warning::new(
            "built-in-list",
            format!("the list built into this edgeallow is used, which was taken on {}", snapshot::DATE),
        ));
        let taken: Option<Timestamp> =
            snapshot::DATE.parse::<Date>().ok().and_then(|d| d.to_zoned(TimeZone::UTC).ok()).map(|z| z.timestamp());
        Ok(Acquired {
            list: self.vetted(snapshot::built_in()?)?,
            origin: Origin::BuiltIn,
            name: "cloudflare".into(),
            etag: None,
            validator: None,
            fetched_at: taken.unwrap_or(self.session.now),
            fresh_read: false,
        })
    }
}

fn read(path: &Path) -> Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let (name, result) = if path == Path::new("-") {
        ("standard input".to_owned(), io::stdin().lock().take(LARGEST_FILE + 1).read_to_end(&mut bytes))
    } else {
        let read = fs::File::open(path).and_then(|f| f.take(LARGEST_FILE + 1).read_to_end(&mut bytes));
        (path.display().to_string(), read)
    };
    result.map_err(|e| Error::io(ErrorKind::ListFile, "read the list", Path::new(&name), &e))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(Error::new(ErrorKind::ListFile, format!("{name} is larger than a list can be (256 MiB)")));
    }
    Ok((name, bytes))
}
