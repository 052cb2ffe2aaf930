//! What a service tells systemd: that it is ready, that it lives, that it stops.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// The socket of the service manager; without one, as on a terminal, nothing is told.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
}

impl Notify {
    /// The one that the service manager named in the environment.
    pub fn from_environment() -> Self {
        match std::env::var("NOTIFY_SOCKET") {
            Ok(name) => Self::at(&name),
            Err(_) => Self::default(),
        }
    }

    /// `name` is a path, or, beginning with `@`, a name in the abstract namespace.
    pub fn at(name: &str) -> Self {
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(Path::new(name)),
        };
        let socket = UnixDatagram::unbound().and_then(|socket| {
            // A service manager that hangs must not hang the service.
            socket.set_nonblocking(true)?;
            Ok((socket, address?))
        });
        Self { socket: socket.ok() }
    }

    /// The service is up.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// It lives: to be said more often than the unit's `WatchdogSec=`.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// What it does, in a line for `systemctl status`.
    pub fn status(&self, line: &str) {
        self.tell(&format!("STATUS={}", line.replace('\n', " ")));
    }

    /// It is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// It is at something that may take longer than a start and a watchdog allow: the manager is asked for patience
    /// every so often, until what is returned is dropped or `longest` has passed. What hangs is still ended, later.
    pub fn patience(self, every: Duration, longest: Duration) -> Patience {
        let (until, end) = mpsc::sync_channel(0);
        let asks = longest.as_millis() / every.as_millis().max(1);
        thread::spawn(move || {
            for _ in 0..asks {
                // The next asking may be late.
                let granted = 2 * every;
                self.tell(&format!("EXTEND_TIMEOUT_USEC={}\nWATCHDOG=1", granted.as_micros()));
                if end.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Patience(until)
    }

    fn tell(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            // If nobody reads it any more there is nobody to be told so either.
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

/// Asks for patience while it is there: [`Notify::patience`].
#[derive(Debug)]
#[must_use]
pub struct Patience(#[expect(dead_code, reason = "its end is what is told")] mpsc::SyncSender<()>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_asked_for_until_it_is_over_and_no_longer_than_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let notify = || Notify::at(path.to_str().unwrap());
        let hear = || {
            let mut heard = [0; 64];
            let length = manager.recv(&mut heard).unwrap();
            String::from_utf8_lossy(&heard[..length]).into_owned()
        };
        let every = Duration::from_millis(5);
        let bounded = notify().patience(every, 3 * every);
        for _ in 0..3 {
            assert_eq!(hear(), "EXTEND_TIMEOUT_USEC=10000\nWATCHDOG=1");
        }
        thread::sleep(10 * every);
        notify().ready();
        assert_eq!(hear(), "READY=1");
        drop(bounded);
        let day = Duration::from_secs(86_400);
        let dropped = notify().patience(day, 2 * day);
        assert!(hear().starts_with("EXTEND_TIMEOUT_USEC="));
        drop(dropped);
        notify().ready();
        assert_eq!(hear(), "READY=1");
    }

    #[test]
    fn what_is_told_arrives_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let abstract_name = format!("lookback-test-{}", std::process::id());
        let manager = [
            (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
            (
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&abstract_name).unwrap())
                    .unwrap(),
                format!("@{abstract_name}"),
            ),
        ];
        for (socket, name) in manager {
            let notify = Notify::at(&name);
            notify.ready();
            notify.status("watches\ntwo cameras");
            let mut heard = [0; 64];
            let length = socket.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1");
            let length = socket.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"STATUS=watches two cameras");
        }
    }

    #[test]
    fn a_manager_that_is_not_there_or_does_not_read_holds_nobody_up() {
        Notify::default().ready();
        Notify::at("/nowhere/at/all").ready();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::at(path.to_str().unwrap());
        for _ in 0..10_000 {
            notify.alive();
        }
    }
}
