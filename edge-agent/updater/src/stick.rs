//! Repositories on sticks: found where the system mounts them.

use release::METADATA;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// So deep below the folder in which sticks appear: of a user, of a stick, and one on it.
const DEPTH: u32 = 3;
/// A stick full of folders holds nobody up for long.
const FOLDERS_MAX: usize = 512;

/// The repositories in `folder` and a few folders deep, in order; what cannot be read is none. What is on a stick is
/// believed only for its signatures, as everywhere.
pub fn sticks(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut level, mut seen) = (vec![], vec![folder.to_owned()], 0);
    for depth in 0..=DEPTH {
        let mut next = vec![];
        for path in level {
            if path.join(METADATA).join("timestamp.json").is_file() {
                found.push(path);
            } else if depth < DEPTH {
                next.extend(folders(&path));
            }
        }
        next.sort();
        seen += next.len();
        next.truncate(next.len().saturating_sub(seen.saturating_sub(FOLDERS_MAX)));
        level = next;
    }
    found
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    // A link could lead anywhere, and around in a circle.
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn repository(path: &Path) {
        fs::create_dir_all(path.join(METADATA)).unwrap();
        fs::write(path.join(METADATA).join("timestamp.json"), "{}").unwrap();
    }

    #[test]
    fn a_repository_is_found_on_a_stick_wherever_the_system_mounts_it() {
        let temp = tempfile::tempdir().unwrap();
        let media = temp.path();
        assert_eq!(sticks(&media.join("nowhere")), Vec::<PathBuf>::new());
        fs::create_dir_all(media.join("empty/DCIM/100")).unwrap();
        assert_eq!(sticks(media), Vec::<PathBuf>::new());
        let all = [media.join("sda1"), media.join("root/STICK/policies"), media.join("root/OTHER")];
        all.iter().for_each(|path| repository(path));
        repository(&media.join("a/b/c/too-deep"));
        symlink(media, media.join("empty/circle")).unwrap();
        let mut found = sticks(media);
        found.sort();
        let mut all = all.to_vec();
        all.sort();
        assert_eq!(found, all);
        repository(media);
        assert_eq!(sticks(media), [media], "the folder itself");
    }

    #[test]
    fn a_stick_full_of_folders_ends() {
        let temp = tempfile::tempdir().unwrap();
        for n in 0..2 * FOLDERS_MAX {
            fs::create_dir(temp.path().join(format!("{n:05}"))).unwrap();
        }
        repository(&temp.path().join("00001"));
        repository(&temp.path().join(format!("{:05}", 2 * FOLDERS_MAX - 1)));
        assert_eq!(sticks(temp.path()), [temp.path().join("00001")]);
    }
}
