//! The keys, each a file of its own: `root-N.pem`, `targets.pem`, `snapshot.pem`, `timestamp.pem`.
//!
//! A key that replaces another is `NAME.pem.next` until the root that trusts it is in place; the other is then
//! kept as `NAME.pem.retired-VERSION`, after the last root that trusted it. Numbers of root keys are never
//! used again.

use super::{RepositoryError, files};
use rcgen::{KeyPair, PKCS_ED25519};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use std::error::Error;
use std::fmt::{self, Debug, Formatter};
use std::path::{Component, Path, PathBuf};
use tough::key_source::KeySource;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::Key;
use tough::schema::{RoleType, Root};
use tough::sign::{Sign, parse_keypair};

const NEXT: &str = "pem.next";

/// A folder of keys, outside of any repository.
pub struct KeyFolder {
    dir: PathBuf,
}

/// A key that can sign.
#[derive(Clone)]
pub struct SigningKey {
    path: PathBuf,
    pem: String,
    der: Vec<u8>,
    id: Decoded<Hex>,
    public: Key,
}

impl KeyFolder {
    /// The folder `keys`, which is not to lie inside the repository `dir`. Neither need be there.
    pub fn outside(keys: &Path, dir: &Path) -> Result<Self, RepositoryError> {
        if resolved(keys)?.starts_with(resolved(dir)?) {
            return Err(RepositoryError::KeysInside { keys: keys.into(), dir: dir.into() });
        }
        Ok(Self { dir: keys.into() })
    }

    /// The keys of the repository `dir` whose root is `root`. A key that the root trusts by now gets its name.
    pub fn of(keys: &Path, dir: &Path, root: &Root) -> Result<Self, RepositoryError> {
        let folder = Self::outside(keys, dir)?;
        for (name, path) in files::list(&folder.dir)? {
            let Some(name) = name.strip_suffix(&format!(".{NEXT}")) else { continue };
            if SigningKey::read(&path)?.is_trusted_by(root) {
                folder.retire(name, root.version.get().saturating_sub(1))?;
                files::rename(&path, &folder.path(name))?;
            }
        }
        Ok(folder)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Draws a new key, which is not kept yet.
    pub fn draw(&self, name: &str) -> Result<SigningKey, RepositoryError> {
        let path = self.path(name);
        if path.exists() {
            return Err(RepositoryError::KeyExists { path });
        }
        SigningKey::draw(path)
    }

    /// Keeps a key that was drawn.
    pub fn keep(&self, key: &SigningKey) -> Result<(), RepositoryError> {
        files::write_secret(&key.path, key.pem.as_bytes())
    }

    /// The key that is to replace that called `name`, kept as such; one that was drawn before is taken.
    pub fn next(&self, name: &str) -> Result<SigningKey, RepositoryError> {
        let path = self.dir.join(format!("{name}.{NEXT}"));
        if path.exists() {
            return SigningKey::read(&path);
        }
        let key = SigningKey::draw(path)?;
        self.keep(&key)?;
        Ok(key)
    }

    /// Keeps the key called `name` under the name of one that was good until version `last`.
    pub fn retire(&self, name: &str, last: u64) -> Result<Option<PathBuf>, RepositoryError> {
        let path = self.path(name);
        if !path.exists() {
            return Ok(None);
        }
        let retired = self.dir.join(format!("{name}.pem.retired-{last}"));
        files::rename(&path, &retired)?;
        Ok(Some(retired))
    }

    /// The key of a role that has one.
    pub fn role(&self, role: RoleType, root: &Root) -> Result<SigningKey, RepositoryError> {
        let path = self.path(&role.to_string());
        if !path.exists() {
            return Err(RepositoryError::KeyMissing { path, role });
        }
        let key = SigningKey::read(&path)?;
        match root.roles.get(&role).is_some_and(|keys| keys.keyids.contains(&key.id)) {
            true => Ok(key),
            false => Err(RepositoryError::KeyStrange { path, role, version: root.version.get() }),
        }
    }

    /// All keys of the root that are here, which must be enough to sign the next one.
    pub fn roots(&self, root: &Root) -> Result<Vec<SigningKey>, RepositoryError> {
        let Some(trusted) = root.roles.get(&RoleType::Root) else { return Ok(vec![]) };
        let mut found: Vec<SigningKey> = vec![];
        for (name, path) in files::list(&self.dir)? {
            if !name.starts_with("root-") || !name.ends_with(".pem") {
                continue;
            }
            let key = SigningKey::read(&path)?;
            if trusted.keyids.contains(&key.id) && found.iter().all(|other| other.id != key.id) {
                found.push(key);
            }
        }
        let (there, needed) = (found.len() as u64, trusted.threshold.get());
        match there >= needed {
            true => Ok(found),
            false => Err(RepositoryError::RootKeys {
                keys: self.dir.clone(),
                found: there,
                needed,
                version: root.version.get(),
            }),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pem"))
    }
}

impl SigningKey {
    fn draw(path: PathBuf) -> Result<Self, RepositoryError> {
        let pair = KeyPair::generate_for(&PKCS_ED25519).map_err(|error| {
            RepositoryError::Signing { what: "a key".into(), why: error.to_string() }
        })?;
        Self::parse(path, pair.serialize_pem())
    }

    fn read(path: &Path) -> Result<Self, RepositoryError> {
        let pem = String::from_utf8_lossy(&files::read(path)?).into_owned();
        Self::parse(path.into(), pem)
    }

    fn parse(path: PathBuf, pem: String) -> Result<Self, RepositoryError> {
        let parsed = || -> Result<_, Box<dyn Error>> {
            let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())?;
            let der = der.secret_pkcs8_der().to_vec();
            let public = parse_keypair(&der)?.tuf_key();
            Ok((public.key_id()?, public, der))
        };
        match parsed() {
            Ok((id, public, der)) => Ok(Self { path, pem, der, id, public }),
            Err(error) => Err(RepositoryError::KeyDamaged { path, why: error.to_string() }),
        }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the root knows it by.
    pub fn id(&self) -> &Decoded<Hex> {
        &self.id
    }

    /// Its public half.
    pub fn public(&self) -> &Key {
        &self.public
    }

    fn is_trusted_by(&self, root: &Root) -> bool {
        root.roles.values().any(|role| role.keyids.contains(&self.id))
    }
}

/// Never the key itself.
impl Debug for SigningKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.path).finish()
    }
}

#[tough::async_trait]
impl KeySource for SigningKey {
    async fn as_sign(&self) -> Result<Box<dyn Sign>, Box<dyn Error + Send + Sync>> {
        Ok(Box::new(parse_keypair(&self.der)?))
    }

    async fn write(&self, _: &str, _: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
        Err("keys are drawn, not written back".into())
    }
}

/// The path without links, as far as it is there.
fn resolved(path: &Path) -> Result<PathBuf, RepositoryError> {
    let failed = |source| RepositoryError::file("finding", path, source);
    let whole = std::path::absolute(path).map_err(failed)?;
    let mut there = whole.clone();
    let mut rest = vec![];
    loop {
        if let Ok(found) = there.canonicalize() {
            return Ok(rest.iter().rev().fold(found, |path, part: &PathBuf| path.join(part)));
        }
        let Some(Component::Normal(last)) = there.components().next_back() else {
            return Ok(whole);
        };
        rest.push(PathBuf::from(last));
        there.pop();
    }
}
