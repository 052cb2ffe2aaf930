//! Secrets: drawing them, writing them, telling them apart, and passwords.

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use ring::rand::{SecureRandom, SystemRandom};

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes: check that getrandom(2) works here")]
pub struct NoRandomness;

/// A password could not be made into something that may be stored.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too easily guessed, or too long to be meant.
    #[error("the password has {length} characters: it must have 8 to 200")]
    Length {
        /// How many it has.
        length: usize,
    },
    /// No salt.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// Argon2 failed.
    #[error("the password cannot be hashed ({0}): is memory short?")]
    Hash(argon2::password_hash::Error),
}

/// `N` random bytes of the system's generator.
///
/// # Errors
/// [`NoRandomness`] if there is none.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// A random text of 32 hex digits: 128 bits, for sessions and forms.
///
/// # Errors
/// [`NoRandomness`] if there is none.
pub fn random_text() -> Result<String, NoRandomness> {
    Ok(hex(&random::<16>()?))
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    hash
}

/// In lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|n| char::from(b"0123456789abcdef"[usize::from(n)]))
        .collect()
}

/// The bytes that lower-case hex digits stand for, if `text` is such.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
pub fn same(a: &str, b: &str) -> bool {
    // Hashes of random keys would do as well; comparing digests of what is compared is enough to hide
    // the place, as an attacker cannot steer the digest.
    sha256(a.as_bytes()) == sha256(b.as_bytes())
}

/// What is stored of a password: Argon2id with a salt of its own, in PHC form.
///
/// # Errors
/// [`PasswordError`] if it is too short or too long, or cannot be hashed.
pub fn hash_password(password: &str) -> Result<String, PasswordError> {
    let length = password.chars().count();
    if !(8..=200).contains(&length) {
        return Err(PasswordError::Length { length });
    }
    let salt = random::<16>()?;
    let hash: PasswordHash = Argon2::default()
        .hash_password_with_salt(password.as_bytes(), &salt)
        .map_err(PasswordError::Hash)?;
    Ok(hash.to_string())
}

/// Whether `password` is the one that `stored` was made of. Without a `stored` one it takes as long and
/// says no, so that the time does not tell which names exist.
pub fn verify_password(password: &str, stored: Option<&str>) -> bool {
    match stored.map(PasswordHash::new) {
        Some(Ok(hash)) => Argon2::default().verify_password(password.as_bytes(), &hash).is_ok(),
        _ => {
            let mut out = [0; 32];
            let _ = Argon2::default().hash_password_into(password.as_bytes(), &[7; 16], &mut out);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_digits_come_back_as_bytes() {
        assert_eq!(hex(&[0, 0x1f, 0xff]), "001fff");
        assert_eq!(unhex::<3>("001fff"), Some([0, 0x1f, 0xff]));
        for wrong in ["001ff", "001fFf", "001fgg", "001fff00"] {
            assert_eq!(unhex::<3>(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_the_password_itself_is_accepted() {
        let stored = hash_password("correct horse").unwrap();
        assert!(stored.starts_with("$argon2id$"));
        assert!(verify_password("correct horse", Some(&stored)));
        assert!(!verify_password("correct horsf", Some(&stored)));
        assert!(!verify_password("correct horse", None));
        assert!(!verify_password("correct horse", Some("no hash")));
        assert_ne!(stored, hash_password("correct horse").unwrap(), "each has its own salt");
    }

    #[test]
    fn a_short_password_is_refused() {
        assert!(matches!(hash_password("1234567"), Err(PasswordError::Length { length: 7 })));
    }
}
