//! What the configurations of web servers have in common: numbers with a place.
//!
//! Belongs here: that. Does not: reading files ([`crate::doctor::directives`]).

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::doctor::directives::Directive;

/// A number in a configuration file, or what holds without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// As the language calls it.
    pub(super) name: &'static str,
    pub(super) value: u64,
    /// File and line; nothing for the server's default.
    pub(super) place: Option<(PathBuf, usize)>,
}

impl Setting {
    pub(super) const fn default(name: &'static str, value: u64) -> Self {
        Self { name, value, place: None }
    }

    pub(super) fn at(name: &'static str, value: u64, file: &Path, line: usize) -> Self {
        Self { name, value, place: Some((file.to_owned(), line)) }
    }

    /// What a directive says, if it is a number.
    pub(super) fn of(name: &'static str, said: &Directive) -> Option<Self> {
        Some(Self::at(name, said.value().trim_matches('"').parse().ok()?, &said.file, said.line))
    }

    /// Where to look, for a person.
    pub(super) fn whence(&self) -> String {
        match &self.place {
            Some((file, line)) => format!("{} line {line}", file.display()),
            None => "the server's default".to_owned(),
        }
    }

    /// The command that writes another number in that place.
    pub(super) fn edit(&self, value: u64) -> Option<String> {
        let (file, line) = self.place.as_ref()?;
        let file = plain(file)?;
        let name = self.name.replace('.', "\\.");
        Some(format!("sed -i -E '{line}s/({name}[^0-9]+)[0-9]+/\\1{value}/' {file}"))
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.value)
    }
}

/// A path that means itself in a command to copy.
pub(super) fn plain(path: &Path) -> Option<&str> {
    path.to_str().filter(|p| p.chars().all(|c| c.is_ascii_alphanumeric() || "/._+-".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_changes_the_one_line() {
        let set = Setting::at("pm.max_children", 5, Path::new("/etc/php/8.2/fpm/pool.d/www.conf"), 122);
        assert_eq!(
            set.edit(16).unwrap(),
            "sed -i -E '122s/(pm\\.max_children[^0-9]+)[0-9]+/\\116/' /etc/php/8.2/fpm/pool.d/www.conf"
        );
        assert_eq!(Setting::default("x", 1).edit(2), None);
        assert_eq!(Setting::at("x", 1, Path::new("/etc/$(x)"), 1).edit(2), None);
    }
}
