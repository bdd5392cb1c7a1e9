//! Words of Apache's configuration: what a section is about, where a virtual host listens, what a `.htaccess` may say.
//!
//! Belongs here: single heads and directives. Does not: which sections hold (`super`), rules (`rules`).

use std::{net::IpAddr, path::Path};

use super::super::access::is_about_all;
use crate::doctor::directives::{Directive, fits};

/// A directive, whose list of addresses may be long.
pub(super) fn shortened(words: &[String]) -> String {
    const MOST: usize = 8;
    let more = if words.len() > MOST { " …" } else { "" };
    words.iter().take(MOST).cloned().collect::<Vec<_>>().join(" ") + more
}

/// Whether a condition such as `>= 2.4>` holds for Apache 2.4, whichever of its releases it is.
pub(super) fn is_version(condition: &str) -> Option<bool> {
    let condition = condition.trim_end_matches('>').trim();
    let at = condition.find(|c: char| c.is_ascii_digit())?;
    let (operator, version) = condition.split_at(at);
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let wanted = (parts.next()??, parts.next().unwrap_or(Some(0))?);
    if wanted == (2, 4) && parts.next().is_some() {
        return None;
    }
    let has = (2, 4).cmp(&wanted);
    let (not, operator) = operator.trim().strip_prefix('!').map_or((false, operator.trim()), |rest| (true, rest));
    let holds = match operator {
        "" | "=" | "==" => has.is_eq(),
        ">" => has.is_gt(),
        ">=" => has.is_ge(),
        "<" => has.is_lt(),
        "<=" => has.is_le(),
        _ => return None,
    };
    Some(holds != not)
}

/// `*:80`, `192.0.2.1`, `[2001:db8::1]:443`, `_default_:443`
pub(super) fn listen(word: &str) -> (Option<IpAddr>, Option<u16>) {
    let (address, port) = match word.rsplit_once(':') {
        Some((address, port)) if !port.ends_with(']') => (address, port.parse().ok()),
        _ => (word, None),
    };
    (address.trim_matches(['[', ']']).parse().ok(), port)
}

/// `<Directory /srv/*/web>`, `<Location ~ "^/shop">`, `<FilesMatch "\.php$">`
pub(super) struct Section<'s> {
    pub(super) head: &'s Directive,
    pub(super) path: String,
    pub(super) expression: bool,
    /// Whether it surely holds.
    pub(super) sure: bool,
}

impl Section<'_> {
    /// Whether it is a `<Location>` that `/` belongs to.
    pub(super) fn is_root(&self) -> bool {
        if self.expression { is_about_all(&self.path) } else { matches!(self.path.as_str(), "/" | "/*") }
    }

    /// Whether it is about this very folder, which may be one of many.
    pub(super) fn is_folder(&self, folder: &Path) -> bool {
        if self.expression {
            return false;
        }
        let path = Path::new(&self.path);
        let mut parts = path.components().map(|p| p.as_os_str().to_string_lossy().into_owned());
        let mut names = folder.components().map(|p| p.as_os_str().to_string_lossy().into_owned());
        loop {
            match (parts.next(), names.next()) {
                (None, None) => return true,
                (Some(part), Some(name)) if fits(part.as_bytes(), name.as_bytes()) => {}
                (Some(part), Some(_)) if part.contains("${") => {}
                _ => return false,
            }
        }
    }

    /// Whether an expression is plainly about a folder: about all, or about what begins with a path without any signs.
    pub(super) fn is_about(&self, folder: &Path) -> bool {
        let plain =
            self.path.trim_start_matches('^').trim_end_matches('$').trim_end_matches(".*").trim_end_matches('/');
        let is_path = plain.starts_with('/') && !plain.contains(['\\', '[', '(', '|', '*', '+', '?', '.', '{']);
        is_about_all(&self.path) || (is_path && self.path.starts_with('^') && folder.starts_with(plain))
    }
}

/// What a `.htaccess` may say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Overrides {
    pub(super) auth: bool,
    pub(super) limit: bool,
    /// mod_rewrite's, and what sets variables.
    pub(super) info: bool,
    other: bool,
}

impl Overrides {
    pub(super) fn set(&mut self, said: &Directive) {
        let has = |name: &str| said.words.iter().skip(1).any(|w| w.eq_ignore_ascii_case(name));
        if said.is("AllowOverrideList") {
            self.auth |= has("Require");
            self.limit |= has("Allow") && has("Deny");
            self.info |= has("RewriteEngine") && has("RewriteCond") && has("RewriteRule") && has("SetEnvIf");
            self.other |= !has("None");
            return;
        }
        let all = has("All");
        *self = Self {
            auth: all || has("AuthConfig"),
            limit: all || has("Limit"),
            info: all || has("FileInfo"),
            other: !has("None"),
        };
    }

    pub(super) const fn any(self) -> bool {
        self.auth || self.limit || self.info || self.other
    }
}
