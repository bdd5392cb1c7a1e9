//! Apache: `MaxRequestWorkers`, and how many workers are busy.
//!
//! A worker thread that has nothing to do sleeps on a futex, a process of prefork in epoll or on the accept lock; what is
//! anywhere else is busy.
//!
//! Belongs here: the numbers that hold for the loaded module, and counting. Does not: open files ([`super::servers`]).

use super::{Gauge, OUT, config::Setting, finding, more, plural};
use crate::{
    doctor::{
        commands::edit_at,
        directives::{Configs, Directive, is_loaded},
        online::Unanswered,
    },
    host::Process,
    report::{Evidence, Finding, Finds},
};

/// Of its multi-processing modules, what decides here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mpm {
    /// `event`, `worker`: several threads a process.
    Threads,
    /// `prefork`.
    Processes,
}

/// What the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limits {
    mpm: Mpm,
    /// What holds in the end.
    most: u64,
    /// The directive that decides it.
    set: Setting,
    /// `ServerLimit` × `ThreadsPerChild`, or `ServerLimit`: above that Apache doesn't go.
    ceiling: u64,
}

/// Of the Apache that `apachectl` knows.
///
/// # Errors
/// Why it can't be told.
pub(super) fn limits(configs: &Configs<'_>) -> Result<Limits, String> {
    let said = configs.apache();
    if said.directives.is_empty() {
        let why = said.unread.first().cloned();
        return Err(why.unwrap_or_else(|| "there is no apachectl to ask for its configuration".to_owned()));
    }
    let modules = &said.modules;
    let mpm = if modules.iter().any(|m| m == "mpm_prefork") { Mpm::Processes } else { Mpm::Threads };
    let mut numbers = Numbers::default();
    numbers.take(&said.directives, modules);
    Ok(numbers.limits(mpm))
}

#[derive(Debug, Default)]
struct Numbers {
    workers: Option<Setting>,
    servers: Option<Setting>,
    threads: Option<Setting>,
}

impl Numbers {
    /// The last one that is said holds.
    fn take(&mut self, said: &[Directive], modules: &[String]) {
        let mut applies = Vec::new();
        for directive in said {
            let name = directive.words.first().map(|w| w.to_ascii_lowercase()).unwrap_or_default();
            let set = |name| Setting::of(name, directive);
            match name.as_str() {
                "<ifmodule" => applies.push(is_loaded(directive.value().trim_end_matches('>'), modules)),
                // What else can surround these numbers is taken to hold.
                close if close.starts_with("</") => drop(applies.pop()),
                open if open.starts_with('<') => applies.push(true),
                _ if applies.contains(&false) => {}
                "maxrequestworkers" => self.workers = set("MaxRequestWorkers").or(self.workers.take()),
                "maxclients" => self.workers = set("MaxClients").or(self.workers.take()),
                "serverlimit" => self.servers = set("ServerLimit").or(self.servers.take()),
                "threadsperchild" => self.threads = set("ThreadsPerChild").or(self.threads.take()),
                _ => {}
            }
        }
    }

    fn limits(self, mpm: Mpm) -> Limits {
        // server/mpm/*/*.c: DEFAULT_SERVER_LIMIT, DEFAULT_THREADS_PER_CHILD.
        let (servers, threads) = match mpm {
            Mpm::Threads => (16, 25),
            Mpm::Processes => (256, 1),
        };
        let servers = self.servers.unwrap_or(Setting::default("ServerLimit", servers));
        let threads = match mpm {
            Mpm::Threads => self.threads.map_or(threads, |t| t.value),
            Mpm::Processes => 1,
        };
        let ceiling = servers.value.saturating_mul(threads);
        match self.workers {
            Some(workers) if workers.value <= ceiling => Limits { mpm, most: workers.value, set: workers, ceiling },
            // Apache lowers it, and says so in its log.
            Some(_) => Limits { mpm, most: ceiling, set: servers, ceiling },
            None => Limits { mpm, most: ceiling, set: Setting::default("MaxRequestWorkers", ceiling), ceiling },
        }
    }
}

/// How many workers are busy.
pub(super) fn busy(children: &[Process], limits: &Limits) -> u64 {
    let busy = |waits: &&String| !["futex", "epoll", "sem", "lock", "accept"].iter().any(|w| waits.contains(w));
    let workers = |p: &Process| match limits.mpm {
        // The first thread only waits for its end; the listener is in epoll. One without threads serves CGI.
        Mpm::Threads => p.waits_in.iter().skip(1).filter(busy).count(),
        Mpm::Processes => p.waits_in.iter().take(1).filter(busy).count(),
    };
    children.iter().map(workers).sum::<usize>() as u64
}

/// What tells that somebody lacks a worker.
#[derive(Debug, Default)]
pub(super) struct Lack<'a> {
    /// Connections that wait to be accepted, both times.
    pub(super) waiting: u64,
    /// Apache's own word of just now.
    pub(super) logged: Option<&'a Evidence>,
    /// What doctor itself asked it in vain.
    pub(super) unanswered: Vec<Unanswered>,
}

impl Lack<'_> {
    /// In words, where that many busy workers bear it out.
    fn told(&self, workers: Gauge) -> Option<String> {
        // One that was given back is taken again before it is counted.
        let is_out = workers.has_reached(OUT) || workers.used.saturating_add(1) >= workers.limit;
        // A worker may be busy with doctor's request, for a reason of its own.
        let own = self.unanswered.iter().filter(|u| !u.mute).count() as u64;
        let others = Gauge { used: workers.used.saturating_sub(own), ..workers };
        if self.waiting > 0 && workers.is_near() {
            Some(format!("{} for one", plural(self.waiting, "connection waits", "connections wait")))
        } else if self.logged.is_some() && is_out {
            Some("it says that it needs more".to_owned())
        } else if !self.unanswered.is_empty() && workers.is_full() && others.is_near() {
            Some("it doesn't answer".to_owned())
        } else {
            None
        }
    }
}

pub(super) fn judge(busy: u64, lack: &Lack<'_>, limits: &Limits, serves: bool) -> Finding {
    let workers = Gauge { used: busy, limit: limits.most };
    let (id, verdict, text) = if let Some(why) = lack.told(workers).filter(|_| serves) {
        let text = format!("Apache has no worker left: {workers} are busy, and {why}");
        ("resources.apache-workers-full", Finds::Cause, text)
    } else if workers.is_near() {
        ("resources.apache-workers", Finds::Warning, format!("Apache has hardly a worker left: {workers} are busy"))
    } else {
        ("resources.apache-workers", Finds::Ok, format!("{workers} workers of Apache are busy"))
    };
    let f = finding(id, verdict, text)
        .seen("/proc/PID/task/*/wchan of its processes", format!("{busy} busy, {} connections wait", lack.waiting))
        .seen_too(lack.logged.filter(|_| verdict == Finds::Cause))
        .seen(limits.set.whence(), limits.set.to_string());
    if verdict == Finds::Ok {
        return f;
    }
    let wanted = more(limits.most);
    let file =
        limits.set.place.as_ref().map_or("the file of its MPM".to_owned(), |(file, _)| file.display().to_string());
    let servers = match limits.mpm {
        _ if wanted <= limits.ceiling => "and reload Apache".to_owned(),
        Mpm::Threads => format!(
            "set `ServerLimit` to {wanted} divided by `ThreadsPerChild` at least, and restart Apache (a reload does not \
             change `ServerLimit`)"
        ),
        Mpm::Processes => {
            format!("set `ServerLimit {wanted}`, and restart Apache (a reload does not change `ServerLimit`)")
        }
    };
    let f = f.gives(&[522, 524]);
    let text = format!(
        "see with mod_status or `ss -tn` whether slow clients or a slow application hold the workers; if there is memory \
         for more, write `MaxRequestWorkers {wanted}` into {file} (now {}), {servers}",
        limits.set.whence()
    );
    match edit_at(&limits.set.whence()) {
        Some(edit) => f.mend_by(text, edit),
        None => f.mend(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `directives` splits it.
    fn numbers(text: &str, modules: &[&str]) -> Numbers {
        let line = |(n, l): (usize, &str)| Directive {
            words: l.split_whitespace().map(str::to_owned).collect(),
            file: "/f".into(),
            line: n + 1,
            block: None,
            opens: None,
        };
        let said: Vec<Directive> = text.lines().enumerate().map(line).collect();
        let mut numbers = Numbers::default();
        numbers.take(&said, &modules.iter().map(|m| (*m).to_owned()).collect::<Vec<_>>());
        numbers
    }

    fn said(text: &str, modules: &[&str], mpm: Mpm) -> (u64, &'static str) {
        let limits = numbers(text, modules).limits(mpm);
        (limits.most, limits.set.name)
    }

    #[test]
    fn only_what_belongs_to_the_loaded_mpm_counts() {
        let text = "<IfModule mpm_prefork_module>\nMaxRequestWorkers 5\n</IfModule>\n<IfModule event.c>\n\
                    maxrequestworkers 7\n</IfModule>\n";
        assert_eq!(said(text, &["mpm_event"], Mpm::Threads), (7, "MaxRequestWorkers"));
        assert_eq!(said(text, &["mpm_prefork"], Mpm::Processes), (5, "MaxRequestWorkers"));
        let lowered = "ServerLimit 2\nThreadsPerChild 10\nMaxRequestWorkers 400";
        assert_eq!(said(lowered, &[], Mpm::Threads), (20, "ServerLimit"));
        assert_eq!(said("", &[], Mpm::Threads), (400, "MaxRequestWorkers"));
        assert_eq!(said("MaxClients 9", &[], Mpm::Processes), (9, "MaxClients"));
        let event = ["mpm_event".to_owned()];
        assert!(is_loaded("!mpm_prefork_module", &event) && !is_loaded("mod_ssl.c", &event));
    }

    #[test]
    fn busy_workers_are_a_cause_only_while_connections_wait() {
        let limits = numbers("MaxRequestWorkers 2", &[]).limits(Mpm::Threads);
        let child = |waits: &[&str]| Process {
            waits_in: waits.iter().map(|w| (*w).to_owned()).collect(),
            ..Process::default()
        };
        let idle = [child(&["anon_pipe_read", "do_epoll_wait", "futex_do_wait", "futex_do_wait"])];
        assert_eq!(busy(&idle, &limits), 0);
        let at_work = [child(&["anon_pipe_read", "do_epoll_wait", "poll_schedule_timeout", "0"]), child(&["poll"])];
        assert_eq!(busy(&at_work, &limits), 2);
        let of = |busy, waiting, serves| judge(busy, &Lack { waiting, ..Lack::default() }, &limits, serves).verdict;
        assert_eq!((of(2, 1, true), of(2, 0, true), of(1, 1, true)), (Finds::Cause, Finds::Warning, Finds::Ok));
        assert_eq!(of(2, 1, false), Finds::Warning);
    }

    #[test]
    fn where_nobody_waits_in_the_queue_apaches_word_and_its_silence_tell() {
        let at = Setting::at("MaxRequestWorkers", 40, "/etc/apache2/mods-enabled/mpm_event.conf".as_ref(), 7);
        let limits = Limits { most: 40, set: at, ..numbers("", &[]).limits(Mpm::Threads) };
        let log = Evidence { source: "error.log".to_owned(), shows: "AH00484".to_owned() };
        let logged = |busy, serves| judge(busy, &Lack { logged: Some(&log), ..Lack::default() }, &limits, serves);
        let cause = logged(39, true);
        assert_eq!((cause.id, cause.verdict), ("resources.apache-workers-full", Finds::Cause));
        assert!(
            cause.evidence.contains(&log) && cause.text.ends_with("39 of 40 are busy, and it says that it needs more")
        );
        let command = |f: Finding| f.fix.unwrap().command.unwrap();
        assert_eq!(command(cause), "${EDITOR:-vi} +7 /etc/apache2/mods-enabled/mpm_event.conf");
        let others = [logged(37, true), logged(20, true), logged(40, false)];
        assert_eq!(others.each_ref().map(|f| f.verdict), [Finds::Warning, Finds::Ok, Finds::Warning]);
        assert!(others.iter().all(|f| !f.evidence.contains(&log)));

        let unanswered = |busy, mute, times| {
            let unanswered = vec![Unanswered { port: 443, mute }; times];
            judge(busy, &Lack { unanswered, ..Lack::default() }, &limits, true).verdict
        };
        assert_eq!((unanswered(40, false, 4), unanswered(40, true, 8)), (Finds::Cause, Finds::Cause));
        assert_eq!(unanswered(40, false, 8), Finds::Warning, "they may be busy with doctor's own");
        assert_eq!((unanswered(39, true, 1), unanswered(40, true, 0)), (Finds::Warning, Finds::Warning));
    }
}
