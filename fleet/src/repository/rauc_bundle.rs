//! What a RAUC bundle says of itself, as far as that can be read without RAUC: enough to notice that it is the wrong file.
//! Whether it is believed is for the cameras' RAUC to decide.

use super::RepositoryError;
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// How a bundle begins, which is a file system of squashfs.
const MAGIC: &[u8; 4] = b"hsqs";
/// A signature with its manifest is a few kilobytes.
const SIGNATURE_BYTES_MAX: u64 = 1 << 20;

/// A RAUC bundle.
pub struct RaucBundle {
    path: PathBuf,
    /// What was signed of a bundle of the format verity; empty where it is not in the signature.
    manifest: String,
}

impl RaucBundle {
    /// Looks at the beginning and the end of a file.
    pub fn open(path: &Path) -> Result<Self, RepositoryError> {
        let failed = |source| RepositoryError::file("reading", path, source);
        let mut file = File::open(path).map_err(failed)?;
        let mut begin = [0; MAGIC.len()];
        if file.read_exact(&mut begin).is_err() || begin != *MAGIC {
            let why = "is no bundle of RAUC's: give what `rauc bundle` made".to_owned();
            return Err(RepositoryError::RaucBundle { path: path.into(), why });
        }
        Ok(Self { path: path.into(), manifest: manifest(&mut file).map_err(failed)? })
    }

    /// Whether it says that it is for these machines and of this version; one that says nothing may be.
    pub fn is_of(&self, compatible: &str, version: &str) -> Result<(), RepositoryError> {
        for (key, flag, wanted) in
            [("compatible", "os", compatible), ("version", "version", version)]
        {
            if let Some(found) = self.value(key).filter(|found| *found != wanted) {
                let why = format!(
                    "says that its {key} is {found}, not {wanted}: give --{flag} {found}, or the right file"
                );
                return Err(RepositoryError::RaucBundle { path: self.path.clone(), why });
            }
        }
        Ok(())
    }

    /// The value of a key of the section `[update]`.
    fn value(&self, key: &str) -> Option<&str> {
        let lines = self.manifest.lines().skip_while(|line| line.trim() != "[update]").skip(1);
        let section = lines.take_while(|line| !line.starts_with('['));
        let values = section.filter_map(|line| line.split_once('='));
        values.map(|(k, v)| (k.trim(), v.trim())).find_map(|(k, v)| (k == key).then_some(v))
    }
}

/// The text in the signature, which lies at the end, with its length in the last eight bytes.
fn manifest(file: &mut File) -> io::Result<String> {
    let bytes = file.metadata()?.len();
    let mut length = [0; 8];
    let Some(at) = bytes.checked_sub(8).filter(|at| *at > 0) else { return Ok(String::new()) };
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut length)?;
    let length = u64::from_be_bytes(length);
    let Some(from) = at.checked_sub(length).filter(|_| length <= SIGNATURE_BYTES_MAX) else {
        return Ok(String::new());
    };
    file.seek(SeekFrom::Start(from))?;
    let mut signature = vec![];
    file.take(length).read_to_end(&mut signature)?;
    let begin = signature.windows(8).position(|bytes| bytes == b"[update]");
    let text = begin.map_or(&[][..], |begin| &signature[begin..]);
    let is_text = |byte: &u8| byte.is_ascii_graphic() || b" \t\r\n".contains(byte);
    let end = text.iter().position(|byte| !is_text(byte)).unwrap_or(text.len());
    Ok(String::from_utf8_lossy(&text[..end]).into_owned())
}
