//! Names of events.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The name of an event: 16 characters of Crockford's base 32 in lower case, nine of time (ms since
/// 1970) and seven of chance. Ids of one log sort in the order of recording, whatever the wall
/// clock did: the log never lets the time part stand still or go back. The random part keeps ids of
/// different devices and of a log begun anew apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventId(String);

/// A text that is no event id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is not an event id: an id is 16 of the characters 0-9 and a-z without i, l, o and u"
)]
pub struct IdError {
    text: String,
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 16;
const RANDOM_BITS: u32 = 35;

impl EventId {
    /// The latest ms since 1970 that the time part can hold (in the year 3084).
    pub(crate) const LAST_MS: i64 = (1 << 45) - 1;

    /// The id made of `ms` (ms since 1970, clamped to what fits) and the low bits of `random`.
    pub(crate) fn new(ms: i64, random: u64) -> Self {
        let time = ms.clamp(0, Self::LAST_MS) as u128;
        let bits = (time << RANDOM_BITS) | u128::from(random & ((1 << RANDOM_BITS) - 1));
        let character = |i: usize| ALPHABET[(bits >> (5 * (LENGTH - 1 - i))) as usize & 31] as char;
        Self((0..LENGTH).map(character).collect())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `text`, the beginning of an id as a person may have typed it, as ids are written: in lower case,
/// with the look-alikes `i`, `l` and `o` read as the digits they resemble.
///
/// # Errors
/// [`IdError`] if no id can begin so.
pub(crate) fn normal_prefix(text: &str) -> Result<String, IdError> {
    let read = |c: char| match c.to_ascii_lowercase() {
        'i' | 'l' => Some('1'),
        'o' => Some('0'),
        c => ALPHABET.contains(&u8::try_from(c).ok()?).then_some(c),
    };
    let prefix: Option<String> = text.chars().map(read).collect();
    prefix
        .filter(|p| (1..=LENGTH).contains(&p.len()))
        .ok_or_else(|| IdError { text: text.chars().take(64).collect() })
}

impl FromStr for EventId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match normal_prefix(text)? {
            id if id.len() == LENGTH => Ok(Self(id)),
            _ => Err(IdError { text: text.to_owned() }),
        }
    }
}

impl TryFrom<String> for EventId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_whatever_the_random_part() {
        let times = [i64::MIN, 1, 2, 31, 32, 1_762_173_296_789, EventId::LAST_MS - 1, i64::MAX];
        let ids: Vec<_> =
            times.iter().enumerate().map(|(i, &ms)| EventId::new(ms, !(i as u64) << 30)).collect();
        assert!(ids.is_sorted(), "{ids:?}");
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn an_id_survives_text_and_json() {
        let id = EventId::new(1_762_173_296_789, 0x1234_5678_9abc_def0);
        assert_eq!(id.to_string().len(), 16);
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id.clone()));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<EventId>(&json).unwrap(), id);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "abc", "0123456789abcde!", "0123456789abcdefg", "ééééééééé", "u"]
        {
            assert!(text.parse::<EventId>().is_err(), "{text}");
        }
        assert_eq!(normal_prefix("OIl9"), Ok("0119".to_owned()));
    }
}
