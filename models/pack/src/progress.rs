//! How far long work is, for people.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// A bar on standard error; nothing where nobody looks.
pub struct Progress(ProgressBar);

impl Progress {
    /// `quiet`: no bar.
    pub fn new(quiet: bool) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        let style = ProgressStyle::with_template("{msg:10} [{bar:40}] {percent:>3} %  {eta} left");
        bar.set_style(style.expect("a template that was tried"));
        Self(bar)
    }

    /// There is `all` to be done.
    pub fn begin(&self, all: u64) {
        self.0.set_length(all);
        self.0.enable_steady_tick(Duration::from_millis(200));
    }

    /// So much more is done.
    pub fn add(&self, more: u64) {
        self.0.inc(more);
    }

    /// What is being done.
    pub fn says(&self, what: &'static str) {
        self.0.set_message(what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
