//! One-time tokens, and how a camera becomes a device of the fleet.

use crate::authority::{Authority, AuthorityError};
use crate::database::{Database, DatabaseError};
use crate::ids::DeviceId;
use crate::secret::{self, NoRandomness, hex, sha256, unhex};
use crate::users::audit;

const PREFIX: &str = "lbk1";
const SECRET_BYTES: usize = 20;

/// A token, for people to paste: `lbk1.<secret>.<fingerprint of the authority>`.
pub struct Token {
    secret: [u8; SECRET_BYTES],
}

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// [`NoRandomness`]
    pub fn draw() -> Result<Self, NoRandomness> {
        Ok(Self { secret: secret::random()? })
    }

    /// The token in `text`, whatever authority it names: that part is for the camera.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('.');
        let (prefix, secret, fingerprint) = (parts.next()?, parts.next()?, parts.next()?);
        unhex::<32>(fingerprint)?;
        let whole = prefix == PREFIX && parts.next().is_none();
        whole.then_some(())?;
        Some(Self { secret: unhex(secret)? })
    }

    /// As text.
    pub fn text(&self, authority: &Authority) -> String {
        format!("{PREFIX}.{}.{}", hex(&self.secret), authority.fingerprint())
    }

    /// What the server keeps of it.
    fn hash(&self) -> [u8; 32] {
        sha256(&self.secret)
    }
}

/// What a camera sends to be enrolled.
pub struct Application {
    /// Its token.
    pub token: String,
    /// Its PKCS#10 request, in PEM.
    pub csr: String,
    /// What it calls itself; the token's name goes before.
    pub name: Option<String>,
    /// The version of its software.
    pub agent: String,
}

/// A camera that has been enrolled.
pub struct Enrolled {
    /// Its id.
    pub device: DeviceId,
    /// Its certificate, in PEM.
    pub certificate: String,
}

/// Why a camera was not enrolled. Its token is as good as before.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// No such token.
    #[error(
        "this token is not known or was used before: make a new one with `lookback-fleet enrol`"
    )]
    Token,
    /// Its time is over.
    #[error("this token has expired: make a new one with `lookback-fleet enrol`")]
    Expired,
    /// The signing request is not usable.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// No id could be drawn.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<tokio_postgres::Error> for EnrolmentError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Stores a new token, good for `hours`, and returns it.
///
/// # Errors
/// [`EnrolmentError::Database`] or [`EnrolmentError::NoRandomness`].
pub async fn make_token(
    database: &Database,
    name: Option<&str>,
    hours: u32,
    person: &str,
) -> Result<Token, EnrolmentError> {
    let token = Token::draw()?;
    let mut client = database.client().await?;
    let tx = client.transaction().await?;
    tx.execute(
        "INSERT INTO enrolment_token (secret_hash, name, expires)
         VALUES ($1, $2, now() + $3 * interval '1 hour')",
        &[&&token.hash()[..], &name, &f64::from(hours)],
    )
    .await?;
    audit(&tx, person, "token made", name.unwrap_or("without a name")).await?;
    tx.commit().await?;
    Ok(token)
}

/// Enrols a camera: its token is used up, its certificate made and its row written, all or nothing.
///
/// # Errors
/// [`EnrolmentError`]
pub async fn enrol(
    database: &Database,
    authority: &Authority,
    application: &Application,
) -> Result<Enrolled, EnrolmentError> {
    let token = Token::parse(&application.token).ok_or(EnrolmentError::Token)?;
    let mut client = database.client().await?;
    let tx = client.transaction().await?;
    let row = tx
        .query_opt(
            "SELECT name, device IS NOT NULL, expires <= now() FROM enrolment_token
             WHERE secret_hash = $1 FOR UPDATE",
            &[&&token.hash()[..]],
        )
        .await?
        .ok_or(EnrolmentError::Token)?;
    let (token_name, used, expired): (Option<String>, bool, bool) =
        (row.get(0), row.get(1), row.get(2));
    if used {
        return Err(EnrolmentError::Token);
    }
    if expired {
        return Err(EnrolmentError::Expired);
    }
    let device = draw_device()?;
    let issued = authority.sign(&application.csr, &device)?;
    let name = token_name.or_else(|| application.name.as_deref().map(clean));
    tx.execute(
        "INSERT INTO device (id, name, certificate, agent) VALUES ($1, $2, $3, $4)",
        &[&device.as_str(), &name, &&issued.print[..], &clean(&application.agent)],
    )
    .await?;
    tx.execute(
        "UPDATE enrolment_token SET device = $2 WHERE secret_hash = $1",
        &[&&token.hash()[..], &device.as_str()],
    )
    .await?;
    audit(&tx, "a camera", "enrolled", device.as_str()).await?;
    tx.commit().await?;
    Ok(Enrolled { device, certificate: issued.pem })
}

/// A name that somebody else chose: at most 200 characters, and none that PostgreSQL cannot hold.
fn clean(text: &str) -> String {
    text.chars().take(200).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect()
}

fn draw_device() -> Result<DeviceId, NoRandomness> {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let text: String =
        secret::random::<16>()?.iter().map(|b| char::from(ALPHABET[usize::from(b & 31)])).collect();
    // The alphabet is a part of the one that ids have, and there are 16.
    DeviceId::parse(&text).ok_or(NoRandomness)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_from_its_text() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let token = Token::draw().unwrap();
        let text = token.text(&authority);
        assert_eq!(text.len(), 5 + 40 + 1 + 64);
        assert_eq!(Token::parse(&format!(" {text}\n")).unwrap().secret, token.secret);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let (secret, print) = ("a".repeat(40), "b".repeat(64));
        assert!(Token::parse(&format!("lbk1.{secret}.{print}")).is_some());
        for text in [
            String::new(),
            format!("lbk2.{secret}.{print}"),
            format!("lbk1.{secret}"),
            format!("lbk1.{secret}.{print}.x"),
            format!("lbk1.{}.{print}", "g".repeat(40)),
            format!("lbk1.{secret}.{}", "b".repeat(63)),
        ] {
            assert!(Token::parse(&text).is_none(), "{text}");
        }
    }

    #[test]
    fn ids_are_drawn_and_not_counted() {
        assert_ne!(draw_device().unwrap(), draw_device().unwrap());
    }
}
