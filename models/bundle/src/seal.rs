//! Writing bundles: filling in the lengths and hashes.

use crate::{Bundle, BundleError, MANIFEST, Manifest, Part, read_manifest, stays_inside};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A part to be written by [`write`].
#[derive(Clone, Copy, Debug)]
pub struct PartFile<'a> {
    /// Name of the part, such as `decoder`.
    pub part: &'a str,
    /// File name inside the bundle, such as `decoder.safetensors`.
    pub file: &'a str,
    /// Contents.
    pub bytes: &'a [u8],
}

/// Writes `files` and the manifest into `dir` (made if it is not there) and opens the result.
/// `manifest.parts` is replaced by what was written.
///
/// # Errors
/// If a file cannot be written, or the result is not a bundle that [`Bundle::open`] accepts.
pub fn write(
    dir: &Path,
    mut manifest: Manifest,
    files: &[PartFile<'_>],
) -> Result<Bundle, BundleError> {
    manifest.parts.clear();
    for PartFile { part, file, bytes } in files {
        if !stays_inside(file) {
            let (part, file) = ((*part).to_owned(), (*file).to_owned());
            return Err(BundleError::Escapes { part, file });
        }
        let path = dir.join(file);
        write_file(&path, bytes)?;
        let blake3 = blake3::hash(bytes).to_hex().to_string();
        let sealed = Part { file: (*file).to_owned(), bytes: bytes.len() as u64, blake3 };
        manifest.parts.insert((*part).to_owned(), sealed);
    }
    let path = dir.join(MANIFEST);
    let text = toml::to_string_pretty(&manifest)
        .map_err(|e| BundleError::Manifest { path: path.clone(), reason: e.to_string() })?;
    write_file(&path, text.as_bytes())?;
    Bundle::open(dir)
}

/// Fills `bytes` and `blake3` of every `[parts.…]` of the hand-written `bundle.toml` in `dir`,
/// leaving everything else as it is, comments included, and opens the result.
///
/// # Errors
/// If the manifest or a part cannot be read, or the result is not a bundle that [`Bundle::open`]
/// accepts.
pub fn seal(dir: &Path) -> Result<Bundle, BundleError> {
    let path = dir.join(MANIFEST);
    let wrong = |reason: String| BundleError::Manifest { path: path.clone(), reason };
    let mut manifest: toml_edit::DocumentMut = read_manifest(dir)?
        .parse()
        .map_err(|e: toml_edit::TomlError| wrong(e.message().replace('\n', " ")))?;
    let parts = manifest
        .get_mut("parts")
        .and_then(|parts| parts.as_table_like_mut())
        .ok_or_else(|| wrong("it has no [parts.…]".into()))?;
    for (name, part) in parts.iter_mut() {
        let part = part
            .as_table_like_mut()
            .ok_or_else(|| wrong(format!("[parts.{name}] is not a table")))?;
        let file = part
            .get("file")
            .and_then(|file| file.as_str())
            .ok_or_else(|| wrong(format!("[parts.{name}] names no file")))?
            .to_owned();
        if !stays_inside(&file) {
            return Err(BundleError::Escapes { part: name.to_string(), file });
        }
        let (bytes, hash) = measure(&dir.join(&file)).map_err(|source| {
            BundleError::Unreadable { part: name.to_string(), path: dir.join(&file), source }
        })?;
        part.insert("bytes", toml_edit::value(bytes as i64));
        part.insert("blake3", toml_edit::value(hash.to_hex().as_str()));
    }
    write_file(&path, manifest.to_string().as_bytes())?;
    Bundle::open(dir)
}

fn measure(path: &PathBuf) -> std::io::Result<(u64, blake3::Hash)> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(path)?)?;
    Ok((hasher.count(), hasher.finalize()))
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), BundleError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .map_err(|source| BundleError::Write { path: folder.to_owned(), source })?;
    }
    fs::write(path, bytes).map_err(|source| BundleError::Write { path: path.to_owned(), source })
}
