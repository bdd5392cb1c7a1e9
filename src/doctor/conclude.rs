//! What the findings come to: one paragraph, and the one command to run next.
//!
//! Belongs here: choosing among findings. Does not: finding.

use crate::report::{Conclusion, Finding, Finds};

/// Findings that leave open whether a packet filter turns Cloudflare away.
const FIREWALL_UNSEEN: [&str; 4] = ["firewall.unseen", "firewall.unknown", "firewall.gap", "firewall.another-machine"];

/// Leaves open whether what this host answers arrives.
const WAY_UNKNOWN: &str = "firewall.route-elsewhere";

/// About a record that others can see: visitors go there themselves, and Cloudflare does once it is proxied.
const STRAIGHT: &str = "dns.aaaa-without-listener";

/// Warnings that say nothing of visitors: something that was asked for was not looked at.
const NOT_LOOKED_AT: [&str; 2] = ["logs.not-read", "logs.packed"];

/// The warning about an error that the application itself answers with, and where its text begins to say whose it is.
const APPLICATION: &str = "online.application-error";
const APPLICATIONS_OWN: &str = ": the application's own error";

/// The most likely cause is the first of the worst, in the order in which the rooms were looked into. `as_root` asks the
/// same with more rights, where there are more to have.
pub(super) fn conclude(findings: &[Finding], as_root: Option<String>) -> Conclusion {
    let of = |verdict| findings.iter().filter(move |f| f.verdict == verdict);
    if let Some(cause) = of(Finds::Cause).next() {
        let more = of(Finds::Cause).count() - 1;
        // What begins with a program's name must stay as it is: `ufw drops …`.
        let mut text = format!("Most likely: {}", ended(&cause.text));
        if let Some(errors) = cause.errors() {
            let once = if cause.id == STRAIGHT { " once the name is proxied" } else { "" };
            text.push_str(&format!(" Visitors see {errors}{once}."));
        }
        if let Some(fix) = &cause.fix {
            text.push(' ');
            text.push_str(&sentence(&fix.text));
        }
        match more {
            0 => {}
            1 => text.push_str(" There is one more cause below: mend this one first, then ask again."),
            n => text.push_str(&format!(" There are {n} more causes below: mend this one first, then ask again.")),
        }
        return Conclusion {
            verdict: Finds::Cause,
            text,
            finding: Some(cause.id),
            next: cause.fix.as_ref().and_then(|f| f.command.clone()),
        };
    }
    let astray = of(Finds::Skipped).find(|f| f.id == WAY_UNKNOWN);
    let unseen = FIREWALL_UNSEEN.iter().any(|id| of(Finds::Skipped).any(|f| f.id == *id));
    let (missed, warnings): (Vec<_>, Vec<_>) = of(Finds::Warning).partition(|f| NOT_LOOKED_AT.contains(&f.id));
    if let Some(warning) = warnings.first() {
        let mut text = match warning.text.split_once(APPLICATIONS_OWN) {
            Some((what, _)) if warning.id == APPLICATION => {
                // Both may be: one visitor sees the error, and another doesn't get that far.
                let through = !unseen && !warnings.iter().any(|f| f.id.starts_with("firewall."));
                let begins = if through { "Cloudflare gets through; the error" } else { "The error that was seen" };
                format!("{begins} is the application's own: {}", ended(what))
            }
            _ => format!(
                "Nothing that was seen gives every visitor an error now. What may give one to some of them, or under load: {}",
                ended(&warning.text)
            ),
        };
        if let Some(fix) = &warning.fix {
            text.push(' ');
            text.push_str(&sentence(&fix.text));
        }
        if unseen {
            text.push_str(" Whether a firewall turns Cloudflare away could not be told, see below.");
        }
        if let Some(astray) = astray {
            text.push(' ');
            text.push_str(&sentence(&astray.text));
        }
        return Conclusion {
            verdict: Finds::Warning,
            text,
            finding: Some(warning.id),
            next: warning.fix.as_ref().and_then(|f| f.command.clone()),
        };
    }
    let skipped = of(Finds::Skipped).filter(|f| f.id != WAY_UNKNOWN).count() + missed.len();
    let things = match skipped {
        0 => String::new(),
        1 => " One thing was not looked at, see below.".to_owned(),
        n => format!(" {n} things were not looked at, see below."),
    };
    let (mut text, mut next) = match (unseen, as_root) {
        (true, Some(command)) => (
            "Nothing that can be seen without root would make Cloudflare answer with an error now. Firewalls, the most \
             frequent cause, can't be seen: ask again as root, or send your hoster the text that -v shows."
                .to_owned(),
            Some(command),
        ),
        (true, None) => (
            format!(
                "Nothing that was seen would make Cloudflare answer with an error now; whether a firewall turns it away \
                 could not be told.{things}"
            ),
            None,
        ),
        (false, _) if astray.is_some() => {
            (format!("Nothing that was seen would make Cloudflare answer with an error now.{things}"), None)
        }
        (false, _) => (format!("Nothing on this machine would make Cloudflare answer with an error now.{things}"), None),
    };
    if let Some(astray) = astray {
        text = format!("{text} {}", sentence(&astray.text));
        // What was asked shows the way that they take.
        next = next.or_else(|| astray.evidence.first().map(|e| e.source.clone()));
    }
    Conclusion { verdict: Finds::Ok, text, finding: None, next }
}

/// With a full stop.
fn ended(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '?', '!']) { text.to_owned() } else { format!("{text}.") }
}

/// With a capital letter and a full stop: for what begins with a word of ours, as each fix does.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let text: String = letters.next().map(|c| c.to_uppercase().chain(letters).collect()).unwrap_or_default();
    ended(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Room;

    #[test]
    fn the_first_cause_in_the_order_of_the_rooms_is_the_likely_one() {
        let cause = |room, id, text: &str| Finding::new(room, id, Finds::Cause, text);
        let told = conclude(
            &[
                Finding::new(Room::Online, "online.answers", Finds::Ok, "nginx answers"),
                Finding::new(Room::Online, "online.slow", Finds::Warning, "it is slow"),
                cause(Room::Firewall, "firewall.refused", "ufw drops it")
                    .gives(&[522])
                    .mend_by("sync", "edgeallow sync"),
                cause(Room::Tls, "tls.expired", "it has expired").gives(&[526]),
            ],
            None,
        );
        assert_eq!(told.verdict, Finds::Cause);
        assert_eq!(told.finding, Some("firewall.refused"));
        assert_eq!(told.next.as_deref(), Some("edgeallow sync"));
        assert_eq!(
            told.text,
            "Most likely: ufw drops it. Visitors see Error 522. Sync. There is one more cause below: mend this one \
             first, then ask again."
        );
    }

    #[test]
    fn what_was_not_looked_at_is_said_where_all_else_is_well() {
        let told = conclude(&[Finding::new(Room::Dns, "dns.no-host", Finds::Skipped, "no name was given")], None);
        assert_eq!((told.verdict, told.finding), (Finds::Ok, None));
        assert!(told.text.contains("One thing was not looked at"), "{}", told.text);
    }

    #[test]
    fn a_log_that_was_not_read_gives_nobody_an_error() {
        let told = conclude(&[Finding::new(Room::Logs, "logs.not-read", Finds::Warning, "there is no file x")], None);
        assert_eq!((told.verdict, told.finding), (Finds::Ok, None));
        assert!(told.text.ends_with("now. One thing was not looked at, see below."), "{}", told.text);
    }

    #[test]
    fn an_error_of_the_applications_is_said_to_be_its_own() {
        let text =
            format!("nginx answers 502 for shop.example on port 443{APPLICATIONS_OWN}, which Cloudflare passes on");
        let error = Finding::new(Room::Online, APPLICATION, Finds::Warning, text).mend("see in its log why");
        let told = conclude(std::slice::from_ref(&error), None);
        assert_eq!((told.verdict, told.finding), (Finds::Warning, Some(APPLICATION)));
        assert_eq!(
            told.text,
            "Cloudflare gets through; the error is the application's own: nginx answers 502 for shop.example on port 443. \
             See in its log why."
        );
        let unseen = Finding::new(Room::Firewall, "firewall.unseen", Finds::Skipped, "run edgeallow as root");
        let told = conclude(&[error, unseen], None);
        assert!(told.text.starts_with("The error that was seen is the application's own: "), "{}", told.text);
        assert!(told.text.ends_with("could not be told, see below."), "{}", told.text);
    }

    #[test]
    fn where_answers_may_not_arrive_all_is_not_well() {
        let asks = "ip route get 103.21.244.0 from 192.0.2.1";
        let astray = Finding::new(Room::Firewall, WAY_UNKNOWN, Finds::Skipped, "whether answers arrive can't be told");
        let astray = astray.seen(asks, "dev vpn0");
        let told = conclude(std::slice::from_ref(&astray), None);
        assert_eq!((told.verdict, told.finding, told.next.as_deref()), (Finds::Ok, None, Some(asks)));
        assert_eq!(
            told.text,
            "Nothing that was seen would make Cloudflare answer with an error now. Whether answers arrive can't be told."
        );
        let unseen = Finding::new(Room::Firewall, "firewall.unseen", Finds::Skipped, "run edgeallow as root");
        let told = conclude(&[unseen, astray.clone()], Some("sudo edgeallow doctor".into()));
        assert!(told.text.starts_with("Nothing that can be seen without root "), "{}", told.text);
        assert!(told.text.ends_with(" Whether answers arrive can't be told."), "{}", told.text);
        assert_eq!(told.next.as_deref(), Some("sudo edgeallow doctor"));
        let slow = Finding::new(Room::Online, "online.slow", Finds::Warning, "it is slow");
        let told = conclude(&[slow, astray], None);
        assert!(told.text.ends_with("it is slow. Whether answers arrive can't be told."), "{}", told.text);
    }

    #[test]
    fn what_could_not_be_seen_is_never_well() {
        let unseen = [Finding::new(Room::Firewall, "firewall.unseen", Finds::Skipped, "run edgeallow as root")];
        let told = conclude(&unseen, Some("sudo edgeallow doctor".into()));
        assert!(told.text.starts_with("Nothing that can be seen without root "), "{}", told.text);
        assert_eq!(told.next.as_deref(), Some("sudo edgeallow doctor"));
        let told = conclude(&unseen, None);
        assert!(told.text.contains("could not be told") && told.next.is_none(), "{}", told.text);
    }
}
