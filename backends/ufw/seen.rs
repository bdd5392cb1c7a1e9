//! The look: ufw's settings, its two rules files, and its chains in the kernel.
//!
//! Belongs here: reading, and nothing but. Does not: judging it ([`super::target`]).
//!
//! `ufw` itself is never started to look: `ufw status` takes 70 ms, waits for ufw's lock, and says nothing of use
//! while ufw is inactive. Files and `iptables-save` say all there is to know.

use std::{collections::HashSet, path::Path, time::Duration};

use super::{
    Owned, Part,
    file::Document,
    live::Live,
    rule::{Allow, Placed, chain},
};
use crate::{
    allowlist::{Family, Prefixes},
    backends::{Context, iptables::save},
    error::{Error, ErrorKind, Result},
    host::Look,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// ufw's settings, in the order in which it reads them.
const SETTINGS: [&str; 2] = ["/etc/default/ufw", "/etc/ufw/ufw.conf"];

/// Where the kernel says that it has IPv6: ufw looks there too.
const KERNEL_V6: &str = "/proc/sys/net/ipv6";

/// The lock of ufw's own: a POSIX lock that every run of `ufw` waits for.
pub const LOCK: &str = "/run/ufw.lock";

/// Versions whose rules files we write ourselves. 0.36 brought `prepend` and the lock in /run.
const KNOWN: [&str; 3] = ["0.36", "0.36.1", "0.36.2"];

/// ufw's settings, as far as they matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `ENABLED=yes`
    pub enabled: bool,
    /// `IPV6=yes`
    pub ipv6: bool,
    /// `DEFAULT_INPUT_POLICY`, in lower case: `drop`, `reject` or `accept`.
    pub policy: String,
}

impl Settings {
    /// What `ufw status verbose` calls the policy.
    #[must_use]
    pub fn policy_word(&self) -> &'static str {
        match self.policy.as_str() {
            "accept" => "allow",
            "reject" => "reject",
            _ => "deny",
        }
    }
}

/// Which program there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// `0.36.2`, read from the program's text.
    pub version: Option<String>,
    /// We know how this version writes its files and which lock it takes.
    pub known: bool,
}

/// One family's file and chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// The rules file.
    pub file: Document,
    /// Its permission bits.
    pub mode: u32,
    /// The rules of the chain as `iptables-save` prints them, if it is in the kernel.
    pub chain: Option<Vec<Vec<String>>>,
}

impl Side {
    /// The chain, taken apart; what is to be ours may be there before the file says so.
    #[must_use]
    pub fn live(&self, to_be: &[Placed]) -> Option<Live> {
        let ours: Vec<&Allow> = self.file.ours.iter().map(|p| &p.rule).collect();
        let known: HashSet<&Allow> = ours.iter().copied().collect();
        let more = to_be.iter().map(|p| &p.rule).filter(|r| !known.contains(r));
        let chain = self.chain.as_ref()?;
        Some(Live::of(chain, self.file.family, ours.iter().copied().chain(more), &self.file.alike))
    }

    /// What is ours here.
    #[must_use]
    pub fn part(&self) -> Part {
        Part {
            stored: self.file.ours.clone(),
            live: self.live(&[]).map(|l| l.ours).unwrap_or_default(),
            spoiled: self.file.spoiled,
        }
    }
}

/// What a look returns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The settings.
    pub settings: Settings,
    /// The program.
    pub program: Program,
    /// IPv4 and IPv6; a family is missing if ufw can't be told anything about it.
    pub sides: Vec<Side>,
    /// Whether `ufw` itself would hear of IPv6: `IPV6=yes`, and the kernel has it.
    pub ipv6: bool,
    /// Why nothing of IPv6 can be live, if so.
    pub without_v6: Option<&'static str>,
}

impl Seen {
    /// What is ours.
    #[must_use]
    pub fn owned(&self) -> Owned {
        let parts = self.sides.iter().map(|s| (s.file.family, s.part()));
        Owned { parts: parts.filter(|(_, p)| *p != Part::default()).collect() }
    }

    /// The prefixes that our rules let in.
    #[must_use]
    pub fn held(&self) -> Prefixes {
        self.sides.iter().flat_map(|s| &s.file.ours).map(|p| p.rule.from).collect()
    }
}

/// The rules file of a family.
#[must_use]
pub const fn path(family: Family) -> &'static str {
    match family {
        Family::V4 => "/etc/ufw/user.rules",
        Family::V6 => "/etc/ufw/user6.rules",
    }
}

/// Reads the settings.
///
/// # Errors
/// `tool-config` if a file is missing, without which ufw doesn't start either.
pub fn settings(host: &dyn Look) -> Result<Settings> {
    let mut out = Settings::default();
    for path in SETTINGS {
        let seen = host.file(Path::new(path))?.ok_or_else(|| missing(path))?;
        for line in String::from_utf8_lossy(&seen.content).lines() {
            let Some((name, value)) = line.split_once('=') else { continue };
            let value = value.trim().trim_matches(['"', '\'']).to_ascii_lowercase();
            match name {
                "ENABLED" => out.enabled = value == "yes",
                "IPV6" => out.ipv6 = value == "yes",
                "DEFAULT_INPUT_POLICY" => out.policy = value,
                _ => {}
            }
        }
    }
    Ok(out)
}

fn missing(path: &str) -> Error {
    Error::new(ErrorKind::ToolConfig, format!("ufw is installed, but {path} is missing"))
        .hint("ufw doesn't work without it either; reinstall ufw, or leave ufw out of `backends`")
}

/// Reads which ufw there is from the text of the program, without starting it.
///
/// # Errors
/// `io` if it can't be read.
pub fn program(host: &dyn Look, path: &Path) -> Result<Program> {
    let Some(file) = host.file(path)? else { return Ok(Program::default()) };
    let text = String::from_utf8_lossy(&file.content);
    let version = text.lines().find_map(|l| Some(l.strip_prefix("version = \"")?.strip_suffix('"')?.to_owned()));
    let known = version.as_deref().is_some_and(|v| KNOWN.contains(&v)) && text.contains(LOCK);
    Ok(Program { version, known })
}

/// Reads one rules file.
///
/// # Errors
/// `tool-config` if it is missing.
pub fn file(host: &dyn Look, family: Family) -> Result<(Document, u32)> {
    let path = path(family);
    let seen = host.file(Path::new(path))?.ok_or_else(|| missing(path))?;
    Ok((Document::parse(seen.content, family), seen.mode))
}

/// Looks at everything.
///
/// # Errors
/// `io`, `tool-config` and `program` if files or programs that planning needs can't be read.
pub fn observe(cx: &Context<'_>) -> Result<Seen> {
    let settings = settings(cx.host)?;
    let Some(path) = cx.host.program("ufw") else { return Ok(Seen { settings, ..Seen::default() }) };
    let program = program(cx.host, &path)?;
    let ipv6 = settings.ipv6 && cx.host.exists(Path::new(KERNEL_V6));
    let without_v6 = if !settings.ipv6 {
        Some("/etc/default/ufw says IPV6=no")
    } else if !ipv6 || !cx.host.exists(Path::new("/proc/net/if_inet6")) {
        Some("this machine's kernel has no IPv6")
    } else if cx.host.program(save_program(Family::V6)).is_none() {
        Some("ip6tables is not installed")
    } else {
        None
    };
    let mut sides = Vec::new();
    for family in Family::BOTH {
        // Without IPv6 the file may hold rules of ours from before; `ufw` itself can't touch them then.
        let wanted = family == Family::V4 || ipv6 || (program.known && cx.host.exists(Path::new(self::path(family))));
        if wanted {
            let (file, mode) = file(cx.host, family)?;
            sides.push(Side { file, mode, chain: None });
        }
    }
    let live_too = |i: &usize| sides[*i].file.family == Family::V4 || without_v6.is_none();
    let asked: Vec<usize> = (0..sides.len()).filter(live_too).collect();
    let saves: Vec<Vec<&str>> = asked.iter().map(|i| vec![save_program(sides[*i].file.family)]).collect();
    let answers = cx.host.run_all(&saves, PATIENCE);
    for (index, answer) in asked.into_iter().zip(answers) {
        let side = &mut sides[index];
        match answer {
            Ok(output) if output.ok() => side.chain = rules_of(&output.stdout, side.file.family),
            // An inactive ufw has no chains; whoever has no iptables can't have any.
            _ if !settings.enabled => {}
            Ok(output) => {
                let program = save_program(side.file.family);
                return Err(Error::new(ErrorKind::Program, format!("{program} failed: {}", output.complaint())));
            }
            Err(e) => return Err(e),
        }
    }
    Ok(Seen { settings, program, sides, ipv6, without_v6 })
}

const fn save_program(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables-save",
        Family::V6 => "ip6tables-save",
    }
}

fn rules_of(saved: &[u8], family: Family) -> Option<Vec<Vec<String>>> {
    let mut filter = save::parse(saved).filter?;
    Some(filter.chains.remove(chain(family))?.rules)
}

/// Asks iptables itself whether the first of our rules is there: a road that doesn't lead through our reader.
///
/// # Errors
/// `unconfirmed` if it isn't, `program` if there is no telling.
pub fn confirm(host: &dyn Look, seen: &Seen) -> Result<()> {
    for side in &seen.sides {
        let family = side.file.family;
        let command = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let Some(first) = side.part().live.into_iter().next().map(|p| p.rule) else { continue };
        if !host.iptables_has(command, "filter", &format!("{} {}", chain(family), first.rule()))? {
            return Err(Error::new(
                ErrorKind::Unconfirmed,
                format!("{} shows a rule that {command} doesn't find: {}", save_program(family), first.rule()),
            ));
        }
    }
    Ok(())
}
