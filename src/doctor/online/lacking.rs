//! Why nothing listens: which web server is stopped, or runs and listens elsewhere, and which of them it should be.
//!
//! Belongs here: servers that don't listen where they are needed, and the configurations that they would read next. Does
//! not: which ports are needed (`judge`), looking for servers (`servers`).

use std::cmp::Reverse;

use super::{
    gather::{Port, Seen, Socket},
    judge::{finding, lack, numbers, shown_by},
    servers::{Installed, Running},
    words::{addresses, list, ports, socket, ss},
};
use crate::{
    doctor::{HTTPS_PORTS, commands::edit_at},
    report::{Finding, Finds},
};

/// Shows where nginx could be told to listen, in files that it reads and in others.
const NGINX_UNREAD: &str = "grep -RnE '(^|[{;])\\s*listen\\s' /etc/nginx";

pub(super) fn nothing_listens(seen: &Seen, on: &[&Port], verdict: Finds) -> Finding {
    let numbers = numbers(on);
    let text = format!("nothing listens on {} of {}", ports(&numbers, "or"), addresses(on.iter().copied()));
    let sockets: Vec<_> = on.iter().flat_map(|p| &p.sockets).collect();
    let shows =
        if sockets.is_empty() { "no socket".to_owned() } else { list(sockets.iter().map(|s| socket(s)), "and") };
    let found = |more: &str| {
        let text = format!("{text}{more}");
        finding("online.nothing-listens", verdict, text).seen(ss(&numbers), shows.clone()).gives(&[521])
    };

    let promises = |s: &Installed| s.promised.on(&numbers).is_some();
    let has_site = |s: &Installed| !s.promised.sites.is_empty();
    let runs = seen.servers.iter().filter_map(|server| Some((server, server.runs.as_ref()?)));
    let runs =
        runs.min_by_key(|(s, at)| Reverse((promises(s), has_site(s), at.on.as_ref().is_none_or(|on| !on.is_empty()))));
    // Where something else serves already, the site runs on none that is stopped.
    let open = seen.ports.iter().any(|p| lack(p).is_none());
    let mut stopped: Vec<&Installed> = seen.servers.iter().filter(|s| s.runs.is_none() && !open).collect();
    let has_name = |s: &Installed| s.promised.named.is_some();
    stopped.sort_by_key(|s| Reverse((has_site(s), s.enabled, has_name(s), promises(s), s.broken.is_none())));
    // Starting one that has not the site would put its default page online.
    let is_meant = |s: &Installed| {
        let is_better = |r: &Installed| promises(r) || (has_site(r) && !has_site(s));
        promises(s) && (s.enabled || has_site(s)) && !runs.is_some_and(|(r, _)| is_better(r))
    };
    match (runs, stopped.as_slice()) {
        (Some((server, at)), [first, ..]) if is_meant(first) => {
            let more = format!("{}; {} {}", are_stopped(&stopped), server.server.name, listens(at));
            start(found(&more), &stopped, &numbers)
        }
        (Some((server, at)), _) => elsewhere(&found, server, at, &numbers),
        (None, []) if seen.other_ports.is_empty() => {
            found("").mend("let the program that serves the site listen there, on every address")
        }
        (None, []) => on_another_port(&found, &seen.other_ports),
        (None, all) => start(found(&are_stopped(all)), all, &numbers),
    }
}

/// A program that isn't known as a web server listens on another port that Cloudflare serves.
fn on_another_port(found: &dyn Fn(&str) -> Finding, beside: &[Socket]) -> Finding {
    let mut others: Vec<u16> = beside.iter().map(|s| s.address.port()).collect();
    others.sort_unstable();
    others.dedup();
    let ask: Vec<String> = others.iter().map(|p| format!("--port {p}")).collect();
    let shows = list(beside.iter().map(socket), "and");
    let fix = format!(
        "let the program that serves the site listen there, on every address; if visitors are to use {}, ask with `{}`",
        ports(&others, "and"),
        ask.join(" ")
    );
    found(&format!(", though something listens on {}, which Cloudflare serves too", ports(&others, "and")))
        .seen(ss(&others), shows)
        .mend(fix)
}

/// `runs (pid 7) and listens on 0.0.0.0:8080 only`
fn listens(at: &Running) -> String {
    let on = match at.on.as_deref() {
        None => String::new(),
        Some([]) => " and listens on nothing".to_owned(),
        Some(on) => format!(" and listens on {} only", list(on, "and")),
    };
    format!("runs (pid {}){on}", at.pid)
}

/// One that runs doesn't listen where it is needed.
fn elsewhere(found: &dyn Fn(&str) -> Finding, server: &Installed, at: &Running, numbers: &[u16]) -> Finding {
    let name = server.server.name;
    let mut text = format!(", though {name} {}", listens(at));
    let mut serves: Vec<u16> = server.promised.serves.iter().map(|(port, _)| *port).collect();
    serves.sort_unstable();
    serves.dedup();
    if !serves.is_empty() {
        let sites = list(&server.promised.sites, "and");
        text.push_str(&format!(", where it serves {sites} by its configuration ({})", ports(&serves, "and")));
    }
    if server.broken.is_some() {
        text.push_str(", and its configuration has an error");
    }
    let mut f = found(&text);
    if let Some(on) = &at.on {
        let shows = if on.is_empty() { "no socket".to_owned() } else { list(on, "and") };
        f = f.seen(format!("ss -ltnxp | grep 'pid={},'", at.pid), shows);
    }
    if let Some((test, complaint)) = &server.broken {
        let reload = server.server.reload.unwrap_or(test);
        return f
            .seen(test.clone(), complaint.clone())
            .mend_by(format!("mend the configuration until this passes, then `{reload}`"), test.clone());
    }
    if let (Some((port, place)), Some(reload)) = (server.promised.on(numbers), server.server.reload) {
        return f.seen(place.clone(), format!("port {port}")).mend_by(
            format!("reload {name}: by its configuration it listens on port {port}, which it has not read yet"),
            reload,
        );
    }
    if let Some((_, place)) = server.promised.serves.first() {
        let plain = |port: &u16| !HTTPS_PORTS.contains(port);
        let lines = numbers.iter().map(|p| format!("`listen {p}{};`", if plain(p) { "" } else { " ssl" }));
        let ask: Vec<String> = serves.iter().map(|p| format!("--port {p}")).collect();
        let fix = format!(
            "write {} beside `listen` there (and the same with `[::]:` for IPv6), and reload it; if visitors are to use \
             the other {}, ask with `{}`",
            list(lines, "and"),
            if ask.len() == 1 { "port" } else { "ports" },
            ask.join(" ")
        );
        return shown_by(f.seen(place.clone(), ports(&serves, "and")), fix, edit_at(place).as_deref());
    }
    let with = if numbers.iter().any(|p| HTTPS_PORTS.contains(p)) { ", with a certificate for TLS" } else { "" };
    let is_unix = |on: &String| on.starts_with("unix:");
    let fix = match at.on.as_deref() {
        Some([]) if name == "nginx" => format!(
            "have a `server` with `listen` in a file that nginx.conf includes{with}: a link in sites-enabled may be \
             missing; this shows what there is"
        ),
        Some([]) => format!("have {name} listen there{with}; this shows where that is set"),
        Some(on) if on.iter().all(is_unix) => format!(
            "start the program that takes visitors' connections and passes them on to that socket, or let {name} listen \
             there too{with}; this shows where that is set"
        ),
        _ => format!("let {name} listen there too{with}; this shows where that is set"),
    };
    // What it doesn't read may be what it should.
    let unread = at.on.as_ref().is_some_and(|on| on.is_empty() && name == "nginx").then_some(NGINX_UNREAD);
    shown_by(f, fix, unread.or(server.server.find_listen))
}

/// `: nginx is installed and doesn't run`, the one to start first.
fn are_stopped(stopped: &[&Installed]) -> String {
    let names: Vec<&str> = stopped.iter().map(|s| s.server.name).collect();
    match (stopped.first().is_some_and(|s| s.broken.is_some()), names.as_slice()) {
        (true, [one]) => format!(": {one} is installed, doesn't run, and its configuration has an error"),
        (true, [one, others @ ..]) => format!(
            ": {one} is installed, doesn't run, and its configuration has an error; {} {} stopped too",
            list(others, "and"),
            if others.len() == 1 { "is" } else { "are" }
        ),
        (false, [one]) => format!(": {one} is installed and doesn't run"),
        (_, all) => format!(": {} are installed and don't run", list(all, "and")),
    }
}

/// The first of these is to be started.
fn start(mut found: Finding, stopped: &[&Installed], numbers: &[u16]) -> Finding {
    let Some((server, others)) = stopped.split_first() else { return found };
    let Installed { start, promised, .. } = server;
    let promise = promised.on(numbers);
    for (test, complaint) in stopped.iter().filter_map(|s| s.broken.as_ref()) {
        found = found.seen(test.clone(), complaint.clone());
    }
    if let Some((port, place)) = promise.filter(|_| !others.is_empty()) {
        found = found.seen(place.clone(), format!("{} would listen on port {port}", server.server.name));
    }
    let other = |s: &&Installed| {
        let broken = if s.broken.is_some() { ", whose configuration has an error" } else { "" };
        format!("{}{broken} (`{}`)", s.server.name, s.start)
    };
    // Why this one, where there is a choice.
    let only_enabled = server.enabled && !others.iter().any(|s| s.enabled);
    let why = match (promised.sites.first(), promised.named.as_ref(), promise) {
        _ if others.is_empty() => String::new(),
        (Some(site), ..) => format!(", which has a site for {site}"),
        _ if only_enabled => ", which is started at boot".to_owned(),
        (None, Some(site), _) => format!(", which has a site for {site}"),
        _ if server.enabled => ", which is started at boot".to_owned(),
        (None, None, Some((port, _))) => format!(", which has port {port} in its configuration"),
        (None, None, None) => String::new(),
    };
    let others = match others {
        [] => String::new(),
        all => format!("; if the site is served by {}, start that instead", list(all.iter().map(other), "or")),
    };
    if let Some((test, _)) = &server.broken {
        let whose = if why.is_empty() { String::new() } else { format!(" of {}{why},", server.server.name) };
        return found
            .mend_by(format!("mend the configuration{whose} until this passes, then `{start}`{others}"), test.clone());
    }
    found.mend_by(format!("start {}{why}{others}", server.server.name), start.clone())
}

/// Servers that run on what they read before, and can't read what is there now. What has been `told` is not told again.
pub(super) fn unread_configurations(seen: &Seen, told: &[Finding]) -> Vec<Finding> {
    let is_told = |test: &str| told.iter().flat_map(|f| &f.evidence).any(|e| e.source == test);
    let runs = seen.servers.iter().filter_map(|s| Some((s, s.runs.as_ref()?)));
    let judge = |(server, at): (&Installed, &Running)| {
        let name = server.server.name;
        if let Some((test, complaint)) = server.broken.as_ref().filter(|(test, _)| !is_told(test)) {
            let text = format!(
                "{name} runs (pid {}) on the configuration that it read before; the present one has an error: it can't be \
                 reloaded, and after a restart or a reboot the site would be down",
                at.pid
            );
            let found = finding("online.broken-config", Finds::Warning, text).gives(&[521]);
            return Some(
                found
                    .seen(test.clone(), complaint.clone())
                    .mend_by("mend the configuration until this passes", test.clone()),
            );
        }
        let why = server.untested.as_ref()?;
        let test = server.server.test?.join(" ");
        let text = format!("whether {name} could be started with its present configuration was not tested: {why}");
        let skipped = finding("online.untested-config", Finds::Skipped, text).seen(test.clone(), "not run");
        Some(skipped.mend_by("test it before it is reloaded", test))
    };
    runs.filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            gather::{Door, Way},
            promised::Promised,
            servers,
        },
        *,
    };

    fn seen(servers: Vec<Installed>) -> Seen {
        let port = |number| Port {
            number,
            sockets: vec![],
            doors: ["192.0.2.1", "2001:db8:2::1"]
                .map(|ip| Door {
                    ip: ip.parse().unwrap(),
                    way: Way::Nothing,
                    filtered: false,
                    full: false,
                    visits: vec![],
                })
                .into(),
        };
        Seen { ports: vec![port(80), port(443)], servers, ..Seen::default() }
    }

    fn server(process: &str) -> Installed {
        let server = servers::by_process(process).unwrap();
        Installed {
            server,
            runs: None,
            enabled: false,
            start: format!("service {process} start"),
            broken: None,
            untested: None,
            promised: Promised::default(),
        }
    }

    fn running(process: &str, on: &[&str]) -> Installed {
        let on = on.iter().map(|&on| on.to_owned()).collect();
        Installed { runs: Some(Running { pid: 7, on: Some(on) }), ..server(process) }
    }

    fn with_port(port: u16, sites: &[&str], server: Installed) -> Installed {
        let sites = sites.iter().map(|&site| site.to_owned()).collect();
        Installed {
            promised: Promised { listens: vec![(port, "/etc/x line 3".into())], sites, ..Promised::default() },
            ..server
        }
    }

    /// The end of the text, the fix and the command.
    fn told(servers: Vec<Installed>) -> (String, String, String) {
        let seen = seen(servers);
        let found = nothing_listens(&seen, &seen.ports.iter().collect::<Vec<_>>(), Finds::Cause);
        let start = "nothing listens on port 80 or 443 of 192.0.2.1 and 2001:db8:2::1";
        let end = found.text.strip_prefix(start).unwrap_or_else(|| panic!("{}", found.text)).to_owned();
        let fix = found.fix.unwrap();
        (end, fix.text, fix.command.unwrap_or_default())
    }

    #[test]
    fn one_that_runs_is_told_with_where_it_listens_instead() {
        let (end, fix, command) = told(vec![running("nginx", &[])]);
        assert_eq!(end, ", though nginx runs (pid 7) and listens on nothing");
        assert!(fix.contains("sites-enabled") && command.starts_with("grep "), "{fix} {command}");
        let (end, fix, _) = told(vec![running("nginx", &["unix:/run/site.sock"])]);
        assert_eq!(end, ", though nginx runs (pid 7) and listens on unix:/run/site.sock only");
        assert!(fix.contains("passes them on to that socket"), "{fix}");
        let (end, fix, _) = told(vec![running("apache2", &["0.0.0.0:8080", "[::]:8080"])]);
        assert_eq!(end, ", though Apache runs (pid 7) and listens on 0.0.0.0:8080 and [::]:8080 only");
        assert!(fix.starts_with("let Apache listen there too"), "{fix}");
    }

    #[test]
    fn a_program_on_another_port_of_cloudflare_s_is_named_with_the_port() {
        let address =
            |text: &str| Socket { address: text.parse().unwrap(), programs: vec!["java".into()], pid: Some(9) };
        let seen = Seen { other_ports: vec![address("0.0.0.0:8443"), address("[::]:8443")], ..seen(vec![]) };
        let found = nothing_listens(&seen, &seen.ports.iter().collect::<Vec<_>>(), Finds::Cause);
        assert!(found.text.ends_with(", though something listens on port 8443, which Cloudflare serves too"));
        assert_eq!(found.evidence[1].shows, "0.0.0.0:8443 java (pid 9) and [::]:8443 java (pid 9)");
        let fix = found.fix.unwrap();
        assert!(fix.text.ends_with("if visitors are to use port 8443, ask with `--port 8443`"), "{}", fix.text);
    }

    #[test]
    fn one_whose_configuration_was_changed_is_reloaded() {
        let (_, fix, command) = told(vec![with_port(443, &[], running("nginx", &[]))]);
        assert!(fix.contains("it listens on port 443, which it has not read yet"), "{fix}");
        assert_eq!(command, "nginx -s reload");
        let broken = Some(("nginx -t".to_owned(), "[emerg] x".to_owned()));
        let (end, fix, command) = told(vec![Installed { broken, ..with_port(443, &[], running("nginx", &[])) }]);
        assert!(end.ends_with("and its configuration has an error"), "{end}");
        assert_eq!(fix, "mend the configuration until this passes, then `nginx -s reload`");
        assert_eq!(command, "nginx -t");
    }

    #[test]
    fn of_two_that_are_stopped_the_one_with_the_site_is_started() {
        let start = |nginx, apache| told(vec![nginx, apache]);
        let (end, fix, command) =
            start(with_port(80, &[], server("nginx")), with_port(80, &["shop.example"], server("apache2")));
        assert_eq!(end, ": Apache and nginx are installed and don't run");
        assert_eq!(
            fix,
            "start Apache, which has a site for shop.example; if the site is served by nginx (`service nginx start`), start \
             that instead"
        );
        assert_eq!(command, "service apache2 start");
        let enabled = Installed { enabled: true, ..server("apache2") };
        assert!(start(server("nginx"), enabled).1.starts_with("start Apache, which is started at boot; "));
        let fix = start(server("nginx"), with_port(443, &[], server("apache2"))).1;
        assert!(fix.starts_with("start Apache, which has port 443 in its configuration; "), "{fix}");
        let broken = Installed { broken: Some(("nginx -t".into(), "[emerg] x".into())), ..server("nginx") };
        let (_, fix, command) = start(broken.clone(), server("apache2"));
        assert!(fix.ends_with(
            "served by nginx, whose configuration has an error (`service nginx start`), start that instead"
        ));
        assert_eq!(command, "service apache2 start");
        let (end, _, command) = start(Installed { enabled: true, ..broken }, server("apache2"));
        assert!(end.ends_with("its configuration has an error; Apache is stopped too"), "{end}");
        assert_eq!(command, "nginx -t");
    }

    #[test]
    fn an_error_in_the_configuration_with_the_site_is_mended_before_another_server_is_started() {
        let broken = Some(("apachectl -t".to_owned(), "AH00526: Syntax error".to_owned()));
        let asked = Installed { broken: broken.clone(), ..with_port(80, &["shop.example"], server("apache2")) };
        let default = || with_port(80, &[], server("nginx"));
        let (end, fix, command) = told(vec![default(), asked]);
        assert_eq!(end, ": Apache is installed, doesn't run, and its configuration has an error; nginx is stopped too");
        assert_eq!(
            fix,
            "mend the configuration of Apache, which has a site for shop.example, until this passes, then `service apache2 \
             start`; if the site is served by nginx (`service nginx start`), start that instead"
        );
        assert_eq!(command, "apachectl -t");
        // A site of which nobody asked is more than a default page.
        let mut other = Installed { broken, ..with_port(80, &[], server("apache2")) };
        other.promised.named = Some("shop.example".to_owned());
        assert_eq!(told(vec![default(), other.clone()]).2, "apachectl -t");
        let enabled = Installed { enabled: true, ..default() };
        assert_eq!(told(vec![enabled.clone(), other.clone()]).2, "service nginx start");
        other.enabled = true;
        assert_eq!(told(vec![enabled, other]).2, "apachectl -t");
    }

    #[test]
    fn the_stopped_server_of_the_site_comes_before_another_one_that_runs() {
        let other = || running("nginx", &["127.0.0.1:8080"]);
        let site = Installed { enabled: true, ..with_port(443, &[], server("apache2")) };
        let (end, _, command) = told(vec![other(), site]);
        assert_eq!(end, ": Apache is installed and doesn't run; nginx runs (pid 7) and listens on 127.0.0.1:8080 only");
        assert_eq!(command, "service apache2 start");
        assert!(told(vec![other(), with_port(443, &[], server("apache2"))]).0.starts_with(", though nginx runs"));
    }

    #[test]
    fn one_that_serves_the_site_elsewhere_comes_before_another_one_that_is_started_at_boot() {
        let mut site = with_port(8443, &["shop.example"], running("nginx", &["0.0.0.0:8443"]));
        site.promised.serves = site.promised.listens.clone();
        let other = Installed { enabled: true, ..with_port(80, &[], server("apache2")) };
        let (end, fix, command) = told(vec![other, site]);
        assert!(
            end.ends_with(
                "listens on 0.0.0.0:8443 only, where it serves shop.example by its configuration (port 8443)"
            )
        );
        assert!(fix.starts_with("write `listen 80;` and `listen 443 ssl;` beside `listen` there"), "{fix}");
        assert_eq!(command, "${EDITOR:-vi} +3 /etc/x");
    }

    #[test]
    fn an_error_that_the_cause_has_told_is_not_told_again() {
        let broken = Some(("nginx -t".to_owned(), "[emerg] x".to_owned()));
        let mut seen = seen(vec![Installed { broken, ..running("nginx", &["0.0.0.0:80"]) }]);
        let found = unread_configurations(&seen, &[]);
        assert_eq!((found[0].id, found[0].verdict, found.len()), ("online.broken-config", Finds::Warning, 1));
        assert_eq!(unread_configurations(&seen, &found), []);
        seen.servers[0].broken = None;
        seen.servers[0].untested = Some("it would make /var/log/x".to_owned());
        assert_eq!(unread_configurations(&seen, &[])[0].id, "online.untested-config");
    }
}
