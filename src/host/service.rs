//! Telling the service manager how things are: the protocol of sd_notify(3), which is one datagram a message.
//!
//! Belongs here: sending. Does not: what there is to say, and when.

use std::{
    env,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

/// The service manager that started this process, if one did that wants to be told.
pub struct Manager {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// As `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say.
    #[must_use]
    pub fn from_env() -> Self {
        let to = env::var("NOTIFY_SOCKET").ok().and_then(|path| {
            let address = match path.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&path),
            };
            Some((UnixDatagram::unbound().ok()?, address.ok()?))
        });
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&usec| meant && usec > 0).map(Duration::from_micros);
        Self { to, watchdog }
    }

    /// How often it wants to hear that this process is alive: half of the time after which it would end it.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        self.to.as_ref()?;
        self.watchdog.map(|limit| limit / 2)
    }

    /// The service is up.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The service is alive.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// The service is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, line: &str) {
        self.tell(&format!("STATUS={}", line.replace('\n', " ")));
    }

    fn tell(&self, message: &str) {
        if let Some((socket, address)) = &self.to
            && let Err(e) = socket.send_to_addr(message.as_bytes(), address)
        {
            // The service goes on without: the manager will say what it makes of that.
            tracing::debug!("the service manager can't be told `{message}`: {e}");
        }
    }
}
