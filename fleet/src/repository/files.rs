//! Files that are there whole or not at all.

use super::RepositoryError;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Writes a file that everybody may read.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), RepositoryError> {
    if let Some(folder) = path.parent() {
        let failed = |source| RepositoryError::file("making", folder, source);
        fs::create_dir_all(folder).map_err(failed)?;
    }
    write_with_mode(path, bytes, 0o644)
}

/// Writes a file that nobody else may read, into a folder that nobody else may look into.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), RepositoryError> {
    if let Some(folder) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| RepositoryError::file("making", folder, source))?;
    }
    write_with_mode(path, bytes, 0o600)
}

fn write_with_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<(), RepositoryError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.part"));
    let written = remove_if_there(&part).and_then(|()| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|source| RepositoryError::file("writing", path, source))?;
    rename(&part, path)
}

/// Gives a file or folder another name, for good.
pub fn rename(from: &Path, to: &Path) -> Result<(), RepositoryError> {
    let renamed = fs::rename(from, to);
    renamed.map_err(|source| RepositoryError::file("writing", to, source))?;
    to.parent().map_or(Ok(()), sync)
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> Result<(), RepositoryError> {
    remove_if_there(path).map_err(|source| RepositoryError::file("removing", path, source))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes a folder and all that is in it, if it is there.
pub fn remove_folder(path: &Path) -> Result<(), RepositoryError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| RepositoryError::file("removing", path, source)),
    }
}

/// Sees to it that what was renamed in a folder stays so.
pub fn sync(folder: &Path) -> Result<(), RepositoryError> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| RepositoryError::file("writing", folder, source))
}

/// Contents of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, RepositoryError> {
    fs::read(path).map_err(|source| RepositoryError::file("reading", path, source))
}

/// The files in a folder and their names, in order, without those that are not finished; none if there
/// is no such folder.
pub fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>, RepositoryError> {
    let failed = |source| RepositoryError::file("reading", folder, source);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        other => other.map_err(failed)?,
    };
    let mut found = vec![];
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_file() && !name.starts_with('.') {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}
