//! Ports that Cloudflare proxies, and those that it doesn't.

use std::collections::BTreeSet;

use super::finding;
use crate::{
    doctor::{HTTP_PORTS, HTTPS_PORTS},
    report::{Finding, Finds},
};

/// What to say of the ports that are asked about. Those that were named on the command line (`named`) are where visitors
/// go; the others are only let through. `proxied` says whether any name is proxied, if that is known.
pub(super) fn judge(ports: &BTreeSet<u16>, named: &BTreeSet<u16>, proxied: Option<bool>) -> Vec<Finding> {
    let outside: Vec<u16> =
        ports.iter().copied().filter(|p| !HTTP_PORTS.contains(p) && !HTTPS_PORTS.contains(p)).collect();
    outside.into_iter().map(|port| one(port, named.contains(&port), proxied)).collect()
}

fn one(port: u16, named: bool, proxied: Option<bool>) -> Finding {
    let list = HTTP_PORTS.iter().chain(&HTTPS_PORTS).collect::<BTreeSet<_>>();
    let list = list.into_iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
    let (verdict, then) = match (named, proxied) {
        // No error number: it isn't Cloudflare's web server that leaves the visitor without an answer.
        (true, Some(true) | None) => {
            (Finds::Cause, "visitors who go there get no answer at all, and no page of Cloudflare's either")
        }
        (true, Some(false)) => (Finds::Note, "once the name is proxied, visitors who go there get no answer at all"),
        (false, _) => (Finds::Note, "letting it in there is of use to Spectrum and Origin Rules only"),
    };
    let text = format!("Cloudflare doesn't proxy port {port}: {then}");
    let found = finding("dns.port-not-proxied", verdict, text).seen("the ports that Cloudflare proxies", list);
    if !named {
        return found;
    }
    let command = format!("ss -ltnp 'sport = :{port}'");
    let fix = format!(
        "let the site listen on port {} for HTTPS or {} for HTTP; or leave it on {port}, send visitors to 443, and let an \
         Origin Rule at Cloudflare change the destination port to {port}",
        nearest(port, &HTTPS_PORTS),
        nearest(port, &HTTP_PORTS)
    );
    found.mend_by(fix, command)
}

fn nearest(port: u16, of: &[u16]) -> u16 {
    // Neither list is empty.
    of.iter().copied().min_by_key(|p| p.abs_diff(port)).unwrap_or(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_not_proxied_is_a_cause_where_visitors_go_there() {
        let asked = BTreeSet::from([80, 443, 8443, 9000]);
        for (named, proxied, verdict) in [
            (&asked, None, Finds::Cause),
            (&asked, Some(true), Finds::Cause),
            (&asked, Some(false), Finds::Note),
            (&BTreeSet::new(), None, Finds::Note),
        ] {
            let found = judge(&asked, named, proxied);
            let [one] = &found[..] else { panic!("{found:?}") };
            assert_eq!((one.id, one.verdict), ("dns.port-not-proxied", verdict));
            assert!(one.text.contains("port 9000") && one.cloudflare_errors.is_empty(), "{one:?}");
            assert_eq!(one.fix.is_some(), !named.is_empty());
        }
    }

    #[test]
    fn the_nearest_ports_are_told() {
        for (port, https, http) in [(9000, 8443, 8880), (8444, 8443, 8080), (81, 443, 80), (2084, 2083, 2082)] {
            assert_eq!((nearest(port, &HTTPS_PORTS), nearest(port, &HTTP_PORTS)), (https, http), "{port}");
        }
    }
}
