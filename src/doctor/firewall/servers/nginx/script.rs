//! What a server's `if`, `set`, `return` and `rewrite` make of a request for `/`, in the order in which nginx runs them:
//! those of the server, then those of the location.
//!
//! Only what hangs on a client's address refuses here: who is refused for anything else is none of Cloudflare's business.
//! Where an `if` can't be told, whatever it may do is taken to be possible.
//!
//! Belongs here: running it. Does not: what variables hold (`variables`), `allow` and `deny` (`super`).

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use ipnet::IpNet;

use super::{
    super::{
        access::{Mend, is_about_all, net},
        conditions::{Pattern, Refusal, Verdict, Visit},
    },
    variables::{Ask, Tables, Value, expand, named},
};
use crate::doctor::directives::{Directive, Said};

/// From here on a status is an error.
const ERRORS: u16 = 400;

/// An `if`.
struct Test<'s> {
    head: &'s Directive,
    /// Whether it asks for something that hangs on a client's address.
    about: bool,
    of: &'s str,
    how: How,
}

/// What it asks.
enum How {
    /// Neither empty nor `0`.
    Set,
    /// Equal, or not, to a text with variables.
    Is(bool, String),
    /// An expression is found, or not.
    Has(bool, Pattern),
    Unknown,
}

/// What stands in a block.
enum Step<'s> {
    If(Test<'s>, Vec<Self>),
    Set(&'s str, Option<&'s str>),
    Return(&'s Directive),
    /// Where an expression is found in the path: what comes of it.
    Rewrite(Option<Pattern>, Then),
    Break,
}

/// What comes of a rewritten path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    Stop,
    Redirect,
}

/// Why a step ends it all.
enum End<'s> {
    Refused {
        status: u16,
        head: &'s Directive,
        answer: &'s Directive,
        by: Vec<(&'s Directive, &'s Directive)>,
    },
    /// An error that has nothing to do with who asks.
    Error,
    Sent,
}

/// Whether what follows is run.
enum Flow<'s> {
    Next,
    /// The rest of the server's or location's steps isn't.
    Break,
    End(End<'s>),
}

#[derive(Clone)]
struct State<'s> {
    set: BTreeMap<&'s str, Value<'s>>,
    /// Whether the path is still the one that was asked for.
    asked: bool,
    /// Whether something else may have come of it already.
    maybe: bool,
}

pub(super) struct Script<'s> {
    tables: Rc<Tables<'s>>,
    levels: [Vec<Step<'s>>; 2],
    tls: bool,
    mapped: bool,
    /// The statuses that `error_page` makes others of.
    softened: BTreeSet<u16>,
    /// Whether one of its steps refuses somebody by the address.
    pub(super) refuses: bool,
}

impl<'s> Script<'s> {
    pub(super) fn new(
        said: &'s Said,
        tables: Rc<Tables<'s>>,
        server: &'s Directive,
        location: Option<&'s Directive>,
    ) -> Self {
        let steps = |head: &'s Directive| steps(said, &tables, head);
        let levels = [steps(server), location.map(steps).unwrap_or_default()];
        let listens = || said.inside(Some(server)).filter(|d| d.is("listen"));
        let has = |word: &str| listens().any(|d| d.words.iter().any(|w| w == word));
        let whole = location.into_iter().chain([server]).chain(said.around_of(server));
        let pages = whole.flat_map(|head| said.inside(Some(head))).filter(|d| d.is("error_page"));
        let refuses = levels.iter().flatten().any(may_refuse);
        Self {
            refuses,
            tls: has("ssl"),
            mapped: has("ipv6only=off"),
            softened: pages.flat_map(softened).collect(),
            levels,
            tables,
        }
    }

    /// What becomes of a request, as far as it can be told.
    pub(super) fn verdict(&self, visit: Visit) -> Verdict {
        if !self.refuses {
            return Verdict::Passed;
        }
        let mut state = State { set: BTreeMap::new(), asked: true, maybe: false };
        let ask = Ask { visit, tls: self.tls, mapped: self.mapped };
        for level in &self.levels {
            match self.run(level, &mut state, ask, None) {
                Flow::End(_) if state.maybe => return Verdict::Passed,
                Flow::End(End::Sent | End::Error) => return Verdict::Sent,
                Flow::End(End::Refused { status, head, answer, by }) => {
                    return Verdict::Refused(refusal(status, head, answer, &by));
                }
                Flow::Next | Flow::Break => {}
            }
        }
        Verdict::Passed
    }

    fn run(
        &self,
        steps: &[Step<'s>],
        state: &mut State<'s>,
        ask: Ask,
        within: Option<(&Test<'s>, &Value<'s>)>,
    ) -> Flow<'s> {
        for step in steps {
            match step {
                Step::Set(name, text) => {
                    let look = |name: &str| self.value(name, state, ask);
                    let mut value = text.map_or_else(Value::default, |text| expand(text, &look));
                    value.by.extend(within.iter().flat_map(|(_, of)| of.by.iter().copied()));
                    state.set.insert(name, value);
                }
                Step::If(test, inner) => {
                    let value = self.value(test.of, state, ask);
                    match self.holds(test, &value, state, ask) {
                        Some(false) => {}
                        Some(true) => match self.run(inner, state, ask, Some((test, &value))) {
                            Flow::Next => {}
                            other => return other,
                        },
                        None => {
                            let mut other = state.clone();
                            match self.run(inner, &mut other, ask, Some((test, &value))) {
                                // Who isn't refused here goes on.
                                Flow::End(End::Refused { .. } | End::Error) => {}
                                Flow::End(End::Sent) | Flow::Break => state.maybe = true,
                                Flow::Next => state.join(other),
                            }
                        }
                    }
                }
                Step::Return(answer) => {
                    let status = error(answer).filter(|s| !self.softened.contains(s));
                    return Flow::End(match (within.filter(|(test, _)| test.about), status) {
                        (_, None) => End::Sent,
                        (None, Some(_)) => End::Error,
                        (Some((test, of)), Some(status)) => {
                            End::Refused { status, head: test.head, answer, by: of.by.clone() }
                        }
                    });
                }
                Step::Rewrite(pattern, then) => {
                    let found = match pattern {
                        None => Some(true),
                        Some(pattern) if state.asked => pattern.is_in("/"),
                        Some(_) => None,
                    };
                    if found == Some(false) {
                        continue;
                    }
                    state.asked = false;
                    state.maybe |= found.is_none() && *then != Then::GoOn;
                    match then {
                        Then::Redirect if found.is_some() => return Flow::End(End::Sent),
                        Then::Stop if found.is_some() => return Flow::Break,
                        _ => {}
                    }
                }
                Step::Break => return Flow::Break,
            }
        }
        Flow::Next
    }

    fn value(&self, name: &str, state: &State<'s>, ask: Ask) -> Value<'s> {
        match state.set.get(name) {
            Some(set) => set.clone(),
            None if matches!(name, "uri" | "document_uri") && state.asked => Value::plain("/"),
            None => self.tables.value(name, ask),
        }
    }

    fn holds(&self, test: &Test<'s>, value: &Value<'s>, state: &State<'s>, ask: Ask) -> Option<bool> {
        match &test.how {
            How::Set => value.text.as_ref().map(|text| !text.is_empty() && text != "0"),
            How::Is(wanted, text) => {
                let other = expand(text, &|name| self.value(name, state, ask));
                Some(value.is(&other.text?, ask.visit)? == *wanted)
            }
            How::Has(wanted, pattern) => Some(value.has(pattern, ask.visit)? == *wanted),
            How::Unknown => None,
        }
    }

    /// Every net that it names itself.
    pub(super) fn nets(&self) -> Vec<IpNet> {
        let nets = self.tests().flat_map(|test| match &test.how {
            How::Is(_, text) => net(text).into_iter().collect(),
            How::Has(_, pattern) => pattern.named(),
            How::Set | How::Unknown => Vec::new(),
        });
        nets.collect()
    }

    /// Whether an expression is held against an address.
    pub(super) fn tries(&self) -> bool {
        self.tests().any(|test| matches!(test.how, How::Has(..)))
    }

    fn tests(&self) -> impl Iterator<Item = &Test<'s>> {
        let tests =
            self.levels.iter().flatten().filter_map(|s| if let Step::If(test, _) = s { Some(test) } else { None });
        tests.filter(|test| test.about)
    }
}

impl State<'_> {
    /// Either this or the other is so.
    fn join(&mut self, other: Self) {
        self.asked &= other.asked;
        self.maybe |= other.maybe;
        for (name, value) in other.set {
            if self.set.get(name) != Some(&value) {
                self.set.insert(name, Value::default());
            }
        }
    }
}

/// The status of a `return`, where it is an error.
fn error(answer: &Directive) -> Option<u16> {
    answer.value().parse().ok().filter(|status| *status >= ERRORS)
}

/// Whether a step refuses somebody by the address.
fn may_refuse(step: &Step<'_>) -> bool {
    let refuses = |step: &Step<'_>| matches!(step, Step::Return(answer) if error(answer).is_some());
    matches!(step, Step::If(test, inner) if test.about && inner.iter().any(refuses))
}

/// The statuses that an `error_page` makes others of: `error_page 403 = @open`, `error_page 403 https://…`.
fn softened(page: &Directive) -> Vec<u16> {
    let other = page.words.iter().any(|w| w.starts_with('='));
    let elsewhere = page.words.last().is_some_and(|to| to.contains("://"));
    let codes = page.words.iter().filter_map(|word| word.parse().ok());
    if other || elsewhere { codes.collect() } else { Vec::new() }
}

fn steps<'s>(said: &'s Said, tables: &Tables<'s>, head: &'s Directive) -> Vec<Step<'s>> {
    let step = |d: &'s Directive| {
        let name = d.words.first()?.as_str();
        let variable = || named(d.value()).next();
        Some(match name {
            "if" => Step::If(Test::of(d, tables)?, steps(said, tables, d)),
            "set" => Step::Set(variable()?, Some(d.words.get(2)?.as_str())),
            // `set_by_lua $name …`
            name if name.starts_with("set_") => Step::Set(variable()?, None),
            "return" => Step::Return(d),
            "break" => Step::Break,
            "rewrite" => {
                let [_, expression, to, flag @ ..] = d.words.as_slice() else { return None };
                let elsewhere = ["http://", "https://", "$scheme"].iter().any(|begin| to.starts_with(begin));
                let then = match flag.first().map_or("", String::as_str) {
                    "redirect" | "permanent" => Then::Redirect,
                    _ if elsewhere => Then::Redirect,
                    "last" | "break" => Then::Stop,
                    _ => Then::GoOn,
                };
                Step::Rewrite((!is_about_all(expression)).then(|| Pattern::new(expression, false)), then)
            }
            _ => return None,
        })
    };
    said.inside(Some(head)).filter_map(step).collect()
}

impl<'s> Test<'s> {
    fn of(head: &'s Directive, tables: &Tables<'_>) -> Option<Self> {
        let mut words: Vec<&'s str> = head.words.iter().skip(1).map(String::as_str).collect();
        let first = words.first_mut()?;
        *first = first.strip_prefix('(')?;
        let last = words.last_mut()?;
        *last = last.strip_suffix(')')?;
        if words.first() == Some(&"") {
            words.remove(0);
        }
        // A text may be empty: `if ($x = "")`.
        if words.len() != 3 && words.last() == Some(&"") {
            words.pop();
        }
        let about = words.iter().any(|word| tables.is_about(word));
        let how = match words.get(1..).unwrap_or_default() {
            [] => How::Set,
            ["=", text] => How::Is(true, (*text).to_owned()),
            ["!=", text] => How::Is(false, (*text).to_owned()),
            ["~", text] => How::Has(true, Pattern::new(text, false)),
            ["~*", text] => How::Has(true, Pattern::new(text, true)),
            ["!~", text] => How::Has(false, Pattern::new(text, false)),
            ["!~*", text] => How::Has(false, Pattern::new(text, true)),
            _ => How::Unknown,
        };
        let of = words.first().and_then(|word| word.strip_prefix('$'));
        Some(Self { head, about, of: of.unwrap_or_default(), how: if of.is_some() { how } else { How::Unknown } })
    }
}

fn refusal(status: u16, head: &Directive, answer: &Directive, by: &[(&Directive, &Directive)]) -> Refusal {
    let block = |head: &Directive| head.words.join(" ");
    let lines = by.iter().map(|(head, line)| {
        let shows = if head == line { block(head) } else { format!("{} {{ {}; }}", block(head), line.words.join(" ")) };
        (line.place(), shows)
    });
    let asked = (head.place(), format!("{} {{ {}; }}", block(head), answer.words.join(" ")));
    let mut seen: Vec<(String, String)> = Vec::new();
    for one in lines.chain([asked]) {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    let (what, file) = match by.first() {
        Some((table, line)) => {
            let (name, file) = (block(table), line.file.display());
            let what = if table == line || line.is("default") {
                format!(
                    "give Cloudflare's ranges lines of their own in `{name}` in {file}, with a value that is let in \
                     (`edgeallow fetch` prints them)"
                )
            } else {
                format!("take Cloudflare's addresses out of `{name}` in {file}")
            };
            (what, &line.file)
        }
        None => (format!("take Cloudflare's addresses out of the condition in {}", head.file.display()), &head.file),
    };
    Refusal { status, seen, mend: Mend { what, file: file.clone() } }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::doctor::directives::tests::said_by_nginx;

    const EDGE: &str = "173.245.48.29";
    const TABLES: &str = "geo $bad { default 0; 173.245.48.0/20 1; } geo $ok { default 0; 203.0.113.0/24 1; } geo \
                          $realip_remote_addr $cf { default 0; 173.245.48.0/20 1; } map $remote_addr $listed { default \
                          0; ~^173\\.245\\. 1; }";

    /// The status with which a request is refused; 0 where it is answered, `None` where the lists decide.
    fn status(server: &str, shown: Option<&str>, peer: &str) -> Option<u16> {
        let said = said_by_nginx(&format!("http {{ {TABLES} server {{ {server} }} }}"));
        let head = said.directives.iter().find(|d| d.is("server")).expect("a server");
        let location = said.directives.iter().find(|d| d.is("location"));
        let script = Script::new(&said, Rc::new(Tables::of(&said)), head, location);
        let visit =
            Visit { shown: shown.and_then(|ip| ip.parse().ok()), peer: peer.parse::<IpAddr>().ok(), stretch: false };
        match script.verdict(visit) {
            Verdict::Refused(refusal) => Some(refusal.status),
            Verdict::Sent => Some(0),
            Verdict::Passed => None,
        }
    }

    #[test]
    fn conditions_on_the_address_refuse() {
        for (server, wanted) in [
            ("if ($bad) { return 403; }", Some(403)),
            ("if ( $bad ) { return 444; }", Some(444)),
            ("if ($bad = 1) { return 403; }", Some(403)),
            ("if ($bad = \"1\") { return 403; }", Some(403)),
            ("if ($bad = 0) { return 403; }", None),
            ("if ($bad != 1) { return 403; }", None),
            ("if ($ok != 1) { return 403; }", Some(403)),
            ("if ($ok = 0) { return 503 \"no\"; }", Some(503)),
            ("if ($ok) { return 403; }", None),
            ("if ($listed) { return 410; }", Some(410)),
            ("if ($cf) { return 403; }", Some(403)),
            (r"if ($remote_addr ~ ^173\.245\.) { return 403; }", Some(403)),
            (r#"if ($remote_addr ~* "^(173|174)\.245\.") { return 403; }"#, Some(403)),
            (r"if ($remote_addr !~ ^203\.) { return 403; }", Some(403)),
            (r"if ($remote_addr ~ ^203\.) { return 403; }", None),
            ("if ($remote_addr = 173.245.48.29) { return 403; }", Some(403)),
            ("if ($remote_addr = 173.245.48.30) { return 403; }", None),
            ("location / { if ($bad) { return 403; } }", Some(403)),
            // By way of other variables.
            ("set $out 0; if ($bad) { set $out 1; } if ($out) { return 403; }", Some(403)),
            ("set $in 1; if ($ok = 0) { set $in 0; } if ($in = 0) { return 403; }", Some(403)),
            ("set $t A; if ($bad) { set $t ${t}B; } if ($t = AB) { return 403; }", Some(403)),
            ("set $ip $remote_addr; if ($ip = 173.245.48.29) { return 403; }", Some(403)),
            // What comes first.
            ("return 301 https://www.example/; if ($bad) { return 403; }", Some(0)),
            ("if ($bad) { return 403; } return 301 https://www.example/;", Some(403)),
            ("if ($ok) { return 403; } return 301 https://www.example/;", Some(0)),
            ("rewrite ^ https://www.example/; if ($bad) { return 403; }", Some(0)),
            ("rewrite ^/old /new last; if ($bad) { return 403; }", Some(403)),
            ("rewrite ^/$ /new last; if ($bad) { return 403; }", None),
            ("rewrite ^/$ /new; if ($bad) { return 403; }", Some(403)),
            ("break; if ($bad) { return 403; }", None),
            ("break; location / { if ($bad) { return 403; } }", Some(403)),
            ("if ($scheme = https) { return 301 https://x/; } if ($bad) { return 403; }", Some(403)),
            ("if ($bad) { return 301 https://www.example/; }", None),
            ("if ($bad) { return 200; }", None),
            // What makes something else of it.
            ("error_page 403 = @open; if ($bad) { return 403; }", Some(0)),
            ("error_page 403 https://www.example/; if ($bad) { return 403; }", Some(0)),
            ("error_page 403 /no.html; if ($bad) { return 403; }", Some(403)),
            // What nobody understands, and what is about something else.
            ("if ($unheard_of) { return 403; }", None),
            ("if ($http_user_agent ~ bot) { return 403; }", None),
            ("if ($host = x) { return 444; } if ($bad) { return 403; }", Some(403)),
            ("if ($host = x) { return 200; } if ($bad) { return 403; }", None),
            ("if ($host = x) { rewrite ^ /x last; } if ($bad) { return 403; }", None),
            ("if (-f /x) { break; } if ($bad) { return 403; }", None),
            ("set $in 0; if ($http_x) { set $in 1; } if ($bad) { set $in 0; } if ($in = 0) { return 403; }", Some(403)),
            ("set $out 0; if ($bad) { set $out 1; } if ($http_x) { set $out 0; } if ($out) { return 403; }", None),
            ("set $t $bad$http_x; if ($t = 1) { return 403; }", None),
            ("set_by_lua $bad x; if ($bad) { return 403; }", None),
            ("set $m 1; if ($m) { return 503; }", None),
            ("if ($request_uri = /) { return 404; }", None),
            (r"if ($remote_addr ~ ^(?!10\.)) { return 403; }", None),
        ] {
            assert_eq!(status(server, Some(EDGE), EDGE), wanted, "{server}");
        }
    }

    #[test]
    fn what_a_condition_asks_for_is_the_visitor_where_his_address_is_shown() {
        let visitor = |server: &str| status(server, None, EDGE);
        assert_eq!(visitor("if ($bad) { return 403; }"), None);
        assert_eq!(visitor("if ($listed) { return 403; }"), None);
        assert_eq!(visitor("if ($cf) { return 403; }"), Some(403));
        assert_eq!(visitor("if ($realip_remote_addr ~ ^173) { return 403; }"), Some(403));
        assert_eq!(visitor("if ($cf = 0) { return 403; }"), None);
    }

    #[test]
    fn a_refusal_is_shown_with_the_line_that_it_comes_from() {
        let said = said_by_nginx(
            "http {\ngeo $bad {\ndefault 0;\n173.245.48.0/20 1;\n}\nserver {\nif ($bad) {\nreturn 444;\n}\n}\n}",
        );
        let head = said.directives.iter().find(|d| d.is("server")).expect("a server");
        let script = Script::new(&said, Rc::new(Tables::of(&said)), head, None);
        let visit = Visit { shown: EDGE.parse().ok(), peer: None, stretch: true };
        let Verdict::Refused(refusal) = script.verdict(visit) else { panic!("it is not refused") };
        let at = |line: u32| format!("/etc/nginx/nginx.conf line {line}");
        let shown = ["geo $bad { 173.245.48.0/20 1; }", "if ($bad) { return 444; }"].map(str::to_owned);
        assert_eq!(refusal.seen, [at(4), at(7)].into_iter().zip(shown).collect::<Vec<_>>());
        assert_eq!(refusal.mend.what, "take Cloudflare's addresses out of `geo $bad` in /etc/nginx/nginx.conf");
        assert!(script.refuses && !script.tries());
    }
}
