//! `edgeallow man [COMMAND]`, `edgeallow man --list`
//!
//! Belongs here: which sections a page has, and those that clap doesn't know of. Does not: what a flag means (`cli`).

use std::io::{self, Write as _};

use clap::{Arg, ArgAction};
use clap_mangen::{
    Man,
    roff::{Inline, Roff, bold, italic, roman},
};

use super::unwritable;
use crate::{
    cli,
    config::DEFAULT_PATH,
    engine::{fetched, lock},
    error::{Error, ErrorKind, Exit, Result},
};

const SECTION: &str = "8";

/// What the environment decides.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("HTTPS_PROXY, ALL_PROXY", "The proxy for the list and for webhooks, in capitals or not."),
    ("NO_PROXY", "Hosts that are asked directly: mirror.example,.inner"),
    ("NO_COLOR", "No colours on a terminal, unless --color asks for them."),
];

/// What it reads and writes besides the firewalls' own files, which `edgeallow backends` names.
const FILES: [(&str, &str); 4] = [
    (DEFAULT_PATH, "The configuration. Nothing has to be in it."),
    ("/var/lib/edgeallow", "What is applied, the last good list and the history; --state-dir names another folder."),
    (fetched::PATH, "The list that a process without privileges has fetched with fetch --save."),
    (lock::PATH, "Held while something is changed, so that no two do it at once."),
];

/// The pages of what it works with.
const ELSEWHERE: [(&str, &str); 8] = [
    ("nft", "8"),
    ("iptables", "8"),
    ("ufw", "8"),
    ("firewalld", "1"),
    ("fail2ban", "1"),
    ("crontab", "5"),
    ("systemd.timer", "5"),
    ("systemd.service", "5"),
];

pub(super) fn run(command: Option<&str>) -> Result<Exit> {
    // There is no page for `help`, which is told by --help as well.
    let mut definition = cli::definition().disable_help_subcommand(true).subcommand_help_heading("COMMANDS");
    // Global flags are part of each command's own page only after this.
    definition.build();
    let names: Vec<String> = definition.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    let page = match command {
        None => definition,
        Some(name) => {
            let found = definition.find_subcommand(name).ok_or_else(|| {
                Error::new(ErrorKind::Usage, format!("there is no command called `{name}`"))
                    .hint(format!("there are: {}", names.join(", ")))
            })?;
            // The name is only the page's title here; clap wants one that lives as long as the program, which ends now.
            let title: &'static str = String::leak(format!("edgeallow-{name}"));
            found.clone().name(title).display_name(title)
        }
    };
    let mut text = Vec::new();
    render(page, command, &names, &mut text)
        .and_then(|()| io::stdout().write_all(&text))
        .or_else(|e| unwritable(&e))?;
    Ok(Exit::Ok)
}

fn render(page: clap::Command, command: Option<&str>, names: &[String], out: &mut Vec<u8>) -> io::Result<()> {
    let mut own = Roff::new();
    synopsis(&mut own, &page, command);
    let synopsis = std::mem::take(&mut own);
    exits(&mut own);
    if command.is_none() {
        own.control("SH", ["ENVIRONMENT"]);
        ENVIRONMENT.iter().for_each(|(name, what)| item(&mut own, name, what));
        own.control("SH", ["FILES"]);
        FILES.iter().for_each(|(path, what)| item(&mut own, path, what));
    }
    see_also(&mut own, command, names);

    let is_overview = command.is_none();
    let man =
        Man::new(page).manual("edgeallow").section(SECTION).source(concat!("edgeallow ", env!("CARGO_PKG_VERSION")));
    man.render_title(out)?;
    man.render_name_section(out)?;
    synopsis.to_writer(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    if is_overview {
        man.render_subcommands_section(out)?;
    }
    own.to_writer(out)
}

/// Each flag with its value. Those of every command are shown in the overview only.
fn synopsis(out: &mut Roff, page: &clap::Command, command: Option<&str>) {
    out.control("SH", ["SYNOPSIS"]);
    let mut line = vec![bold("edgeallow")];
    line.extend(command.into_iter().flat_map(|name| [roman(" "), bold(name)]));
    let shown = |a: &&Arg| !a.is_hide_set() && (command.is_none() || !a.is_global_set());
    let (places, flags): (Vec<&Arg>, Vec<&Arg>) = page.get_arguments().filter(shown).partition(|a| a.is_positional());
    for flag in flags {
        line.push(roman(" ["));
        line.extend(names_of(flag));
        if flag.get_action().takes_values() {
            let value = value_name(flag);
            if flag.is_require_equals_set() {
                line.extend([roman("[="), italic(value), roman("]")]);
            } else {
                line.extend([roman(" "), italic(value)]);
            }
        }
        line.push(roman("]"));
        if matches!(flag.get_action(), ArgAction::Count | ArgAction::Append) {
            line.push(roman("..."));
        }
    }
    for place in places {
        let (before, after) = if place.is_required_set() { (" ", "") } else { (" [", "]") };
        line.extend([roman(before), italic(value_name(place)), roman(after)]);
        if matches!(place.get_action(), ArgAction::Append) {
            line.push(roman("..."));
        }
    }
    line.extend(if command.is_none() {
        [roman(" "), italic("COMMAND"), roman(" ...")]
    } else {
        [roman(" ["), italic("GLOBAL OPTION"), roman("]...")]
    });
    out.text(line);
}

/// `-v|--verbose`
fn names_of(flag: &Arg) -> Vec<Inline> {
    let short = flag.get_short().map(|c| bold(format!("-{c}")));
    let long = flag.get_long().map(|name| bold(format!("--{name}")));
    match (short, long) {
        (Some(short), Some(long)) => vec![short, roman("|"), long],
        (short, long) => short.into_iter().chain(long).collect(),
    }
}

fn value_name(arg: &Arg) -> String {
    arg.get_value_names().map_or_else(|| arg.get_id().as_str().to_uppercase(), |names| names.join(" "))
}

/// The exit statuses, which `--help` shows as a table.
fn exits(out: &mut Roff) {
    out.control("SH", ["EXIT STATUS"]);
    let mut statuses: Vec<(&str, String)> = Vec::new();
    for line in cli::EXITS.lines().skip(1).map(str::trim) {
        match (line.split_once(' ').filter(|(n, _)| n.parse::<u8>().is_ok()), statuses.last_mut()) {
            (Some((status, what)), _) => statuses.push((status, what.trim().to_owned())),
            (None, Some((_, what))) => *what += &format!(" {line}"),
            (None, None) => {}
        }
    }
    statuses.iter().for_each(|(status, what)| item(out, status, what));
}

fn item(out: &mut Roff, name: &str, what: &str) {
    out.control("TP", []);
    out.text([bold(name)]);
    out.text([roman(what)]);
}

fn see_also(out: &mut Roff, command: Option<&str>, names: &[String]) {
    out.control("SH", ["SEE ALSO"]);
    let overview = command.map(|_| ("edgeallow".to_owned(), SECTION));
    let others = names.iter().filter(|name| command != Some(name)).map(|name| (format!("edgeallow-{name}"), SECTION));
    let elsewhere =
        ELSEWHERE.iter().filter(|_| command.is_none()).map(|(name, section)| ((*name).to_owned(), *section));
    let mut line = Vec::new();
    for (name, section) in overview.into_iter().chain(others).chain(elsewhere) {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.extend([bold(name), roman(format!("({section})"))]);
    }
    out.text(line);
}

/// The names of the commands, one a line: who installs the pages learns from the binary which there are.
pub(super) fn list() -> Result<Exit> {
    let text: String = cli::definition().get_subcommands().map(|c| format!("{}\n", c.get_name())).collect();
    io::stdout().write_all(text.as_bytes()).or_else(|e| unwritable(&e))?;
    Ok(Exit::Ok)
}
