//! What the findings come to: one paragraph, and the one command to run next.
//!
//! Belongs here: choosing among findings. Does not: finding.

use crate::report::{Conclusion, Finding, Finds};

/// The most likely cause is the first of the worst, in the order in which the rooms were looked into.
pub(super) fn conclude(findings: &[Finding]) -> Conclusion {
    let of = |verdict| findings.iter().filter(move |f| f.verdict == verdict);
    if let Some(cause) = of(Finds::Cause).next() {
        let more = of(Finds::Cause).count() - 1;
        let mut text = format!("Most likely: {}", sentence(&cause.text));
        match cause.cloudflare_errors.as_slice() {
            [] => {}
            [one] => text.push_str(&format!(" Visitors see Error {one}.")),
            [all @ .., last] => {
                let all: Vec<String> = all.iter().map(u16::to_string).collect();
                text.push_str(&format!(" Visitors see Error {} or {last}.", all.join(", ")));
            }
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
    if let Some(warning) = of(Finds::Warning).next() {
        let text = format!(
            "Nothing here gives every visitor an error now. What may give one to some, or under load: {}",
            sentence(&warning.text)
        );
        return Conclusion {
            verdict: Finds::Warning,
            text,
            finding: Some(warning.id),
            next: warning.fix.as_ref().and_then(|f| f.command.clone()),
        };
    }
    let unseen = of(Finds::Skipped).count();
    let mut text = "Nothing on this machine would make Cloudflare answer with an error now.".to_owned();
    match unseen {
        0 => {}
        1 => text.push_str(" One thing was not looked at, see below."),
        n => text.push_str(&format!(" {n} things were not looked at, see below.")),
    }
    Conclusion { verdict: Finds::Ok, text, finding: None, next: None }
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.trim_end().chars();
    let text: String = letters.next().map(|c| c.to_uppercase().chain(letters).collect()).unwrap_or_default();
    if text.ends_with(['.', '?', '!']) { text } else { text + "." }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Room;

    #[test]
    fn the_first_cause_in_the_order_of_the_rooms_is_the_likely_one() {
        let cause = |room, id, text: &str| Finding::new(room, id, Finds::Cause, text);
        let told = conclude(&[
            Finding::new(Room::Online, "online.answers", Finds::Ok, "nginx answers"),
            Finding::new(Room::Online, "online.slow", Finds::Warning, "it is slow"),
            cause(Room::Firewall, "firewall.refused", "ufw drops it").gives(&[522]).mend_by("sync", "edgeallow sync"),
            cause(Room::Tls, "tls.expired", "it has expired").gives(&[526]),
        ]);
        assert_eq!(told.verdict, Finds::Cause);
        assert_eq!(told.finding, Some("firewall.refused"));
        assert_eq!(told.next.as_deref(), Some("edgeallow sync"));
        assert_eq!(
            told.text,
            "Most likely: Ufw drops it. Visitors see Error 522. Sync. There is one more cause below: mend this one \
             first, then ask again."
        );
    }

    #[test]
    fn what_was_not_looked_at_is_said_where_all_else_is_well() {
        let told = conclude(&[Finding::new(Room::Dns, "dns.no-host", Finds::Skipped, "no name was given")]);
        assert_eq!((told.verdict, told.finding), (Finds::Ok, None));
        assert!(told.text.contains("One thing was not looked at"), "{}", told.text);
    }
}
