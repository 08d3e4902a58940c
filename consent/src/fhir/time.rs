//! FHIR date and dateTime as a range of instants: `2022` is a whole year, `2022-06-13` a whole day, UTC where no
//! zone is given. Dates before 1970 begin at zero.

use hie_protocol::id::Millis;

const DAY_MS: i64 = 86_400_000;

/// First and last millisecond of a FHIR date, dateTime or instant.
#[must_use]
pub fn instant_range(text: &str) -> Option<(Millis, Millis)> {
    if text.len() > 40 || !text.is_ascii() {
        return None;
    }
    let (date, clock) = text
        .split_once('T')
        .map_or((text, None), |(date, clock)| (date, Some(clock)));
    let mut parts = date.split('-');
    let year = digits(parts.next()?, 4)?;
    let month = parts
        .next()
        .map(|part| digits(part, 2).filter(|month| (1..=12).contains(month)));
    let day = parts.next().map(|part| digits(part, 2));
    if parts.next().is_some() {
        return None;
    }
    let (first, after) = match (month, day) {
        (None, _) => (days(year, 1, 1), days(year.saturating_add(1), 1, 1)),
        (Some(month), None) => {
            let month = month?;
            let next = if month == 12 {
                days(year.saturating_add(1), 1, 1)
            } else {
                days(year, month.saturating_add(1), 1)
            };
            (days(year, month, 1), next)
        }
        (Some(month), Some(day)) => {
            let (month, day) = (month?, day?);
            let next = if month == 12 {
                days(year.saturating_add(1), 1, 1)
            } else {
                days(year, month.saturating_add(1), 1)
            };
            let first = days(year, month, 1).saturating_add(day.saturating_sub(1));
            if day < 1 || first >= next {
                return None;
            }
            (first, first.saturating_add(1))
        }
    };
    let Some(clock) = clock else {
        return Some((
            millis(first.saturating_mul(DAY_MS)),
            millis(after.saturating_mul(DAY_MS).saturating_sub(1)),
        ));
    };
    day?;
    let (offset, length) = time_of_day(clock)?;
    let start = first.saturating_mul(DAY_MS).saturating_add(offset);
    Some((millis(start), millis(start.saturating_add(length).saturating_sub(1))))
}

/// Milliseconds after UTC midnight, and how long the written instant lasts (a second, or a millisecond).
fn time_of_day(clock: &str) -> Option<(i64, i64)> {
    let (local, zone_ms) = if let Some(local) = clock.strip_suffix('Z') {
        (local, 0)
    } else {
        let at = clock.rfind(['+', '-'])?;
        let (local, zone) = clock.split_at_checked(at)?;
        let (hours, minutes) = zone.get(1..)?.split_once(':')?;
        let hours = digits(hours, 2).filter(|hours| *hours <= 14)?;
        let minutes = digits(minutes, 2).filter(|minutes| *minutes < 60)?;
        let size = hours.saturating_mul(60).saturating_add(minutes).saturating_mul(60_000);
        (
            local,
            if zone.starts_with('-') {
                size.saturating_neg()
            } else {
                size
            },
        )
    };
    let (whole, fraction) = local
        .split_once('.')
        .map_or((local, None), |(whole, part)| (whole, Some(part)));
    let mut parts = whole.split(':');
    let hours = digits(parts.next()?, 2).filter(|hours| *hours < 24)?;
    let minutes = digits(parts.next()?, 2).filter(|minutes| *minutes < 60)?;
    let seconds = digits(parts.next()?, 2).filter(|seconds| *seconds <= 60)?;
    if parts.next().is_some() {
        return None;
    }
    let fraction_ms = match fraction {
        None => 0,
        Some(part) if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) => {
            let padded = format!("{part}00");
            digits(padded.get(..3)?, 3)?
        }
        Some(_) => return None,
    };
    let seconds = hours
        .saturating_mul(3600)
        .saturating_add(minutes.saturating_mul(60))
        .saturating_add(seconds);
    let offset = seconds
        .saturating_mul(1000)
        .saturating_add(fraction_ms)
        .saturating_sub(zone_ms);
    Some((offset, if fraction.is_some() { 1 } else { 1000 }))
}

fn digits(text: &str, length: usize) -> Option<i64> {
    let whole = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    whole.then(|| text.parse().ok()).flatten()
}

fn millis(at: i64) -> Millis {
    Millis(u64::try_from(at).unwrap_or(0))
}

/// Days from 1970-01-01 of a proleptic Gregorian date (years 0 to 9999).
fn days(year: i64, month: i64, day: i64) -> i64 {
    // The year begins in March, so that the leap day is its last.
    let (year, month) = if month > 2 {
        (year, month.saturating_sub(3))
    } else {
        (year.saturating_sub(1), month.saturating_add(9))
    };
    let leaps = year
        .div_euclid(4)
        .saturating_sub(year.div_euclid(100))
        .saturating_add(year.div_euclid(400));
    let in_year = month
        .saturating_mul(153)
        .saturating_add(2)
        .div_euclid(5)
        .saturating_add(day)
        .saturating_sub(1);
    year.saturating_mul(365)
        .saturating_add(leaps)
        .saturating_add(in_year)
        .saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hie_protocol::id::Millis;

    use super::instant_range;

    #[test]
    fn dates_become_ranges() {
        let range = |text| instant_range(text).unwrap();
        assert_eq!(range("1970-01-01"), (Millis(0), Millis(86_399_999)));
        assert_eq!(
            range("2022-06-13"),
            (Millis(1_655_078_400_000), Millis(1_655_164_799_999))
        );
        assert_eq!(range("2024-02-29").0, Millis(1_709_164_800_000));
        assert_eq!(range("2022"), (range("2022-01-01").0, range("2022-12-31").1));
        assert_eq!(range("2022-12"), (range("2022-12-01").0, range("2022-12-31").1));
        assert_eq!(range("2016-05-26T00:41:10-04:00").0, Millis(1_464_237_670_000));
        assert_eq!(
            range("2016-05-26T00:41:10.5Z"),
            (Millis(1_464_223_270_500), Millis(1_464_223_270_500))
        );
    }

    #[test]
    fn broken_dates_are_none() {
        for bad in [
            "",
            "22",
            "2022-13",
            "2022-02-30",
            "2022-1-1",
            "2022-01-01T",
            "2022-01-01T25:00:00Z",
            "2022-01-01T10:00:00",
            "2022-01-01-01",
            "2022T10:00:00Z",
            "２０２２",
        ] {
            assert_eq!(instant_range(bad), None, "{bad}");
        }
    }
}
