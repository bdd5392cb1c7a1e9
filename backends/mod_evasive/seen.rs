//! A look at Apache: its module, the files it reads, whether it runs.
//!
//! Belongs here: asking and reading. Does not: what should be there ([`super::steps`]).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{OurFile, Variant, file};
use crate::{
    backends::Warning,
    error::{ErrorKind, Result},
    host::{FileSeen, Look, Output},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// How a distribution lays out Apache's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `/etc/apache2` with `…-available` and `…-enabled`.
    Debian,
    /// `/etc/httpd/conf.d`, read in the order of names.
    RedHat,
}

/// Where our file can lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Among the snippets: Debian `conf-available`, Red Hat `conf.d`.
    Snippet,
    /// Debian: last among the sites, after the virtual hosts.
    LastSite,
}

impl Place {
    /// The file.
    #[must_use]
    pub fn path(self, layout: Layout) -> &'static Path {
        Path::new(match (layout, self) {
            (Layout::Debian, Self::Snippet) => "/etc/apache2/conf-available/edgeallow-evasive.conf",
            (Layout::Debian, Self::LastSite) => "/etc/apache2/sites-available/zzz-edgeallow-evasive.conf",
            (Layout::RedHat, _) => "/etc/httpd/conf.d/zzz-edgeallow-evasive.conf",
        })
    }
}

/// The module that Apache loads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// As `LoadModule` and `IfModule` call it.
    pub name: &'static str,
    /// What it understands.
    pub variant: Variant,
    /// For people.
    pub version: &'static str,
}

/// Our file in one place, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct There {
    /// The file; nothing where only the link is left.
    pub file: Option<FileSeen>,
    /// Whether Apache is told to read it.
    pub enabled: bool,
}

impl There {
    /// The part that is ours.
    #[must_use]
    pub fn ours(&self) -> OurFile {
        OurFile { content: self.file.as_ref().map(|f| f.content.clone()), enabled: self.enabled }
    }
}

/// What a look returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// How the configuration is laid out.
    pub layout: Layout,
    /// The program that answers: `apachectl`, or `httpd` where that can't.
    pub control: &'static str,
    /// The module; nothing if it isn't loaded, or Apache's configuration is broken.
    pub module: Option<Module>,
    /// Why Apache's configuration test fails, if it does.
    pub broken: Option<String>,
    /// Whether files suggest that the module is in use, for when Apache can't say.
    pub likely: bool,
    /// Files that Apache reads, in order.
    pub includes: Vec<PathBuf>,
    /// Those of them in which a virtual host has a `DOS…` directive.
    pub wiping: Vec<PathBuf>,
    /// Our file.
    pub files: BTreeMap<Place, There>,
    /// Whether Apache runs.
    pub running: bool,
}

impl Seen {
    /// Looks; nothing where there is no Apache.
    ///
    /// # Errors
    /// `io` for a file that can't be read, `program` if Apache can't be asked.
    pub fn look(host: &dyn Look) -> Result<Option<Self>> {
        let layout = match (host.exists(Path::new("/etc/apache2/conf-available")), Path::new("/etc/httpd/conf.d")) {
            (true, _) => Layout::Debian,
            (false, conf_d) if host.exists(conf_d) => Layout::RedHat,
            _ => return Ok(None),
        };
        let Some(control) = ["apachectl", "apache2ctl", "httpd"].into_iter().find(|p| host.program(p).is_some()) else {
            return Ok(None);
        };
        let likely = likely(host, layout)?;
        let mut files = BTreeMap::new();
        for place in [Place::Snippet, Place::LastSite].into_iter().take(if layout == Layout::Debian { 2 } else { 1 }) {
            files.extend(there(host, layout, place)?.map(|there| (place, there)));
        }
        let mut seen = Self {
            layout,
            control,
            module: None,
            broken: None,
            likely,
            includes: vec![],
            wiping: vec![],
            files,
            running: running(host, layout)?,
        };
        let asked = [vec![control, "-t", "-D", "DUMP_MODULES", "-D", "DUMP_INCLUDES"], vec![control, "-L"]];
        let mut answers = host.run_all(&asked, PATIENCE).into_iter();
        let (Some(dump), Some(words)) = (answers.next(), answers.next()) else { return Ok(Some(seen)) };
        let (dump, words) = (dump?, words?);
        if !dump.ok() {
            seen.broken = Some(reason(&dump));
            return Ok(Some(seen));
        }
        seen.module = module(&dump, &words);
        seen.includes = includes(&dump);
        for path in &seen.includes {
            if let Some(seen_file) = host.file(path)?
                && file::wipes(&seen_file.content)
            {
                seen.wiping.push(path.clone());
            }
        }
        Ok(Some(seen))
    }

    /// The path by which Apache reads our file.
    #[must_use]
    pub fn read_at(&self, place: Place) -> PathBuf {
        enabled_path(self.layout, place)
    }

    /// What the operator should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let mut out = Vec::new();
        if self.module.as_ref().is_some_and(|m| m.variant == Variant::Octets) {
            out.push(Warning::new(
                "mod-evasive-ipv6",
                "this version of mod_evasive can't have IPv6 ranges on its white list: Cloudflare may still be answered \
                 403 over IPv6. Version 2.4.0 or later can, or raise its limits",
            ));
        }
        let last = self.includes.iter().rposition(|p| self.files.keys().any(|place| *p == self.read_at(*place)));
        for path in &self.wiping {
            let at = self.includes.iter().rposition(|p| p == path);
            let cidr = self.module.as_ref().is_some_and(|m| m.variant == Variant::Cidr);
            let what = if cidr {
                format!(
                    "has a white list of its own; write `Include {}` after its DOS directives",
                    Place::Snippet.path(self.layout).display()
                )
            } else if at > last {
                "empties the white list, and is read after ours: move those directives out of it".to_owned()
            } else {
                "empties the white list for all that is read before it, so ours is read last; your own DOSWhitelist lines \
                 before it have no effect"
                    .to_owned()
            };
            out.push(Warning::new(
                "mod-evasive-vhost",
                format!("a <VirtualHost> in {} with DOS directives {what}", path.display()),
            ));
        }
        out
    }
}

fn enabled_path(layout: Layout, place: Place) -> PathBuf {
    let path = place.path(layout).to_string_lossy();
    PathBuf::from(if layout == Layout::Debian { path.replace("-available/", "-enabled/") } else { path.into_owned() })
}

fn there(host: &dyn Look, layout: Layout, place: Place) -> Result<Option<There>> {
    let file = host.file(place.path(layout))?;
    if layout == Layout::RedHat {
        return Ok(file.map(|f| There { file: Some(f), enabled: true }));
    }
    let enabled = match host.file(&enabled_path(layout, place)) {
        Ok(link) => link.is_some(),
        // A link that leads nowhere: our file was deleted.
        Err(e) if e.kind == ErrorKind::FileRefused => true,
        Err(e) => return Err(e),
    };
    Ok((file.is_some() || enabled).then_some(There { file, enabled }))
}

fn likely(host: &dyn Look, layout: Layout) -> Result<bool> {
    let folders: &[&str] = match layout {
        Layout::Debian => &["/etc/apache2/mods-enabled"],
        Layout::RedHat => &["/etc/httpd/conf.d", "/etc/httpd/conf.modules.d"],
    };
    for folder in folders {
        if host.folder(Path::new(folder))?.iter().any(|n| n.contains("evasive") && !n.contains("edgeallow")) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the process that wrote the pid file is there.
fn running(host: &dyn Look, layout: Layout) -> Result<bool> {
    let (pid_file, name) = match layout {
        Layout::Debian => ("/run/apache2/apache2.pid", "apache2"),
        Layout::RedHat => ("/run/httpd/httpd.pid", "httpd"),
    };
    let Some(pid) = host.file(Path::new(pid_file))? else { return Ok(false) };
    let pid = String::from_utf8_lossy(&pid.content).trim().to_owned();
    if pid.is_empty() || !pid.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(false);
    }
    let comm = host.file(Path::new(&format!("/proc/{pid}/comm")))?;
    Ok(comm.is_some_and(|c| String::from_utf8_lossy(&c.content).trim() == name))
}

fn reason(dump: &Output) -> String {
    let text = String::from_utf8_lossy(&dump.stderr);
    let said = |l: &&str| !l.is_empty() && !l.starts_with("AH00558") && !l.starts_with("AH00557");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(said).take(2).collect();
    if lines.is_empty() { "it gave no reason".to_owned() } else { lines.join(" ") }
}

fn module(dump: &Output, words: &Output) -> Option<Module> {
    let (dump, words) = (String::from_utf8_lossy(&dump.stdout), String::from_utf8_lossy(&words.stdout));
    let loaded = |name: &&str| dump.lines().any(|l| l.trim().split(' ').next() == Some(name));
    let name = ["evasive20_module", "evasive_module", "evasive24_module"].into_iter().find(loaded)?;
    let knows = |word: &str| words.lines().any(|l| l.split(' ').next() == Some(word));
    let (variant, version) = match (knows("DOSBlocklistUri"), knows("DOSEnabled")) {
        (true, _) => (Variant::Cidr, "2.4.0 or later"),
        (false, true) => (Variant::Octets, "2.x before 2.4.0"),
        (false, false) => (Variant::Octets, "1.10.1"),
    };
    Some(Module { name, variant, version })
}

/// The lines `(222) /etc/apache2/conf-enabled/x.conf`.
fn includes(dump: &Output) -> Vec<PathBuf> {
    let text = String::from_utf8_lossy(&dump.stdout);
    let path =
        |l: &str| Some(PathBuf::from(l.trim().strip_prefix('(')?.split_once(") ")?.1)).filter(|p| p.is_absolute());
    text.lines().filter_map(path).collect()
}
