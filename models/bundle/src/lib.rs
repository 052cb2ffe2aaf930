//! A model bundle: its manifest, its parts, their hashes.
#![forbid(unsafe_code)]
