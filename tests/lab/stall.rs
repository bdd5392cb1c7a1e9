//! Noticing that a processor of the machine stood still, because then "no answer" says nothing.
//!
//! Tests run beside each other on machines that are shared with others. Where a thread that wants to run every few
//! milliseconds didn't for a fifth of a second, a packet may have lain about just as long. Each processor has a thread of
//! its own: one may stand still while the others go on.

use std::{
    sync::{LazyLock, Mutex, PoisonError},
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const TURN: Duration = Duration::from_millis(10);
const LATE: Duration = Duration::from_millis(200);

/// What the thread of one processor has seen.
#[derive(Clone, Copy)]
struct Seen {
    /// When it last had its turn.
    turn: Instant,
    /// When it last had one that came late.
    late: Option<Instant>,
}

/// One for each processor that the tests may use.
static WATCHES: LazyLock<Vec<&'static Mutex<Seen>>> = LazyLock::new(|| {
    let usable = sched_getaffinity(None).expect("the processors that may be used");
    let processors = (0..CpuSet::MAX_CPU).filter(|number| usable.is_set(*number));
    processors
        .map(|number| {
            let seen: &'static Mutex<Seen> = Box::leak(Box::new(Mutex::new(Seen { turn: Instant::now(), late: None })));
            spawn(move || attend(number, seen));
            seen
        })
        .collect()
});

fn attend(processor: usize, seen: &Mutex<Seen>) {
    let mut only = CpuSet::new();
    only.set(processor);
    // Where that isn't allowed, it attends to whichever it runs on.
    let _ = sched_setaffinity(None, &only);
    loop {
        let start = Instant::now();
        sleep(TURN);
        let now = Instant::now();
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.turn = now;
        if now - start > TURN + LATE {
            seen.late = Some(now);
        }
    }
}

/// Begins to pay attention, which takes no time when it is asked for again.
pub fn watch() {
    LazyLock::force(&WATCHES);
}

/// Whether a processor stood still since then.
pub fn since(then: Instant) -> bool {
    let asked = Instant::now();
    WATCHES.iter().any(|watch| {
        loop {
            let seen = *watch.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever asks may have woken before the thread that attends: its next turn tells, or that it doesn't come.
            if seen.turn > asked || asked.elapsed() > LATE {
                return seen.turn <= asked || seen.late.is_some_and(|late| late > then);
            }
            sleep(Duration::from_millis(1));
        }
    })
}
