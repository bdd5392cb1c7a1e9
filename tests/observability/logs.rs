//! Logs for machines: JSON lines, journald's fields, syslog's datagrams. They tell the story of a run also with `-q`.

use std::{collections::BTreeMap, fs, os::unix::net::UnixDatagram, time::Duration};

use serde_json::Value;

use super::{configure, host};
use crate::{
    lab::{EDGE4, Lab, Reach},
    run::list_with,
};

/// edgeallow's standard error is what systemd would have connected to the journal.
const IN_A_SERVICE: &str = "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec edgeallow \"$@\"";

fn service(lab: &Lab, args: &[&str]) -> crate::lab::Output {
    lab.command([&["sh", "-c", IN_A_SERVICE, "edgeallow"], args].concat()).run()
}

/// A socket on the host, and everything that has arrived there.
struct Receiver(UnixDatagram);

impl Receiver {
    fn at(lab: &Lab, path: &str) -> Self {
        let socket = lab.files(|| {
            fs::create_dir_all(std::path::Path::new(path).parent().expect("a folder"))?;
            UnixDatagram::bind(path)
        });
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a time limit");
        Self(socket)
    }

    fn all(&self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 1 << 16];
        let mut all = Vec::new();
        while let Ok(length) = self.0.recv(&mut buffer) {
            all.push(buffer[..length].to_vec());
        }
        all
    }
}

/// systemd.io, "Native Journal Protocol": `NAME=value`, or `NAME`, a length of 8 bytes and the value.
fn fields(datagram: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let end = rest.iter().position(|b| *b == b'\n').expect("a field ends with a line feed");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let line = text(&rest[..end]);
        rest = &rest[end + 1..];
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => {
                let (length, after) = rest.split_at(8);
                let length = u64::from_le_bytes(length.try_into().expect("8 bytes"));
                let (value, after) = after.split_at(usize::try_from(length).expect("a length"));
                rest = after.strip_prefix(b"\n").expect("a line feed after the value");
                (line, text(value))
            }
        };
        let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        assert!(!name.is_empty() && name.len() <= 64 && name.chars().all(allowed), "{name} is no name of a field");
        fields.insert(name, value);
    }
    fields
}

#[test]
fn in_a_service_the_journal_gets_the_story_in_fields() {
    let lab = host("");
    let journal = Receiver::at(&lab, "/run/systemd/journal/socket");
    let list = list_with(&lab, "list", &[]);
    let output = service(&lab, &["sync", "-q", "--list", &list]).expect_ok();
    assert_eq!(output.stderr, "", "what is in the journal's fields is not there as text too");
    let events: Vec<_> = journal.all().iter().map(|d| fields(d)).collect();
    let find = |name: &str, value: &str| {
        let with = events.iter().find(|e| e.get(name).is_some_and(|v| v == value));
        with.unwrap_or_else(|| panic!("no event with {name}={value} in {events:#?}"))
    };
    assert!(events.iter().all(|e| e["SYSLOG_IDENTIFIER"] == "edgeallow" && !e["MESSAGE"].is_empty()), "{events:#?}");
    let applied = find("EDGEALLOW_STATE", "applied");
    assert_eq!((applied["EDGEALLOW_BACKEND"].as_str(), applied["PRIORITY"].as_str()), ("nftables", "6"));
    assert!(applied["EDGEALLOW_CHANGES"].parse::<u32>().is_ok_and(|n| n > 0), "{applied:?}");
    let listed = find("EDGEALLOW_ORIGIN", "file");
    assert_eq!((listed["EDGEALLOW_IPV4"].as_str(), listed["EDGEALLOW_IPV6"].as_str()), ("15", "7"));
    let end = find("EDGEALLOW_EXIT", "0");
    assert!(end["EDGEALLOW_DURATION_MS"].parse::<u64>().is_ok() && end["EDGEALLOW_CHANGED"] == "true", "{end:?}");

    // A failure is an error, with its kind.
    lab.write_file("/run/lists/bad", "<html>");
    let failed = service(&lab, &["sync", "-q", "--list", "/run/lists/bad"]).expect(3);
    assert_eq!(failed.stderr, "", "the journal is told once");
    let events: Vec<_> = journal.all().iter().map(|d| fields(d)).collect();
    let end = events.iter().find(|e| e.contains_key("EDGEALLOW_EXIT")).unwrap_or_else(|| panic!("{events:#?}"));
    assert_eq!((end["PRIORITY"].as_str(), end["EDGEALLOW_EXIT"].as_str()), ("3", "3"));
    assert_eq!(end["EDGEALLOW_KIND"], "list-not-a-list");
    assert!(end["MESSAGE"].contains(&end["EDGEALLOW_HINT"]), "without the fields nobody knows what to do: {end:?}");

    // Where standard output leads there too, as in a service, what is in the fields isn't there as text once more.
    let both = IN_A_SERVICE.replace("exec edgeallow", "exec 1>&2 edgeallow");
    lab.run(["nft", "flush", "chain", "inet", "filter", "input"]);
    let args = ["sh", "-c", &both, "edgeallow", "sync", "--list", &list];
    let output = lab.command(args).run().expect_ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""), "told twice");
    let events: Vec<_> = journal.all().iter().map(|d| fields(d)).collect();
    assert!(events.iter().any(|e| e.get("EDGEALLOW_STATE").is_some_and(|s| s == "applied")), "{events:#?}");

    // Where standard error is something else, or people's form is asked for, the journal is left alone.
    lab.command(["edgeallow", "sync", "-q", "--list", &list]).env("JOURNAL_STREAM", "1:1").run().expect_ok();
    lab.edgeallow(["sync", "-q", "--list", &list]).expect_ok();
    service(&lab, &["sync", "-q", "--log-format", "human", "--list", &list]).expect_ok();
    assert_eq!(journal.all().len(), 0);
}

#[test]
fn a_journal_that_does_not_read_holds_up_nothing() {
    let lab = host("");
    let list = list_with(&lab, "list", &[]);
    let journal = Receiver::at(&lab, "/run/systemd/journal/socket");
    let full = || {
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.set_nonblocking(true).expect("a socket that doesn't wait");
        lab.files(|| {
            while sender.send_to(b"x", "/run/systemd/journal/socket").is_ok() {}
            Ok(())
        });
    };
    full();
    // It ends though nobody reads, and has done its work.
    service(&lab, &["sync", "--list", &list]).expect_ok();
    assert_eq!(lab.connect(EDGE4, 443), Reach::Accepted);
    let all = journal.all();
    assert!(all.iter().all(|d| d == b"x"), "there was room: {}", all.len());
    full();
    lab.edgeallow(["remove", "--log-format", "journal"]).expect_ok();
    assert_ne!(lab.connect(EDGE4, 443), Reach::Accepted);
}

#[test]
fn without_a_journal_syslog_gets_it_and_without_that_standard_error() {
    let lab = host("");
    let list = list_with(&lab, "list", &[]);
    let neither = lab.edgeallow(["sync", "--log-format", "journal", "--list", &list]).expect_ok();
    assert!(neither.stderr.contains("syslog can't be reached at /dev/log"), "{neither:?}");
    // Also where the run is to be quiet: then the log has no other place.
    lab.run(["nft", "flush", "chain", "inet", "filter", "input"]);
    let quiet = lab.edgeallow(["sync", "-q", "--log-format", "journal", "--list", &list]).expect_ok();
    let said = |words: &str| quiet.stderr.lines().filter(|l| l.contains(words)).count();
    assert_eq!((said("so logs go to standard error"), said("sync done in")), (1, 1), "{quiet:?}");
    // In a service whose journal is out of reach nobody is told twice.
    let in_service = service(&lab, &["sync", "-q", "--list", &list]).expect_ok();
    assert_eq!(in_service.stderr, "");

    // The machine's own /dev stays as it is: the lab gets one of its own for this.
    lab.run(["mkdir", "/run/dev"]);
    lab.run(["mount", "-t", "tmpfs", "-o", "dev,mode=755", "tmpfs", "/run/dev"]);
    lab.run(["cp", "-a", "/dev/null", "/dev/urandom", "/run/dev"]);
    lab.run(["mount", "--bind", "/run/dev", "/dev"]);
    let syslog = Receiver::at(&lab, "/dev/log");
    for form in ["journal", "syslog"] {
        lab.write_file("/run/lists/bad", "<html>");
        let output = lab.edgeallow(["sync", "-q", "--log-format", form, "--list", "/run/lists/bad"]).expect(3);
        assert!(output.stderr.starts_with("error: "), "what ended the run is still said: {output:?}");
        let lines: Vec<_> = syslog.all().into_iter().map(|d| String::from_utf8(d).expect("text")).collect();
        let end = lines.iter().find(|l| l.contains("sync failed: ")).unwrap_or_else(|| panic!("{lines:#?}"));
        assert!(end.starts_with("<27>edgeallow[") && end.contains("exit=3"), "{end}");
        assert!(lines.iter().all(|l| l.len() <= 1024 && !l.contains('\n')), "{lines:#?}");
    }
    let output = lab.edgeallow(["sync", "-q", "--log-format", "syslog", "--list", &list]).expect_ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""), "{output:?}");
    let lines: Vec<_> = syslog.all().into_iter().map(|d| String::from_utf8(d).expect("text")).collect();
    assert!(lines.iter().any(|l| l.starts_with("<30>edgeallow[") && l.contains("sync done")), "{lines:#?}");
}

#[test]
fn the_configuration_says_where_logs_go_and_the_flag_wins() {
    let lab = host("log_format = \"json\"");
    let list = list_with(&lab, "list", &[]);
    let sync = |args: &[&str]| lab.edgeallow([&["sync", "--list", &list], args].concat()).expect_ok().stderr;
    let lines = |text: &str| text.lines().filter(|l| serde_json::from_str::<Value>(l).is_ok()).count();
    let configured = sync(&[]);
    assert!(lines(&configured) > 2 && lines(&configured) == configured.lines().count(), "{configured}");
    assert_eq!(lines(&sync(&["--log-format", "human", "-vv"])), 0);
    // What is said in a form that can't be had is said in the usual one.
    configure(&lab, "log_format = \"jason\"");
    let refused = lab.edgeallow(["sync"]).expect(2);
    assert!(refused.stderr.starts_with("error: ") && refused.stderr.contains("unknown variant `jason`"), "{refused:?}");
    // Completions and manual pages have nothing to do with it.
    lab.edgeallow(["completions", "bash"]).expect_ok();
}

#[test]
fn json_is_one_object_a_line() {
    let lab = host("");
    let list = list_with(&lab, "list", &[]);
    let output = lab.edgeallow(["sync", "--log-format", "json", "--list", &list]).expect_ok();
    let parse = |text: &str| -> Vec<Value> {
        text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
    };
    let events = parse(&output.stderr);
    for e in &events {
        let time: Result<jiff::Timestamp, _> = e["timestamp"].as_str().unwrap_or_default().parse();
        assert!(time.is_ok() && e["level"].is_string() && e["target"].is_string(), "{e:#}");
        assert!(e["fields"]["message"].is_string(), "{e:#}");
    }
    let with = |name: &str| events.iter().map(|e| &e["fields"]).find(|f| !f[name].is_null());
    let backend = with("state").unwrap_or_else(|| panic!("{events:#?}"));
    assert_eq!((&backend["backend"], &backend["state"]), (&"nftables".into(), &"applied".into()));
    assert!(backend["changes"].is_u64(), "{backend:#}");
    let end = with("exit").unwrap_or_else(|| panic!("{events:#?}"));
    assert!(end["exit"] == 0 && end["duration_ms"].is_u64() && end["changed"] == true, "{end:#}");

    // Quiet means errors only, and here there are none; a failure still is an object.
    let quiet = lab.edgeallow(["sync", "-q", "--log-format", "json", "--list", &list]).expect_ok();
    assert_eq!(quiet.stderr, "");
    lab.write_file("/run/lists/bad", "<html>");
    for command in ["sync", "fetch"] {
        let args = [command, "-q", "--log-format", "json", "--list", "/run/lists/bad"];
        let failed = parse(&lab.edgeallow(args).expect(3).stderr);
        assert!(failed.len() == 1 && failed[0]["level"] == "ERROR", "{failed:#?}");
        assert_eq!(failed[0]["fields"]["kind"], "list-not-a-list");
    }
}

#[test]
fn people_are_not_told_twice() {
    let lab = host("");
    let list = list_with(&lab, "list", &[]);
    for verbosity in ["-q", "--color=never", "-v"] {
        let output = lab.edgeallow(["sync", verbosity, "--list", &list]).expect_ok();
        assert!(!output.stderr.contains("sync done") && !output.stderr.contains("in sync"), "{output:?}");
    }
}
