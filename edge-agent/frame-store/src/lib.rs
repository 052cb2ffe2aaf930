//! A ring of frames on disk, found again by time.
#![forbid(unsafe_code)]
