//! Which systems were confirmed here: one root hash per line, which the image reads at every start.

use super::booted::is_root;
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// Both slots, and what each held before.
const KEPT: usize = 4;
/// More than these lines are none of ours.
const BYTES_MAX: u64 = 4 << 10;

/// The list.
#[derive(Clone, Debug)]
pub struct Confirmed {
    path: PathBuf,
}

impl Confirmed {
    /// In this folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join("confirmed") }
    }

    /// Whether the system of this root is on it.
    pub fn has(&self, root: &str) -> bool {
        self.all().iter().any(|confirmed| confirmed == root)
    }

    /// What is on it, the newest last. What cannot be read there was never confirmed.
    pub fn all(&self) -> Vec<String> {
        let mut text = String::new();
        let read =
            File::open(&self.path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
        match read {
            Ok(_) => text.lines().filter(|line| is_root(line)).map(str::to_owned).collect(),
            Err(_) => vec![],
        }
    }

    /// Puts the system of this root on it, durably and at once: a power cut leaves the old list or the new one.
    ///
    /// # Errors
    /// If the disk fails; the old list stands then.
    pub fn add(&self, root: &str) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(folder)?;
        let mut all = self.all();
        all.retain(|confirmed| confirmed != root);
        all.push(root.to_owned());
        let first = all.len().saturating_sub(KEPT);
        let part = self.path.with_extension("part");
        let mut file = File::create(&part)?;
        all[first..].iter().try_for_each(|root| writeln!(file, "{root}"))?;
        file.sync_all()?;
        fs::rename(&part, &self.path)?;
        // The folder may be as new as the file.
        folder
            .ancestors()
            .take(2)
            .filter(|folder| !folder.as_os_str().is_empty())
            .try_for_each(|folder| File::open(folder)?.sync_all())
    }
}
