//! A report: checks, each with its finding and the remedy.

use serde::Serialize;
use serde_json::json;
use std::io::{self, Write};
use std::process::ExitCode;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, but something should be done.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// What was found.
    pub finding: String,
    /// What to do about it, unless it is ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Check {
    /// All is well.
    pub fn ok(name: &str, finding: impl Into<String>) -> Self {
        Self { name: name.into(), status: Status::Ok, finding: finding.into(), remedy: None }
    }

    /// It works, but `remedy` should be done.
    pub fn warn(name: &str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { name: name.into(), status: Status::Warn, finding: finding.into(), remedy }
    }

    /// It does not work until `remedy` is done.
    pub fn fail(name: &str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Fail, ..Self::warn(name, finding, remedy) }
    }
}

/// Everything that was checked, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// Adds a check.
    pub fn add(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// The worst of all; ok if nothing was checked.
    pub fn status(&self) -> Status {
        self.checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok)
    }

    /// 1 if a check failed.
    pub fn exit_code(&self) -> ExitCode {
        match self.status() {
            Status::Fail => ExitCode::FAILURE,
            Status::Ok | Status::Warn => ExitCode::SUCCESS,
        }
    }

    /// Writes it for people, or as one JSON object.
    ///
    /// # Errors
    /// Whatever `out` says.
    pub fn write(&self, json: bool, out: &mut dyn Write) -> io::Result<()> {
        if json {
            let report = json!({ "status": self.status(), "checks": self.checks });
            return writeln!(out, "{report}");
        }
        let width = self.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
        for check in &self.checks {
            let status = match check.status {
                Status::Ok => "ok",
                Status::Warn => "warn",
                Status::Fail => "FAIL",
            };
            let finding = one_line(&check.finding);
            writeln!(out, "{status:<4}  {:<width$}  {finding}", check.name)?;
            if let Some(remedy) = &check.remedy {
                writeln!(out, "      {:<width$}  → {}", "", one_line(remedy))?;
            }
        }
        let count = |status| self.checks.iter().filter(|check| check.status == status).count();
        let (warnings, failures) = (count(Status::Warn), count(Status::Fail));
        writeln!(
            out,
            "{} checks: {}",
            self.checks.len(),
            match (failures, warnings) {
                (0, 0) => "all is well".to_owned(),
                (0, n) => format!("it works, {n} to look at"),
                (m, 0) => format!("{m} failed"),
                (m, n) => format!("{m} failed, {n} to look at"),
            }
        )
    }
}

/// What devices and files say of themselves must not break the lines, or be obeyed by a terminal.
fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}
