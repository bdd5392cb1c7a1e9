//! Every command in the README, run as it stands there, and the picture of a dry run, drawn from a real one.
//!
//! Belongs here: the README's `console` blocks and `docs/dry-run.svg`. Does not: what commands do beyond what the
//! README shows.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use crate::{
    doctor::site,
    lab::{EDGE4, Lab},
    run::{PUBLISHED, sync},
};

const README: &str = include_str!("../../README.md");

/// What an administrator types, and what the README shows of the answer.
#[derive(Debug, PartialEq)]
struct Typed {
    command: String,
    answer: String,
}

/// The `console` blocks of a text.
fn blocks(text: &str) -> Vec<Vec<Typed>> {
    let inner = text.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let read = |block: &str| {
        let mut typed: Vec<Typed> = Vec::new();
        for line in block.lines() {
            match (line.strip_prefix("# "), typed.last_mut()) {
                (Some(command), _) => {
                    // What follows two spaces and `#` is for the reader.
                    let command = command.split("  #").next().unwrap_or_default().trim().to_owned();
                    typed.push(Typed { command, answer: String::new() });
                }
                (None, Some(last)) => last.answer.push_str(&format!("{line}\n")),
                (None, None) => panic!("an answer without a command: {line}"),
            }
        }
        typed
    };
    inner.map(read).collect()
}

/// A host as the README has it in mind when it shows the command.
fn host(block: &[Typed]) -> Lab {
    let all: Vec<_> = block.iter().map(|t| t.command.as_str()).collect();
    let with_site = all.contains(&"edgeallow doctor shop.example");
    let lab = if with_site { Lab::without_listeners() } else { Lab::new() };
    if with_site {
        site::site(&lab);
    }
    if with_site || all.contains(&"edgeallow verify") {
        for rule in [
            "-N f2b-nginx".to_owned(),
            format!("-A f2b-nginx -s {EDGE4} -j REJECT --reject-with icmp-port-unreachable"),
            "-A f2b-nginx -j RETURN".to_owned(),
            "-I INPUT -p tcp -m multiport --dports 80,443 -j f2b-nginx".to_owned(),
        ] {
            lab.run([&["iptables-nft"], rule.split(' ').collect::<Vec<_>>().as_slice()].concat());
        }
    } else {
        lab.feed(["nft", "-f", "-"], DROPPING);
    }
    lab
}

/// A firewall that drops by default and lets in ssh only.
const DROPPING: &str = "table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        iif \"lo\" accept
        ct state established,related accept
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport 22 accept
    }
}
";

/// Where a tab stands in the picture: what draws it may know none.
const TAB: &str = "    ";

/// Runs `make` in the project, as far as that makes sense in a test.
fn make(target: &str) {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let binary = env!("CARGO_BIN_EXE_edgeallow");
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = match target {
        // The very script, with the binary under test instead of a released one.
        "demo" => {
            let mut command = Command::new("tests/demo.sh");
            command.arg(binary);
            command
        }
        // That is what runs this.
        "test" => return,
        "install" => {
            let mut command = Command::new("make");
            command.args(["--old-file=build", "install", &format!("BINARY={binary}")]);
            command.arg(format!("DESTDIR={}", folder.path().display()));
            command
        }
        // Tried by what a release needs, `make package-test`.
        "package" => {
            assert!(project.join("packaging/test.sh").exists());
            return;
        }
        other => panic!("say in tests/readme how `make {other}` is run"),
    };
    let output = command.current_dir(project).output().expect("start it");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "make {target}: {}\n{said}", output.status);
    if target == "install" {
        for path in ["bin/edgeallow", "lib/systemd/system/edgeallow.timer", "share/man/man8/edgeallow-sync.8"] {
            assert!(folder.path().join("usr/local").join(path).exists(), "{path} is not installed\n{said}");
        }
    }
}

/// Types it in.
fn run(lab: &Lab, typed: &Typed) {
    let words: Vec<&str> = typed.command.split_whitespace().collect();
    match words[..] {
        ["make", ref targets @ ..] => targets.iter().for_each(|target| make(target)),
        ["edgeallow", ref arguments @ ..] => {
            // There is no internet here, and looking for it in vain takes its time.
            let output = lab.edgeallow([arguments, &["--offline"]].concat());
            if typed.answer.is_empty() {
                output.expect_ok();
            } else {
                // The README leaves out what comes before and after.
                assert!(
                    output.stdout.contains(&format!("\n{}", typed.answer)),
                    "the README shows\n{typed:?}\n{output:?}"
                );
            }
        }
        // No service manager runs here: the units are enabled, and tests/units starts them under one.
        ["systemctl", "enable", "--now", ref units @ ..] => {
            for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("cron")).expect("the units") {
                let path = entry.expect("an entry").path();
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                if path.is_file() {
                    lab.write_file(&format!("/usr/lib/systemd/system/{name}"), fs::read(&path).expect("a unit"));
                }
            }
            let words = words.iter().filter(|w| **w != "--now");
            lab.command(words).env("SYSTEMD_OFFLINE", 1).run().expect_ok();
            for unit in units {
                let state = lab.command(["systemctl", "is-enabled", unit]).env("SYSTEMD_OFFLINE", 1).run();
                assert_eq!(state.stdout.trim(), "enabled", "{unit}: {state:?}");
            }
        }
        // Tried by what a release needs, `make package-test`, with dpkg, which apt calls.
        ["apt", "install", package] if package.starts_with("./target/package/") => {}
        _ => panic!("say in tests/readme how `{}` is run", typed.command),
    }
}

#[test]
fn every_command_runs_as_it_stands_there() {
    let blocks = blocks(README);
    assert!(blocks.len() >= 4, "{blocks:?}");
    for block in blocks {
        let lab = host(&block);
        block.iter().for_each(|typed| run(&lab, typed));
    }
}

#[test]
fn the_picture_is_of_a_real_dry_run() {
    let lab = Lab::new();
    lab.write_file("/etc/nftables.conf", format!("flush ruleset\n{DROPPING}"));
    lab.run(["nft", "-f", "/etc/nftables.conf"]);
    sync(&lab, &[]);
    // Cloudflare publishes a new range, and the process that has the internet saves the list.
    let (v4, v6): (Vec<_>, Vec<_>) = PUBLISHED.into_iter().chain(["45.64.64.0/22"]).partition(|p| p.contains('.'));
    let source = json!({ "name": "cloudflare", "origin": "api", "etag": "new", "fetched_at": jiff::Timestamp::now() });
    let list = json!({ "schema": 1, "command": "fetch", "source": source, "v4": v4, "v6": v6 });
    lab.write_file("/var/lib/edgeallow-fetch/list.json", list.to_string());
    // On a terminal of this width, because nothing is wrapped or coloured in a pipe.
    let typed = "edgeallow sync --offline --dry-run";
    let script = ["script", "-qec", &format!("stty cols 100 && {typed}"), "/dev/null"];
    let output = lab.command(script).env("TERM", "xterm-256color").run().expect_ok();
    let screen = format!("\u{1b}[1m# {typed}\u{1b}[0m\n{}", output.stdout.replace('\r', "").replace('\t', TAB));
    assert!(screen.contains("\u{1b}[32m"), "no colours: {screen}");
    let drawn = anstyle_svg::Term::new().min_width_px(820).render_svg(&screen);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dry-run.svg");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &drawn).expect("write the picture");
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == drawn, "docs/dry-run.svg shows another dry run than this: run `make docs`\n{screen}");
}

#[test]
fn blocks_are_read_as_they_are_written() {
    let text = "a\n```console\n# one    # why\n# two -x\nsaid\n  more\n```\n```toml\nx\n```\n";
    let typed = |command: &str, answer: &str| Typed { command: command.into(), answer: answer.into() };
    assert_eq!(blocks(text), [[typed("one", ""), typed("two -x", "said\n  more\n")]]);
}
