//! A file system that fails on purpose: error, short write, full disk, crash at the Nth operation.
#![forbid(unsafe_code)]
