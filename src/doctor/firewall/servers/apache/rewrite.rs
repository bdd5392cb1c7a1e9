//! What mod_rewrite makes of a request for `/` by the client's address: `RewriteCond` and `RewriteRule … [F]`.
//!
//! A rule whose conditions ask for no address refuses for other reasons, which are none of Cloudflare's business. Where a
//! condition can't be told, whatever the rule may do is taken to be possible. Source: the manual of mod_rewrite, and what
//! a real Apache makes of it (tests/doctor/servers.rs).
//!
//! Belongs here: rules in their order. Does not: in which sections they stand (`super`), `Require` (`rules`).

use std::path::PathBuf;

use ipnet::IpNet;

use super::{
    super::{
        access::{FORBIDDEN, Mend, net},
        conditions::{Pattern, Refusal, Verdict, Visit, and, or},
    },
    expression::{Address, Expression},
    words::shortened,
};
use crate::doctor::directives::Directive;

/// `[G]`
const GONE: u16 = 410;
/// From here on a status is an error.
const ERRORS: u16 = 400;
/// What `/` of a folder leads to, most often.
const INDEXES: [&str; 2] = ["index.html", "index.php"];

/// A condition.
#[derive(Debug, Clone)]
struct Cond {
    asks: Asks,
    not: bool,
    /// Whether it is joined to the next one by `[OR]`.
    or: bool,
}

#[derive(Debug, Clone)]
enum Asks {
    Is(Address, String),
    Has(Address, Pattern),
    /// Of the path, as visitors ask for it.
    Path(Pattern),
    /// Of what is the same for all visitors of the site.
    Constant(bool),
    Expr(Expression),
    Unknown,
}

/// What comes of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Refuse(u16),
    Redirect,
    /// No rule comes after it.
    Stop,
    /// The path is another one.
    Change,
    Nothing,
    Skip(usize),
    Unknown,
}

#[derive(Debug, Clone)]
struct Rule {
    conds: Vec<Cond>,
    /// `None` for every path.
    pattern: Option<Pattern>,
    not: bool,
    then: Then,
    /// Whether the next one is run only where this one was.
    chained: bool,
    seen: Vec<(String, String)>,
    file: PathBuf,
}

/// The rules of a virtual host, or of a folder.
#[derive(Debug, Clone, Default)]
pub(super) struct Rewrites {
    on: bool,
    /// Whether it can't be told which rules there are.
    unclear: bool,
    rules: Vec<Rule>,
}

impl Rewrites {
    /// Of directives, each with whether it surely holds.
    pub(super) fn of<'d>(said: impl IntoIterator<Item = (&'d Directive, bool)>, tls: bool) -> Self {
        let mut all = Self::default();
        let (mut conds, mut seen) = (Vec::new(), Vec::new());
        for (d, sure) in said {
            let text = || d.words.iter().skip(1).any(|w| w.to_ascii_lowercase().contains("inherit"));
            all.unclear |= !sure || (d.is("RewriteOptions") && text());
            if d.is("RewriteEngine") {
                all.on = d.value().eq_ignore_ascii_case("on");
            } else if d.is("RewriteCond") {
                let cond = Cond::of(d, tls);
                if cond.is_about() {
                    seen.push((d.place(), shortened(&d.words)));
                }
                conds.push(cond);
            } else if d.is("RewriteRule") {
                all.rules.push(Rule::of(d, std::mem::take(&mut conds), std::mem::take(&mut seen)));
            }
        }
        all
    }

    /// Whether one of them refuses somebody by the address.
    pub(super) fn refuses(&self) -> bool {
        let refuses = |rule: &Rule| matches!(rule.then, Then::Refuse(_)) && rule.is_about();
        self.on && !self.unclear && self.rules.iter().any(refuses)
    }

    pub(super) fn nets(&self) -> Vec<IpNet> {
        let conds = self.rules.iter().flat_map(|rule| &rule.conds);
        let nets = conds.flat_map(|cond| match &cond.asks {
            Asks::Is(_, text) => net(text).into_iter().collect(),
            Asks::Has(_, pattern) => pattern.named(),
            Asks::Expr(expression) => expression.nets(),
            Asks::Path(_) | Asks::Constant(_) | Asks::Unknown => Vec::new(),
        });
        nets.collect()
    }

    /// Whether an expression is held against an address.
    pub(super) fn tries(&self) -> bool {
        let mut conds = self.rules.iter().flat_map(|rule| &rule.conds);
        conds.any(|cond| match &cond.asks {
            Asks::Has(..) => true,
            Asks::Expr(expression) => expression.tries(),
            _ => false,
        })
    }

    /// What becomes of `/` in a virtual host.
    pub(super) fn in_host(&self, visit: Visit) -> Verdict {
        self.run(visit, "/", "/")
    }

    /// What becomes of `/` in the folder that it is, by its path from there, and of the file that it leads to.
    pub(super) fn in_folder(&self, visit: Visit) -> Verdict {
        let own = self.run(visit, "", "/");
        if own != Verdict::Passed {
            return own;
        }
        let mut inner = INDEXES.map(|file| self.run(visit, file, &format!("/{file}"))).into_iter();
        let refused = |verdict: &Verdict| matches!(verdict, Verdict::Refused(_));
        inner.next().filter(refused).filter(|_| inner.all(|v| refused(&v))).unwrap_or(Verdict::Passed)
    }

    fn run(&self, visit: Visit, path: &str, asked: &str) -> Verdict {
        if !self.refuses() {
            return Verdict::Passed;
        }
        let (mut path, mut maybe, mut at) = (Some(path), false, 0);
        while let Some(rule) = self.rules.get(at) {
            at += 1;
            let found = and(rule.finds(path), rule.allows(visit, asked));
            match (found, rule.then) {
                (Some(false), _) => {
                    let mut chained = rule.chained;
                    while chained {
                        chained = self.rules.get(at).is_some_and(|rule| rule.chained);
                        at += 1;
                    }
                }
                (_, Then::Unknown) => return Verdict::Passed,
                (None, _) if rule.chained => return Verdict::Passed,
                (_, Then::Nothing) | (None, Then::Refuse(_)) => {}
                (_, Then::Change) => path = None,
                (None, _) => maybe = true,
                (Some(true), _) if maybe => return Verdict::Passed,
                (Some(true), Then::Refuse(status)) if rule.is_about() => return Verdict::Refused(rule.refusal(status)),
                (Some(true), Then::Refuse(_) | Then::Redirect) => return Verdict::Sent,
                (Some(true), Then::Stop) => return Verdict::Passed,
                (Some(true), Then::Skip(rules)) => at += rules,
            }
        }
        Verdict::Passed
    }
}

impl Rule {
    fn of(d: &Directive, conds: Vec<Cond>, mut seen: Vec<(String, String)>) -> Self {
        let flags = d.words.get(3).map_or("", String::as_str).trim_matches(['[', ']']);
        let flags: Vec<(String, &str)> = flags
            .split(',')
            .map(|flag| flag.split_once('=').unwrap_or((flag, "")))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()))
            .collect();
        let has =
            |names: &[&str]| flags.iter().find(|(name, _)| names.contains(&name.as_str())).map(|(_, value)| *value);
        let (not, expression) = match d.value().strip_prefix('!') {
            Some(expression) => (true, expression),
            None => (false, d.value()),
        };
        let to = d.words.get(2).map_or("", String::as_str);
        let last = has(&["l", "last", "end", "p", "proxy", "pt", "passthrough"]).is_some();
        let elsewhere = to.starts_with("http://") || to.starts_with("https://");
        let redirect = has(&["r", "redirect"]);
        let error = redirect.and_then(|code| code.parse().ok()).filter(|code: &u16| *code >= ERRORS);
        let skip = has(&["s", "skip"]).map(str::parse);
        let then = match (error, skip) {
            _ if has(&["f", "forbidden"]).is_some() => Then::Refuse(FORBIDDEN),
            _ if has(&["g", "gone"]).is_some() => Then::Refuse(GONE),
            (Some(code), _) => Then::Refuse(code),
            _ if has(&["n", "next"]).is_some() => Then::Unknown,
            (_, Some(skip)) => skip.map_or(Then::Unknown, Then::Skip),
            // Without `L` the rules that come next see the new address.
            _ if redirect.is_some() || elsewhere => {
                if last {
                    Then::Redirect
                } else {
                    Then::Unknown
                }
            }
            _ if last => Then::Stop,
            _ if to == "-" => Then::Nothing,
            _ => Then::Change,
        };
        let nocase = has(&["nc", "nocase"]).is_some();
        let chained = has(&["c", "chain"]).is_some();
        let every = matches!(expression, "" | "^" | ".*" | "^.*" | "^.*$" | "(.*)" | "^(.*)" | "^(.*)$");
        seen.push((d.place(), shortened(&d.words)));
        let pattern = (!every).then(|| Pattern::new(expression, nocase));
        Self { conds, pattern, not, then, chained, seen, file: d.file.clone() }
    }

    fn is_about(&self) -> bool {
        self.conds.iter().any(Cond::is_about)
    }

    /// Whether it is about this path; `None` is one that can't be told.
    fn finds(&self, path: Option<&str>) -> Option<bool> {
        let found = match (&self.pattern, path) {
            (None, _) => Some(true),
            (Some(pattern), Some(path)) => pattern.is_in(path),
            (Some(_), None) => None,
        };
        found.map(|found| found != self.not)
    }

    /// Whether its conditions hold.
    fn allows(&self, visit: Visit, asked: &str) -> Option<bool> {
        let mut all = Some(true);
        let mut joined = Some(false);
        for cond in &self.conds {
            joined = or(joined, cond.holds(visit, asked));
            if !cond.or {
                all = and(all, joined);
                joined = Some(false);
            }
        }
        // An `[OR]` before nothing is as good as no condition.
        all
    }

    fn refusal(&self, status: u16) -> Refusal {
        let name = self.file.display();
        let what = format!(
            "take Cloudflare's addresses out of the conditions (`RewriteCond`) in {name}, or put before the first of them, for \
             each range that `edgeallow fetch` prints, `RewriteCond expr \"! -R 'RANGE'\"`"
        );
        Refusal { status, seen: self.seen.clone(), mend: Mend { what, file: self.file.clone() } }
    }
}

impl Cond {
    fn of(d: &Directive, tls: bool) -> Self {
        let [_, subject, asked, flags @ ..] = d.words.as_slice() else {
            return Self { asks: Asks::Unknown, not: false, or: false };
        };
        let flags = flags.first().map_or("", String::as_str).trim_matches(['[', ']']).to_ascii_lowercase();
        let has = |names: [&str; 2]| flags.split(',').any(|flag| names.contains(&flag.trim()));
        let (nocase, or) = (has(["nc", "nocase"]), has(["or", "ornext"]));
        if subject.eq_ignore_ascii_case("expr") {
            return Self { asks: Expression::of(asked).map_or(Asks::Unknown, Asks::Expr), not: false, or };
        }
        let (not, asked) = asked.strip_prefix('!').map_or((false, asked.as_str()), |asked| (true, asked));
        // `-f`, `-gt 1`, `<text`.
        let is_other = asked.starts_with(['-', '<', '>']);
        let constant = match subject.as_str() {
            "%{HTTPS}" => Some(if tls { "on" } else { "off" }),
            "%{REQUEST_SCHEME}" => Some(if tls { "https" } else { "http" }),
            "%{REQUEST_METHOD}" => Some("GET"),
            _ => None,
        };
        let asks = match (Address::of(subject), asked.strip_prefix('=')) {
            _ if is_other => Asks::Unknown,
            (Some(of), Some(text)) => Asks::Is(of, text.trim_matches('"').to_owned()),
            (Some(of), None) => Asks::Has(of, Pattern::new(asked, nocase)),
            (None, None) if subject == "%{REQUEST_URI}" => Asks::Path(Pattern::new(asked, nocase)),
            (None, text) => {
                let is = |constant: &str| match text {
                    Some(text) => Some(constant == text),
                    None => Pattern::new(asked, nocase).is_in(constant),
                };
                constant.and_then(is).map_or(Asks::Unknown, Asks::Constant)
            }
        };
        Self { asks, not, or }
    }

    /// Whether it asks for an address.
    fn is_about(&self) -> bool {
        match &self.asks {
            Asks::Is(..) | Asks::Has(..) => true,
            Asks::Expr(expression) => *expression != Expression::Is(true) && *expression != Expression::Is(false),
            Asks::Path(_) | Asks::Constant(_) | Asks::Unknown => false,
        }
    }

    fn holds(&self, visit: Visit, asked: &str) -> Option<bool> {
        let holds = match &self.asks {
            Asks::Is(of, text) => Some(of.told(visit)?.to_string() == *text),
            Asks::Has(of, pattern) => of.has(pattern, visit),
            Asks::Path(pattern) => pattern.is_in(asked),
            Asks::Constant(is) => Some(*is),
            Asks::Expr(expression) => expression.holds(visit),
            Asks::Unknown => None,
        };
        holds.map(|holds| holds != self.not)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::directives::tests::said_by_apache;

    const EDGE: &str = r"RewriteCond %{REMOTE_ADDR} ^173\.245\.";

    fn rewrites(text: &str) -> Rewrites {
        let said = said_by_apache(&format!("RewriteEngine on\n{text}"));
        Rewrites::of(said.inside(None).map(|d| (d, true)), false)
    }

    /// The status with which Cloudflare is refused; 0 where everybody is answered, `None` where the lists decide.
    fn status(verdict: &Verdict) -> Option<u16> {
        match verdict {
            Verdict::Refused(refusal) => Some(refusal.status),
            Verdict::Sent => Some(0),
            Verdict::Passed => None,
        }
    }

    fn visit(shown: Option<&str>) -> Visit {
        Visit { shown: shown.and_then(|ip| ip.parse().ok()), peer: "173.245.48.29".parse().ok(), stretch: false }
    }

    #[test]
    fn conditions_on_the_address_refuse() {
        let f = "RewriteRule ^ - [F]";
        for (text, host, folder) in [
            (format!("{EDGE}\n{f}"), Some(403), Some(403)),
            (format!("{EDGE}\nRewriteRule .* - [F,L]"), Some(403), Some(403)),
            (format!("{EDGE}\nRewriteRule (.*) - [forbidden]"), Some(403), Some(403)),
            (format!("{EDGE}\nRewriteRule ^(.+)$ - [F]"), Some(403), Some(403)),
            (format!("{EDGE}\nRewriteRule ^/ - [F]"), Some(403), None),
            (format!("{EDGE}\nRewriteRule ^ - [G]"), Some(410), Some(410)),
            (format!("{EDGE}\nRewriteRule ^ - [R=404]"), Some(404), Some(404)),
            (format!("{EDGE}\nRewriteRule !^x - [F]"), Some(403), Some(403)),
            (format!("{EDGE}\nRewriteRule ^/?wp-login\\.php - [F]"), None, None),
            (format!("{EDGE} [NC]\n{f}"), Some(403), Some(403)),
            (format!("RewriteCond %{{REMOTE_ADDR}} !^203\\.0\\.113\\.\n{f}"), Some(403), Some(403)),
            (format!("RewriteCond %{{REMOTE_ADDR}} =173.245.48.29\n{f}"), Some(403), Some(403)),
            (format!("RewriteCond %{{REMOTE_ADDR}} !=203.0.113.9\n{f}"), Some(403), Some(403)),
            (format!("RewriteCond %{{REMOTE_ADDR}} ^203\\.\n{f}"), None, None),
            (format!("RewriteCond expr \"%{{REMOTE_ADDR}} -ipmatch '173.245.48.0/20'\"\n{f}"), Some(403), Some(403)),
            (format!("RewriteCond expr \"! -R '203.0.113.0/24'\"\n{f}"), Some(403), Some(403)),
            // Joined.
            (format!("RewriteCond %{{REMOTE_ADDR}} ^203\\. [OR]\n{EDGE}\n{f}"), Some(403), Some(403)),
            (format!("{EDGE} [NC,OR]\nRewriteCond %{{HTTP_USER_AGENT}} bot\n{f}"), Some(403), Some(403)),
            (format!("{EDGE}\nRewriteCond %{{HTTP_USER_AGENT}} bot\n{f}"), None, None),
            (format!("RewriteCond %{{REMOTE_ADDR}} !^203\\.\nRewriteCond %{{REMOTE_ADDR}} !^173\\.\n{f}"), None, None),
            (format!("RewriteCond %{{REMOTE_ADDR}} ^203\\. [OR]\n{f}"), Some(403), Some(403)),
            (format!("{EDGE}\nRewriteCond %{{REQUEST_URI}} !^/no\\.html$\n{f}"), Some(403), Some(403)),
            (format!("{EDGE}\nRewriteCond %{{REQUEST_URI}} ^/admin\n{f}"), None, None),
            (format!("{EDGE}\nRewriteCond %{{HTTPS}} off\n{f}"), Some(403), Some(403)),
            (format!("{EDGE}\nRewriteCond %{{HTTPS}} =on\n{f}"), None, None),
            // What comes first.
            (format!("RewriteRule ^ https://www.example/ [R,L]\n{EDGE}\n{f}"), Some(0), Some(0)),
            (format!("RewriteRule ^index\\.php$ - [L]\n{EDGE}\n{f}"), Some(403), Some(403)),
            (format!("RewriteRule ^ - [L]\n{EDGE}\n{f}"), None, None),
            (format!("RewriteRule ^ - [E=x:1]\n{EDGE}\n{f}"), Some(403), Some(403)),
            (format!("RewriteRule ^ /x\n{EDGE}\n{f}"), Some(403), Some(403)),
            (format!("RewriteRule ^ /x\n{EDGE}\nRewriteRule ^/?$ - [F]"), None, None),
            (format!("RewriteCond %{{HTTP_HOST}} x\nRewriteRule ^ /x [L]\n{EDGE}\n{f}"), None, None),
            (format!("RewriteCond %{{HTTP_HOST}} x\nRewriteRule ^ - [F]\n{EDGE}\n{f}"), Some(403), Some(403)),
            (format!("RewriteRule ^ - [S=1]\n{EDGE}\n{f}"), None, None),
            (format!("RewriteRule ^nothing - [C]\n{EDGE}\n{f}"), None, None),
            (format!("RewriteRule ^ /x [N]\n{EDGE}\n{f}"), None, None),
            // What nobody understands, and what is about something else.
            (format!("RewriteCond %{{REMOTE_ADDR}} ^(?!10\\.)\n{f}"), None, None),
            (format!("RewriteCond %{{REMOTE_HOST}} ^173\n{f}"), None, None),
            (format!("RewriteCond ${{deny:%{{REMOTE_ADDR}}|no}} =yes\n{f}"), None, None),
            (format!("RewriteCond %{{REMOTE_ADDR}} -f\n{f}"), None, None),
            (f.to_owned(), None, None),
            (format!("RewriteOptions InheritBefore\n{EDGE}\n{f}"), None, None),
            (format!("{EDGE}\n{f}\nRewriteEngine off"), None, None),
        ] {
            let all = rewrites(&text);
            let found = (
                status(&all.in_host(visit(Some("173.245.48.29")))),
                status(&all.in_folder(visit(Some("173.245.48.29")))),
            );
            assert_eq!(found, (host, folder), "{text}");
        }
    }

    #[test]
    fn what_a_condition_asks_for_is_the_visitor_where_his_address_is_shown() {
        let of = |variable: &str| {
            let all = rewrites(&format!("RewriteCond %{{{variable}}} ^173\\.\nRewriteRule ^ - [F]"));
            status(&all.in_host(visit(None)))
        };
        assert_eq!((of("REMOTE_ADDR"), of("CONN_REMOTE_ADDR")), (None, Some(403)));
    }

    #[test]
    fn a_refusal_is_shown_with_its_conditions() {
        let all = rewrites(&format!("RewriteCond %{{HTTPS}} off\n{EDGE}\nRewriteRule ^ - [F]"));
        let Verdict::Refused(refusal) = all.in_host(visit(Some("173.245.48.29"))) else { panic!("it is not refused") };
        let at = |line: u32| format!("/etc/apache2/apache2.conf line {line}");
        assert_eq!(refusal.seen, [(at(3), EDGE.to_owned()), (at(4), "RewriteRule ^ - [F]".to_owned())]);
        let unsure = said_by_apache(&format!("RewriteEngine on\n{EDGE}\nRewriteRule ^ - [F]"));
        let unsure = Rewrites::of(unsure.inside(None).map(|d| (d, !d.is("RewriteRule"))), false);
        assert!(!unsure.refuses() && all.refuses() && all.tries());
    }
}
