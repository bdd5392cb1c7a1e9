//! What the firewalls' own books say: drift, bans and blocks inside the ranges, and what their backends warn of.
//!
//! Belongs here: the backends' reports and CrowdSec's decisions as findings. Does not: whether packets pass, which is
//! `verify`'s; a ban that stops packets is named there, with the rule.

use std::time::Duration;

use serde::Deserialize;

use super::finding;
use crate::{
    allowlist::{Prefixes, short},
    backends::Warning,
    doctor::Context,
    report::{BackendReport, BackendState, Finding, Finds, ReachVerdict},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Warnings of backends that are about Cloudflare being turned away, now or soon, each with its tool.
const TURNED_AWAY: [(&str, &str); 2] = [("csf-blocks-cloudflare", "csf"), ("fail2ban-wide-ban", "fail2ban")];

pub(super) fn look(cx: &Context<'_>) -> Vec<Finding> {
    // What another backend holds says nothing of this one.
    let applied = cx.session.store.load(false).map(|loaded| loaded.state.backends).unwrap_or_default();
    let mut found: Vec<Finding> =
        cx.backends.iter().flat_map(|b| backend(b, applied.contains_key(b.name), is_caught_by(cx, b.name))).collect();
    found.extend(cx.told.iter().map(|warning| told(warning, &|tool| is_caught_by(cx, tool))));
    found.extend(crowdsec(cx));
    found
}

/// The finding about mod_evasive's white list, and that of the logs about whom it has blocked.
const EVASIVE: (&str, &str) = ("firewall.mod-evasive", "logs.mod-evasive");

/// What mod_evasive has blocked since the time that was asked about, it blocks again as long as its white list lacks
/// Cloudflare: then that is a cause. A note of the logs is about this machine's own mod_evasive; where they warn, it isn't.
pub(in crate::doctor) fn blame_evasive(findings: &mut [Finding]) {
    let blocked = |f: &&Finding| f.id == EVASIVE.1 && f.verdict == Finds::Note;
    let Some(logged) = findings.iter().find(blocked).map(|f| f.evidence.clone()) else { return };
    for lacking in findings.iter_mut().filter(|f| f.id == EVASIVE.0) {
        lacking.verdict = Finds::Cause;
        "mod_evasive has blocked addresses of Cloudflare, and its white list doesn't hold Cloudflare's ranges: whoever \
         comes by way of a blocked one sees 403 Forbidden"
            .clone_into(&mut lacking.text);
        lacking.evidence.extend(logged.iter().cloned());
    }
}

/// Whether packets are turned away by rules of this tool: then that is the finding.
fn is_caught_by(cx: &Context<'_>, tool: &str) -> bool {
    let culprits = cx.reach.as_ref().map(|reach| reach.culprits.as_slice()).unwrap_or_default();
    culprits.iter().any(|c| c.tool == Some(tool) && c.verdict == ReachVerdict::Refused)
}

fn backend(b: &BackendReport, applied: bool, caught: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    match b.state {
        BackendState::Planned => {
            let lifts: Vec<&str> =
                b.changes.iter().map(|c| c.preview.as_str()).filter(|p| p.contains(" unbanip ")).collect();
            for command in &lifts {
                let banned = command.split_once(" unbanip ").map_or("", |(_, banned)| banned);
                let text = format!("fail2ban holds bans inside Cloudflare's ranges: {banned}");
                let verdict = if caught { Finds::Note } else { Finds::Warning };
                found.push(
                    finding("firewall.banned", verdict, text)
                        .seen("fail2ban-client status", (*command).to_owned())
                        .mend_by(
                            "lift the bans; `edgeallow sync` lifts them too, and keeps them from coming back",
                            *command,
                        ),
                );
            }
            let n = b.changes.len();
            let changes = format!("{n} change{}", if n == 1 { "" } else { "s" });
            let text = if applied {
                format!("{} is no longer as edgeallow left it: {changes} to make", b.name)
            } else {
                format!("edgeallow has not been run for {} yet: it would make {changes}", b.name)
            };
            // Where edgeallow was never run for it, nothing has drifted.
            let verdict = if applied { Finds::Warning } else { Finds::Note };
            let id = if b.name == "mod_evasive" { EVASIVE.0 } else { "firewall.drift" };
            found.push(
                finding(id, verdict, text)
                    .seen("edgeallow status", b.changes.first().map(|c| c.why.clone()).unwrap_or_default())
                    .mend_by("let edgeallow put it right", format!("edgeallow sync --backend {}", b.name)),
            );
        }
        BackendState::Unusable | BackendState::Failed => {
            let why = b.error.as_ref().map(|e| e.message.clone()).unwrap_or_default();
            let skipped =
                finding("firewall.backend", Finds::Skipped, format!("{} could not be looked at: {why}", b.name));
            found.push(skipped.mend_if(b.error.as_ref().and_then(|e| e.hint.clone())));
        }
        _ => {}
    }
    found
}

/// What a sync would warn of; where the tool's rules turn packets away, those are the finding.
fn told(warning: &Warning, is_caught: &dyn Fn(&str) -> bool) -> Finding {
    let turns_away = |(id, tool): &(&str, &str)| warning.id == *id && !is_caught(tool);
    let verdict = if TURNED_AWAY.iter().any(turns_away) { Finds::Warning } else { Finds::Note };
    finding("firewall.told", verdict, warning.message.clone()).seen("edgeallow status", warning.id.clone())
}

/// CrowdSec's alerts, as `cscli decisions list -o json` prints them.
#[derive(Deserialize)]
struct Alert {
    #[serde(default)]
    decisions: Vec<Decision>,
}

/// A decision: of `type` "ban" about a `scope` "Ip" or "Range".
#[derive(Deserialize)]
struct Decision {
    #[serde(default)]
    value: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    scenario: String,
}

fn crowdsec(cx: &Context<'_>) -> Vec<Finding> {
    const COMMAND: [&str; 5] = ["cscli", "decisions", "list", "-o", "json"];
    let host = cx.session.host;
    if host.program("cscli").is_none() {
        return Vec::new();
    }
    let answer = match host.run(&COMMAND, PATIENCE) {
        Ok(answer) if answer.ok() => answer.stdout,
        Ok(answer) => return vec![unheard(&answer.complaint())],
        Err(e) => return vec![unheard(&e.message)],
    };
    match decisions(&answer, &cx.edge, is_caught_by(cx, "crowdsec")) {
        Ok(found) => found,
        Err(e) => vec![unheard(&e.to_string())],
    }
}

fn unheard(why: &str) -> Finding {
    finding("firewall.crowdsec", Finds::Skipped, format!("CrowdSec's decisions could not be read: {why}"))
}

/// The decisions about Cloudflare; where there is none at all, cscli says `null`.
fn decisions(answer: &[u8], edge: &Prefixes, caught: bool) -> serde_json::Result<Vec<Finding>> {
    let alerts: Option<Vec<Alert>> = serde_json::from_slice(answer)?;
    let all = alerts.into_iter().flatten().flat_map(|a| a.decisions);
    Ok(all
        .filter_map(|d| {
            let (net, option) = match d.value.parse::<std::net::IpAddr>() {
                Ok(ip) => (ipnet::IpNet::from(ip), "--ip"),
                Err(_) => (d.value.parse().ok()?, "--range"),
            };
            if !edge.covers(&net) && !edge.iter().any(|range| net.contains(&range)) {
                return None;
            }
            let verdict = if caught { Finds::Note } else { Finds::Warning };
            let text = format!("CrowdSec has decided on a {} of {}, which is Cloudflare's", d.kind, d.value);
            Some(finding("firewall.crowdsec", verdict, text).seen("cscli decisions list", d.scenario).mend_by(
                "lift it, and put the ranges on CrowdSec's allowlist",
                format!("cscli decisions delete {option} {}", short(&net)),
            ))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_white_list_that_lacks_cloudflare_is_a_cause_once_this_machine_has_blocked_it() {
        let mut found = vec![finding(EVASIVE.0, Finds::Note, "2 changes").seen("edgeallow status", "")];
        blame_evasive(&mut found);
        assert_eq!(found[0].verdict, Finds::Note);
        let logged = |verdict| Finding::new(crate::report::Room::Logs, EVASIVE.1, verdict, "").seen("error.log", "403");
        found.push(logged(Finds::Warning));
        blame_evasive(&mut found);
        assert_eq!(found[0].verdict, Finds::Note, "the log of another machine");
        found[1] = logged(Finds::Note);
        blame_evasive(&mut found);
        assert_eq!((found[0].verdict, found[1].verdict), (Finds::Cause, Finds::Note));
        assert_eq!(found[0].evidence[1].source, "error.log");
    }

    #[test]
    fn crowdsecs_decisions_about_cloudflare_are_told_with_what_lifts_them() {
        let edge: Prefixes = std::iter::once("104.16.0.0/13".parse::<ipnet::IpNet>().unwrap()).collect();
        let answer = br#"[{"id":3,"decisions":[
            {"duration":"3h","scope":"Ip","value":"104.16.0.9","type":"ban","scenario":"crowdsecurity/http-probing"},
            {"scope":"Range","value":"104.0.0.0/8","type":"captcha","scenario":"x"},
            {"scope":"Ip","value":"203.0.113.9","type":"ban"},{"scope":"Country","value":"NL","type":"ban"}]}]"#;
        let found = decisions(answer, &edge, false).unwrap();
        let commands: Vec<_> = found.iter().filter_map(|f| f.fix.as_ref()?.command.as_deref()).collect();
        assert_eq!(commands, ["cscli decisions delete --ip 104.16.0.9", "cscli decisions delete --range 104.0.0.0/8"]);
        assert!(found.iter().all(|f| f.verdict == Finds::Warning));
        assert!(decisions(b"null", &edge, false).unwrap().is_empty());
        assert!(decisions(b"<html>", &edge, false).is_err());
    }
}
