//! Brings a camera the policy, or the system, that its channel names: verified, fetched, staged.
//!
//! A repository (crate `release`) lies at any web server or in a folder. What of it is believed is decided by
//! TUF ([`Catalogue`]), what of it is missing by content ([`Parts`], [`fetch()`]), and what is done about it by a
//! pure planner ([`Plan`]). Nothing of a bundle is parsed before every byte of it was verified, and the image of a
//! system is none of this crate's business: RAUC gets the file ([`Parts::path`]).
#![forbid(unsafe_code)]

mod fetch;
mod parts;
mod plan;
mod source;
mod stick;
mod trust;
mod window;

pub use fetch::{FetchError, Progress, Request, fetch, requests};
pub use parts::{Partial, Parts, PartsError, Unsynced};
pub use plan::{Boot, Candidate, Effect, Input, Plan, Slot, Stage};
pub use source::{Source, SourceError};
pub use stick::sticks;
pub use trust::{Catalogue, Clock, Trust, TrustError};
pub use window::{Window, WindowError};

use std::{fs, io, path::Path};

/// Sees to it that a file or folder is on disk.
fn fsync(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}
