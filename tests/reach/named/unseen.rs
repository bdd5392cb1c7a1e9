//! What no one can see through: it is named, and nothing behind it counts as accepted.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd as _, OwnedFd};

use super::Host;
use crate::lab::{EDGE4, EDGE6, Lab, Reach};

#[test]
fn a_queue_to_a_program() {
    Host {
        setup: &|lab| {
            let rule = "iptables -A INPUT -p tcp --dport 443 -j NFQUEUE --queue-num 3";
            lab.run(rule.split(' '));
        },
        // Nobody takes what is in the queue.
        before: &[(EDGE4, 443, Reach::Timeout), (EDGE4, 80, Reach::Accepted)],
        says: &[
            "unknown by the administrator's own iptables rules: ip filter INPUT: -A INPUT -p tcp -m tcp --dport 443 -j NFQUEUE --queue-num 3 [NFQUEUE --queue-num 3]; all on 443/tcp",
        ],
    }
    .is_told_and_mended(7);
}

#[test]
fn legacy_tables_behind_a_proc_that_hides_the_network() {
    let lab = Lab::new();
    lab.run("iptables-legacy -A INPUT -p tcp --dport 443 -j DROP".split(' '));
    // As systemd's ProcSubset=pid does.
    lab.run("mount -t proc -o subset=pid proc /proc".split(' '));
    assert_eq!(lab.connect(EDGE4, 443), Reach::Timeout);
    let report = super::verify(&lab, 7, &[]);
    assert_eq!(report["reach"]["verdict"], "unknown", "{report:#}");
    let gaps = report["reach"]["gaps"].as_array().expect("gaps");
    assert!(
        gaps.iter().any(|g| g.as_str().is_some_and(|g| g.starts_with("legacy iptables can't be read"))),
        "{gaps:?}"
    );
}

#[test]
fn a_tc_filter_that_drops() {
    Host {
        setup: &|lab| {
            lab.run("tc qdisc add dev s0 clsact".split(' '));
            // `return TC_ACT_SHOT` (linux/pkt_cls.h), for every IPv4 packet.
            let filter = ["tc", "filter", "add", "dev", "s0", "ingress", "protocol", "ip", "bpf", "da", "bytecode"];
            lab.run([filter.as_slice(), &["1,6 0 0 2"]].concat());
        },
        before: &[(EDGE4, 443, Reach::Timeout), (EDGE6, 443, Reach::Accepted)],
        says: &["unknown by ? [tc ingress filter (bpf) on s0]; all on 80/tcp 443/tcp"],
    }
    .is_told(7);
}

#[test]
fn an_xdp_program() {
    let lab = Lab::new();
    let attached = attach_xdp(&lab, "s0");
    // It drops everything, and nothing in netfilter tells.
    assert_eq!(lab.connect(EDGE4, 443), Reach::Timeout);
    let report = super::verify(&lab, 7, &[]);
    assert_eq!(report["reach"]["verdict"], "unknown", "{report:#}");
    let said: Vec<String> = super::culprits(&report).iter().map(super::said_of).collect();
    assert!(matches!(&said[..], [one] if one.contains("XDP program ")), "{report:#}");
    drop(attached);
    // The kernel takes it off some time after its last descriptor is closed.
    assert!((0..20).any(|_| lab.connect(EDGE4, 443) == Reach::Accepted), "the program is still there");
    super::verify(&lab, 0, &[]);
}

/// Attaches an XDP program that drops every packet; it goes when the descriptors are closed.
fn attach_xdp(lab: &Lab, interface: &str) -> [OwnedFd; 2] {
    let index: u32 = lab.read_file(&format!("/sys/class/net/{interface}/ifindex")).trim().parse().expect("a number");
    lab.inside(|| {
        // `r0 = XDP_DROP; exit` (linux/bpf.h; instructions of 8 bytes).
        let program: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];
        let license = c"GPL";
        // BPF_PROG_LOAD: prog_type XDP, insn_cnt, insns, license, then no log.
        let mut load = [0_u64; 6];
        load[0] = 6 | (program.len() as u64) << 32;
        load[1] = program.as_ptr() as u64;
        load[2] = license.as_ptr() as u64;
        let program = bpf(5, &mut load);
        // BPF_LINK_CREATE: prog_fd, target_ifindex, attach_type BPF_XDP, XDP_FLAGS_SKB_MODE.
        let fd = std::os::fd::AsRawFd::as_raw_fd(&program);
        let mut link = [u64::from(fd.cast_unsigned()) | u64::from(index) << 32, 37 | 2 << 32];
        let link = bpf(28, &mut link);
        [program, link]
    })
}

/// bpf(2), of which every command here answers with a new descriptor.
fn bpf(command: libc::c_int, attributes: &mut [u64]) -> OwnedFd {
    // SAFETY: the kernel reads as many bytes as it is told, and the addresses in them are of live values.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), std::mem::size_of_val(attributes)) };
    assert!(fd >= 0, "bpf command {command}: {}", std::io::Error::last_os_error());
    let fd = i32::try_from(fd).expect("a descriptor");
    // SAFETY: the kernel just made it, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
