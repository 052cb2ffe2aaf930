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
static NANO: [(&str, &[u8]); 5] = nano!(
    "decoder.safetensors",
    "vision.onnx",
    "tokenizer.json",
    "chat_template.jinja",
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
    for (name, bytes) in NANO {
        let (path, part) = (dir.join(name), dir.join(format!("{name}.part")));
        fs::write(&part, bytes)
            .and_then(|()| fs::rename(&part, &path))
            .with_context(|| format!("cannot write '{}'; is the disk full?", path.display()))?;
    }
    Ok(Bundle::open(&dir)?)
}
