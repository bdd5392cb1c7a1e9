//! The on-fail command: run once, fed with the report, timed, and what it said is logged.
//!
//! Belongs here: what is made of its end. Does not: when it is run ([`super::rules`]), how a program is run
//! ([`crate::host`]).

use std::{sync::atomic::AtomicBool, time::Duration};

use crate::{host::run_hook, report::Report};

/// Runs the command to its end, or until its time is over or `leave` becomes true.
///
/// # Errors
/// What went wrong, in words.
pub fn act(argv: &[String], report: &Report, limit: Duration, leave: &AtomicBool) -> Result<(), String> {
    let name = argv.first().map_or("", String::as_str);
    tracing::info!(command = argv.join(" "), "running the on-fail command: {}", argv.join(" "));
    let done = run(argv, report, limit, leave);
    match &done {
        Ok(said) if said.is_empty() => tracing::info!("{name} ended well"),
        Ok(said) => tracing::info!(said, "{name} ended well and said: {said}"),
        // Told by whoever knows to whom.
        Err(_) => {}
    }
    done.map(|_| ())
}

fn run(argv: &[String], report: &Report, limit: Duration, leave: &AtomicBool) -> Result<String, String> {
    let json = serde_json::to_vec(report).map_err(|e| format!("the report can't be written as JSON: {e}"))?;
    let env = [
        ("EDGEALLOW_EVENT", "down".to_owned()),
        ("EDGEALLOW_COMMAND", report.command.to_owned()),
        ("EDGEALLOW_EXIT_STATUS", (report.exit as u8).to_string()),
    ];
    let ended = run_hook(argv, &env, &json, limit, leave).map_err(|e| e.message)?;
    let end = match ended.status {
        Some(0) => return Ok(ended.said),
        Some(status) => format!("{} ended with status {status}", argv[0]),
        None => format!("{} was ended by a signal", argv[0]),
    };
    Err(if ended.said.is_empty() { end } else { format!("{end}: {}", ended.said) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fed_and_its_end_is_told() {
        let sh = |script: &str| {
            let argv = ["/bin/sh".into(), "-c".into(), script.to_owned()];
            act(&argv, &Report::blank("watch", false), Duration::from_secs(20), &AtomicBool::new(false))
        };
        assert_eq!(sh("grep -q '\"command\":\"watch\"' && [ $EDGEALLOW_EVENT = down ]"), Ok(()));
        assert_eq!(sh("echo no such unit >&2; exit 5"), Err("/bin/sh ended with status 5: no such unit".to_owned()));
        let missing =
            act(&["/no/such".into()], &Report::blank("watch", false), Duration::ZERO, &AtomicBool::new(false));
        assert!(missing.unwrap_err().contains("/no/such"));
    }
}
