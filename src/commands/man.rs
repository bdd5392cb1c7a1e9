//! `edgeallow man [COMMAND]`, `edgeallow man --list`

use std::io::Write as _;

use super::unwritable;
use crate::{
    cli,
    error::{Error, ErrorKind, Exit, Result},
};

pub(super) fn run(command: Option<&str>) -> Result<Exit> {
    let mut definition = cli::definition();
    // Global flags are part of each command's own page only after this.
    definition.build();
    let page = match command {
        None => definition,
        Some(name) => {
            let names: Vec<String> = definition.get_subcommands().map(|c| c.get_name().to_owned()).collect();
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
    clap_mangen::Man::new(page)
        .manual("edgeallow")
        .section("8")
        .render(&mut text)
        .and_then(|()| std::io::stdout().write_all(&text))
        .or_else(|e| unwritable(&e))?;
    Ok(Exit::Ok)
}

/// The names of the commands, one a line: who installs the pages learns from the binary which there are.
pub(super) fn list() -> Result<Exit> {
    let text: String = cli::definition().get_subcommands().map(|c| format!("{}\n", c.get_name())).collect();
    std::io::stdout().write_all(text.as_bytes()).or_else(|e| unwritable(&e))?;
    Ok(Exit::Ok)
}
