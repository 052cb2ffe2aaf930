//! The accelerators of the configuration, and a memory of what came of loading them.
//!
//! What drives a graphics processor can end the program that loads it, or hang until a watchdog ends that. So each try is
//! written down before it begins; after three that never ended the processor serves alone, and the camera watches.

use crate::config::Config;
use engine::Accelerator;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Tries that may end in the midst: power cuts end one, too.
const TRIES: u32 = 3;

/// Whether the configuration asks for any.
pub fn is_asked_for(config: &Config) -> bool {
    sees(config) || speaks(config)
}

/// Whether it asks for one that sees.
pub fn sees(config: &Config) -> bool {
    !config.inquiry.onnx_runtime.as_os_str().is_empty()
}

/// Whether it asks for one that speaks.
pub fn speaks(config: &Config) -> bool {
    config.inquiry.decoder == "cuda"
}

/// What the configuration asks for, as the engine takes it.
#[derive(Default)]
pub struct Asked {
    /// What is to see, or why it is not tried any more.
    pub sight: Option<Result<Accelerator, String>>,
    /// That a GPU is to speak, or why it is not tried any more.
    pub cuda: Option<Result<(), String>>,
    /// The try to load them, until it ends.
    pub attempt: Option<Try>,
}

/// What is asked for, and a try to load it with `bundle`.
pub fn of(config: &Config, bundle: &str) -> Asked {
    if !is_asked_for(config) {
        return Asked::default();
    }
    let c = &config.inquiry;
    // In the configuration only the providers' own words are sound.
    let provider = c.provider.parse().unwrap_or_default();
    let cache = config.device.data_dir.join("cache");
    let file = cache.join("accelerator-tries");
    let mut what = bundle.to_owned();
    if sees(config) {
        let length = fs::metadata(&c.onnx_runtime).map_or(0, |file| file.len());
        what += &format!(" {provider} {} {length}", c.onnx_runtime.display());
    }
    if speaks(config) {
        what += " cuda";
    }
    let (attempt, tried) = match Try::begin(file, &what) {
        Ok(attempt) => (Some(attempt), Ok(())),
        Err(why) => (None, Err(why)),
    };
    let library = c.onnx_runtime.clone();
    let sight =
        sees(config).then(|| tried.clone().map(|()| Accelerator { library, provider, cache }));
    Asked { sight, cuda: speaks(config).then_some(tried), attempt }
}

/// A try that was written down, until it ends.
pub struct Try {
    file: PathBuf,
}

impl Try {
    /// Writes down that `what` is tried, once more if the last try was of the same and has not ended.
    ///
    /// # Errors
    /// If it was tried too often.
    fn begin(file: PathBuf, what: &str) -> Result<Self, String> {
        let before = fs::read_to_string(&file).unwrap_or_default();
        let of_this = before.strip_prefix(what).and_then(|rest| rest.trim().parse::<u32>().ok());
        let tries = of_this.unwrap_or(0);
        if tries >= TRIES {
            return Err(format!(
                "the accelerator is quarantined: the last {tries} tries to load it ended the program; mend its driver or \
                 library and remove {}",
                file.display()
            ));
        }
        // A disk that is full now is no reason to see nothing; then it is not known what a crash was.
        if let Err(error) = write_down(&file, &format!("{what} {}\n", tries + 1)) {
            tracing::warn!("{} cannot be written: {error}", file.display());
        }
        Ok(Self { file })
    }
}

impl Drop for Try {
    /// Whatever came of it, it has not ended the program.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

fn write_down(file: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, text)?;
    fs::File::open(file)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem;

    #[test]
    fn what_ended_the_program_three_times_is_not_tried_again_until_something_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cache/accelerator-tries");
        let begin = |what: &str| Try::begin(file.clone(), what);
        for _ in 0..TRIES {
            mem::forget(begin("policy-1 cuda").unwrap());
        }
        let why = begin("policy-1 cuda").err().unwrap();
        assert!(why.contains("last 3 tries") && why.contains("accelerator-tries"), "{why}");
        assert!(begin("policy-2 cuda").is_ok());
        for _ in 0..2 * TRIES {
            drop(begin("policy-1 cuda").unwrap());
        }
        mem::forget(begin("policy-1 cuda").unwrap());
        drop(begin("policy-1 cuda").unwrap());
        assert!(!file.exists());
    }

    #[test]
    fn a_file_that_is_no_account_of_tries_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("accelerator-tries");
        for text in ["", "\0\u{fffd}", "policy-1 cuda x", "policy-1 cuda -3"] {
            fs::write(&file, text).unwrap();
            assert!(Try::begin(file.clone(), "policy-1 cuda").is_ok(), "{text:?}");
        }
    }
}
