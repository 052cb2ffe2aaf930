//! Moments as cameras write them and people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_US: i64 = 86_400_000_000;
const SECOND_US: i64 = 1_000_000;

/// A moment on a wall clock, µs since 1970-01-01 UTC, within the years 0000 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(i64);

impl Moment {
    /// Reads RFC 3339 text: `2026-11-03T12:34:56.789Z`, or with an offset instead of the `Z`. Digits
    /// beyond the µs are cut; a leap second is the first of the next minute.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        let number = |from: usize, to: usize| -> Option<i64> {
            let digits = text.get(from..to)?;
            digits
                .iter()
                .try_fold(0, |n, d| d.is_ascii_digit().then(|| n * 10 + i64::from(d - b'0')))
        };
        let mark =
            |at: usize, marks: &[u8]| text.get(at).is_some_and(|b| marks.contains(b)).then_some(());
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        mark(4, b"-")?;
        mark(7, b"-")?;
        mark(10, b"Tt ")?;
        mark(13, b":")?;
        mark(16, b":")?;
        let in_range = (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day)
            && hour <= 23
            && minute <= 59
            && second <= 60;
        if !in_range {
            return None;
        }
        let mut at = 19;
        let mut fraction_us = 0;
        if text.get(at) == Some(&b'.') {
            let digits = text[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            for place in 0..6 {
                let digit = if place < digits { i64::from(text[at + 1 + place] - b'0') } else { 0 };
                fraction_us = fraction_us * 10 + digit;
            }
            at += 1 + digits;
        }
        let offset_minutes = match text.get(at)? {
            b'Z' | b'z' if text.len() == at + 1 => 0,
            sign @ (b'+' | b'-') if text.len() == at + 6 => {
                mark(at + 3, b":")?;
                let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
            }
            _ => return None,
        };
        let seconds = (hour * 60 + minute - offset_minutes) * 60 + second;
        Some(Self(days_since_1970(year, month, day) * DAY_US + seconds * SECOND_US + fraction_us))
    }

    /// µs since 1970-01-01 UTC.
    pub fn unix_us(self) -> i64 {
        self.0
    }
}

impl From<Moment> for SystemTime {
    fn from(moment: Moment) -> Self {
        let distance = Duration::from_micros(moment.0.unsigned_abs());
        if moment.0 < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
    }
}

/// A time for programs, as RFC 3339 writes it, in UTC.
pub fn rfc3339(time: SystemTime) -> String {
    shown(time).replace(' ', "T") + "Z"
}

/// `time` as people read it, in UTC to the second: `2026-11-03 12:34:56`.
pub fn shown(time: SystemTime) -> String {
    let seconds = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => {
            -i64::try_from(before.duration().as_secs_f64().ceil() as u64).unwrap_or(i64::MAX)
        }
    };
    let (year, month, day) = civil_date(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// A moment as an operator types it into a search: RFC 3339, or a date, or a date and a time of day,
/// both in UTC.
pub fn typed(text: &str) -> Option<Moment> {
    let text = text.trim();
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        19 => format!("{text}Z"),
        _ => text.to_owned(),
    };
    Moment::parse(&whole)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the proleptic Gregorian calendar. Years are counted from 1 March, so that the leap day is
/// the last of its year and month `m` (March = 0) begins on day `(153 m + 2) / 5`.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_since_1970`].
fn civil_date(days: i64) -> (i64, i64, i64) {
    let since_march_0000 = days.saturating_add(719_468);
    let era = since_march_0000.div_euclid(146_097);
    let day_of_era = since_march_0000.rem_euclid(146_097);
    // Take the leap days out (one in 1,460, not one in 36,524, one in 146,096), then divide.
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_from_march + 2) / 5 + 1;
    let month = (months_from_march + 2) % 12 + 1;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments_are_read() {
        for (text, unix_us) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999Z", -1000),
            ("2000-02-29T00:00:00.000Z", 951_782_400_000_000),
            ("2000-03-01T00:00:00.000Z", 951_868_800_000_000),
            ("2100-03-01T00:00:00.000Z", 4_107_542_400_000_000),
            ("2025-11-03T12:34:56.789999Z", 1_762_173_296_789_999),
            ("2025-11-03T12:34:56.7899999Z", 1_762_173_296_789_999),
            ("2025-11-03T14:34:56.789999+02:00", 1_762_173_296_789_999),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
        ] {
            assert_eq!(Moment::parse(text), Some(Moment(unix_us)), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "2025",
            "2025-11-03",
            "2025-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-11-03T24:00:00Z",
            "2025-11-03T12:34:56",
            "2025-11-03T12:34:56.Z",
            "2025-11-03T12:34:56ZZ",
            "2025-11-03T12:34:56+24:00",
            "2025-11-03T12:34:56+0200",
            "+025-11-03T12:34:56Z",
            "2025-11-03T12:34:5éZ",
        ] {
            assert_eq!(Moment::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_operator_may_type_less() {
        let midnight = Moment::parse("2025-11-03T00:00:00Z");
        assert_eq!(typed("2025-11-03"), midnight);
        assert_eq!(typed(" 2025-11-03T00:00 "), midnight);
        assert_eq!(typed("2025-11-03 00:00:00"), midnight);
        assert_eq!(typed("yesterday"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}|[-0-9T:.Z+]{0,40}") {
            let _ = Moment::parse(&text);
            let _ = typed(&text);
        }

        #[test]
        fn every_second_comes_back_as_it_was_shown(s in -62_167_219_200i64..253_402_300_799) {
            let shown = shown(Moment(s * SECOND_US).into());
            prop_assert_eq!(typed(&shown), Some(Moment(s * SECOND_US)));
        }
    }
}
