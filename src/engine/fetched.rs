//! A list that another process has fetched: `edgeallow fetch --save` without privileges writes it, `edgeallow sync
//! --offline` without network reads it.
//!
//! The writer is not trusted. It speaks with the internet, so it may have been taken over: what it wrote is opened
//! without following links or waiting for a pipe, read up to a bound, and vetted like an answer from the network.
//!
//! Belongs here: reading that file. Does not: judging the list ([`super::acquire`]).

use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    error::{Error, ErrorKind, Result},
    host::read_bounded,
};

/// Where it lies unless the operator says otherwise: the folder belongs to the user that fetches, not to the state.
pub const PATH: &str = "/var/lib/edgeallow-fetch/list.json";

/// What is used of the file: the JSON that `edgeallow fetch` prints has more.
#[derive(Debug, Deserialize)]
struct File {
    schema: u32,
    source: Source,
    v4: Vec<String>,
    v6: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Source {
    origin: String,
    etag: Option<String>,
    fetched_at: Option<Timestamp>,
}

/// A fetched list, not vetted.
#[derive(Debug, PartialEq, Eq)]
pub struct Saved {
    /// IPv4 prefixes, as text.
    pub v4: Vec<String>,
    /// IPv6 prefixes, as text.
    pub v6: Vec<String>,
    /// Cloudflare's own mark of this version.
    pub etag: Option<String>,
    /// When it was fetched, by its writer's account.
    pub fetched_at: Timestamp,
}

/// Reads a saved list of at most so many prefixes; `None` if there is no file in the usual place yet, or if what it holds
/// was not fetched from the network.
///
/// # Errors
/// `list-file` if it can't be read, is no regular file, or is missing where the operator said that it would be; `list-not-a-list` if it is not what `fetch --save` writes.
pub fn read(path: &Path, most: usize) -> Result<Option<Saved>> {
    // A prefix takes at most 50 bytes with its quotes, comma and line.
    let bound = (most as u64).saturating_mul(64).saturating_add(65_536);
    let bytes = match read_bounded(path, bound, false) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && path == Path::new(PATH) => return Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::FileTooLarge => {
            let what = format!("{} is larger than a list of {most} prefixes can be", path.display());
            return Err(Error::new(ErrorKind::ListFile, what).hint("see `max_prefixes` in the configuration"));
        }
        Err(e) => return Err(Error::io(ErrorKind::ListFile, "read what was fetched", path, &e)),
    };
    // What is in the file is not repeated: it could be somebody else's secret.
    let not_ours = || {
        let what = format!("{} is not what `edgeallow fetch --save` writes", path.display());
        Error::new(ErrorKind::ListNotAList, what).hint("run `edgeallow fetch --save` again")
    };
    let file: File = serde_json::from_slice(&bytes).map_err(|_| not_ours())?;
    let Some(fetched_at) = file.source.fetched_at.filter(|_| file.schema == 1) else { return Err(not_ours()) };
    // Its writer could not reach the network either.
    if !matches!(file.source.origin.as_str(), "api" | "text") {
        return Ok(None);
    }
    Ok(Some(Saved { v4: file.v4, v6: file.v6, etag: file.source.etag, fetched_at }))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::fs;

    use super::*;

    const GOOD: &str = r#"{"schema":1,"command":"fetch","source":{"name":"cloudflare","origin":"api","etag":"x",
        "fetched_at":"2026-11-22T09:00:00Z","v4":1,"v6":1},"v4":["8.8.8.0/24"],"v6":["2400:cb00::/32"],
        "warnings":[],"error":null}"#;

    #[test]
    fn what_fetch_saves_is_read_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.json");
        assert_eq!(read(&path, 512).unwrap_err().kind, ErrorKind::ListFile, "it was named, and it isn't there");
        fs::write(&path, GOOD).unwrap();
        let saved = read(&path, 512).unwrap().unwrap();
        assert_eq!((saved.v4, saved.v6), (vec!["8.8.8.0/24".to_owned()], vec!["2400:cb00::/32".to_owned()]));
        assert_eq!(saved.fetched_at, "2026-11-22T09:00:00Z".parse().unwrap());
        for origin in ["cache", "built-in", "file", "fetched"] {
            fs::write(&path, GOOD.replace("\"api\"", &format!("\"{origin}\""))).unwrap();
            assert_eq!(read(&path, 512).unwrap(), None, "{origin}");
        }
        for bad in ["", "{}", "root:secret:1:2", "[]", &GOOD.replace(":1,\"command", ":9,\"command")] {
            fs::write(&path, bad).unwrap();
            let e = read(&path, 512).unwrap_err();
            assert_eq!(e.kind, ErrorKind::ListNotAList, "{bad}");
            assert!(!e.message.contains("secret"), "{e}");
        }
        fs::write(&path, vec![b' '; 200_000]).unwrap();
        assert_eq!(read(&path, 512).unwrap_err().kind, ErrorKind::ListFile);
    }

    #[test]
    fn a_link_a_folder_and_a_pipe_are_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("real"), GOOD).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        for name in ["link", "pipe", ""] {
            assert_eq!(read(&dir.path().join(name), 512).unwrap_err().kind, ErrorKind::ListFile, "{name}");
        }
    }
}
