//! Times as people type and read them.

use event_log::rfc3339;
use hal_camera::WallTime;
use std::str::FromStr;

/// A moment as a person says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So many µs ago.
    Ago(i64),
    /// At this wall time, in µs since 1970 UTC.
    At(i64),
}

/// A text that is no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is neither an age such as 90s, 30m, 12h or 7d, nor a time in UTC such as 2026-11-03 or \
     2026-11-03T12:34:56Z"
)]
pub struct SinceError(String);

impl Since {
    /// The moment in µs since 1970 UTC.
    pub fn unix_us(self, now: WallTime) -> i64 {
        match self {
            Self::Ago(us) => now.unix_us.saturating_sub(us),
            Self::At(us) => us,
        }
    }
}

impl FromStr for Since {
    type Err = SinceError;

    fn from_str(text: &str) -> Result<Self, SinceError> {
        age_us(text)
            .map(Self::Ago)
            .or_else(|| moment_us(text).map(Self::At))
            .ok_or_else(|| SinceError(text.chars().take(64).collect()))
    }
}

/// `90s`, `30m`, `12h`, `7d`.
fn age_us(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit_s = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    i64::try_from(digits(number)?).ok()?.checked_mul(unit_s)?.checked_mul(1_000_000)
}

/// `2026-11-03`, with or without `T12:34`, `:56`, `.789` and `Z`.
fn moment_us(text: &str) -> Option<i64> {
    let text = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, "00:00"));
    let mut date = date.split('-').map(digits);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.split(':');
    let (hour, minute) = (digits(time.next()?)?, digits(time.next()?)?);
    let (second, fraction) = time.next().map_or(Some((0, "0")), |s| match s.split_once('.') {
        Some((second, fraction)) => Some((digits(second)?, fraction)),
        None => Some((digits(s)?, "0")),
    })?;
    let us = digits(&format!("{fraction:0<6}")[..6])?;
    let in_day = hour < 24 && minute < 60 && second < 60 && digits(fraction).is_some();
    let over = date.next().is_some() || time.next().is_some();
    if over || !in_day || !(1..=9999).contains(&year) {
        return None;
    }
    let seconds = (hour * 60 + minute) * 60 + second;
    Some((days_since_1970(year, month, day)? * 86_400 + seconds as i64) * 1_000_000 + us as i64)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, if there is such a day.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<i64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let lengths = [31, 28 + u64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if !(1..=length).contains(&day) {
        return None;
    }
    let before = year - 1;
    let days = before * 365 + before / 4 - before / 100 + before / 400;
    let in_year: u64 = lengths[..month as usize - 1].iter().sum::<u64>() + day - 1;
    // Days from 0001-01-01 to 1970-01-01.
    Some((days + in_year) as i64 - 719_162)
}

fn digits(text: &str) -> Option<u64> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok())?
}

/// `2026-11-03 12:34:56 – 12:35:10`; the day is said again only where it is another one. An
/// unsynced clock is marked with a question mark.
pub(super) fn span(start: WallTime, end: WallTime) -> String {
    let [from, to] = [start, end].map(|time| rfc3339(time.unix_us).replace('T', " "));
    let to = if from[..10] == to[..10] { &to[11..19] } else { &to[..19] };
    let doubt = match start.quality {
        hal_camera::ClockQuality::Unsynced => " ?",
        hal_camera::ClockQuality::Ntp => "",
    };
    format!("{} – {to}{doubt}", &from[..19])
}

#[cfg(test)]
mod tests {
    use super::*;
    use hal_camera::ClockQuality;

    #[test]
    fn ages_and_times_are_read() {
        assert_eq!("90s".parse(), Ok(Since::Ago(90_000_000)));
        assert_eq!("7d".parse(), Ok(Since::Ago(604_800_000_000)));
        assert_eq!("1970-01-01".parse(), Ok(Since::At(0)));
        assert_eq!("2000-02-29".parse(), Ok(Since::At(951_782_400_000_000)));
        for text in ["2025-11-03T12:34:56.789Z", "2025-11-03 12:34:56.789"] {
            assert_eq!(text.parse(), Ok(Since::At(1_762_173_296_789_000)));
        }
        assert_eq!("2025-11-03T12:34".parse(), Ok(Since::At(1_762_173_240_000_000)));
        let now = WallTime { unix_us: 100_000_000, quality: ClockQuality::Ntp };
        assert_eq!(Since::Ago(90_000_000).unix_us(now), 10_000_000);
    }

    #[test]
    fn a_time_that_is_read_is_the_one_that_the_log_writes() {
        for day in (-700_000..2_900_000).step_by(997) {
            let us = day * 86_400_000_000 + 45_296_789_000;
            assert_eq!(rfc3339(us).parse(), Ok(Since::At(us)));
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "s",
            "5",
            "-5s",
            "5w",
            "é",
            "yesterday",
            "2025-02-29",
            "2025-13-01",
            "2025-00-01",
            "2025-01-32",
            "2025-01-01T24:00",
            "2025-01-01T12",
            "2025-01-01T12:00:00:00",
            "2025-1-1-1",
            "2025-01-01T12:00:0x",
            "2025-01-01T12:00:00.x",
            "2025-01-01T12:00:00.é",
            "99999999999999999999d",
            "0000-01-01",
        ] {
            assert!(text.parse::<Since>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_day_is_said_again_only_where_it_is_another() {
        let at = |unix_us| WallTime { unix_us, quality: ClockQuality::Ntp };
        assert_eq!(span(at(0), at(14_000_000)), "1970-01-01 00:00:00 – 00:00:14");
        let midnight = span(at(-1_000_000), WallTime { ..at(0) });
        assert_eq!(midnight, "1969-12-31 23:59:59 – 1970-01-01 00:00:00");
        let unsynced = WallTime { quality: ClockQuality::Unsynced, ..at(0) };
        assert_eq!(span(unsynced, unsynced), "1970-01-01 00:00:00 – 00:00:00 ?");
    }
}
