//! What is going on, on a terminal, while it takes longer than a moment. In a pipe: nothing.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// A thing that is done within this time is not worth a word.
const A_MOMENT: Duration = Duration::from_millis(400);

/// One line on stderr that comes late and goes when the work is done.
pub struct Progress {
    shown: Option<(Sender<String>, JoinHandle<()>)>,
}

impl Progress {
    /// Shows something only if `wanted`, and stderr is a terminal.
    #[must_use]
    pub fn new(wanted: bool) -> Self {
        if !wanted || !std::io::stderr().is_terminal() {
            return Self { shown: None };
        }
        let (sender, receiver) = channel::<String>();
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            let mut current: Option<String> = None;
            let mut drawn = false;
            loop {
                let heard = match A_MOMENT.checked_sub(start.elapsed()) {
                    Some(left) => receiver.recv_timeout(left),
                    None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                };
                match heard {
                    Ok(what) => current = Some(what),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if start.elapsed() >= A_MOMENT
                    && let Some(what) = &current
                {
                    // Back to the first column, the line, and the rest of the old line erased.
                    let _ = write!(std::io::stderr(), "\r{}\x1b[K", fitting(&format!("{what} …"), columns()));
                    drawn = true;
                }
            }
            if drawn {
                let _ = write!(std::io::stderr(), "\r\x1b[K");
            }
        });
        Self { shown: Some((sender, thread)) }
    }

    /// Says what is going on from now on.
    pub fn say(&self, what: &str) {
        if let Some((sender, _)) = &self.shown {
            // The thread ends only after the sender is dropped.
            let _ = sender.send(what.to_owned());
        }
    }

    /// Erases the line.
    pub fn done(&mut self) {
        if let Some((sender, thread)) = self.shown.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

/// How wide the terminal is now.
fn columns() -> usize {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => 80,
    }
}

/// What fits into one line: of two, only the second would be erased.
fn fitting(text: &str, columns: usize) -> String {
    if text.chars().count() < columns {
        return text.to_owned();
    }
    let kept: String = text.chars().take(columns.saturating_sub(2)).collect();
    kept + "…"
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_never_two() {
        assert_eq!(fitting("short", 80), "short");
        assert_eq!(fitting("exactly10!", 10), "exactly1…");
        assert_eq!(fitting("bücher …", 5), "büc…");
    }
}
