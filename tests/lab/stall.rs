//! Noticing that the machine stood still, because then "no answer" says nothing.
//!
//! Tests run beside each other on machines that are shared with others. Where a thread that wants to run every few
//! milliseconds didn't for a fifth of a second, a packet may have lain about just as long.

use std::{
    sync::{LazyLock, Mutex},
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

const TURN: Duration = Duration::from_millis(10);
const LATE: Duration = Duration::from_millis(200);

/// When the machine last stood still.
static LAST: LazyLock<Mutex<Option<Instant>>> = LazyLock::new(|| {
    spawn(|| {
        loop {
            let start = Instant::now();
            sleep(TURN);
            if start.elapsed() > TURN + LATE {
                *LAST.lock().expect("nobody panics with it") = Some(Instant::now());
            }
        }
    });
    Mutex::new(None)
});

/// Begins to pay attention, which takes no time when it is asked for again.
pub fn watch() {
    LazyLock::force(&LAST);
}

/// Whether the machine stood still since then.
pub fn since(then: Instant) -> bool {
    // Whoever asks may have woken before the thread that watches.
    sleep(2 * TURN);
    LAST.lock().expect("nobody panics with it").is_some_and(|last| last > then)
}
