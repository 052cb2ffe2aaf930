//! What can be wrong with a part of a board: one sentence each, with the remedy.

use std::io;

/// Why a part of the board cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// What the description names does not exist on this machine.
    #[error("{what} is not there; {remedy}")]
    Missing {
        /// Such as `/dev/gpiochip7` or `line 'relay'`.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// Somebody else has it.
    #[error("{what} is in use by {user}; {remedy}")]
    InUse {
        /// Such as `line 7 (PAC.06) of /dev/gpiochip0`.
        what: String,
        /// Who has it, in the words of the kernel.
        user: String,
        /// What to do.
        remedy: String,
    },
    /// This process may not use it.
    #[error("{what}: permission denied; {remedy}")]
    Denied {
        /// The file.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// It is there and does not do what was asked of it.
    #[error("{what} cannot {doing}: {reason}")]
    Failed {
        /// The part.
        what: String,
        /// What was asked of it.
        doing: String,
        /// What the system said, and what to do.
        reason: String,
    },
}

impl PartError {
    /// The error for a file of `/dev` or `/sys` that the system refused.
    pub(super) fn file(what: &str, doing: &str, error: &io::Error, remedy: &str) -> Self {
        let (what, remedy) = (what.to_string(), remedy.to_string());
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Self::Missing { what, remedy },
            Some(libc::EACCES | libc::EPERM) => {
                let remedy = "run as root, or give this user the group that owns it".to_string();
                Self::Denied { what, remedy }
            }
            Some(libc::EBUSY) => {
                let user = "another program or the kernel".to_string();
                Self::InUse { what, user, remedy }
            }
            _ => Self::Failed { what, doing: doing.to_string(), reason: error.to_string() },
        }
    }
}

// Both traits want a kind; those of embedded-hal 1.0 name failures of the wires (a bus that is
// driven by two), and ours are of the system.
impl embedded_hal::digital::Error for PartError {
    fn kind(&self) -> embedded_hal::digital::ErrorKind {
        embedded_hal::digital::ErrorKind::Other
    }
}

impl embedded_hal::pwm::Error for PartError {
    fn kind(&self) -> embedded_hal::pwm::ErrorKind {
        embedded_hal::pwm::ErrorKind::Other
    }
}
