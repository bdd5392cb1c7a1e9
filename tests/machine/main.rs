//! Everything that is proved on a real host: real packet filters, real packets, in throwaway labs.
//!
//! One crate for all of it, because linking is what takes time; the rooms are folders next to this one.
#![allow(clippy::disallowed_methods, reason = "tests play the administrator, who runs programs and writes files")]

#[path = "../above/mod.rs"]
mod above;
#[path = "../ansible/mod.rs"]
mod ansible;
#[path = "../conformance/mod.rs"]
mod conformance;
#[path = "../doctor/mod.rs"]
mod doctor;
#[path = "../support/exposition.rs"]
mod exposition;
#[cfg(feature = "fault-injection")]
#[path = "../faults/mod.rs"]
mod faults;
#[path = "../hosts/mod.rs"]
mod hosts;
#[path = "../keep/mod.rs"]
mod keep;
#[path = "../lab/mod.rs"]
mod lab;
mod lab_itself;
#[path = "../observability/mod.rs"]
mod observability;
#[path = "../oracle/mod.rs"]
mod oracle;
#[path = "../packets/mod.rs"]
mod packets;
mod quiet;
#[path = "../reach/mod.rs"]
mod reach;
#[path = "../readme/mod.rs"]
mod readme;
mod run;
#[path = "../together/mod.rs"]
mod together;
#[path = "../tools/mod.rs"]
mod tools;
#[path = "../units/mod.rs"]
mod units;
#[path = "../watch/mod.rs"]
mod watch;
