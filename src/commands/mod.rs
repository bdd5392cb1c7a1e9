//! One file a subcommand, each short: call the engine, hand a value to the report.
//!
//! This file holds what they share: setting up logs and colours, loading the configuration, printing, the exit code.

mod applied;
mod backends;
mod completions;
mod doctor;
mod fetch;
mod keep;
mod man;
mod remove;
mod status;
mod sync;
mod verify;
mod watch;

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    backends::AnyBackend,
    cli::{Cli, Color, Command, Format, Global, Monitoring, Refused},
    config::Config,
    engine::{state::Store, sync::Session},
    error::{Error, ErrorKind, Exit, Result},
    host::Machine,
    observe::{self, logs::LogFormat},
    report::{ErrorReport, Report, human, progress::Progress},
};

/// Runs a command and returns the process's exit status.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let Cli { mut global, command } = cli;
    global.is_service = matches!(&command, Command::Keep(_)) || matches!(&command, Command::Watch(args) if !args.once);
    let mut waited = sync::Waited::default();
    if let Command::Sync(args) = &command {
        global.offline |= args.restore || args.fetched.is_some();
        waited = sync::Waited::at_most(args.random_delay, &global.state_dir);
    }
    match global.color {
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
    global.stderr_is_a_log = observe::logs::init(log_form(&global, &command), &global);
    let exit = match command {
        Command::Sync(args) => match waited.in_vain(&args) {
            // Not even the metrics are written: nobody would look after them.
            Some(report) => print(&global, &report, &[]),
            None if args.restore => {
                let (config, notes) = sync::to_restore(&global);
                let run = |s: &Session<'_>| sync::restore(s, &global, &args, notes, &waited);
                reported_with(&global, config, "sync", &args.backends, &args.monitoring, run)
            }
            None => reported(&global, "sync", &args.backends, &args.monitoring, |s| sync::run(s, &args, &waited)),
        },
        Command::Status(args) => reported(&global, "status", &[], &args.monitoring, |s| status::run(s, &args)),
        Command::Verify(args) => reported(&global, "verify", &[], &args.monitoring, |s| verify::run(s, &args)),
        Command::Doctor(args) => {
            let (config, broken) = doctor::config(&global);
            let run = |s: &Session<'_>| doctor::run(s, &args, broken);
            let config = config.map(Configured::from);
            reported_with(&global, config, "doctor", &[], &Monitoring::default(), run)
        }
        Command::Remove(args) => {
            reported(&global, "remove", &args.backends, &args.monitoring, |s| remove::run(s, &args))
        }
        Command::Fetch(args) => with_session(&global, &[], |s| fetch::run(s, &args))
            .and_then(|list| fetch::hand_over(&global, &args, &list?))
            .unwrap_or_else(|e| fail(&global, "fetch", &e)),
        Command::Backends => with_session(&global, &[], backends::run)
            .and_then(|rows| backends::print(&global, &rows?))
            .unwrap_or_else(|e| fail(&global, "backends", &e)),
        Command::Keep(args) => keep::run(&global, &args).unwrap_or_else(|e| fail(&global, "keep", &e)),
        Command::Watch(args) => {
            let failed = |e| {
                if args.once { print(&global, &Report::failed("watch", &e), &[]) } else { fail(&global, "watch", &e) }
            };
            watch::run(&global, &args).unwrap_or_else(failed)
        }
        Command::Completions { shell } => completions::run(shell).unwrap_or_else(|e| fail(&global, "completions", &e)),
        Command::Man { command, list } => {
            let done = if list { man::list() } else { man::run(command.as_deref()) };
            done.unwrap_or_else(|e| fail(&global, "man", &e))
        }
    };
    ExitCode::from(exit as u8)
}

/// What the flag says, else the configuration. One that can't be read says nothing here: the command says that itself.
fn log_form(global: &Global, command: &Command) -> LogFormat {
    let configured = || {
        if matches!(command, Command::Completions { .. } | Command::Man { .. }) {
            return None;
        }
        let (path, is_named) = global.config_file();
        Config::load(&path, is_named).ok().map(|config| config.log_format)
    };
    global.log_format.or_else(configured).unwrap_or_default()
}

/// Reports arguments that can't be read, as JSON, and returns the process's exit status.
#[must_use]
pub fn refuse(refused: &Refused) -> ExitCode {
    let Refused { command, error } = refused;
    let wrote = match command {
        // The same shape as any other report of this command.
        Some(command @ ("sync" | "status" | "verify" | "doctor" | "remove" | "watch")) => {
            json(&Report::failed(command, error))
        }
        _ => json(&bare(*command, error)),
    };
    // There is nobody left to tell if this fails.
    let _ = wrote;
    ExitCode::from(error.kind.exit() as u8)
}

/// Works with everything that a command needs. What is going on is shown until it returns, so nothing is printed inside.
fn with_session<T>(global: &Global, named: &[String], work: impl FnOnce(&Session<'_>) -> T) -> Result<T> {
    Ok(with_config(global, &configured(global)?, named, work))
}

/// A configuration to work by.
struct Configured {
    config: Config,
    /// Its text, if it is the operator's own.
    text: Option<String>,
}

impl From<Config> for Configured {
    fn from(config: Config) -> Self {
        Self { config, text: None }
    }
}

fn configured(global: &Global) -> Result<Configured> {
    let (path, is_named) = global.config_file();
    let (config, text) = Config::read(&path, is_named)?;
    Ok(Configured { config, text: Some(text) })
}

fn with_config<T>(
    global: &Global,
    configured: &Configured,
    named: &[String],
    work: impl FnOnce(&Session<'_>) -> T,
) -> T {
    let Configured { config, text } = configured;
    let host = Machine::new();
    let backends: Vec<Box<dyn AnyBackend>> =
        crate::backends::registry(config, if named.is_empty() { &config.backends } else { named });
    let progress = Progress::new(!global.quiet && global.verbose == 0);
    let session = Session {
        config,
        text: text.as_deref(),
        host: &host,
        backends: &backends,
        store: Store::new(&global.state_dir),
        now: Timestamp::now(),
        offline: global.offline,
        lock_timeout: Duration::from_secs(global.lock_timeout.into()),
        progress: &|what| progress.say(what),
    };
    work(&session)
}

fn reported(
    global: &Global,
    command: &'static str,
    named: &[String],
    monitoring: &Monitoring,
    work: impl FnOnce(&Session<'_>) -> Report,
) -> Exit {
    reported_with(global, configured(global), command, named, monitoring, work)
}

fn reported_with(
    global: &Global,
    config: Result<Configured>,
    command: &'static str,
    named: &[String],
    monitoring: &Monitoring,
    work: impl FnOnce(&Session<'_>) -> Report,
) -> Exit {
    let began = Instant::now();
    let after = |config: Option<&Config>, progress: &dyn Fn(&str), report: &mut Report| {
        let run = observe::Run {
            metrics: monitoring.metrics.as_deref(),
            state_dir: &global.state_dir,
            config,
            offline: global.offline,
            now: Timestamp::now(),
            took: began.elapsed(),
            progress,
        };
        observe::after(&run, report);
    };
    let mut acknowledged = Vec::new();
    let done = config.map(|config| {
        acknowledged.clone_from(&config.config.acknowledged);
        with_config(global, &config, named, |session| {
            let mut report = work(session);
            after(Some(session.config), session.progress, &mut report);
            report
        })
    });
    let report = done.unwrap_or_else(|e| {
        // The same shape as any other report of this command.
        let mut report = Report::failed(command, &e);
        after(None, &|_| {}, &mut report);
        report
    });
    print(global, &report, &acknowledged)
}

/// Prints a report in the chosen format.
fn print(global: &Global, report: &Report, acknowledged: &[String]) -> Exit {
    let wrote = match global.format {
        Format::Json => json(report),
        // The journal has the whole story in fields; a service's standard output leads there as well.
        Format::Human if global.stderr_is_a_log && observe::logs::is_the_journal(std::io::stdout()) => Ok(()),
        Format::Human => {
            let text = human::render(
                report,
                &human::Style { width: width(), quiet: global.quiet, acknowledged, verbose: global.verbose > 0 },
            );
            let (out, err) = text;
            // A log has been told already.
            if !global.stderr_is_a_log {
                write!(anstream::stderr(), "{err}").ok();
            }
            write!(anstream::stdout(), "{out}").or_else(|e| unwritable(&e))
        }
    };
    match wrote {
        Ok(()) => report.exit,
        Err(e) => fail(global, report.command, &e),
    }
}

fn json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("cannot write JSON: {e}")))?;
    writeln!(std::io::stdout(), "{text}").or_else(|e| unwritable(&e))
}

/// A reader that went away (`edgeallow status | head -1`) is not worth a word, and changes nothing of how it went: the
/// exit status stays that of the report.
fn unwritable(e: &std::io::Error) -> Result<()> {
    if e.kind() == std::io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Io, format!("cannot write to standard output: {}", crate::error::io_reason(e))))
}

/// Reports an error that left nothing else to report.
fn fail(global: &Global, command: &'static str, e: &Error) -> Exit {
    if global.format == Format::Json {
        // There is nobody left to tell if this fails.
        let _ = json(&bare(Some(command), e));
    } else if global.stderr_is_a_log {
        let hint = e.hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"));
        tracing::error!(command, kind = e.kind.as_str(), hint = e.hint, "{command} failed: {}{hint}", e.message);
    } else {
        let _ = write!(anstream::stderr(), "{}", human::error(&e.into(), width()));
    }
    e.kind.exit()
}

fn bare(command: Option<&str>, e: &Error) -> serde_json::Value {
    serde_json::json!({ "schema": 1, "command": command, "error": ErrorReport::from(e) })
}

/// The width to wrap at: the terminal's, at least 40; in a pipe lines are not wrapped.
fn width() -> usize {
    if !std::io::stdout().is_terminal() {
        return usize::MAX;
    }
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col).max(40),
        _ => 80,
    }
}
