//! What can go wrong between a camera and its server.

use std::{io, path::PathBuf, time::Duration};

/// Why a device could not be enrolled, or its identity not be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The token is not one.
    #[error("this is no enrolment token: it has the form lbk1.….…; ask the operator for a new one")]
    Token,
    /// The server's address is not one.
    #[error("'{server}' is no server: write it as https://HOST or https://HOST:PORT")]
    Server {
        /// What was given.
        server: String,
    },
    /// The server could not be reached.
    #[error("cannot reach {server}: {source}; check the address, the network and the firewall")]
    Unreachable {
        /// The server.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something else than the server that made the token answered.
    #[error(
        "whoever answers at {server} is not the server that the token is from ({why}): check the \
         address, or ask the operator for a new token"
    )]
    Stranger {
        /// The server.
        server: String,
        /// What TLS said.
        why: String,
    },
    /// The server refused.
    #[error("{server} refuses to enrol this device: {why}")]
    Refused {
        /// The server.
        server: String,
        /// Its own words.
        why: String,
    },
    /// The device is enrolled already.
    #[error(
        "this device is already enrolled as {device} with {server}; remove '{}' first to enrol it anew", dir.display()
    )]
    Enrolled {
        /// Its id.
        device: String,
        /// Its server.
        server: String,
        /// Where its identity lies.
        dir: PathBuf,
    },
    /// The identity cannot be read or written.
    #[error("cannot use the identity in '{}': {source}; enrol the device anew if it is damaged", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the identity is not what it should be.
    #[error("'{}' is damaged: {why}; remove the directory it is in and enrol the device anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Keys could not be made.
    #[error("cannot make a key for this device: {why}")]
    Key {
        /// What the library said.
        why: String,
    },
}

/// Why something was not delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No answer: the network, the server's machine, or TLS.
    #[error("{server} cannot be reached: {why}")]
    Unreachable {
        /// The server.
        server: String,
        /// What was said.
        why: String,
    },
    /// The server is there and asks for patience.
    #[error("{server} is busy ({status})")]
    Busy {
        /// The server.
        server: String,
        /// The HTTP status.
        status: u16,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The server does not want to hear from this device, or from anyone in this way.
    #[error("{server} refuses ({status}): {why}")]
    Refused {
        /// The server.
        server: String,
        /// The HTTP status.
        status: u16,
        /// Its own words.
        why: String,
    },
    /// The answer is not one.
    #[error("{server} gives an answer that cannot be read: {why}")]
    Nonsense {
        /// The server.
        server: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Failure {
    /// How long the server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
