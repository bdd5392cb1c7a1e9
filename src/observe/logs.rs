//! Where logs go, and in which form.
//!
//! Belongs here: choosing a form and setting it up. Does not: what is logged.

use std::{
    io::{self, IsTerminal as _},
    os::fd::AsFd,
};

use clap::ValueEnum;
use rustix::fs::fstat;
use serde::Deserialize;
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use super::{journal::Journal, story, syslog};
use crate::{
    cli::{Color, Global},
    error::io_reason,
};

/// Where logs go, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum LogFormat {
    /// To the journal in a systemd service, else for people.
    #[default]
    Auto,
    /// Lines on stderr, for people.
    Human,
    /// One JSON object a line on stderr.
    Json,
    /// Fields to the journal; to syslog where there is none.
    Journal,
    /// To the local syslog.
    Syslog,
}

/// Sets up logging for this process, once.
///
/// `auto` is for people, except under systemd, where standard error is the journal: then fields go there. Where the
/// journal is asked for and there is none, syslog gets what it would have got; where there is neither, standard error.
///
/// `form` is what the operator wants. Returns whether standard error is a log for machines now, which gets every error as
/// an event: JSON, or the journal.
#[must_use]
pub fn init(form: LogFormat, global: &Global) -> bool {
    let asked = match form {
        LogFormat::Auto if is_the_journal(io::stderr()) => LogFormat::Journal,
        LogFormat::Auto => LogFormat::Human,
        asked => asked,
    };
    let mut missing = Vec::new();
    let layer = layer(asked, global, &mut missing);
    let complete = missing.is_empty();
    // That systemd's own journal can't be reached from within a service is the operator's choice.
    let is_told = form != LogFormat::Auto && !complete;
    let layer = if is_told && global.quiet && missing.len() == ways(asked) { story_on_stderr(global) } else { layer };
    // Only a second call could fail, and there is none.
    let _ = tracing_subscriber::registry().with(layer).try_init();
    if is_told {
        let whither = if missing.len() == ways(asked) { "standard error" } else { "syslog" };
        tracing::warn!("{}, so logs go to {whither}", missing.join(", and "));
    }
    // The journal that was asked for need not be where standard error leads to: cron mails that.
    asked == LogFormat::Json || (asked == LogFormat::Journal && complete && is_the_journal(io::stderr()))
}

/// In how many places a log is looked for before standard error gets it.
const fn ways(asked: LogFormat) -> usize {
    match asked {
        LogFormat::Journal => 2,
        LogFormat::Syslog => 1,
        _ => 0,
    }
}

/// For a quiet run whose log has no other place: its report says less than the log that was asked for.
fn story_on_stderr(global: &Global) -> Boxed {
    tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(colour(global.color))
        .with_target(false)
        .without_time()
        .with_filter(kept(global))
        .boxed()
}

/// A log that is kept tells the whole story, however quiet the run is to be for the one who started it.
const fn kept(global: &Global) -> LevelFilter {
    if global.verbose > 0 { LevelFilter::DEBUG } else { LevelFilter::INFO }
}

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

fn layer(format: LogFormat, global: &Global, missing: &mut Vec<String>) -> Boxed {
    let kept = kept(global);
    match format {
        LogFormat::Journal => match Journal::connect() {
            Ok(journal) => journal.with_filter(kept).boxed(),
            Err(e) => {
                missing.push(format!("the journal can't be reached ({})", io_reason(&e)));
                layer(LogFormat::Syslog, global, missing)
            }
        },
        LogFormat::Syslog => match syslog::Syslog::connect() {
            Ok(syslog) => tracing_subscriber::fmt::layer()
                .with_writer(syslog)
                .with_ansi(false)
                .with_level(false)
                .with_target(false)
                .without_time()
                .with_filter(kept)
                .boxed(),
            Err(e) => {
                missing.push(format!("syslog can't be reached at {} ({})", syslog::PATH, io_reason(&e)));
                layer(LogFormat::Human, global, missing)
            }
        },
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .with_writer(io::stderr)
            .with_filter(if global.quiet { LevelFilter::ERROR } else { kept })
            .boxed(),
        LogFormat::Human | LogFormat::Auto => tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(colour(global.color))
            .with_target(false)
            .without_time()
            // The report says the same to the same reader.
            .with_filter(Targets::new().with_default(level(global)).with_target(story::TARGET, LevelFilter::OFF))
            .boxed(),
    }
}

const fn level(global: &Global) -> LevelFilter {
    match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::ERROR,
        (_, 0) if !global.is_service => LevelFilter::WARN,
        (_, 0) => LevelFilter::INFO,
        (_, 1) if !global.is_service => LevelFilter::INFO,
        (..) => LevelFilter::DEBUG,
    }
}

fn colour(asked: Color) -> bool {
    match asked {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
    }
}

/// Whether a stream is connected to the journal: systemd.exec(5), `$JOURNAL_STREAM`, names its device and inode.
pub fn is_the_journal(stream: impl AsFd) -> bool {
    let (Some(journal), Ok(stat)) = (std::env::var_os("JOURNAL_STREAM"), fstat(stream)) else { return false };
    journal.to_str().is_some_and(|s| is_stream(s, stat.st_dev, stat.st_ino))
}

fn is_stream(stream: &str, device: u64, inode: u64) -> bool {
    let parts = stream.split_once(':').map(|(dev, ino)| (dev.parse::<u64>(), ino.parse::<u64>()));
    parts == Some((Ok(device), Ok(inode)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_stream_is_one_device_and_inode() {
        assert!(is_stream("9:1234", 9, 1234));
        for other in ["9:1235", "8:1234", "9", "", ":", "9:1234:1", "9: 1234", "x:y"] {
            assert!(!is_stream(other, 9, 1234), "{other}");
        }
    }
}
