//! The command line: the one place that names flags. Help, manual pages and completions are made from it.

use std::{ffi::OsStr, path::PathBuf};

use clap::{
    Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
    builder::{PossibleValue, StringValueParser, TypedValueParser},
};

use crate::{
    backends::registry,
    config::{Config, DEFAULT_PATH},
    error::{Error, ErrorKind, Exit},
    observe::logs::LogFormat,
};

/// Keeps a server open to Cloudflare.
///
/// Fetches Cloudflare's published ranges, compares them with what the firewalls on this machine hold, changes only
/// what differs, and looks again. Run it from cron, from Ansible, or by hand with --dry-run.
#[derive(Debug, Parser)]
#[command(name = "edgeallow", version, propagate_version = false, after_help = EXITS, subcommand_required = true)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The exit statuses, as `--help` shows them.
pub(crate) const EXITS: &str = "\
Exit status:
  0   done; in sync, changed or not
  1   unexpected failure
  2   usage or configuration error
  3   no trustworthy list; nothing was changed
  4   at least one backend failed or is unusable though asked for
  5   applied but not confirmed by the second look; undone
  6   changes pending (status; sync --dry-run --exit-code)
  7   Cloudflare is refused, or it can't be told (verify; sync --require-reach);
      a cause was found (doctor); a page is down (watch --once)
  75  another edgeallow is running; try again";

/// Flags that may stand before or after any command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Configuration file [default: /etc/edgeallow/config.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// How to report
    #[arg(long, global = true, value_enum, default_value_t = Format::Human, help_heading = "Global options")]
    pub format: Format,
    /// Never open a network connection: use the last good copy
    #[arg(long, global = true, help_heading = "Global options")]
    pub offline: bool,
    /// Where edgeallow remembers what it did
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = crate::engine::state::FOLDER,
        help_heading = "Global options"
    )]
    pub state_dir: PathBuf,
    /// How long to wait for another edgeallow to finish
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10, help_heading = "Global options")]
    pub lock_timeout: u32,
    /// When to use colours
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Color::Auto, help_heading = "Global options")]
    pub color: Color,
    /// Say more on stderr (twice: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// Say nothing on stderr but errors, and on stdout only what changed or needs attention
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
    /// Where logs go: to people on stderr, as JSON on stderr, or with fields to the journal or to syslog [default: as
    /// configured, or auto]
    #[arg(long, global = true, value_enum, value_name = "FORM", help_heading = "Global options")]
    pub log_format: Option<LogFormat>,
    /// Whether stderr is a log for machines, so that nothing else may be written there. Not a flag: found out at the start.
    #[arg(skip)]
    pub stderr_is_a_log: bool,
    /// Whether this is a service, which has no report and tells what it does in the log. Not a flag either.
    #[arg(skip)]
    pub is_service: bool,
}

impl Global {
    /// The configuration file, and whether the operator named it.
    #[must_use]
    pub fn config_file(&self) -> (PathBuf, bool) {
        self.config.clone().map_or_else(|| (DEFAULT_PATH.into(), false), |path| (path, true))
    }
}

/// How to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One JSON object, for programs.
    Json,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the firewalls hold Cloudflare's list, changing only what differs
    Sync(Sync),
    /// What is published, applied and live, per backend (exit 6 if something differs)
    Status(Status),
    /// Whether every range reaches every port, or which rule refuses it (exit 7)
    ///
    /// Reads every packet filter on this machine, whoever wrote it, and follows a connection's packets through it: the
    /// request in, the answer out, from every address of every range at once. Changes nothing.
    Verify(Verify),
    /// Why Cloudflare would answer with an error here, and what would mend it (exit 7 if there is a cause)
    ///
    /// Looks at the server, the firewalls, TLS, DNS, resources and logs of this machine, in the order in which an expert
    /// would, and names the most likely cause and the command to run next. Changes nothing. Without root it says what it
    /// could not see.
    Doctor(Doctor),
    /// Take out all that edgeallow owns
    Remove(Remove),
    /// Print the vetted list
    Fetch(Fetch),
    /// What is on this machine, and which backends would be used
    Backends,
    /// Stay, and put back what others undo: a service
    Keep(Keep),
    /// Ask for pages again and again, through Cloudflare and straight at the origin, and tell when they are down: a service
    ///
    /// Tells Cloudflare's errors from an application's own, and looks at the firewalls when something fails. May run a
    /// command then: only after some failures in a row of the same page, not twice within ten minutes and not more than
    /// three times an hour, unless told otherwise. SIGHUP reads the configuration anew and asks at once.
    Watch(Watch),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page of edgeallow, or of one of its commands
    Man {
        /// The command
        #[arg(value_parser = Suggested(|| COMMANDS.to_vec()), hide_possible_values = true)]
        command: Option<String>,
        /// Print the names of the commands instead, one a line: each has a page
        #[arg(long, conflicts_with = "command")]
        list: bool,
    },
}

/// Which lists, and how strictly they are judged.
#[derive(Debug, Args)]
pub struct Lists {
    /// Use this list instead of Cloudflare's: text, the API's JSON, or what `fetch` printed; - is standard input; may be
    /// given several times
    #[arg(long = "list", value_name = "FILE")]
    pub lists: Vec<PathBuf>,
    /// Believe a list even if most of the last one is gone
    #[arg(long)]
    pub allow_shrink: bool,
}

/// What is told to a monitoring system.
#[derive(Debug, Default, Args)]
pub struct Monitoring {
    /// Write metrics for Prometheus to this file, for node_exporter's textfile collector [default: as configured, for
    /// runs that act]
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
}

/// `edgeallow sync`
#[derive(Debug, Args)]
pub struct Sync {
    /// Show every change and make none
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: exit with 6 if there is something to change
    #[arg(long, requires = "dry_run")]
    pub exit_code: bool,
    /// Only this backend; may be given several times [default: as configured]
    #[arg(long = "backend", value_name = "NAME", value_parser = Suggested(backends))]
    pub backends: Vec<String>,
    /// The list.
    #[command(flatten)]
    pub lists: Lists,
    /// Remove vanished ranges at once instead of after the grace period
    #[arg(long)]
    pub remove_now: bool,
    /// Exit with 7 if Cloudflare is still refused afterwards, or if that can't be told
    // A run that changes nothing has no afterwards: `verify` tells of now.
    #[arg(long, conflicts_with = "dry_run")]
    pub require_reach: bool,
    /// Metrics.
    #[command(flatten)]
    pub monitoring: Monitoring,
    /// Put the last applied state back, by the configuration of the last sync and without network; do nothing where
    /// nothing is applied. For the boot
    #[arg(long, conflicts_with_all = ["lists", "fetched"])]
    pub restore: bool,
    /// Use what `edgeallow fetch --save` wrote, if it is newer than the last good copy; opens no network connection.
    /// With --offline that is the default, for the file in its usual place
    #[arg(long, value_name = "FILE", conflicts_with = "lists")]
    pub fetched: Option<PathBuf>,
    /// Wait for a while first, at random and at most this long, so that a fleet doesn't arrive at once
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub random_delay: u32,
}

/// `edgeallow status`
#[derive(Debug, Args)]
pub struct Status {
    /// Compare element by element, however big the list
    #[arg(long)]
    pub deep: bool,
    /// The list.
    #[command(flatten)]
    pub lists: Lists,
    /// Metrics.
    #[command(flatten)]
    pub monitoring: Monitoring,
}

/// `edgeallow verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Ask about this port; may be given several times [default: as configured]
    #[arg(long = "port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub ports: Vec<u16>,
    /// Ask about this address of this machine [default: each global one]
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub to: Option<std::net::IpAddr>,
    /// Show the way of a single packet from this address, rule by rule (-v: also the rules that don't match)
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub address: Option<std::net::IpAddr>,
    /// The interface that the packets come in by [default: the one that the answers leave by]
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// The list.
    #[command(flatten)]
    pub lists: Lists,
    /// Metrics.
    #[command(flatten)]
    pub monitoring: Monitoring,
}

/// An address; an IPv4 one written as IPv6 (`::ffff:192.0.2.1`) is the IPv4 one, for so it comes by the wire.
fn address(text: &str) -> Result<std::net::IpAddr, std::net::AddrParseError> {
    text.parse::<std::net::IpAddr>().map(|address| address.to_canonical())
}

/// `edgeallow remove`
#[derive(Debug, Args)]
pub struct Remove {
    /// Show every change and make none
    #[arg(long)]
    pub dry_run: bool,
    /// Only this backend; may be given several times [default: every one]
    #[arg(long = "backend", value_name = "NAME", value_parser = Suggested(backends))]
    pub backends: Vec<String>,
    /// Metrics.
    #[command(flatten)]
    pub monitoring: Monitoring,
}

/// `edgeallow keep`
///
/// Listens to the kernel's announcements of nf_tables and to changes of the files that backends own, and puts back what
/// they undid, within two seconds. It never opens a network connection, but for a webhook that is configured, and does
/// nothing where nothing is applied.
/// Something that undoes its work again and again is named in the log, and met ever more rarely. Changes of legacy
/// iptables and of ipsets are announced by nobody: they are found by looking every few minutes. SIGHUP looks at once.
#[derive(Debug, Args)]
pub struct Keep {
    /// The longest time between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    pub look_every: u32,
    /// Metrics.
    #[command(flatten)]
    pub monitoring: Monitoring,
}

/// `edgeallow watch`
#[derive(Debug, Args)]
pub struct Watch {
    /// Pages, as visitors type their addresses [default: as configured]
    #[arg(value_name = "URL")]
    pub urls: Vec<String>,
    /// The origin's address, if it isn't one of this machine's own [default: as configured, or this machine's addresses]
    #[arg(long, value_name = "IP")]
    pub origin: Option<std::net::IpAddr>,
    /// How often to ask: 60, 90s, 5m [default: as configured, or 60s]
    #[arg(long, value_name = "TIME", value_parser = crate::watch::settings::time)]
    pub every: Option<std::time::Duration>,
    /// How many failures in a row make a page count as down [default: as configured, or 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub fail_after: Option<u32>,
    /// Run this when a page is down: a program and its arguments in one word, such as 'systemctl restart nginx'; no shell
    #[arg(long, value_name = "CMD", value_parser = argv)]
    pub on_fail: Option<Argv>,
    /// The shortest time between two runs of that command [default: as configured, or 10m]
    #[arg(long, value_name = "TIME", value_parser = crate::watch::settings::time)]
    pub cooldown: Option<std::time::Duration>,
    /// How often that command is run in an hour at most [default: as configured, or 3]
    #[arg(long, value_name = "N")]
    pub max_per_hour: Option<u32>,
    /// Ask once, remember what came of it, and exit with 7 if a page is down. For cron: prints only what is news
    #[arg(long)]
    pub once: bool,
    /// Metrics.
    #[command(flatten)]
    pub monitoring: Monitoring,
}

/// A word for which shells and help offer these. Whether it is one of them is judged where it is used, in better words.
#[derive(Debug, Clone, Copy)]
struct Suggested(fn() -> Vec<&'static str>);

impl TypedValueParser for Suggested {
    type Value = String;

    fn parse_ref(&self, cmd: &clap::Command, arg: Option<&clap::Arg>, value: &OsStr) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(cmd, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new((self.0)().into_iter().map(PossibleValue::new)))
    }
}

fn backends() -> Vec<&'static str> {
    registry(&Config::default(), &[]).iter().map(|backend| backend.meta().name).collect()
}

/// A program and its arguments.
#[derive(Debug, Clone)]
pub struct Argv(pub Vec<String>);

fn argv(text: &str) -> Result<Argv, String> {
    crate::watch::settings::words(text).map(Argv)
}

/// `edgeallow doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// The site's names, as visitors type them; a URL stands for its name, and for its port
    #[arg(value_name = "HOST")]
    pub hosts: Vec<crate::doctor::site::Site>,
    /// The zone's encryption mode at Cloudflare (SSL/TLS, Overview)
    #[arg(long, value_enum, default_value_t = crate::doctor::Mode::Unknown)]
    pub mode: crate::doctor::Mode,
    /// Authenticated Origin Pulls are on in the zone, with a certificate of yours uploaded if the server wants one of yours
    #[arg(long)]
    pub origin_pulls: bool,
    /// The origin's address, if it isn't one of this machine's own [default: each global address of this machine]
    #[arg(long, value_name = "IP")]
    pub origin: Option<std::net::IpAddr>,
    /// Only this port; may be given several times [default: as configured]
    #[arg(long = "port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub ports: Vec<u16>,
    /// How far back logs are read: 90m, 24h, 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time_back)]
    pub since: jiff::SignedDuration,
    /// Read this log too, whatever program wrote it; `-` is standard input; may be given several times
    #[arg(long = "log", value_name = "FILE")]
    pub logs: Vec<PathBuf>,
    /// Write one HTML page too, to send to a hoster: whole in itself, and without anything secret
    #[arg(long, value_name = "FILE", value_parser = clap::builder::PathBufValueParser::new().try_map(page_file))]
    pub report: Option<PathBuf>,
}

/// Where a page goes. Standard output is where people read what was found.
fn page_file(file: PathBuf) -> Result<PathBuf, &'static str> {
    if file.as_os_str() == "-" {
        return Err("the page needs a file, such as page.html: standard output has what was found in words");
    }
    Ok(file)
}

/// A number of seconds, or a length of time with days, which a day of 24 hours is.
fn time_back(text: &str) -> Result<jiff::SignedDuration, String> {
    let wrong = || format!("`{text}` is not a length of time such as 90m, 24h or 7d");
    let length = match text.parse() {
        Ok(seconds) => jiff::SignedDuration::from_secs(seconds),
        Err(_) => {
            let span: jiff::Span = text.parse().map_err(|_| wrong())?;
            span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?
        }
    };
    if length.is_positive() { Ok(length) } else { Err(wrong()) }
}

/// `edgeallow fetch`
#[derive(Debug, Args)]
pub struct Fetch {
    /// Save it instead of printing it, for a `sync --offline` that has privileges and no network
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = crate::engine::fetched::PATH)]
    pub save: Option<PathBuf>,
    /// The list.
    #[command(flatten)]
    pub lists: Lists,
}

/// Arguments that are refused, where a program reads what is answered.
pub struct Refused {
    /// The command, as far as it can be told.
    pub command: Option<&'static str>,
    /// What is wrong with them: `usage`.
    pub error: Error,
}

/// Reads the arguments of this process. Ends it for --help and --version, and for usage errors (status 2) unless
/// `--format json` is among the arguments.
///
/// # Errors
/// The usage error, for `--format json`.
pub fn parse() -> Result<Cli, Refused> {
    let args: Vec<_> = std::env::args_os().skip(1).take_while(|a| a != "--").collect();
    let is = |flag: &str, value: &str| {
        args.windows(2).any(|w| w == [flag, value])
            || args.iter().any(|a| a.to_str() == Some(&format!("{flag}={value}")))
    };
    // Help and usage errors are printed before there are any arguments to go by.
    let color = match (is("--color", "never"), is("--color", "always")) {
        (true, _) => clap::ColorChoice::Never,
        (_, true) => clap::ColorChoice::Always,
        _ => clap::ColorChoice::Auto,
    };
    let mut definition = definition().color(color);
    definition.try_get_matches_from_mut(std::env::args_os()).and_then(|m| Cli::from_arg_matches(&m)).map_err(|e| {
        let e = with_tip(e.format(&mut definition));
        let named = COMMANDS.into_iter().find(|name| args.iter().any(|a| a == name));
        let refused = || Refused { command: named, error: in_words(&e.render().to_string()) };
        if !e.use_stderr() {
            e.exit();
        }
        if is("--format", "json") {
            return refused();
        }
        if is("--log-format", "json") {
            eprintln!("{}", as_event(&refused()));
            std::process::exit(i32::from(Exit::Usage as u8));
        }
        e.exit()
    })
}

/// `--save` takes its file behind a `=`, because it can do without one; clap only says that it expected no argument.
fn with_tip(mut e: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let args: Vec<_> = std::env::args_os().collect();
    let saved = |word: &str| args.windows(2).any(|w| w[0] == "--save" && w[1] == word);
    if e.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(word)) = e.get(ContextKind::InvalidArg)
        && saved(word)
    {
        let tip = format!("to save it there, write '--save={word}'");
        e.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    e
}

/// The line that a log of JSON objects gets of arguments that can't be read.
fn as_event(refused: &Refused) -> serde_json::Value {
    let Refused { command, error } = refused;
    let fields = serde_json::json!({
        "message": error.message, "command": command, "kind": error.kind.as_str(), "hint": error.hint,
    });
    let timestamp = jiff::Timestamp::now().to_string();
    serde_json::json!({ "timestamp": timestamp, "level": "ERROR", "target": "edgeallow", "fields": fields })
}

/// The commands' names, for reports of arguments that name one and can't be read.
const COMMANDS: [&str; 11] =
    ["sync", "status", "verify", "doctor", "remove", "fetch", "backends", "keep", "watch", "completions", "man"];

/// A usage error as clap prints it: paragraphs, the first of which says what is wrong, and perhaps one with a tip.
fn in_words(printed: &str) -> Error {
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let what = printed.split("\n\n").next().unwrap_or(printed);
    let message = one_line(what.strip_prefix("error: ").unwrap_or(what));
    let tip = printed.lines().find_map(|l| l.trim().strip_prefix("tip: "));
    Error::new(ErrorKind::Usage, message).hint(tip.map_or_else(|| "see `edgeallow --help`".to_owned(), one_line))
}

/// The definition itself, for manual pages and completions.
#[must_use]
pub fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_can_be_named_in_a_report() {
        let defined = definition();
        let defined: Vec<&str> = defined.get_subcommands().map(clap::Command::get_name).collect();
        assert_eq!(defined, COMMANDS);
    }

    #[test]
    fn a_page_is_a_file_and_a_bare_number_is_seconds() {
        let ask = |args: &[&str]| {
            let args = ["edgeallow", "doctor"].iter().chain(args);
            match Cli::try_parse_from(args).map(|cli| cli.command) {
                Ok(Command::Doctor(doctor)) => Ok(doctor),
                Ok(other) => panic!("{other:?}"),
                Err(e) => Err(e.to_string()),
            }
        };
        let refused = ask(&["--report", "-"]).unwrap_err();
        assert!(refused.contains("the page needs a file, such as page.html"), "{refused}");
        assert_eq!(ask(&["--report", "./-"]).unwrap().report, Some("./-".into()));
        assert_eq!(ask(&["--since", "90"]).unwrap().since, jiff::SignedDuration::from_secs(90));
        assert_eq!(ask(&["--since", "7d"]).unwrap().since, jiff::SignedDuration::from_hours(7 * 24));
        for wrong in ["0", "-5", "soon", ""] {
            assert!(ask(&["--since", wrong]).is_err(), "{wrong}");
        }
    }
}
