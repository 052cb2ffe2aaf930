//! Handing a bundle to RAUC. What RAUC finds wrong with it ends the update; a machine that fails is no verdict, and
//! it goes on another time.

use super::{RaucError, System};
use crate::{installed, staging::Steps};
use anyhow::{Context, Result, bail};
use release::{Kind, Release};
use std::path::Path;
use updater::{Boot, Input, Parts, Stage};

/// Hands over what was fetched and verified.
///
/// # Errors
/// If RAUC cannot be had, the log or the disk fails. What is wrong with the bundle is no error, and stands in the
/// record.
pub fn hand_over(steps: &mut Steps<'_>) -> Result<()> {
    let Some(candidate) = steps.record.plan.candidate.clone() else { return Ok(()) };
    let parts = Parts::open(&installed::folder(Kind::System, &steps.config.device.data_dir))?;
    let there = candidate.release.files.first().filter(|file| parts.has(file));
    let Some(path) = there.map(|file| parts.path(file)) else {
        return steps.take(Input::Failed("its file is not there any more".to_owned()));
    };
    let system = System::of(steps.config);
    let boot = start_of(&system)?;
    system.rauc.status()?;
    let release = &candidate.release;
    match system.rauc.info(&path) {
        Err(error) => return not_installed(steps, error),
        Ok(info) => {
            let version = info.version.as_deref().unwrap_or(&release.version);
            if info.compatible != release.name || version != release.version {
                let found = format!("{}@{version}", info.compatible);
                let why = format!("its file is of {found}, by RAUC: publish it anew");
                return steps.take(Input::Failed(why));
            }
        }
    }
    match install(steps, &system, boot, &path)? {
        None => Ok(()),
        Some(error) => not_installed(steps, error),
    }
}

/// Hands over the bundle in `file`, which a person brings: RAUC decides by its signature.
///
/// # Errors
/// If it is not installed, with the reason.
pub fn hand_over_by_hand(steps: &mut Steps<'_>, file: &Path) -> Result<()> {
    let system = System::of(steps.config);
    let status = system.rauc.status()?;
    let boot = start_of(&system)?;
    if let (Stage::Staged | Stage::Trial, Some(candidate)) =
        (steps.record.plan.stage, &steps.record.plan.candidate)
    {
        let next = match steps.record.plan.stage {
            Stage::Staged => "restart the machine",
            _ => "let it watch until it is confirmed",
        };
        bail!("the system {} is on its way: {next} first", candidate.release.bundle);
    }
    let file = file
        .canonicalize()
        .with_context(|| format!("cannot read the bundle '{}'", file.display()))?;
    let info = system.rauc.info(&file)?;
    let Some(version) = info.version else {
        bail!("the bundle '{}' has no version: give its manifest one", file.display());
    };
    let release = Release::of_system(&file, &info.compatible, &version)
        .with_context(|| format!("cannot read the bundle '{}'", file.display()))?;
    steps.take(Input::Brought { release: &release, built_in: &system.id(&status.compatible) })?;
    if steps.record.plan.stage == Stage::Verified {
        let failed = install(steps, &system, boot, &file)?;
        // Whoever brought it stands here, and can bring it again.
        if let Some(error) = failed {
            let why = error.verdict().unwrap_or_else(|| error.to_string());
            steps.take(Input::Failed(why))?;
        }
    }
    match (steps.record.plan.stage, &steps.record.plan.why) {
        (Stage::RolledBack, Some(why)) => {
            bail!("the system {} was not taken: {why}", release.bundle)
        }
        _ => Ok(()),
    }
}

/// Without a root that has a name nobody could tell after the restart which system runs.
fn start_of(system: &System) -> Result<Boot> {
    system.booted.boot().context(
        "the system that runs does not name its root (lookback.root= on the kernel's command line), so that \
         nobody could tell it from another one: start this machine from an image of Lookback",
    )
}

/// Has it installed, and asks for the restart; why not, if RAUC does not.
fn install(
    steps: &mut Steps<'_>,
    system: &System,
    boot: Boot,
    file: &Path,
) -> Result<Option<RaucError>> {
    steps.take(Input::HandedOver(boot))?;
    if steps.record.plan.stage != Stage::Verified {
        return Ok(None);
    }
    if let Err(error) = system.rauc.install(file) {
        return Ok(Some(error));
    }
    steps.take(Input::LaidOut)?;
    (steps.say)(&system.restart())?;
    Ok(None)
}

fn not_installed(steps: &mut Steps<'_>, error: RaucError) -> Result<()> {
    match error.verdict() {
        Some(why) => steps.take(Input::Failed(why)),
        None => Err(anyhow::Error::new(error).context(format!(
            "the system {} is not installed yet",
            steps.record.plan.candidate.as_ref().map_or("", |c| &c.release.bundle)
        ))),
    }
}
