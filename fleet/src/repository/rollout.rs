//! What a channel becomes: pure, from what it was.

use super::RepositoryError;
use crate::moment;
use bundle::Version;
use release::{Channel, Release, SCHEMA, Wave};

/// How a release is to be rolled out; what is not said stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The waves; empty is all at once.
    pub waves: Option<Vec<Wave>>,
    /// When they begin, in seconds since 1970.
    pub start_unix_s: Option<i64>,
    /// The lowest version that devices may run.
    pub floor: Option<String>,
}

/// Whether devices may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// No more.
    Halt,
    /// Again.
    Resume,
}

/// Reads waves, `1%@0h,10%@24h,100%@72h`; `all` is all at once.
///
/// # Errors
/// [`RepositoryError::Wave`]
pub fn waves(text: &str) -> Result<Vec<Wave>, RepositoryError> {
    if text.trim() == "all" {
        return Ok(vec![]);
    }
    text.split(',').map(|part| wave(part.trim())).collect()
}

fn wave(text: &str) -> Result<Wave, RepositoryError> {
    let read = || {
        let (share, time) = text.split_once('@')?;
        let share: f64 = share.trim().strip_suffix('%')?.parse().ok()?;
        let time = time.trim();
        let (number, unit) = time.split_at(time.find(|c: char| !c.is_ascii_digit())?);
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        let after_s = number.parse::<u64>().ok()?.checked_mul(seconds)?;
        (0.0..=100.0).contains(&share).then_some(Wave { after_s, share: share / 100.0 })
    };
    read().ok_or_else(|| RepositoryError::Wave(text.into()))
}

/// Reads when waves begin, in seconds since 1970.
///
/// # Errors
/// [`RepositoryError::Start`]
pub fn start(text: &str, now_unix_s: i64) -> Result<i64, RepositoryError> {
    match text {
        "now" => Ok(now_unix_s),
        text => moment::typed(text)
            .map(|moment| moment.unix_us().div_euclid(1_000_000))
            .ok_or_else(|| RepositoryError::Start(text.into())),
    }
}

/// The channel when it offers `release`, by target `target`, for the first time or again. Devices may begin,
/// all at once unless waves are given, from now unless a start is.
pub fn offered(
    channel: &str,
    before: Option<&Channel>,
    (target, release): (&str, &Release),
    terms: &Terms,
    now_unix_s: i64,
) -> Result<Channel, RepositoryError> {
    let floor = before.map_or("0.0.0", |before| &before.floor);
    let after = Channel {
        schema: SCHEMA,
        channel: channel.into(),
        number: before.map_or(0, |before| before.number).saturating_add(1),
        release: target.into(),
        bundle: release.bundle.clone(),
        floor: terms.floor.as_deref().unwrap_or(floor).into(),
        start_unix_s: terms.start_unix_s.unwrap_or(now_unix_s),
        waves: terms.waves.clone().unwrap_or_default(),
        halted: false,
    };
    checked(before, after, release)
}

/// The channel when it goes on with the `release` that it offers, on other terms.
pub fn adjusted(
    before: &Channel,
    release: &Release,
    terms: &Terms,
    pause: Option<Pause>,
) -> Result<Channel, RepositoryError> {
    let after = Channel {
        number: before.number.saturating_add(1),
        floor: terms.floor.clone().unwrap_or_else(|| before.floor.clone()),
        start_unix_s: terms.start_unix_s.unwrap_or(before.start_unix_s),
        waves: terms.waves.clone().unwrap_or_else(|| before.waves.clone()),
        halted: pause.map_or(before.halted, |pause| pause == Pause::Halt),
        ..before.clone()
    };
    if (Channel { number: before.number, ..after.clone() }) == *before {
        return Err(RepositoryError::Unchanged(before.channel.clone()));
    }
    checked(Some(before), after, release)
}

/// Whether one may follow the other, and be signed.
pub fn follows(before: Option<&Channel>, after: &Channel) -> Result<(), RepositoryError> {
    let refuse = |why: String| Err(rule(&after.channel, &why));
    let Some(before) = before else { return Ok(()) };
    if after.number <= before.number {
        return refuse(format!(
            "its number would go from {} to {}, and no camera would follow: stage it again",
            before.number, after.number
        ));
    }
    if Version::parse(&after.floor) < Version::parse(&before.floor) {
        return refuse(format!(
            "its floor is {} and may rise, never fall: give --floor {} or higher, or none",
            before.floor, before.floor
        ));
    }
    Ok(())
}

fn checked(
    before: Option<&Channel>,
    after: Channel,
    release: &Release,
) -> Result<Channel, RepositoryError> {
    after.check().map_err(|why| rule(&after.channel, why))?;
    follows(before, &after)?;
    if Version::parse(&release.version) < Version::parse(&after.floor) {
        let why = format!(
            "{} is below its floor {}: cameras would refuse it, so release it with a higher version",
            release.bundle, after.floor
        );
        return Err(rule(&after.channel, &why));
    }
    Ok(after)
}

fn rule(channel: &str, why: &str) -> RepositoryError {
    RepositoryError::Rule { channel: channel.into(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_are_read_as_people_write_them() {
        let wave = |after_s, share| Wave { after_s, share };
        assert_eq!(
            waves("1%@0h, 12.5%@90m,100%@3d").unwrap(),
            [wave(0, 0.01), wave(5_400, 0.125), wave(259_200, 1.0)]
        );
        assert_eq!(waves("all").unwrap(), []);
        for wrong in ["", "1%", "1@0h", "1%@0", "1%@h", "1%@-1h", "101%@0h", "1%@0h,", "NaN%@0h"] {
            assert!(matches!(waves(wrong), Err(RepositoryError::Wave(_))), "{wrong}");
        }
        let far = format!("1%@{}d", u64::MAX);
        assert!(matches!(waves(&far), Err(RepositoryError::Wave(_))));
    }

    #[test]
    fn a_start_is_a_moment_or_now() {
        assert_eq!(start("now", 7).unwrap(), 7);
        assert_eq!(start("1970-01-02T00:00:00Z", 7).unwrap(), 86_400);
        assert!(matches!(start("soon", 7), Err(RepositoryError::Start(_))));
    }
}
