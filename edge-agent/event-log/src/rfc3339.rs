//! Times as people and other programs read them.

const DAY_US: i64 = 86_400_000_000;

/// `unix_us` (µs since 1970-01-01 UTC) as RFC 3339 text in UTC with milliseconds, such as
/// `2026-11-03T12:34:56.789Z`. Times outside the years 0000 to 9999, which RFC 3339 cannot write,
/// become the nearest that it can.
pub fn rfc3339(unix_us: i64) -> String {
    const FIRST_DAY: i64 = -719_528; // 0000-01-01
    const LAST_DAY: i64 = 2_932_896; // 9999-12-31
    let clamped = unix_us.clamp(FIRST_DAY * DAY_US, (LAST_DAY + 1) * DAY_US - 1);
    let (year, month, day) = civil_date(clamped.div_euclid(DAY_US));
    let ms = clamped.rem_euclid(DAY_US) / 1000;
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

/// Year, month and day of the proleptic Gregorian calendar, `days` after 1970-01-01.
///
/// Years are counted from 1 March, so that the leap day is the last of its year and the months
/// before it have fixed offsets: month `m` (March = 0) begins on day `(153 m + 2) / 5`.
fn civil_date(days: i64) -> (i64, i64, i64) {
    const DAYS_IN_400_YEARS: i64 = 146_097;
    let since_march_0000 = days + 719_468;
    let era = since_march_0000.div_euclid(DAYS_IN_400_YEARS);
    let day_of_era = since_march_0000.rem_euclid(DAYS_IN_400_YEARS);
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

    #[test]
    fn known_moments_are_written_as_everyone_writes_them() {
        for (unix_us, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000_000, "2000-03-01T00:00:00.000Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000Z"),
            (4_107_456_000_000_000, "2100-02-28T00:00:00.000Z"),
            (1_762_173_296_789_999, "2025-11-03T12:34:56.789Z"),
            (1_767_225_599_999_999, "2025-12-31T23:59:59.999Z"),
            (i64::MIN, "0000-01-01T00:00:00.000Z"),
            (i64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(unix_us), text);
        }
    }

    #[test]
    fn every_day_of_eight_centuries_follows_the_day_before() {
        let mut before = civil_date(-146_098);
        for days in -146_097..146_097 {
            let (year, month, day) = civil_date(days);
            let (y, m, d) = before;
            let leap = y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
            let length = match m {
                2 => 28 + i64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let expected = match (d == length, m == 12) {
                (false, _) => (y, m, d + 1),
                (true, false) => (y, m + 1, 1),
                (true, true) => (y + 1, 1, 1),
            };
            assert_eq!((year, month, day), expected);
            before = expected;
        }
    }
}
