//! Hosts with tools above the packet filters: ufw, fail2ban, Apache with mod_evasive, as Debian packages them.
//!
//! Belongs here: those hosts, and what is measured on them. Does not: hosts with nothing but rules (`workloads`).

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::{
    measure::{Contestant, compare},
    workloads::{EDGEALLOW, published, quiet},
};

/// The machine's own folders with everything written kept in memory, an empty /run, and none of the machine's edgeallow.
pub fn prepare() {
    quiet(&["mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
    for folder in ["etc", "var", "usr"] {
        let (upper, work) = (format!("/mnt/{folder}/upper"), format!("/mnt/{folder}/work"));
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(&work).unwrap();
        let options = format!("lowerdir=/{folder},upperdir={upper},workdir={work}");
        quiet(&["mount", "-t", "overlay", "overlay", "-o", &options, &format!("/{folder}")]);
    }
    quiet(&["mount", "-t", "tmpfs", "tmpfs", "/run"]);
    for folder in ["/run/lock", "/run/fail2ban", "/var/log/apache2", "/var/log/evasive"] {
        fs::create_dir_all(folder).unwrap();
    }
    for ours in ["/etc/edgeallow", "/var/lib/edgeallow"] {
        let _ = fs::remove_dir_all(ours);
    }
    quiet(&["ip", "link", "set", "lo", "up"]);
}

/// The programs that edgeallow knows fail2ban and Apache by, there or not.
pub fn install(there: bool) {
    for program in ["fail2ban-client", "apachectl", "apache2ctl", "httpd"] {
        for folder in ["/usr/bin", "/usr/sbin"] {
            let path = Path::new(folder).join(program);
            if path.exists() {
                let mode = if there { 0o755 } else { 0o644 };
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
    }
}

fn start_fail2ban_and_apache() {
    install(true);
    let _ = fs::remove_file("/etc/fail2ban/jail.d/defaults-debian.conf");
    let _ = fs::remove_file("/var/lib/fail2ban/fail2ban.sqlite3");
    let jail = "[DEFAULT]\nbackend = polling\nallowipv6 = auto\nbanaction = iptables-multiport\n\
                [sshd]\nenabled = true\nlogpath = /var/log/door.log\n\
                [apache-auth]\nenabled = true\nlogpath = /var/log/door.log\n";
    fs::write("/etc/fail2ban/jail.local", jail).unwrap();
    fs::write("/var/log/door.log", "").unwrap();
    quiet(&["fail2ban-client", "start"]);
    quiet(&["a2enmod", "-q", "evasive"]);
    quiet(&["apachectl", "start"]);
}

/// What the shell scripts do that keep such lists: one `ufw` a range.
fn loop_of_ufw() -> Contestant<'static> {
    let ranges = published().split_whitespace().collect::<Vec<_>>().join(" ");
    let each = "ufw allow proto tcp from $range to any port 80,443 comment cloudflare";
    Contestant::new(
        "22 × `ufw allow` in a shell loop",
        &["sh", "-c", &format!("for range in {ranges}; do {each}; done")],
    )
}

fn sync(name: &str, backends: &[&str]) -> Contestant<'static> {
    let named = backends.iter().flat_map(|b| ["--backend", b]);
    Contestant::new(name, &[EDGEALLOW, "sync", "--offline", "-q"].into_iter().chain(named).collect::<Vec<_>>())
}

fn once(contestant: &Contestant<'_>) {
    crate::measure::run(&contestant.argv, contestant.stdin);
}

const RULES: [&str; 2] = ["/etc/ufw/user.rules", "/etc/ufw/user6.rules"];

/// ufw's rules as they are now, to be brought back later.
fn saved() -> Vec<(&'static str, Vec<u8>)> {
    RULES.iter().map(|&path| (path, fs::read(path).unwrap())).collect()
}

fn bring_back(saved: &[(&str, Vec<u8>)]) {
    saved.iter().for_each(|(path, content)| fs::write(path, content).unwrap());
    quiet(&["ufw", "reload"]);
}

/// That there is nothing to change, or the next table would tell something else.
fn expect_in_sync() {
    quiet(&[EDGEALLOW, "status", "--offline"]);
}

/// Everything that is measured on such hosts.
pub fn all() {
    prepare();
    install(false);
    quiet(&["ufw", "--force", "enable"]);
    let bare = saved();
    let afresh = || {
        bring_back(&bare);
        let _ = fs::remove_dir_all("/var/lib/edgeallow");
    };
    let status = || Contestant::new("`ufw status`", &["ufw", "status"]);
    compare(
        "ufw: 22 ranges, first run",
        5,
        &[sync("`edgeallow sync`", &[]).before(afresh), loop_of_ufw().before(afresh)],
    );
    let by_loop = saved();
    afresh();
    once(&sync("", &["ufw"]));
    let ours = saved();
    bring_back(&ours);
    expect_in_sync();
    compare(
        "ufw: 22 ranges, nothing to change",
        7,
        &[
            sync("`edgeallow sync --offline`", &[]).before(|| bring_back(&ours)),
            status(),
            loop_of_ufw().before(|| bring_back(&by_loop)),
        ],
    );
    bring_back(&ours);
    start_fail2ban_and_apache();
    // Named, each has to be there and to work.
    once(&sync("", &["ufw", "fail2ban", "mod_evasive"]));
    expect_in_sync();
    compare(
        "ufw, fail2ban and Apache with mod_evasive, all running: nothing to change",
        21,
        &[
            sync("`edgeallow sync --offline`", &[]),
            status(),
            Contestant::new("`fail2ban-client status`", &["fail2ban-client", "status"]),
            Contestant::new("`fail2ban-client -d`", &["fail2ban-client", "-d"]),
            Contestant::new("`apachectl configtest`", &["apachectl", "configtest"]),
        ],
    );
}
