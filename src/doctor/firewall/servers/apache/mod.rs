//! Whom Apache lets in: the sections that hold for `/` of a virtual host, merged as Apache merges them.
//!
//! `<Directory>` from the root of the file system down to the DocumentRoot, each with its `.htaccess` where
//! `AllowOverride` lets it speak, then `<Files>`, then `<Location>`; those of the whole server before those of the virtual
//! host. Of mod_authz_core's rules the last section that has any holds, or is joined to those before it (`AuthMerging`);
//! of mod_access_compat's the last one. Source: the manual's "Configuration Sections", "Access Control".
//!
//! mod_rewrite's rules of the virtual host come before all of these, and a folder's after them.
//!
//! Belongs here: sections and virtual hosts. Does not: what a rule says (`rules`, `rewrite`), what it comes to (`access`).

mod environment;
mod expression;
mod rewrite;
mod rules;
mod words;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
};

use ipnet::IpNet;

use self::{
    rewrite::Rewrites,
    rules::{Compat, Merging, Rules, Tree, fate},
    words::{Overrides, Section, is_version, listen, shortened},
};
use super::{
    access::{Client, Mend, Shown, Site, is_about_all, net},
    conditions::Verdict,
    nginx::TELLING,
};
use crate::doctor::directives::{Directive, Said, apache_lines, is_loaded};

/// Reads a file: `None` where there is none, an error where it may not be read.
pub(super) type Read<'s> = dyn Fn(&Path) -> Result<Option<String>, ()> + 's;

/// What a path is looked up as.
enum Place {
    /// A folder, through the sections that are about it.
    Folder(PathBuf),
    /// Another server, which no section about folders is for.
    Elsewhere,
    Unknown,
}

pub(super) struct Apache<'s> {
    said: &'s Said,
    read: &'s Read<'s>,
    /// `Define NAME VALUE`.
    defines: BTreeMap<&'s str, &'s str>,
}

impl<'s> Apache<'s> {
    pub(super) fn new(said: &'s Said, read: &'s Read<'s>) -> Self {
        let defines = said.directives.iter().filter(|d| d.is("Define"));
        let defines =
            defines.filter_map(|d| Some((d.words.get(1)?.as_str(), d.words.get(2).map_or("", String::as_str))));
        Self { said, read, defines: defines.collect() }
    }

    /// Every virtual host; the server itself where there is none.
    pub(super) fn sites(&self) -> Vec<Site<'s>> {
        let is_host = |d: &&Directive| d.is("<VirtualHost") && self.is_active(d);
        let mut sites: Vec<Site<'s>> =
            self.said.directives.iter().filter(is_host).map(|head| self.site(Some(head))).collect();
        if sites.is_empty() {
            sites.push(self.site(None));
        }
        sites
    }

    /// What stands there, and whether it surely holds: conditions that can't be told leave that open.
    fn there<'t>(&self, said: &'t Said, head: Option<&Directive>) -> Vec<(&'t Directive, bool)> {
        let mut found = Vec::new();
        for one in said.inside(head) {
            match self.condition(one) {
                None => found.push((one, true)),
                Some(holds) if holds != Some(false) => {
                    let inner = self.there(said, Some(one)).into_iter();
                    found.extend(inner.map(|(d, sure)| (d, sure && holds.is_some())));
                }
                Some(_) => {}
            }
        }
        found
    }

    /// Whether it is a condition, and whether that holds.
    fn condition(&self, head: &Directive) -> Option<Option<bool>> {
        let name = head.words.first()?.to_ascii_lowercase();
        let value = head.value().trim_end_matches('>');
        match name.as_str() {
            "<ifmodule" => Some(Some(is_loaded(value, &self.said.modules))),
            "<ifversion" => Some(is_version(&head.words.get(1..).unwrap_or_default().join(" "))),
            "<ifdefine" | "<iffile" | "<ifdirective" | "<ifsection" | "<macro" => Some(None),
            _ => None,
        }
    }

    fn is_active(&self, directive: &Directive) -> bool {
        self.said.around_of(directive).all(|head| self.condition(head) != Some(Some(false)))
    }

    /// What stands directly in the virtual host, then what stands in the whole server.
    fn says(&self, host: Option<&Directive>, name: &str) -> Vec<&'s Directive> {
        let of = |head: Option<&Directive>| self.there(self.said, head).into_iter().map(|(d, _)| d);
        let all: Vec<&Directive> = match host {
            Some(host) => of(Some(host)).chain(of(None)).collect(),
            None => of(None).collect(),
        };
        all.into_iter().filter(|d| d.is(name)).collect()
    }

    fn site(&self, host: Option<&'s Directive>) -> Site<'s> {
        let mut rules = Rules::default();
        self.walk(host, &mut rules);
        rules.learn(self.sets(host));
        let (front, back) = self.rewriting(host, &rules);
        let own = |name: &str| match host {
            Some(host) => self.said.inside(Some(host)).filter(|d| d.is(name)).collect::<Vec<_>>(),
            None => self.says(None, name),
        };
        // `https://shop.example:443`
        let bare = |name: &String| {
            let name = name.rsplit("//").next().unwrap_or(name);
            name.split(':').next().unwrap_or(name).to_owned()
        };
        let names = ["ServerName", "ServerAlias"].map(own).concat();
        let names = names.iter().flat_map(|d| d.words.iter().skip(1)).map(bare).collect();
        let at = match host {
            Some(host) => host.words.iter().skip(1).map(|w| listen(w.trim_end_matches('>'))).collect(),
            None => vec![(None, None)],
        };
        let rules = Rc::new(rules);
        let mut seen = rules.seen();
        // The package's own `<Directory />` has to stay.
        let by_default = seen.first().is_some_and(|d| self.is_about_root(d));
        let folder = if by_default { self.says(host, "DocumentRoot") } else { Vec::new() };
        let file = folder.first().or(seen.first()).copied().or(host).map_or_else(PathBuf::new, |d| d.file.clone());
        let folders = folder.first().map(|d| {
            let file = d.file.display();
            format!(
                "let visitors into the site's folder: `<Directory {}>` with `Require all granted` in {file}",
                d.value()
            )
        });
        seen.truncate(3);
        seen.extend(folder.first());
        let seen = seen.iter().map(|d| (d.place(), shortened(&d.words)));
        let seen = seen.chain(rules.variables.iter().flat_map(environment::Variable::seen)).collect();
        let sends_away = self.sends_away(host);
        let conditional = front.refuses() || (!sends_away && back.refuses());
        Site {
            names,
            at,
            default: false,
            sends_away,
            shown: self.shown(host),
            nets: rules.nets().into_iter().chain(front.nets()).chain(back.nets()).collect(),
            conditional,
            tried: rules.tries() || (conditional && (front.tries() || back.tries())),
            seen,
            mend: {
                let rules = Rc::clone(&rules);
                Box::new(move |ip| match &folders {
                    Some(what) => Mend { what: what.clone(), file: file.clone() },
                    None => rules.mend(Client::other(ip), &file),
                })
            },
            conditions: Box::new(move |visit| match front.in_host(visit) {
                Verdict::Passed if !sends_away => back.in_folder(visit),
                told => told,
            }),
            rules: Box::new(move |client: Client| fate(&rules, client)),
        }
    }

    /// What sets variables before any folder is known.
    fn sets(&self, host: Option<&Directive>) -> Vec<(Directive, bool)> {
        let hosts = host.into_iter().flat_map(|host| self.there(self.said, Some(host)));
        let all = self.there(self.said, None).into_iter().chain(hosts);
        all.filter(|(d, _)| sets_a_variable(d)).map(|(d, sure)| (d.clone(), sure)).collect()
    }

    /// mod_rewrite's rules of the virtual host, and of the folder.
    fn rewriting(&self, host: Option<&Directive>, rules: &Rules) -> (Rewrites, Rewrites) {
        let tls = self.says(host, "SSLEngine").first().is_some_and(|d| d.value().eq_ignore_ascii_case("on"));
        let inherits = |d: &Directive| {
            d.is("RewriteOptions") && d.words.iter().any(|w| w.to_ascii_lowercase().contains("inherit"))
        };
        let missing = !self.said.modules.is_empty() && !is_loaded("rewrite_module", &self.said.modules);
        if missing || self.said.directives.iter().any(inherits) {
            return (Rewrites::default(), Rewrites::default());
        }
        let front = self.there(self.said, host).into_iter().filter(|(d, _)| is_rewriting(d));
        let back = rules.rewrites.iter().map(|(d, sure)| (d, *sure));
        (Rewrites::of(front, tls), Rewrites::of(back, tls))
    }

    /// Whether a rule stands in `<Directory />`, which is there to deny what nothing else grants.
    fn is_about_root(&self, rule: &Directive) -> bool {
        let around: Vec<&Directive> = self.said.around_of(rule).collect();
        let is = |head: &&&Directive| head.is("<Directory") && head.value().trim_end_matches('>') == "/";
        around.iter().find(is).is_some_and(|head| head.file == rule.file)
    }

    /// Whether each request is redirected, which comes before asking who it is.
    fn sends_away(&self, host: Option<&Directive>) -> bool {
        let redirects = ["Redirect", "RedirectPermanent", "RedirectTemp"].map(|name| self.says(host, name)).concat();
        let by_expression = self.says(host, "RedirectMatch");
        // `Redirect 301 / https://www.shop.example/`: the status may be missing.
        let path = |d: &Directive| d.words.iter().skip(1).take(2).any(|w| w == "/");
        let expression = |d: &Directive| d.words.iter().skip(1).take(2).any(|w| is_about_all(w));
        redirects.iter().any(|d| path(d))
            || by_expression.iter().any(|d| expression(d))
            || self.rewrites(host, |flags, to| {
                to.starts_with("http://")
                    || to.starts_with("https://")
                    || flags.iter().any(|f| *f == "r" || f.starts_with("r=") || f.starts_with("redirect"))
            })
    }

    /// Whether mod_rewrite does such a thing, told by flags and substitution, with every request.
    fn rewrites(&self, host: Option<&Directive>, does: impl Fn(&[String], &str) -> bool) -> bool {
        let there = self.there(self.said, host);
        if !there.iter().any(|(d, _)| d.is("RewriteEngine") && d.value().eq_ignore_ascii_case("on")) {
            return false;
        }
        let mut picks = false;
        for (d, _) in there {
            if d.is("RewriteCond") {
                picks |= ["HTTP_HOST", "REQUEST_URI", "REQUEST_FILENAME", "QUERY_STRING"]
                    .iter()
                    .any(|v| d.value().contains(v));
            }
            if !d.is("RewriteRule") {
                continue;
            }
            let flags = d.words.get(3).map_or("", String::as_str).trim_matches(['[', ']']).to_ascii_lowercase();
            let flags: Vec<String> = flags.split(',').map(|f| f.trim().to_owned()).collect();
            if !picks && is_about_all(d.value()) && does(&flags, d.words.get(2).map_or("", String::as_str)) {
                return true;
            }
            picks = false;
        }
        false
    }

    /// What `/` is.
    fn place(&self, host: Option<&Directive>) -> Place {
        let root = |name: &str| self.says(host, name).into_iter().find(|d| d.value() == "/");
        let locations = self.sections(host, "<Location").into_iter().filter(|s| s.is_root());
        let passed = |d: &Directive| d.is("ProxyPass") || d.is("ProxyPassMatch");
        let mut inside = locations.flat_map(|s| self.there(self.said, Some(s.head)));
        let proxied = root("ProxyPass").is_some_and(|d| d.words.get(2).is_some_and(|to| to != "!"))
            || self.says(host, "ProxyPassMatch").iter().any(|d| is_about_all(d.value()))
            || inside.any(|(d, _)| passed(d))
            || self.rewrites(host, |flags, _| flags.iter().any(|f| f == "p" || f == "proxy"));
        if proxied {
            return Place::Elsewhere;
        }
        let aliased =
            ["AliasMatch", "ScriptAliasMatch", "WSGIScriptAliasMatch"].map(|name| self.says(host, name)).concat();
        let mounted =
            ["VirtualDocumentRoot", "VirtualScriptAlias", "JkMount"].map(|name| self.says(host, name)).concat();
        if aliased.iter().any(|d| is_about_all(d.value())) || !mounted.is_empty() {
            return Place::Unknown;
        }
        let path =
            |d: &Directive, n: usize| d.words.get(n).map(|w| PathBuf::from(self.expand(w))).filter(|p| p.is_absolute());
        let folder = if let Some(alias) = root("Alias").or_else(|| root("ScriptAlias")) {
            path(alias, 2)
        } else if let Some(script) = root("WSGIScriptAlias") {
            path(script, 2).and_then(|file| Some(file.parent()?.to_owned()))
        } else {
            self.says(host, "DocumentRoot").first().and_then(|d| path(d, 1))
        };
        folder.map_or(Place::Unknown, Place::Folder)
    }

    /// `${NAME}`, as far as it was defined.
    fn expand(&self, word: &str) -> String {
        self.defines.iter().fold(word.to_owned(), |word, (name, value)| word.replace(&format!("${{{name}}}"), value))
    }

    /// Sections of a kind: the server's, then the virtual host's.
    fn sections(&self, host: Option<&Directive>, name: &str) -> Vec<Section<'s>> {
        let here = host.into_iter().flat_map(|host| self.there(self.said, Some(host)));
        let all = self.there(self.said, None).into_iter().chain(here);
        all.filter_map(|(d, sure)| self.section(d, name, sure)).collect()
    }

    fn section<'t>(&self, head: &'t Directive, name: &str, sure: bool) -> Option<Section<'t>> {
        let matching = head.is(&format!("{name}Match"));
        if !head.is(name) && !matching {
            return None;
        }
        let tilde = head.value() == "~";
        let words = head.words.get(1 + usize::from(tilde)..).unwrap_or_default().join(" ");
        let path = self.expand(words.trim_end_matches('>').trim().trim_matches('"'));
        Some(Section { head, path, expression: tilde || matching, sure })
    }

    fn walk(&self, host: Option<&Directive>, rules: &mut Rules) {
        let mut files = self.sections(host, "<Files");
        match self.place(host) {
            Place::Folder(root) => self.folders(host, &root, rules, &mut files),
            Place::Elsewhere => {}
            Place::Unknown => {
                rules.tree = Some(Tree::Unknown);
                let old = ["Order", "Allow", "Deny", "Satisfy"];
                let any = self.said.directives.iter().any(|d| old.iter().any(|name| d.is(name)));
                rules.compat = any.then_some(Compat::unknown());
            }
        }
        let all = |s: &&Section<'s>| if s.expression { is_about_all(&s.path) } else { s.path == "*" };
        for section in files.iter().filter(all) {
            self.take(self.said, Some(section.head), section.sure, rules);
        }
        for section in self.sections(host, "<Location").iter().filter(|s| s.is_root()) {
            self.take(self.said, Some(section.head), section.sure, rules);
        }
    }

    fn folders(&self, host: Option<&Directive>, root: &Path, rules: &mut Rules, files: &mut Vec<Section<'s>>) {
        let sections = self.sections(host, "<Directory");
        let names = self.says(host, "AccessFileName");
        let named: Vec<&str> =
            names.first().map_or_else(|| vec![".htaccess"], |d| d.words.iter().skip(1).map(String::as_str).collect());
        let mut overrides = Overrides::default();
        let mut upwards: Vec<&Path> = root.ancestors().collect();
        upwards.reverse();
        for folder in upwards {
            for section in sections.iter().filter(|s| s.is_folder(folder)) {
                self.take_folder(section, rules, files);
                for (d, _) in self
                    .there(self.said, Some(section.head))
                    .iter()
                    .filter(|(d, _)| d.is("AllowOverride") || d.is("AllowOverrideList"))
                {
                    overrides.set(d);
                }
            }
            if overrides.any() {
                self.htaccess(&named, folder, overrides, rules);
            }
        }
        for section in sections.iter().filter(|s| s.expression && s.is_about(root)) {
            self.take_folder(section, rules, files);
        }
    }

    fn take_folder(&self, section: &Section<'s>, rules: &mut Rules, files: &mut Vec<Section<'s>>) {
        // A path with a variable that isn't known may be any.
        let sure = section.sure && !section.path.contains("${");
        self.take(self.said, Some(section.head), sure, rules);
        let inside = self.there(self.said, Some(section.head));
        files.extend(inside.into_iter().filter_map(|(d, sure)| self.section(d, "<Files", sure)));
    }

    fn htaccess(&self, names: &[&str], folder: &Path, overrides: Overrides, rules: &mut Rules) {
        for name in names {
            let file = folder.join(name);
            match (self.read)(&file) {
                Ok(None) => continue,
                Ok(Some(text)) => {
                    let said = apache_lines(&text, &file);
                    let mut level = Rules::default();
                    self.take(&said, None, true, &mut level);
                    // What isn't allowed there makes Apache answer 500.
                    let is_info = !level.rewrites.is_empty() || !level.sets.is_empty();
                    if (level.tree.is_some() && !overrides.auth)
                        || (level.compat.is_some() && !overrides.limit)
                        || (is_info && !overrides.info)
                    {
                        rules.rewrites.clear();
                        rules.tree = Some(Tree::Unknown);
                        return;
                    }
                    rules.merge(level);
                }
                Err(()) => {
                    rules.rewrites.clear();
                    rules.tree = Some(Tree::Unknown);
                }
            }
            return;
        }
    }

    /// Takes in what a section says.
    fn take(&self, said: &Said, head: Option<&Directive>, sure: bool, rules: &mut Rules) {
        let mut level = Rules::default();
        let mut compat = Compat::default();
        let mut unsure = false;
        level.tree = self.container(said, head, true, &mut |d, holds, get| {
            let old = compat.take(d, get);
            if d.is("AuthMerging") {
                level.merging = Merging::of(d.value());
            }
            let holds_here = holds && sure;
            if sets_a_variable(d) {
                level.sets.push((d.clone(), holds_here));
            }
            if is_rewriting(d) {
                // There mod_rewrite's are run in ways of their own.
                let is_folder = head.is_none_or(|head| head.is("<Directory") || head.is("<DirectoryMatch"));
                level.rewrites.push((d.clone(), holds_here && is_folder));
            }
            let rule = old || d.is("Require");
            unsure |= rule && !holds_here;
            if rule {
                level.at.push(d.clone());
            }
        });
        level.compat = compat.said.then_some(compat);
        if unsure {
            level.tree = Some(Tree::Unknown);
            level.compat = level.compat.map(|_| Compat::unknown());
        }
        rules.merge(level);
    }

    /// The rules of a section or container, of which any one lets in; `get` tells whether they are about GET.
    fn container(
        &self,
        said: &Said,
        head: Option<&Directive>,
        get: bool,
        see: &mut dyn FnMut(&Directive, bool, bool),
    ) -> Option<Tree> {
        let mut rules = Vec::new();
        for (d, sure) in self.there(said, head) {
            see(d, sure, get);
            let name = d.words.first().map(|w| w.trim_end_matches('>').to_ascii_lowercase()).unwrap_or_default();
            let methods = || d.words.iter().skip(1).any(|w| w.trim_end_matches('>').eq_ignore_ascii_case("GET"));
            match name.as_str() {
                "require" if get => rules.push(Tree::of(d)),
                // It asks nothing of other methods.
                "require" => rules.push(Tree::Everybody(true)),
                "<requireall" => rules.extend(self.container(said, Some(d), get, see).map(Tree::into_all)),
                "<requireany" => rules.extend(self.container(said, Some(d), get, see)),
                "<requirenone" => rules.extend(self.container(said, Some(d), get, see).map(|t| Tree::Not(t.into()))),
                "<limit" => rules.extend(
                    self.container(said, Some(d), get && methods(), see).map(Tree::into_rules).unwrap_or_default(),
                ),
                "<limitexcept" => rules.extend(
                    self.container(said, Some(d), get && !methods(), see).map(Tree::into_rules).unwrap_or_default(),
                ),
                // It is told with the request.
                "<if" | "<elseif" | "<else" => {
                    let mut any = false;
                    self.container(said, Some(d), get, &mut |d, _, get| {
                        any |= Compat::default().take(d, true) || d.is("Require");
                        if is_rewriting(d) || sets_a_variable(d) {
                            see(d, false, get);
                        }
                    });
                    rules.extend(any.then_some(Tree::Unknown));
                }
                _ => {}
            }
        }
        (!rules.is_empty()).then_some(Tree::Any(rules))
    }

    /// Whose address mod_remoteip shows there. Where no proxy is named, every client is one.
    pub(super) fn shown(&self, host: Option<&Directive>) -> Shown {
        let Some(header) = self.says(host, "RemoteIPHeader").first().map(|d| d.value().to_owned()) else {
            // By the PROXY protocol the address is somebody's all the same.
            let proxied =
                self.says(host, "RemoteIPProxyProtocol").first().is_some_and(|d| d.value().eq_ignore_ascii_case("on"));
            return if proxied { Shown::Unknown } else { Shown::connections() };
        };
        if !TELLING.iter().any(|t| t.eq_ignore_ascii_case(&header)) {
            return Shown::Unknown;
        }
        let named = ["RemoteIPTrustedProxy", "RemoteIPInternalProxy"].map(|name| self.says(host, name)).concat();
        let lists =
            ["RemoteIPTrustedProxyList", "RemoteIPInternalProxyList"].map(|name| self.says(host, name)).concat();
        if named.is_empty() && lists.is_empty() {
            return ["0.0.0.0/0", "::/0"]
                .into_iter()
                .map(net)
                .collect::<Option<_>>()
                .map_or(Shown::Unknown, Shown::Visitors);
        }
        let mut words: Vec<String> = named.iter().flat_map(|d| d.words.iter().skip(1).cloned()).collect();
        for list in lists {
            // A path without a slash before it lies beside the main file, where this one most often is too.
            let path = list.file.parent().unwrap_or(Path::new("/")).join(self.expand(list.value()));
            let Ok(Some(text)) = (self.read)(&path) else { return Shown::Unknown };
            let lines = text.lines().map(|l| l.split('#').next().unwrap_or_default());
            words.extend(lines.flat_map(str::split_whitespace).map(str::to_owned));
        }
        words.iter().map(|word| net(word)).collect::<Option<Vec<IpNet>>>().map_or(Shown::Unknown, Shown::Visitors)
    }
}

fn is_rewriting(d: &Directive) -> bool {
    ["RewriteEngine", "RewriteOptions", "RewriteCond", "RewriteRule"].iter().any(|name| d.is(name))
}

fn sets_a_variable(d: &Directive) -> bool {
    const NAMES: [&str; 5] = ["SetEnvIf", "SetEnvIfNoCase", "SetEnvIfExpr", "BrowserMatch", "BrowserMatchNoCase"];
    NAMES.iter().any(|name| d.is(name)) || d.is("RewriteRule")
}
