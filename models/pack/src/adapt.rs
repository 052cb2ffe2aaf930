//! From a bundle to the same with another adapter.

use crate::{
    adapter::Adapter,
    pack::{ADAPTER_FILE, with_golden},
    progress::Progress,
};
use anyhow::{Context, Result, bail, ensure};
use bundle::{ADAPTER, Bundle, GOLDEN};
use clap::Args;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// How a packed bundle gets another adapter.
#[derive(Args)]
pub struct Adapt {
    /// Folder of the bundle: packed without an adapter, or with --keep-adapter.
    bundle: PathBuf,
    /// Folder of a LoRA adapter as PEFT saves it, trained on the checkpoint that the bundle was packed from.
    #[arg(long)]
    adapter: PathBuf,
    /// Folder of the new bundle; must not be there yet.
    #[arg(short, long)]
    out: PathBuf,
    /// Version of the new bundle, major.minor.patch; without it, that of the old one.
    #[arg(long)]
    version: Option<String>,
}

/// Writes the bundle once more with another adapter: all other parts are the same, byte by byte, but for what
/// it computes for the golden inputs.
///
/// # Errors
/// If the bundle is refused or the adapter does not fit, in a sentence that names the tensor or file.
pub fn adapt(given: &Adapt, progress: &Progress) -> Result<Bundle> {
    let Adapt { bundle, adapter, out, version } = given;
    let base = Bundle::open(bundle)?;
    let adapter = Adapter::open(adapter)?;
    ensure!(!out.exists(), "{} is there already: remove it or give another --out", out.display());
    fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))?;
    let written = copy_adapted(&base, &adapter, out, version.as_deref()).and_then(|()| {
        bundle::seal(out)?;
        progress.says("run");
        with_golden(out)
    });
    if written.is_err() {
        fs::remove_dir_all(out).with_context(|| format!("remove {}", out.display()))?;
    }
    written
}

/// All of the bundle but adapter and golden outputs, and a manifest that waits to be sealed.
fn copy_adapted(base: &Bundle, adapter: &Adapter, out: &Path, version: Option<&str>) -> Result<()> {
    let parts = &base.manifest.parts;
    let others = parts.iter().filter(|(name, _)| ![ADAPTER, GOLDEN].contains(&name.as_str()));
    for part in others.map(|(_, part)| part) {
        let to = out.join(&part.file);
        fs::create_dir_all(to.parent().unwrap_or(out))?;
        fs::copy(base.dir.join(&part.file), &to)
            .with_context(|| format!("{} cannot be written", to.display()))?;
    }
    let file = parts.get(ADAPTER).map_or(ADAPTER_FILE, |part| &part.file);
    let taken = parts.iter().find(|(name, part)| *name != ADAPTER && part.file == file);
    if let Some((name, _)) = taken {
        bail!("part '{name}' of {} lies in '{file}': give it another name", base.id());
    }
    adapter.write(&base.manifest.decoder, &out.join(file))?;
    let text = fs::read_to_string(base.dir.join(bundle::MANIFEST))?;
    let mut manifest: toml_edit::DocumentMut = text.parse()?;
    if let Some(version) = version {
        manifest["version"] = toml_edit::value(version);
    }
    if let Some(parts) = manifest["parts"].as_table_like_mut() {
        parts.remove(GOLDEN);
        let mut part = toml_edit::Table::new();
        part.insert("file", toml_edit::value(file));
        parts.insert(ADAPTER, toml_edit::Item::Table(part));
    }
    Ok(fs::write(out.join(bundle::MANIFEST), manifest.to_string())?)
}
