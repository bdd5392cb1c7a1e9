//! Which program the kernel killed to have memory again.
//!
//! Belongs here: that line of the kernel, and whose end visitors notice. Does not: how much memory there is (resources).

use super::symptom::Kind;

/// What visitors' connections or requests go through: web servers, proxies, PHP and servers of applications. Without the
/// numbers that names end with: `apache2`, `php-fpm8.2`.
const SERVES: [&str; 23] = [
    "angie",
    "apache",
    "cache-main",
    "caddy",
    "envoy",
    "gunicorn",
    "h2o",
    "haproxy",
    "hitch",
    "httpd",
    "lighttpd",
    "litespeed",
    "lshttpd",
    "lsphp",
    "nginx",
    "node",
    "openlitespeed",
    "php-cgi",
    "php-fpm",
    "puma",
    "traefik",
    "uwsgi",
    "varnishd",
];

/// The name in `Out of memory: Killed process 1234 (nginx) total-vm:1kB, …`, which begins with `Memory cgroup out of
/// memory: ` where a unit or container has a limit, and before Linux 5 with `Killed`; RHEL 7 has `, UID 33,` before the
/// sizes.
pub(super) fn killed(message: &str) -> Option<&str> {
    let (why, rest) = message.split_once("Killed process ")?;
    if !why.is_empty() && !why.ends_with("ut of memory: ") && !why.starts_with("Out of memory (") {
        return None;
    }
    let (id, rest) = rest.split_once(" (")?;
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // A name may have brackets of its own.
    Some(rest.split_once(" total-vm:")?.0.rsplit_once(')')?.0)
}

/// What it means that this program was killed.
pub(super) fn kind(name: &str) -> Kind {
    let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    if SERVES.contains(&plain) || SERVES.contains(&name) { Kind::ServerKilled } else { Kind::Killed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_read_in_every_form_of_the_line() {
        for (message, name) in [
            ("Out of memory: Killed process 1234 (php-fpm8.2) total-vm:1kB, anon-rss:2kB, UID:33", "php-fpm8.2"),
            ("Memory cgroup out of memory: Killed process 1 (nginx) total-vm:1kB, anon-rss:2kB", "nginx"),
            ("Out of memory (oom_kill_allocating_task): Killed process 1 (node) total-vm:1kB", "node"),
            ("Killed process 27471 (httpd), UID 48, total-vm:1kB, anon-rss:2kB", "httpd"),
            ("Killed process 27471 (httpd) total-vm:1kB, anon-rss:2kB", "httpd"),
            ("Out of memory: Killed process 7 ((sd-pam) x) total-vm:1kB", "(sd-pam) x"),
        ] {
            assert_eq!(killed(message), Some(name), "{message}");
        }
        for other in [
            "Out of memory: Kill process 1234 (nginx) score 9 or sacrifice child",
            "drop Killed process 1 (nginx) total-vm:1kB",
            "Out of memory: Killed process x (nginx) total-vm:1kB",
            "Out of memory: Killed process 1 nginx",
            "oom_reaper: reaped process 1234 (nginx), now anon-rss:0kB",
            "",
        ] {
            assert_eq!(killed(other), None, "{other}");
        }
    }

    #[test]
    fn the_end_of_what_serves_sites_is_told_from_that_of_others() {
        for name in ["nginx", "apache2", "httpd", "php-fpm8.2", "php-fpm", "lsphp81", "h2o", "node"] {
            assert_eq!(kind(name), Kind::ServerKilled, "{name}");
        }
        for name in ["mysqld", "node_exporter", "httpd_exporter", "chrome", "", "2.0"] {
            assert_eq!(kind(name), Kind::Killed, "{name}");
        }
    }
}
