//! The watch as a service: it goes on whatever hangs, ends at once, and sleeps when there is nothing to do.

use std::{
    net::{IpAddr, SocketAddr},
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use super::{URL, acts, configure, host, stop};
use crate::{
    doctor::{edge::Mode, site},
    keep::keeper::Keeper,
    lab::{EDGE4, Lab, stood_still_since},
};

/// The service manager wants to hear five times within this that the service lives.
const BEAT: Duration = Duration::from_secs(2);

fn watch<'a>(lab: &'a Lab, args: &[&str], env: &[(&str, &str)]) -> Keeper<'a> {
    Keeper::of(lab, &[&["watch", "-v"], args].concat(), env)
}

#[test]
fn it_tells_each_transition_once_and_acts_within_its_limits() {
    let (lab, _edge) = host(Mode::Strict, "every = '1s'\nfail_after = 2\non_fail = ['act']\ncooldown = '1h'");
    lab.record_programs();
    let service = watch(&lab, &[], &[]);
    stop(&lab);
    service.wait_for("is down: Cloudflare answers with its error 521 (2 failures in a row)", 1);
    service.wait_for("act ended well and said: mended", 1);
    service.wait_for("the on-fail command is held back: it was run less than 1 h ago", 1);
    site::start_nginx(&lab);
    service.wait_for("is up again after", 1);
    // The configuration counts from now on.
    configure(&lab, "every = '1h'\nfail_after = 1");
    service.signal(Signal::HUP);
    service.wait_for("asked to look again", 1);
    let said = ["is down", "running the on-fail command", "held back: it was run", "is up again"];
    assert_eq!((said.map(|w| service.said(w)), acts(&lab)), ([1, 1, 1, 1], 1), "{}", service.log());
    // On a busy machine it may hold it back for another reason before, which is told once too.
    assert!(service.said("held back: the last one is still running") <= 1, "{}", service.log());
    // While it slept an hour nobody could have asked again.
    assert!(service.end() < Duration::from_secs(20));
}

#[test]
fn drift_is_told_once_and_so_is_its_end() {
    let (lab, _edge) = host(Mode::Strict, "every = '1h'\n[nftables]\npersist = 'none'");
    let filter =
        "table inet filter { chain input { type filter hook input priority 0; policy drop; iif lo accept; }; }";
    lab.feed(["nft", "-f", "-"], filter);
    crate::run::sync(&lab, &[]);
    let service = watch(&lab, &[], &[]);
    let file = "/var/lib/edgeallow/watch.json";
    service.wait_until("the first round", || lab.exists(file));
    assert_eq!(service.said("not what edgeallow applied"), 0, "{}", service.log());
    lab.feed(["nft", "-f", "-"], "flush chain inet filter input\nadd rule inet filter input iif lo accept");
    service.end();
    // A page that fails is reason to look each time.
    let service = watch(&lab, &["--fail-after", "2", "--every", "1s"], &[]);
    service.wait_for("nftables: not what edgeallow applied", 1);
    service.wait_for("is down: ", 1);
    crate::run::sync(&lab, &[]);
    service.signal(Signal::HUP);
    service.wait_for("the firewalls hold again what edgeallow applied", 1);
    service.wait_for("is up again", 1);
    assert_eq!(service.said("not what edgeallow applied"), 1, "{}", service.log());
    service.end();
}

#[test]
fn nothing_that_hangs_stops_its_beat_or_its_end() {
    let (lab, edge) = host(Mode::Strict, "every = '1s'\nfail_after = 1\non_fail_timeout = '100s'");
    drop(edge);
    // An edge that takes connections and says nothing.
    let _mute = lab.on_the_internet(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("make a socket");
        socket.set_reuse_address(true).expect("reuse the address");
        let ip: IpAddr = EDGE4.parse().expect("an address");
        socket.bind(&SocketAddr::new(ip, 443).into()).expect("be the edge");
        socket.listen(64).expect("listen");
        socket
    });
    stop(&lab);
    let socket = lab.inside(|| UnixDatagram::bind("/run/notify").expect("a socket"));
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    let env = [("NOTIFY_SOCKET", "/run/notify"), ("WATCHDOG_USEC", "400000")];
    let hang = ["--on-fail", "sh -c 'echo x >/run/begun; trap \"\" TERM; sleep 300'"];
    let service = watch(&lab, &hang, &env);
    let mut heard = Vec::new();
    let mut hear = || {
        let mut space = [0; 512];
        let length = socket.recv(&mut space).unwrap_or_else(|e| panic!("silence after {heard:?}: {e}"));
        heard.push(String::from_utf8_lossy(&space[..length]).into_owned());
        heard.last().cloned().unwrap_or_default()
    };
    while hear() != "READY=1" {}
    // The probe hangs, then the command; the beat goes on.
    let (began, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    while !lab.exists("/run/begun") || last.duration_since(began) < Duration::from_secs(10) {
        while hear() != "WATCHDOG=1" {}
        let pause = last.elapsed();
        // Where the machine stood still, nothing could beat.
        if pause < BEAT || !stood_still_since(last) {
            longest = longest.max(pause);
        }
        last = Instant::now();
        assert!(began.elapsed() < Duration::from_secs(60), "no command: {}", service.log());
    }
    assert!(longest < BEAT, "the beat stopped for {longest:?}");
    assert!(service.said("fails in a way that gives Cloudflare's error 521") == 1, "{}", service.log());
    let log = || lab.read_file("/run/keep.log");
    let took = service.end();
    assert!(took < Duration::from_secs(20), "{took:?}\n{}", log());
    assert!(log().contains("was killed because edgeallow was asked to end"), "{}", log());
}

#[test]
fn idle_rounds_start_no_process_and_hardly_wake_it() {
    let (lab, _edge) = host(Mode::Strict, "every = '1h'");
    lab.record_programs();
    let service = watch(&lab, &[], &[]);
    let file = "/var/lib/edgeallow/watch.json";
    service.wait_until("the first round", || lab.exists(file));
    let _ = lab.recorded_programs();
    let memory = lab.read_file(file);
    // Threads that were started for the round go after ten seconds.
    service.wait_until("its threads to go", || service.status("Threads") == 1);
    let switches = service.status("voluntary_ctxt_switches");
    std::thread::sleep(Duration::from_secs(5));
    let woken = service.status("voluntary_ctxt_switches") - switches;
    assert!(woken <= 1, "it woke up {woken} times in five seconds of idleness");
    service.end();

    configure(&lab, "every = '1s'");
    let service = watch(&lab, &[], &[]);
    service.wait_until("the first look", || lab.read_file(file) != memory);
    let (memory, _) = (lab.read_file(file), lab.recorded_programs());
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((lab.recorded_programs(), lab.read_file(file)), (vec![], memory), "{}", service.log());
    // Nobody else watches with the same memory.
    let second = lab.edgeallow(["watch", "--once", URL]).expect(75);
    assert!(second.stderr.contains("another edgeallow watches already"), "{second:?}");
    service.end();
}
