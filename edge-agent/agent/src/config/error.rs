//! What can be wrong with a configuration file, with the line and the remedy.

use std::{io, path::PathBuf};

/// Why a configuration file was refused. Nothing of a refused file takes effect.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "configuration '{}' cannot be read: {source}; `lookback config --print-default` prints one \
         to begin with",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no configuration.
    #[error("configuration '{}' is {what}, not a TOML file: give the right file", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// The file is not TOML.
    #[error("configuration '{}', line {line}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser found.
        reason: String,
    },
    /// A section or key that means nothing.
    #[error("configuration '{}', line {line}: there is no {what}; {hint}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Such as "key 'fraems' in [inquiry]".
        what: String,
        /// What may have been meant.
        hint: String,
    },
    /// A value of the wrong type or outside its range.
    #[error(
        "configuration '{}', line {line}: {key} is {found}, it must be {expected}",
        path.display()
    )]
    Value {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Such as "inquiry.frames".
        key: String,
        /// What was given.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// A camera without its source.
    #[error(
        "configuration '{}', line {line}: this [[{section}]] has no {key}; add one, such as \
         {key} = {example}",
        path.display()
    )]
    Absent {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The section.
        section: &'static str,
        /// The key.
        key: &'static str,
        /// What it could be, as TOML.
        example: String,
    },
    /// Keys that contradict each other.
    #[error("configuration '{}', line {line}, [{section}]: {rule}", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The section.
        section: &'static str,
        /// What must hold.
        rule: String,
    },
}
