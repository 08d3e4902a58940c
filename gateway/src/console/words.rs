//! How dates, times and numbers read (UX E9): `14-Mar-1961`, never a code, a zero-length text or a machine's word.

use hie_protocol::id::Millis;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const MS_PER_DAY: i64 = 86_400_000;

/// Year, month (1-12) and day of a moment at an offset from UTC in minutes.
#[must_use]
pub fn civil(at: Millis, offset_minutes: i32) -> (i64, u8, u8) {
    // Days to civil date, proleptic Gregorian calendar (the era method, 400-year cycles from 0000-03-01).
    let days = local_ms(at, offset_minutes)
        .div_euclid(MS_PER_DAY)
        .saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, u8::try_from(month).unwrap_or(1), u8::try_from(day).unwrap_or(1))
}

fn local_ms(at: Millis, offset_minutes: i32) -> i64 {
    i64::try_from(at.0)
        .unwrap_or(i64::MAX)
        .saturating_add(i64::from(offset_minutes) * 60_000)
}

/// A moment as `14-Mar-1961`.
#[must_use]
pub fn day(at: Millis, offset_minutes: i32) -> String {
    let (year, month, day) = civil(at, offset_minutes);
    format!("{day:02}-{}-{year:04}", month_name(month))
}

/// A moment as `2026-11-22`, for comparing with FHIR dates.
#[must_use]
pub fn iso_day(at: Millis, offset_minutes: i32) -> String {
    let (year, month, day) = civil(at, offset_minutes);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A moment as `14:32`.
#[must_use]
pub fn clock(at: Millis, offset_minutes: i32) -> String {
    let minutes = local_ms(at, offset_minutes).rem_euclid(MS_PER_DAY) / 60_000;
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

/// A moment as `14:32:07`.
#[must_use]
pub fn clock_seconds(at: Millis, offset_minutes: i32) -> String {
    let seconds = local_ms(at, offset_minutes).rem_euclid(60_000) / 1000;
    format!("{}:{seconds:02}", clock(at, offset_minutes))
}

fn month_name(month: u8) -> &'static str {
    MONTHS
        .get(usize::from(month).saturating_sub(1))
        .copied()
        .unwrap_or("???")
}

/// A FHIR date or dateTime as `14-Mar-1961`, `Mar-1961` or `1961`; any other text as it is.
#[must_use]
pub fn fhir_date(text: &str) -> String {
    let date = text.split('T').next().unwrap_or(text);
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let month = month
        .and_then(|month| month.parse::<u8>().ok())
        .filter(|month| (1..=12).contains(month))
        .map(month_name);
    match (year.len() == 4, month, day) {
        (true, Some(month), Some(day)) if day.len() == 2 => format!("{day}-{month}-{year}"),
        (true, Some(month), None) => format!("{month}-{year}"),
        _ => date.to_owned(),
    }
}

/// A DICOM DA (`YYYYMMDD`) as `14-Mar-1961`; any other text as it is.
#[must_use]
pub fn dicom_date(text: &str) -> String {
    match (text.get(0..4), text.get(4..6), text.get(6..8)) {
        (Some(year), Some(month), Some(day)) if text.len() == 8 => fhir_date(&format!("{year}-{month}-{day}")),
        _ => text.to_owned(),
    }
}

/// Age in whole years on a day (`YYYY-MM-DD`), if the birth date is complete.
#[must_use]
pub fn age(birth_date: &str, today: &str) -> Option<u32> {
    let year = |text: &str| text.get(0..4).and_then(|year| year.parse::<u32>().ok());
    let (born, now) = (year(birth_date)?, year(today)?);
    let before = birth_date
        .get(5..10)
        .zip(today.get(5..10))
        .is_some_and(|(birthday, day)| day < birthday);
    now.checked_sub(born)?.checked_sub(u32::from(before))
}

/// `1 organisation`, `2 organisations`.
#[must_use]
pub fn organisations(count: usize) -> String {
    plural(count, "organisation")
}

/// A count with its noun.
#[must_use]
pub fn plural(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

/// Milliseconds as `0.4 s`.
#[must_use]
pub fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// A size in bytes as people read it.
#[must_use]
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use hie_protocol::id::Millis;

    use super::{age, clock_seconds, day, dicom_date, fhir_date, iso_day, plural, seconds};

    #[test]
    fn dates_read_as_people_write_them() {
        assert_eq!(fhir_date("1961-03-14"), "14-Mar-1961");
        assert_eq!(fhir_date("1961-03-14T10:00:00Z"), "14-Mar-1961");
        assert_eq!(fhir_date("1961-03"), "Mar-1961");
        assert_eq!(fhir_date("1961"), "1961");
        assert_eq!(fhir_date("1961-99-14"), "1961-99-14");
        assert_eq!(dicom_date("20261119"), "19-Nov-2026");
        assert_eq!(day(Millis(0), 0), "01-Jan-1970");
        assert_eq!(day(Millis(951_782_400_000), 0), "29-Feb-2000");
        assert_eq!(iso_day(Millis(1_795_348_800_000), 0), "2026-11-22");
        assert_eq!(day(Millis(0), -60), "31-Dec-1969");
        assert_eq!(clock_seconds(Millis(51_783_000), 60), "15:23:03");
    }

    #[test]
    fn ages_and_counts() {
        assert_eq!(age("1961-03-14", "2026-11-22"), Some(65));
        assert_eq!(age("1961-12-14", "2026-11-22"), Some(64));
        assert_eq!(age("2027-01-01", "2026-11-22"), None);
        assert_eq!(plural(1, "organisation"), "1 organisation");
        assert_eq!(plural(2, "person"), "2 persons");
        assert_eq!(seconds(432), "0.4 s");
    }
}
