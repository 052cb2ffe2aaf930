//! The peer: Debian's `motion`, in the configuration that costs it least and still does the work.
//!
//! It detects motion in every frame, at a third of its size, which is cheaper than at the whole, and
//! does nothing else: no pictures, no films, no web pages. Unlike ours it keeps nothing of what it saw.

use super::{process, server::Server};
use anyhow::{Context, Result, bail, ensure};
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

/// What motion was told, for the report.
pub(super) const CONFIGURATION: &str =
    "detects on every frame, scaled to a third; no pictures, films or streams: it stores nothing";

/// What to do where it is not installed.
pub(super) const REMEDY: &str = "motion is not installed: apt-get install --no-install-recommends \
                                 motion, or give --install-peer as root";

/// Its version, such as `4.5.1`; `None` if it is not installed.
pub(super) fn version() -> Option<String> {
    // It ends with an error after its help.
    let output = Command::new("motion").arg("-h").stdin(Stdio::null()).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    version_in(&String::from_utf8_lossy(&said))
}

fn version_in(said: &str) -> Option<String> {
    let (_, behind) = said.split_once("motion Version ")?;
    Some(behind.split([',', ' ', '\n']).next()?.to_owned())
}

/// Installs it from Debian's archive; no service of it is started.
///
/// # Errors
/// If there is no apt-get, or it fails, as it does for whoever is not root.
pub(super) fn install() -> Result<()> {
    let output = Command::new("apt-get")
        .args(["install", "--yes", "--no-install-recommends", "motion"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        // As in single-user mode, in which packages start no services.
        .env("RUNLEVEL", "1")
        .stdin(Stdio::null())
        .output()
        .context("there is no apt-get: install motion by other means")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let why = said.lines().rfind(|line| line.starts_with("E:")).unwrap_or("no reason is given");
    ensure!(output.status.success(), "motion could not be installed: {why}");
    Ok(())
}

/// The process of the peer.
pub(super) struct Motion {
    child: Child,
}

impl Motion {
    /// Starts it on the stream of `server`; what it needs lies in `dir`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(server: &Server, size: (u16, u16), fps: f64, dir: &Path) -> Result<Self> {
        let file = dir.join("motion.conf");
        let log = fs::File::create(dir.join("motion.log"))?;
        fs::write(&file, configuration(&server.address()?.to_string(), size, fps, dir))?;
        let child = Command::new("motion")
            .arg("-n")
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        Ok(Self { child: child.context("motion cannot be started")? })
    }

    /// # Errors
    /// If it has ended by itself.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("motion ended early: {status}"),
        }
    }

    /// What it has used.
    pub fn used(&self) -> Result<process::Used> {
        process::used(self.child.id())
    }
}

impl Drop for Motion {
    fn drop(&mut self) {
        // It has nothing to save.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(address: &str, (width, height): (u16, u16), fps: f64, dir: &Path) -> String {
    // It wants multiples of 8.
    let [width, height] = [width, height].map(|side| (side / 3).next_multiple_of(8));
    format!(
        "daemon off\nsetup_mode off\nlog_level 5\ntarget_dir {}\n\
         netcam_url http://{address}/\n\
         width {width}\nheight {height}\nframerate {}\n\
         pause off\nemulate_motion off\npre_capture 0\npost_capture 0\n\
         picture_output off\nmovie_output off\nsnapshot_interval 0\n\
         webcontrol_port 0\nstream_port 0\n",
        dir.display(),
        fps.ceil()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_version_is_in_the_first_line_of_its_help() {
        let said = "motion Version 4.5.1, Copyright 2000-2021 Jeroen Vreeken\n\nusage: motion";
        assert_eq!(version_in(said).as_deref(), Some("4.5.1"));
        assert_eq!(version_in("command not found"), None);
    }

    #[test]
    fn it_is_told_to_detect_and_to_store_nothing() {
        let told = configuration("127.0.0.1:9", (1920, 1080), 29.97, Path::new("/tmp/x"));
        for line in [
            "netcam_url http://127.0.0.1:9/",
            "framerate 30",
            "width 640",
            "movie_output off",
            "picture_output off",
        ] {
            assert!(told.lines().any(|told| told == line), "{line}");
        }
    }
}
