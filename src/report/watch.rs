//! What `edgeallow watch` says of a round: how each page is, from both sides, and what is news.
//!
//! Belongs here: the shape, and the words for people. Does not: deciding anything ([`crate::watch`]).

use jiff::Timestamp;
use serde::Serialize;

use crate::watch::judge::Trouble;

/// How a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum PageState {
    /// Visitors get an answer.
    Well,
    /// They don't, but not often enough in a row to count as down.
    Failing,
    /// They don't, and have been told of.
    Down,
    /// That can't be told from here.
    Unknown,
}

impl PageState {
    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Failing => "failing",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}

/// One round of a watch.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WatchReport {
    /// Each page that is watched.
    pub pages: Vec<PageReport>,
    /// What happened in this round, each thing once: a page that went down is not told again in the next.
    pub news: Vec<NewsReport>,
    /// Whether the on-fail command is run because of this round.
    pub acts: bool,
    /// How often it was run since this is remembered. For the metrics only.
    #[serde(skip)]
    pub acts_total: usize,
    /// Backends that held something else than was applied, when that was last looked at.
    pub drift: Vec<String>,
}

/// A page.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PageReport {
    /// Its address, without user, password and what stands in its query.
    pub url: String,
    /// How it is.
    pub state: PageState,
    /// What is wrong with it.
    pub trouble: Option<Trouble>,
    /// The error of Cloudflare's that visitors get; none for an application's own.
    pub cloudflare_error: Option<u16>,
    /// Failures in a row.
    pub failures: u32,
    /// Since the first of them.
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub since: Option<Timestamp>,
    /// Through the edge.
    pub edge: WayReport,
    /// Straight at the origin, at each of its addresses.
    pub origins: Vec<WayReport>,
}

/// What came of asking in one way.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WayReport {
    /// The origin's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// Whether Cloudflare sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloudflare: Option<bool>,
    /// Cloudflare's error: as it was sent, or as what the origin did would give it.
    pub cloudflare_error: Option<u16>,
    /// How long the answer took.
    pub seconds: Option<f64>,
    /// What else there is to say.
    pub detail: Option<String>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NewsReport {
    /// `down`, `changed`, `recovered`, `unseen`, `seen`, `odd`, `even`, `held`, `drift`, `in_sync`, `reach_unknown` or
    /// `reach_known`.
    pub event: &'static str,
    /// The page.
    pub url: Option<String>,
    /// In words.
    pub text: String,
}
