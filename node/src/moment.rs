//! FHIR and DICOM dates to and from milliseconds, and as a clinician reads them.

use hie_protocol::id::Millis;

/// A day, in milliseconds.
const DAY_MS: i64 = 86_400_000;

/// Days from 1970-01-01 to a civil date (proleptic Gregorian).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let shifted = (month + 9) % 12;
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let part = (5 * of_year + 2) / 153;
    let day = of_year - (153 * part + 2) / 5 + 1;
    let month = if part < 10 { part + 3 } else { part - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Reads a FHIR date, dateTime or instant; a part that is left out counts as its first moment. None if it is none.
#[must_use]
pub fn read_fhir(text: &str) -> Option<Millis> {
    let (date, time) = text
        .split_once('T')
        .map_or((text, None), |(date, time)| (date, Some(time)));
    let mut parts = date.split('-');
    let year: i64 = parts.next().filter(|part| part.len() == 4)?.parse().ok()?;
    let month: i64 = parts.next().map_or(Some(1), |part| part.parse().ok())?;
    let day: i64 = parts.next().map_or(Some(1), |part| part.parse().ok())?;
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let mut total = days(year, month, day) * DAY_MS;
    if let Some(time) = time {
        total += clock(time)?;
    }
    u64::try_from(total).ok().map(Millis)
}

/// Milliseconds of `hh:mm[:ss[.fff]]` with an optional offset, which is taken away.
fn clock(time: &str) -> Option<i64> {
    let at = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at_checked(at)?;
    let mut parts = clock.split(':');
    let hours: i64 = parts.next()?.parse().ok()?;
    let minutes: i64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next().map_or(Some(0.0), |part| part.parse().ok())?;
    if !(0..24).contains(&hours) || !(0..60).contains(&minutes) || !(0.0..61.0).contains(&seconds) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "seconds are checked to be below 61")]
    let milliseconds = (seconds * 1000.0) as i64;
    let offset = match zone.chars().next() {
        Some(sign @ ('+' | '-')) => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            if sign == '+' { minutes } else { -minutes }
        }
        _ => 0,
    };
    Some(((hours * 60 + minutes - offset) * 60_000) + milliseconds)
}

/// A FHIR instant in UTC.
#[must_use]
pub fn write_fhir(at: Millis) -> String {
    let total = i64::try_from(at.0).unwrap_or(i64::MAX / 2);
    let (year, month, day) = civil(total.div_euclid(DAY_MS));
    let left = total.rem_euclid(DAY_MS);
    let (hours, minutes) = (left / 3_600_000, left / 60_000 % 60);
    let (seconds, milliseconds) = (left / 1000 % 60, left % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}Z")
}

/// A date as a clinician reads it: `14-Mar-1961`.
#[must_use]
pub fn write_words(at: Millis) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (year, month, day) = civil(i64::try_from(at.0).unwrap_or_default().div_euclid(DAY_MS));
    let name = usize::try_from(month - 1)
        .ok()
        .and_then(|month| MONTHS.get(month))
        .copied()
        .unwrap_or("---");
    format!("{day:02}-{name}-{year:04}")
}

/// A DICOM DA (`YYYYMMDD`) as a FHIR date.
#[must_use]
pub fn dicom_date(text: &str) -> Option<String> {
    let digits = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    let (year, rest) = text.split_at_checked(4).filter(|_| digits)?;
    let (month, day) = rest.split_at_checked(2)?;
    let date = format!("{year}-{month}-{day}");
    read_fhir(&date).or_else(|| year.parse::<u16>().ok().filter(|year| *year < 1970).map(|_| Millis(0)))?;
    Some(date)
}

#[cfg(test)]
mod tests {
    use hie_protocol::id::Millis;

    use super::{civil, days, dicom_date, read_fhir, write_fhir, write_words};

    #[test]
    fn dates_go_there_and_back() {
        for at in (-200_000..200_000).step_by(37) {
            let (year, month, day) = civil(at);
            assert_eq!(days(year, month, day), at);
        }
        assert_eq!(read_fhir("1970-01-02"), Some(Millis(86_400_000)));
        assert_eq!(
            read_fhir("2026-11-23T12:00:00+01:00"),
            read_fhir("2026-11-23T11:00:00.000Z")
        );
        assert_eq!(read_fhir("2020"), read_fhir("2020-01-01"));
        for bad in ["", "20", "2020-13", "2020-01-01T25:00:00Z", "2020-01-01-01", "x"] {
            assert_eq!(read_fhir(bad), None, "{bad}");
        }
        let at = Millis(1_795_436_523_456);
        assert_eq!(read_fhir(&write_fhir(at)), Some(at));
        assert_eq!(write_words(Millis(1_795_436_523_456)), "23-Nov-2026");
        assert_eq!(dicom_date("19610314").as_deref(), Some("1961-03-14"));
        assert_eq!(dicom_date("1961031x"), None);
    }
}
