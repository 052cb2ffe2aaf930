//! The policy that the program carries: nano, laid out as a bundle in the data directory.

use anyhow::{Context, Result};
use bundle::Bundle;
use std::{fs, path::Path};

macro_rules! nano {
    ($($file:literal),* $(,)?) => {
        [$(($file, include_bytes!(concat!("../../../models/nano/", $file)).as_slice())),*]
    };
}

/// The files of `models/nano`; the manifest is the last, so that a directory that has it is whole.
static NANO: [(&str, &[u8]); 6] = nano!(
    "decoder.safetensors",
    "vision.onnx",
    "tokenizer.json",
    "chat_template.jinja",
    "golden.json",
    "bundle.toml",
);

/// Opens the built-in policy, laying it out under `data_dir` if this build has not yet.
///
/// # Errors
/// If the data directory cannot be written, or the files in it were changed and cannot be mended.
pub fn open(data_dir: &Path) -> Result<Bundle> {
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in NANO {
        hasher.update(name.as_bytes()).update(bytes);
    }
    let hash = hasher.finalize().to_hex();
    let dir = data_dir.join("bundles").join(format!("nano-{}", &hash[..12]));
    if let Ok(bundle) = Bundle::open(&dir) {
        return Ok(bundle);
    }
    fs::create_dir_all(&dir)
        .with_context(|| format!("cannot create '{}' for the built-in policy", dir.display()))?;
    // A command beside a watch that just starts lays out the same files.
    let all = dir.parent().unwrap_or(data_dir);
    let _one_at_a_time = fs::File::open(all)
        .and_then(|folder| folder.lock().map(|()| folder))
        .with_context(|| format!("cannot lock '{}'", all.display()))?;
    if let Ok(bundle) = Bundle::open(&dir) {
        return Ok(bundle);
    }
    for (name, bytes) in NANO {
        let (path, part) = (dir.join(name), dir.join(format!("{name}.part")));
        fs::write(&part, bytes)
            .and_then(|()| fs::rename(&part, &path))
            .with_context(|| format!("cannot write '{}'; is the disk full?", path.display()))?;
    }
    let bundle = Bundle::open(&dir)?;
    remove_others(&dir);
    Ok(bundle)
}

/// What other builds carried is of no use any more; that it lies there is no reason not to go on.
fn remove_others(dir: &Path) {
    let Some(entries) = dir.parent().and_then(|folder| fs::read_dir(folder).ok()) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path != dir) {
        let of_ours =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("nano-"));
        if of_ours && let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(%error, path = %path.display(), "an old policy cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, thread};

    #[test]
    fn what_another_build_carried_goes_when_this_ones_is_laid_out() {
        let temp = tempfile::tempdir().unwrap();
        let bundles = temp.path().join("bundles");
        for other in ["nano-000000000000", "mine"] {
            fs::create_dir_all(bundles.join(other)).unwrap();
        }
        let own = open(temp.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(bundles).unwrap().map(|e| e.unwrap().path()).collect();
        left.sort();
        assert_eq!(left, [own.dir.with_file_name("mine"), own.dir.clone()]);
        assert_eq!(open(temp.path()).unwrap().id(), own.id());
    }

    #[test]
    fn whoever_comes_first_lays_it_out_and_all_find_it() {
        for _ in 0..8 {
            let temp = tempfile::tempdir().unwrap();
            thread::scope(|scope| {
                let all: Vec<_> =
                    (0..16).map(|_| scope.spawn(|| open(temp.path()).map(|b| b.id()))).collect();
                let ids = all.into_iter().map(|one| one.join().unwrap().unwrap());
                assert_eq!(ids.collect::<BTreeSet<_>>().len(), 1);
            });
        }
    }
}
