//! The command line as a user types it, right and wrong. Nothing here needs root or touches a firewall.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests play the user, who writes files")]

use std::{fs, path::Path};

use assert_cmd::Command;

fn edgeallow(dir: &Path) -> Command {
    let mut command = Command::cargo_bin("edgeallow").unwrap();
    command.env_clear().args(["--offline", "--state-dir"]).arg(dir.join("state"));
    command
}

/// Runs, and returns exit status, stdout and stderr. Nothing here takes more than a moment.
fn run(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = edgeallow(dir).args(arguments).timeout(std::time::Duration::from_secs(60)).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn wrong_flags_are_status_2_with_a_suggestion() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        (&["sync", "--lits", "x"][..], "--list"),
        (&["snyc"], "sync"),
        (&["sync", "--exit-code"], "--dry-run"),
        (&[], "Usage"),
        (&["completions", "tcsh"], "bash"),
        (&["status", "--lock-timeout", "soon"], "lock-timeout"),
        (&["sync", "--dry-run", "--backend", "nftabels"], "nftables"),
        (&["sync", "--dry-run", "--require-reach"], "cannot be used with"),
        (&["fetch", "--save", "/run/list.json"], "write '--save=/run/list.json'"),
        (&["verify", "--address", "nowhere"], "invalid"),
        (&["verify", "--address", "173.245.48.29", "--to", "2001:db8::1"], "2001:db8::1 an IPv6 one"),
        (&["verify", "--address", "::ffff:173.245.48.29", "--to", "2001:db8::1"], "error: 173.245.48.29 is an IPv4"),
    ] {
        let (status, out, err) = run(dir.path(), arguments);
        assert_eq!(status, 2, "{arguments:?}: {err}");
        assert!(err.contains(words), "{arguments:?}: {err}{out}");
    }
}

#[test]
fn with_json_asked_for_wrong_flags_are_one_object() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, command, message, hint) in [
        (&["sync", "--lits", "x", "--format", "json"][..], Some("sync"), "--lits", "--list"),
        (&["--format=json", "snyc"], None, "snyc", "sync"),
        (&["--format", "json", "sync", "--exit-code"], Some("sync"), "--dry-run", "--help"),
        (&["fetch", "--format", "json", "--lock-timeout", "soon"], Some("fetch"), "soon", "--help"),
        (&["completions", "tcsh", "--format", "json"], Some("completions"), "[possible values: bash,", "zsh"),
        (&["--format", "json"], None, "requires a subcommand", "--help"),
        (&["verify", "--format", "json", "--address", "nowhere"], Some("verify"), "nowhere", "--help"),
        (&["doctor", "--format", "json", "--deeep"], Some("doctor"), "--deeep", "-- --deeep"),
        (&["status", "--deeep", "--format", "json"], Some("status"), "--deeep", "--deep"),
        (&["remove", "--dry", "--format", "json"], Some("remove"), "--dry", "--dry-run"),
        (&["sync", "--dry-run", "--backend", "nftabels", "--format", "json"], Some("sync"), "nftabels", "nftables"),
    ] {
        let (status, out, err) = run(dir.path(), arguments);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
        assert_eq!((status, err.as_str(), &json["error"]["kind"]), (2, "", &"usage".into()), "{arguments:?}: {json:#}");
        assert_eq!(json["command"].as_str(), command, "{json:#}");
        let says = |what: &str, words: &str| json["error"][what].as_str().is_some_and(|t| t.contains(words));
        assert!(says("message", message) && says("hint", hint), "{arguments:?}: {json:#}");
        let reports = command.is_some_and(|c| ["sync", "status", "verify", "doctor", "remove"].contains(&c));
        assert_eq!(json["backends"].is_array(), reports, "a report has its command's shape: {json:#}");
        let looks_only = command.is_some_and(|c| ["status", "verify", "doctor"].contains(&c));
        assert!(!looks_only || json["dry_run"] == true, "{json:#}");
    }
    // Behind `--` it is no flag, and help is help.
    assert!(run(dir.path(), &["sync", "--", "--format", "json"]).1.is_empty());
    let (status, out, _) = run(dir.path(), &["sync", "--help", "--format", "json"]);
    assert!(status == 0 && out.contains("Usage:"), "{out}");
}

#[test]
fn a_log_of_json_lines_gets_wrong_flags_as_a_line() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [["sync", "--lits", "--log-format=json"].as_slice(), &["--log-format", "json", "sync", "--lits"]] {
        let (status, out, err) = run(dir.path(), arguments);
        let event: serde_json::Value = serde_json::from_str(&err).unwrap_or_else(|e| panic!("{e}: {err}"));
        assert_eq!((status, out.as_str(), &event["level"]), (2, "", &"ERROR".into()), "{event:#}");
        assert_eq!((&event["fields"]["kind"], &event["fields"]["command"]), (&"usage".into(), &"sync".into()));
        assert!(event["fields"]["message"].as_str().is_some_and(|m| m.contains("--lits")), "{event:#}");
    }
}

#[test]
fn colours_are_as_asked_for_in_help_too() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, coloured) in [
        (&["--color", "never", "--help"][..], false),
        (&["sync", "--color=never", "--lits"], false),
        (&["--color", "always", "--help"], true),
        (&["sync", "--lits", "--color=always"], true),
    ] {
        // As on a terminal: CLICOLOR_FORCE is for programs that aren't on one.
        let output = edgeallow(dir.path()).env("CLICOLOR_FORCE", "1").args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert_eq!(said.contains(&0x1b), coloured, "{arguments:?}: {}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    for path in [pipe.to_str().unwrap(), "/dev/zero"] {
        let (status, _, err) = run(dir.path(), &["status", "--config", path]);
        assert!(status == 2 && err.contains("it is not a regular file"), "{path}: {err}");
    }
}

#[test]
fn a_list_that_can_t_be_saved_is_no_backend_s_fault() {
    let dir = tempfile::tempdir().unwrap();
    let save = |path: &str| run(dir.path(), &["fetch", &format!("--save={}", dir.path().join(path).display())]);
    let (status, _, err) = save("no/such/list.json");
    assert!(status == 1 && err.contains("make the folder"), "{status}: {err}");
    let (status, _, err) = save("");
    assert!(status == 1 && err.contains("is a folder where a file is expected"), "{status}: {err}");
    assert_eq!(save("list.json").0, 0);
}

#[test]
fn a_reader_that_went_away_changes_nothing_of_the_exit_status() {
    let dir = tempfile::tempdir().unwrap();
    let mismatch = ["verify", "--address", "173.245.48.29", "--to", "2001:db8::1"];
    for (arguments, status) in [
        (&[&mismatch[..], &["--format", "json"]].concat()[..], 2),
        (&["sync", "--dry-run", "--list", "/nowhere/list", "--format", "json"], 3),
        (&["sync", "--dry-run", "--list", "/nowhere/list"], 3),
        (&["sync", "--exit-code", "--format", "json"], 2),
        (&["fetch"], 0),
        (&["man"], 0),
        (&["completions", "bash"], 0),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("edgeallow"));
        command.env_clear().args(["--offline", "--state-dir"]).arg(dir.path().join("state"));
        let output = command.args(arguments).stdout(writer).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {err}");
        assert!(!err.contains("standard output"), "{arguments:?}: {err}");
    }
}

#[test]
fn a_wrong_configuration_is_status_2_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let path = file.to_str().unwrap();
    for (text, words) in [
        ("\nprots = [80]\n", "line 2: unknown key `prots`.\n  hint: did you mean `ports`?"),
        ("ports = [0]", "0 is not a port"),
        ("ports = [70000]", "70000 is not a port"),
        ("[source]\napi_url = \"http://example.com/\"\n", "https"),
        ("[nftables]\nattach = [\"filter\"]\n", "inet filter input"),
    ] {
        fs::write(&file, text).unwrap();
        let (status, _, err) = run(dir.path(), &["status", "--config", path]);
        assert_eq!(status, 2, "{text}: {err}");
        assert!(err.contains(words), "{text}: {err}");
        let (status, out, _) = run(dir.path(), &["status", "--config", path, "--format", "json"]);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((status, &json["error"]["kind"]), (2, &"config".into()));
    }
    // Whoever asks before he installs a configuration hears what a sync would say.
    fs::write(&file, "backends = [\"ufv\"]").unwrap();
    let (status, _, err) = run(dir.path(), &["backends", "--config", path]);
    let words = "`backends` in the configuration: there is no backend called `ufv`.\n  hint: did you mean `ufw`?";
    assert!(status == 2 && err.contains(words), "{err}");
    fs::write(&file, b"ports = [80] # caf\xe9\n").unwrap();
    assert!(run(dir.path(), &["status", "--config", path]).2.contains("not UTF-8"));
    let (status, _, err) = run(dir.path(), &["status", "--config", dir.path().to_str().unwrap()]);
    assert_eq!(status, 2, "{err}");
    let (status, _, err) = run(dir.path(), &["status", "--config", "/no/such/file"]);
    assert!(status == 2 && err.contains("/no/such/file"), "{err}");
}

#[test]
fn a_list_that_is_none_is_status_3_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("list");
    let path = file.to_str().unwrap();
    for (bytes, kind) in [
        (&b"<html>"[..], "list-not-a-list"),
        (b"8.8.8.0/24 # caf\xe9", "list-not-a-list"),
        (b"8.8.8.8/24", "list-host-bits"),
        (b"{\"success\":false,\"errors\":[],\"result\":null}", "fetch-api-failure"),
        (b"10.0.0.0/8", "list-too-wide"),
    ] {
        fs::write(&file, bytes).unwrap();
        let (status, out, err) = run(dir.path(), &["fetch", "--list", path, "--format", "json"]);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
        assert_eq!((status, json["error"]["kind"].as_str()), (3, Some(kind)), "{json:#}");
    }
    for missing in ["/no/such/list", "/"] {
        let (status, _, err) = run(dir.path(), &["fetch", "--list", missing]);
        assert!(status == 3 && err.contains(missing), "{err}");
    }
}

#[test]
fn fetch_prints_the_list_and_standard_input_is_a_list_too() {
    let dir = tempfile::tempdir().unwrap();
    let (status, out, err) = run(dir.path(), &["fetch"]);
    assert_eq!((status, out.lines().count()), (0, 22));
    assert!(err.contains("built into"), "{err}");
    let json = include_str!("../src/allowlist/data/ips.json");
    let assert = edgeallow(dir.path()).args(["fetch", "--list", "-"]).write_stdin(json).assert().success();
    assert_eq!(String::from_utf8_lossy(&assert.get_output().stdout), out, "text and JSON shape are the same list");
    let printed = run(dir.path(), &["fetch", "--format", "json"]).1;
    let assert = edgeallow(dir.path()).args(["fetch", "--list", "-"]).write_stdin(printed).assert().success();
    assert_eq!(String::from_utf8_lossy(&assert.get_output().stdout), out, "what fetch prints it can read");
    let wide = "{\"schema\":1,\"command\":\"fetch\",\"v4\":[\"10.0.0.0/8\"],\"v6\":[\"2400:cb00::/32\"]}";
    edgeallow(dir.path()).args(["fetch", "--list", "-"]).write_stdin(wide).assert().code(3);
    assert!(!dir.path().join("state").exists(), "fetch remembers nothing");
}

#[test]
fn completions_and_manual_pages_for_all_that_there_is() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(dir.path(), &["completions", shell]).1.contains("sync"), "{shell}");
    }
    // A shell offers what there is to be named; what is wrong is still said in edgeallow's own words.
    let bash = run(dir.path(), &["completions", "bash"]).1;
    assert!(bash.contains("ufw nftables csf iptables firewalld fail2ban mod_evasive"), "{bash}");
    assert!(bash.contains("sync status verify doctor remove fetch backends keep watch completions man\""), "{bash}");
    let (status, _, err) = run(dir.path(), &["remove", "--dry-run", "--backend", "nft"]);
    assert!(status == 2 && err.contains("there is no backend called `nft`"), "{err}");
    let overview = run(dir.path(), &["man"]).1;
    assert!(overview.contains(".TH edgeallow 8"));
    for words in ["[\\fB\\-\\-config\\fR \\fIFILE\\fR]", "EXIT STATUS", "SEE ALSO", "FILES", "ENVIRONMENT"] {
        assert!(overview.contains(words), "no {words} in {overview}");
    }
    let (status, list, _) = run(dir.path(), &["man", "--list"]);
    let listed: Vec<&str> = list.lines().collect();
    let definition = edgeallow::cli::definition();
    let defined: Vec<&str> = definition.get_subcommands().map(clap::Command::get_name).collect();
    assert!(status == 0 && listed == defined && listed.contains(&"sync"), "{list}");
    for command in listed {
        let (status, page, _) = run(dir.path(), &["man", command]);
        for page in [&page, &overview] {
            assert!(!page.contains("EXTRA") && !page.contains("edgeallow\\-help"), "{page}");
        }
        assert!(overview.contains(&format!("\\fBedgeallow\\-{command}\\fR(8)")), "{overview}");
        assert!(status == 0 && page.contains(&format!(".TH edgeallow-{command} 8")), "{page}");
    }
    let (status, _, err) = run(dir.path(), &["man", "nothing"]);
    assert!(status == 2 && err.contains("sync"), "{err}");
    assert_eq!(run(dir.path(), &["man", "--list", "sync"]).0, 2);
}

#[test]
fn colours_only_where_they_are_wanted() {
    let dir = tempfile::tempdir().unwrap();
    // An error, for it needs no look at the machine.
    let plain = run(dir.path(), &["man", "nothing"]).2;
    assert!(!plain.contains('\x1b'), "{plain}");
    let coloured = run(dir.path(), &["man", "nothing", "--color", "always"]).2;
    assert!(coloured.contains('\x1b'), "{coloured}");
}

#[test]
fn the_example_configuration_holds_the_defaults() {
    let text = include_str!("../examples/config.toml");
    let config = edgeallow::config::Config::parse(text, "examples/config.toml").unwrap();
    assert_eq!(config, edgeallow::config::Config::default());
}

#[test]
fn the_installed_configuration_sets_nothing_and_shows_every_key() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/config.sh");
    let output = std::process::Command::new(script).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let config = edgeallow::config::Config::parse(&text, "config.sh").unwrap();
    assert_eq!(config, edgeallow::config::Config::default());
    let set: Vec<&str> = text.lines().filter(|l| !l.starts_with(['#', '[']) && !l.is_empty()).collect();
    assert!(output.status.success() && set.is_empty(), "{set:?}");
    let example = include_str!("../examples/config.toml");
    for line in example.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        let shown = if line.starts_with('[') { line.to_owned() } else { format!("#{line}") };
        assert!(text.lines().any(|l| l == shown), "{shown}");
    }
}

#[test]
fn the_examples_of_hooks_are_configurations() {
    let text = include_str!("../examples/hooks/config.toml");
    let config = edgeallow::config::Config::parse(text, "examples/hooks/config.toml").unwrap();
    assert!(config.on_change.webhook_file.is_some() && config.on_failure.command.len() == 2);
}

#[test]
fn a_state_of_a_newer_edgeallow_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("state")).unwrap();
    fs::write(dir.path().join("state/state.json"), "{\"schema\": 9}").unwrap();
    let (status, _, err) = run(dir.path(), &["status"]);
    assert!(status == 1 && err.contains("newer"), "{status} {err}");
}
