//! What Apache's rules about who may ask say: `Require` and its containers, `Order`, `Allow` and `Deny`.
//!
//! A rule lets in, refuses, or says nothing of a client; where it hangs on more than the address, either is possible.
//! Sources: modules/aaa/mod_authz_core.c, mod_authz_host.c and mod_access_compat.c, by what they do (see the tests on a
//! real Apache).
//!
//! Belongs here: single rules, and joining them. Does not: which sections hold (`super`).

use std::{collections::BTreeSet, path::Path};

use ipnet::IpNet;

use super::{
    super::{
        access::{Client, Fate, Mend, net},
        conditions::or,
    },
    environment::Variable,
    expression::Expression,
};
use crate::doctor::directives::Directive;

/// What a rule says of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Granted,
    Denied,
    Neutral,
}

/// What a rule may say.
type Words = BTreeSet<Word>;

/// `Require`, and what contains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tree {
    Everybody(bool),
    Nets(Vec<IpNet>),
    /// This machine.
    Local,
    /// One of these variables is set.
    Env(Vec<Variable>),
    Expr(Expression),
    /// A user, a name, an expression that isn't understood.
    Unknown,
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
}

impl Tree {
    pub(super) fn of(require: &Directive) -> Self {
        let words: Vec<&str> = require.words.iter().skip(1).map(String::as_str).collect();
        let (not, words) = match words.as_slice() {
            [not, rest @ ..] if not.eq_ignore_ascii_case("not") => (true, rest),
            all => (false, all),
        };
        let [kind, values @ ..] = words else { return Self::Unknown };
        let is = |name: &str| values.first().is_some_and(|v| v.eq_ignore_ascii_case(name));
        let rule = match kind.to_ascii_lowercase().as_str() {
            "all" if is("granted") => Self::Everybody(true),
            "all" if is("denied") => Self::Everybody(false),
            "ip" => values.iter().map(|v| subnet(v)).collect::<Option<_>>().map_or(Self::Unknown, Self::Nets),
            "local" => Self::Local,
            "env" => Self::Env(values.iter().map(|name| Variable::named(name)).collect()),
            "expr" => Expression::of(&values.join(" ")).map_or(Self::Unknown, Self::Expr),
            "method" => Self::Everybody(values.iter().any(|v| v.eq_ignore_ascii_case("GET"))),
            _ => Self::Unknown,
        };
        if not { Self::Not(Box::new(rule)) } else { rule }
    }

    /// What stands in a container, which all has to hold.
    pub(super) fn into_all(self) -> Self {
        Self::All(self.into_rules())
    }

    pub(super) fn into_rules(self) -> Vec<Self> {
        match self {
            Self::Any(rules) => rules,
            one => vec![one],
        }
    }

    fn says(&self, client: Client) -> Words {
        let either = |granted: bool| [if granted { Word::Granted } else { Word::Denied }].into();
        let told = |holds: Option<bool>| holds.map_or_else(|| [Word::Granted, Word::Denied].into(), either);
        match self {
            Self::Everybody(granted) => either(*granted),
            Self::Nets(nets) => either(nets.iter().any(|net| net.contains(&client.ip))),
            Self::Local => either(client.own || client.ip.is_loopback()),
            Self::Env(variables) => {
                let set = variables.iter().map(|variable| variable.is_set(client.into()));
                told(set.fold(Some(false), or))
            }
            Self::Expr(expression) => told(expression.holds(client.into())),
            Self::Unknown => [Word::Granted, Word::Denied].into(),
            Self::All(rules) => joined(rules, client, |a, b| match (a, b) {
                (Word::Denied, _) | (_, Word::Denied) => Word::Denied,
                (Word::Granted, _) | (_, Word::Granted) => Word::Granted,
                _ => Word::Neutral,
            }),
            Self::Any(rules) => joined(rules, client, |a, b| match (a, b) {
                (Word::Granted, _) | (_, Word::Granted) => Word::Granted,
                (Word::Denied, _) | (_, Word::Denied) => Word::Denied,
                _ => Word::Neutral,
            }),
            // Whom it isn't about it neither lets in nor refuses.
            Self::Not(rule) => {
                let turn = |word| if word == Word::Granted { Word::Denied } else { Word::Neutral };
                rule.says(client).into_iter().map(turn).collect()
            }
        }
    }

    /// Whether a rule of those that refuse names this client: `Require not`, what stands in `<RequireNone>`.
    fn forbids(&self, client: Client) -> bool {
        match self {
            Self::All(rules) | Self::Any(rules) => rules.iter().any(|rule| rule.forbids(client)),
            Self::Not(rule) => rule.says(client).contains(&Word::Granted),
            _ => false,
        }
    }

    fn nets(&self, into: &mut Vec<IpNet>) {
        match self {
            Self::Nets(nets) => into.extend(nets),
            Self::All(rules) | Self::Any(rules) => rules.iter().for_each(|rule| rule.nets(into)),
            Self::Not(rule) => rule.nets(into),
            Self::Local => into.extend(["127.0.0.0/8", "::1"].into_iter().filter_map(net)),
            Self::Env(variables) => into.extend(variables.iter().flat_map(Variable::nets)),
            Self::Expr(expression) => into.extend(expression.nets()),
            Self::Everybody(_) | Self::Unknown => {}
        }
    }

    /// Whether an expression is held against an address.
    fn tries(&self) -> bool {
        match self {
            Self::All(rules) | Self::Any(rules) => rules.iter().any(Self::tries),
            Self::Not(rule) => rule.tries(),
            Self::Env(variables) => variables.iter().any(Variable::tries),
            Self::Expr(expression) => expression.tries(),
            Self::Nets(_) | Self::Local | Self::Everybody(_) | Self::Unknown => false,
        }
    }

    fn variables<'t>(&'t mut self, into: &mut Vec<&'t mut Variable>) {
        match self {
            Self::All(rules) | Self::Any(rules) => rules.iter_mut().for_each(|rule| rule.variables(into)),
            Self::Not(rule) => rule.variables(into),
            Self::Env(variables) => into.extend(variables),
            _ => {}
        }
    }
}

fn joined(rules: &[Tree], client: Client, join: impl Fn(Word, Word) -> Word) -> Words {
    let each = rules.iter().map(|rule| rule.says(client));
    each.fold([Word::Neutral].into(), |a, b| a.iter().flat_map(|a| b.iter().map(|b| join(*a, *b))).collect())
}

/// `10`, `10.1.`, `10.1.0.0/16`, `10.1.0.0/255.255.0.0`, `2001:db8::/32`
pub(super) fn subnet(word: &str) -> Option<IpNet> {
    if let Some(whole) = net(word) {
        return Some(whole);
    }
    if let Some((ip, mask)) = word.split_once('/') {
        return IpNet::with_netmask(ip.parse().ok()?, mask.parse().ok()?).ok();
    }
    let parts: Vec<u8> = word.trim_end_matches('.').split('.').map(|p| p.parse().ok()).collect::<Option<_>>()?;
    let bits = u8::try_from(parts.len() * 8).ok().filter(|bits| *bits < 32)?;
    let mut octets = [0; 4];
    octets.iter_mut().zip(&parts).for_each(|(octet, part)| *octet = *part);
    IpNet::new(std::net::IpAddr::from(octets), bits).ok()
}

/// Whom `Allow from` or `Deny from` names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Everybody,
    Net(IpNet),
    /// Whoever a variable is set for, or isn't.
    Env(bool, Variable),
    /// A name.
    Unknown,
}

impl Who {
    fn is(&self, client: Client) -> Option<bool> {
        match self {
            Self::Everybody => Some(true),
            Self::Net(net) => Some(net.contains(&client.ip)),
            Self::Env(wanted, variable) => Some(variable.is_set(client.into())? == *wanted),
            Self::Unknown => None,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Order {
    #[default]
    DenyAllow,
    AllowDeny,
    Mutual,
}

/// mod_access_compat's rules of one section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Compat {
    order: Order,
    allows: Vec<Who>,
    denies: Vec<Who>,
    satisfy_any: bool,
    /// Whether there is any.
    pub(super) said: bool,
    /// Whether it can't be told which.
    unknown: bool,
}

impl Compat {
    /// Some, of which it can't be told whom they let in.
    pub(super) fn unknown() -> Self {
        Self { said: true, unknown: true, ..Self::default() }
    }

    /// Takes in a directive if it is one of these; `get` tells whether it is about GET.
    pub(super) fn take(&mut self, directive: &Directive, get: bool) -> bool {
        let from = directive.value().eq_ignore_ascii_case("from");
        let whom = || directive.words.iter().skip(2).map(|word| who(word));
        let order = || directive.words.iter().skip(1).map(|w| w.to_ascii_lowercase()).collect::<Vec<_>>().join(",");
        let is = directive.is("Order")
            || directive.is("Satisfy")
            || (from && (directive.is("Allow") || directive.is("Deny")));
        self.said |= is;
        if !is || !get {
            return is;
        }
        if directive.is("Allow") {
            self.allows.extend(whom());
        } else if directive.is("Deny") {
            self.denies.extend(whom());
        } else if directive.is("Satisfy") {
            self.satisfy_any = directive.value().eq_ignore_ascii_case("any");
        } else {
            self.order = match order().as_str() {
                "allow,deny" => Order::AllowDeny,
                "mutual-failure" => Order::Mutual,
                _ => Order::DenyAllow,
            };
        }
        is
    }

    /// What lets this client in, which is refused. The order of the lines means nothing.
    fn mend(&self, client: Client, file: &str) -> String {
        let is = |who: &Who| who.is(client) == Some(true);
        let line = "let Cloudflare's ranges in with `Allow from`";
        match (self.order, self.denies.iter().any(is)) {
            (Order::DenyAllow, _) if self.denies.contains(&Who::Everybody) => {
                format!("{line} in {file} too (`edgeallow fetch` prints them)")
            }
            (Order::DenyAllow, _) => format!(
                "take Cloudflare's ranges out of `Deny from` in {file}, or {line}, which wins under `Order Deny,Allow` \
                 (`edgeallow fetch` prints them)"
            ),
            (_, true) => format!(
                "take Cloudflare's ranges out of `Deny from` in {file}: no `Allow from` wins against it under this `Order`"
            ),
            (_, false) => format!("{line} in {file} too (`edgeallow fetch` prints them)"),
        }
    }

    /// Whether it lets the client in.
    fn lets_in(&self, client: Client) -> Option<bool> {
        if self.unknown {
            return None;
        }
        let named = |whom: &[Who]| whom.iter().map(|who| who.is(client)).fold(Some(false), or);
        let (allowed, denied) = (named(&self.allows), named(&self.denies));
        match self.order {
            Order::DenyAllow => match (allowed, denied) {
                (Some(true), _) | (_, Some(false)) => Some(true),
                (Some(false), Some(true)) => Some(false),
                _ => None,
            },
            Order::AllowDeny | Order::Mutual => match (allowed, denied) {
                (Some(false), _) | (_, Some(true)) => Some(false),
                (Some(true), Some(false)) => Some(true),
                _ => None,
            },
        }
    }
}

fn who(word: &str) -> Who {
    if word.eq_ignore_ascii_case("all") {
        return Who::Everybody;
    }
    match word.split_once('=') {
        Some((env, name)) if env.eq_ignore_ascii_case("env") => match name.strip_prefix('!') {
            Some(name) => Who::Env(false, Variable::named(name)),
            None => Who::Env(true, Variable::named(name)),
        },
        _ => subnet(word).map_or(Who::Unknown, Who::Net),
    }
}

/// How a section's rules go with those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Merging {
    #[default]
    Off,
    And,
    Or,
}

impl Merging {
    pub(super) fn of(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "and" => Self::And,
            "or" => Self::Or,
            _ => Self::Off,
        }
    }
}

/// What one section says, or many come to.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    pub(super) tree: Option<Tree>,
    pub(super) merging: Merging,
    pub(super) compat: Option<Compat>,
    /// The directives that it all comes from.
    pub(super) at: Vec<Directive>,
    /// What sets variables, each with whether it surely holds.
    pub(super) sets: Vec<(Directive, bool)>,
    /// mod_rewrite's, of the innermost folder that has any.
    pub(super) rewrites: Vec<(Directive, bool)>,
    /// The variables that are asked for.
    pub(super) variables: Vec<Variable>,
}

impl Rules {
    /// With those of a section that holds after these.
    pub(super) fn merge(&mut self, next: Self) {
        let is_require = |d: &Directive| d.is("Require");
        if let Some(tree) = next.tree {
            self.tree = Some(match (next.merging, self.tree.take()) {
                (Merging::And, Some(before)) => Tree::All(vec![before, tree]),
                (Merging::Or, Some(before)) => Tree::Any(vec![before, tree]),
                _ => {
                    self.at.retain(|d| !is_require(d));
                    tree
                }
            });
        }
        if next.compat.is_some() {
            self.compat = next.compat;
            self.at.retain(is_require);
        }
        self.at.extend(next.at);
        self.sets.extend(next.sets);
        // A folder's own take the place of those above it, but for whether there are to be any.
        if !next.rewrites.is_empty() {
            self.rewrites.retain(|(d, _)| d.is("RewriteEngine"));
            self.rewrites.extend(next.rewrites);
        }
    }

    /// Tells the variables that are asked for what sets them.
    pub(super) fn learn(&mut self, before: Vec<(Directive, bool)>) {
        self.sets.splice(0..0, before);
        let Self { tree, compat, sets, variables: known, .. } = self;
        let mut variables = Vec::new();
        if let Some(tree) = tree {
            tree.variables(&mut variables);
        }
        let named = compat.iter_mut().flat_map(|c| c.allows.iter_mut().chain(&mut c.denies));
        variables.extend(named.filter_map(|who| if let Who::Env(_, variable) = who { Some(variable) } else { None }));
        for variable in &mut variables {
            variable.learn(sets);
        }
        *known = variables.into_iter().map(|variable| variable.clone()).collect();
    }

    /// Whether an expression is held against an address.
    pub(super) fn tries(&self) -> bool {
        self.tree.as_ref().is_some_and(Tree::tries) || self.variables.iter().any(Variable::tries)
    }

    pub(super) fn nets(&self) -> Vec<IpNet> {
        let mut nets = Vec::new();
        if let Some(tree) = &self.tree {
            tree.nets(&mut nets);
        }
        let named = self.compat.iter().flat_map(|c| c.allows.iter().chain(&c.denies));
        nets.extend(named.filter_map(|who| if let Who::Net(net) = who { Some(*net) } else { None }));
        nets.extend(self.variables.iter().flat_map(Variable::nets));
        nets
    }

    /// What to do about what turns this client away; in `file`, if it can't be told where that stands.
    pub(super) fn mend(&self, client: Client, file: &Path) -> Mend {
        if let Some((what, file)) = self.variables.iter().find_map(|variable| variable.mend(client.into())) {
            return Mend { what, file };
        }
        let at = |is: &dyn Fn(&Directive) -> bool| {
            let there = self.seen().into_iter().find(|d| is(d));
            there.map_or_else(|| file.to_owned(), |d| d.file.clone())
        };
        if let Some(compat) = self.compat.as_ref().filter(|c| c.lets_in(client) == Some(false)) {
            let file = at(&|d| !d.is("Require"));
            return Mend { what: compat.mend(client, &file.display().to_string()), file };
        }
        let file = at(&|d| d.is("Require"));
        let name = file.display();
        // Several lines in a container may all have to hold; the addresses of one line are one rule.
        let what = if self.tree.as_ref().is_some_and(|tree| tree.forbids(client)) {
            format!(
                "take Cloudflare's ranges out of the line that names them in {name} (what `Require not` or `<RequireNone>` \
                 refuses, no other line lets in)"
            )
        } else if self.at.iter().any(|d| d.is("Require") && d.value().eq_ignore_ascii_case("ip")) {
            format!(
                "add Cloudflare's ranges to the line with `Require ip` in {name}, on that very line (`edgeallow fetch` \
                 prints them)"
            )
        } else {
            format!(
                "put `Require ip` with all of Cloudflare's ranges on one line (`edgeallow fetch` prints them), or `Require \
                 all granted`, in the place of the line that refuses in {name}"
            )
        };
        Mend { what, file }
    }

    /// The directives to look at, those that refuse first, without those that let everybody in.
    pub(super) fn seen(&self) -> Vec<&Directive> {
        let text = |d: &Directive| d.words.iter().skip(1).cloned().collect::<Vec<_>>().join(" ").to_ascii_lowercase();
        let refuses = |d: &&Directive| d.is("Deny") || text(d) == "all denied" || text(d).starts_with("not ");
        let telling = |d: &&Directive| !matches!(text(d).as_str(), "all granted" | "from all") || d.is("Deny");
        let (mut first, rest): (Vec<&Directive>, Vec<&Directive>) = self.at.iter().filter(telling).partition(refuses);
        first.extend(rest);
        first
    }
}

/// What becomes of a client.
pub(super) fn fate(rules: &Rules, client: Client) -> Fate {
    // A neutral word at the end is a refusal.
    let words = rules.tree.as_ref().map_or_else(|| [Word::Granted].into(), |tree| tree.says(client));
    let required = if !words.contains(&Word::Granted) { Some(false) } else { (words.len() == 1).then_some(true) };
    let Some(compat) = &rules.compat else {
        return match required {
            Some(true) => Fate::In,
            Some(false) => Fate::Out,
            None => Fate::Unknown,
        };
    };
    match (compat.lets_in(client), required) {
        (Some(true), _) if compat.satisfy_any => Fate::In,
        (Some(false), Some(false)) => Fate::Out,
        // Who is refused by address may be let in by a password.
        _ if compat.satisfy_any || compat.unknown => Fate::Unknown,
        (Some(true), Some(true)) => Fate::In,
        (Some(false), _) | (_, Some(false)) => Fate::Out,
        _ => Fate::Unknown,
    }
}
