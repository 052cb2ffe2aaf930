//! What a service tells systemd: that it is ready, that it lives, that it stops.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

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

    fn tell(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            // If nobody reads it any more there is nobody to be told so either.
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
