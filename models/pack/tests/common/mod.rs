//! What tests of `lookback-models` have in common.

use bundle::Bundle;
use std::process::{Command, Output};
use tempfile::TempDir;

/// Of a frame, width × height in pixels.
pub const SIZE: (usize, usize) = (192, 128);

pub fn models(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lookback-models")).args(arguments).output().unwrap()
}

#[track_caller]
pub fn succeeds(arguments: &[&str]) -> String {
    let output = models(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The one line that a refusal says.
#[track_caller]
pub fn refused(arguments: &[&str]) -> String {
    let output = models(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.lines().count() == 1, "{said}");
    said
}

pub struct Folder(TempDir);

impl Folder {
    /// With a tiny random checkpoint in `tiny`.
    pub fn new() -> Self {
        let folder = Self(TempDir::new().unwrap());
        succeeds(&["make-random", "--shape", "tiny", "-o", &folder.path("tiny")]);
        folder
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn pack(&self, name: &str, more: &[&str]) -> Bundle {
        let (from, out) = (self.path("tiny"), self.path(name));
        let size = format!("{}x{}", SIZE.0, SIZE.1);
        succeeds(&[&["pack", &from, "-o", &out, "--size", &size], more].concat());
        Bundle::open(out).unwrap()
    }
}
