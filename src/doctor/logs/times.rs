//! The times that logs are written in, one function a format; each gives the time and what follows it.
//!
//! Belongs here: formats. Does not: what is logged.

use std::cell::Cell;

use jiff::{
    Timestamp, ToSpan as _,
    civil::DateTime,
    tz::{Offset, TimeZone},
};

use super::words::{after, after_digits};

/// How far a line may be ahead of the clock, for hosts whose clocks differ, and for a year that isn't written.
const AHEAD_HOURS: i64 = 26;

/// What is needed to read a time.
pub(super) struct Clock {
    /// The zone that programs write local times in.
    pub zone: TimeZone,
    /// The latest time that a line may be of, and its year here, for years that aren't written.
    latest: Timestamp,
    year: i64,
    /// The hour that was written last in each format but IIS's.
    nginx: Hour,
    iso: Hour,
    common: Hour,
    apache: Hour,
    php: Hour,
    syslog: Hour,
}

impl Clock {
    pub fn new(zone: TimeZone, now: Timestamp) -> Self {
        let latest = now.checked_add(AHEAD_HOURS.hours()).unwrap_or(Timestamp::MAX);
        let year = latest.to_zoned(zone.clone()).year().into();
        let hour = Hour::default;
        let (nginx, iso, common, apache, php, syslog) = (hour(), hour(), hour(), hour(), hour(), hour());
        Self { zone, latest, year, nginx, iso, common, apache, php, syslog }
    }

    fn local(&self, at: DateTime) -> Option<Timestamp> {
        Some(self.zone.to_ambiguous_zoned(at).compatible().ok()?.timestamp())
    }

    /// `2026/11/22 18:00:00`, of nginx.
    pub fn nginx<'a>(&self, text: &'a str) -> Option<(Timestamp, &'a str)> {
        let (text, rest) = apart(text, 4, b'/', 19)?;
        let at = self.nginx.moment(text, 0, |text| {
            let (date, rest) = date(text, '/')?;
            self.local(join(date, time(after(rest, b' ')?)?.0)?)
        });
        Some((at?, rest))
    }

    /// `2026-11-22T18:00:00+00:00`, with `T` or a blank, with or without a fraction after `.` or `,`, and local where
    /// no zone is written: fail2ban, LiteSpeed, journal, syslog.
    pub fn iso<'a>(&self, text: &'a str) -> Option<(Timestamp, &'a str)> {
        let (text, rest) = apart(text, 4, b'-', 19)?;
        let rest = fraction(rest, &['.', ',']);
        let zone = offset(rest);
        let at = self.iso.moment(text, zone.map_or(i64::MAX, |(seconds, _)| seconds), |text| {
            let (date, rest) = date(text, '-')?;
            let at = join(date, time(rest.strip_prefix(['T', ' '])?)?.0)?;
            zone.map_or_else(|| self.local(at), |(seconds, _)| with_offset(at, seconds))
        });
        Some((at?, zone.map_or(rest, |(_, rest)| rest)))
    }

    /// `2026-11-22 18:00:00` in UTC, of IIS.
    pub fn iis(date_text: &str, time_text: &str) -> Option<Timestamp> {
        with_offset(join(date(date_text, '-')?.0, time(time_text)?.0)?, 0)
    }

    /// `22/Nov/2026:18:00:00 +0000`, of access logs.
    pub fn common<'a>(&self, text: &'a str) -> Option<(Timestamp, &'a str)> {
        let (text, rest) = apart(text, 2, b'/', 20)?;
        let (seconds, rest) = offset(after(rest, b' ')?)?;
        let at = self.common.moment(text, seconds, |text| {
            let (day, rest) = number(text, 2)?;
            let (month, rest) = month(after(rest, b'/')?)?;
            let (year, rest) = number(after(rest, b'/')?, 4)?;
            with_offset(join((year, month, day), time(after(rest, b':')?)?.0)?, seconds)
        });
        Some((at?, rest))
    }

    /// `Sun Nov 22 18:00:00.123456 2026`, of Apache's error log.
    pub fn apache<'a>(&self, text: &'a str) -> Option<(Timestamp, &'a str)> {
        let (text, rest) = apart(text, 3, b' ', 19)?;
        let (year, rest) = number(after(fraction(rest, &['.']), b' ')?, 4)?;
        let at = self.apache.moment(text, year, |text| {
            let (month, rest) = month(text.get(4..)?)?;
            let (day, rest) = number(after(rest, b' ')?, 2)?;
            self.local(join((year, month, day), time(after(rest, b' ')?)?.0)?)
        });
        Some((at?, rest))
    }

    /// `22-Nov-2026 18:00:00`, of PHP-FPM.
    pub fn php<'a>(&self, text: &'a str) -> Option<(Timestamp, &'a str)> {
        let (text, rest) = apart(text, 2, b'-', 20)?;
        let at = self.php.moment(text, 0, |text| {
            let (day, rest) = number(text, 2)?;
            let (month, rest) = month(after(rest, b'-')?)?;
            let (year, rest) = number(after(rest, b'-')?, 4)?;
            self.local(join((year, month, day), time(after(rest, b' ')?)?.0)?)
        });
        Some((at?, fraction(rest, &['.'])))
    }

    /// `Nov 22 18:00:00` or `Nov  2 18:00:00`, of syslog: of this year, or of the last one if that would be ahead.
    pub fn syslog<'a>(&self, text: &'a str) -> Option<(Timestamp, &'a str)> {
        let (text, rest) = apart(text, 3, b' ', 15)?;
        let at = self.syslog.moment(text, 0, |text| {
            let (month, rest) = month(text)?;
            let rest = after(rest, b' ')?;
            let (day, rest) = match after(rest, b' ') {
                Some(rest) => number(rest, 1)?,
                None => number(rest, 2)?,
            };
            let time = time(after(rest, b' ')?)?.0;
            // The 29th of February is of neither of two years in a row that aren't leap years.
            (0..5).find_map(|back| {
                let at = self.local(join((self.year - back, month, day), time)?)?;
                (at <= self.latest).then_some(at)
            })
        });
        Some((at?, rest))
    }
}

/// So much of the text and the rest, if that byte stands there.
fn apart(text: &str, place: usize, byte: u8, length: usize) -> Option<(&str, &str)> {
    (text.as_bytes().get(place) == Some(&byte)).then(|| text.split_at_checked(length)).flatten()
}

/// The hour that was written last in a format, and when it began: a busy log has many lines of the same hour, and asking
/// for the zone takes longer than everything else about a line.
#[derive(Default)]
struct Hour(Cell<Option<Known>>);

#[derive(Clone, Copy)]
struct Known {
    /// How it is written, then nothing but zeros.
    text: [u8; 14],
    /// What it depends on beside that: a zone's seconds, or a year.
    more: i64,
    /// In seconds.
    begins: i64,
}

impl Hour {
    /// What `read` makes of a text that ends in `18:00:00`. It isn't asked where the text differs from one that was read
    /// in nothing but minute and second.
    fn moment(&self, text: &str, more: i64, read: impl Fn(&str) -> Option<Timestamp>) -> Option<Timestamp> {
        let Some((hour, seconds)) = minute_and_second(text) else { return read(text) };
        if let Some(known) = self.0.get()
            && known.more == more
            && known.text[..hour.len()] == *hour.as_bytes()
        {
            return Timestamp::from_second(known.begins + seconds).ok();
        }
        let at = read(text)?;
        self.0.set(known(hour, more, read));
        Some(at)
    }
}

/// What is to be known of an hour; nothing if the clocks were set within it.
fn known(hour: &str, more: i64, read: impl Fn(&str) -> Option<Timestamp>) -> Option<Known> {
    let second = |within| Some(read(&format!("{hour}{within}"))?.as_second());
    let (begins, ends) = (second(":00:00")?, second(":59:59")?);
    let mut text = [0; 14];
    text.get_mut(..hour.len())?.copy_from_slice(hour.as_bytes());
    (ends - begins == 3599).then_some(Known { text, more, begins })
}

/// The seconds in `:00:00` at the end, and what stands before that.
fn minute_and_second(text: &str) -> Option<(&str, i64)> {
    let (hour, within) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let &[b':', a, b, b':', c, d] = within.as_bytes() else { return None };
    if ![a, b, c, d].iter().all(u8::is_ascii_digit) || a > b'5' {
        return None;
    }
    let number = |tens, ones| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
    Some((hour, number(a, b) * 60 + leap(number(c, d))))
}

/// A leap second is the one before it.
fn leap(second: i64) -> i64 {
    second.min(59)
}

/// Exactly so many digits. A blank may stand for the first one, as `asctime` pads.
fn number(text: &str, digits: usize) -> Option<(i64, &str)> {
    let (number, rest) = text.split_at_checked(digits)?;
    let mut read = None;
    for byte in number.bytes() {
        match byte {
            b' ' if read.is_none() => {}
            b'0'..=b'9' => read = Some(read.unwrap_or(0) * 10 + i64::from(byte - b'0')),
            _ => return None,
        }
    }
    Some((read?, rest))
}

type Date = (i64, i64, i64);

fn date(text: &str, between: char) -> Option<(Date, &str)> {
    let (year, rest) = number(text, 4)?;
    let (month, rest) = number(rest.strip_prefix(between)?, 2)?;
    let (day, rest) = number(rest.strip_prefix(between)?, 2)?;
    Some(((year, month, day), rest))
}

/// Hour, minute, second.
type Time = (i64, i64, i64);

fn time(text: &str) -> Option<(Time, &str)> {
    let (hour, rest) = number(text, 2)?;
    let (minute, rest) = number(after(rest, b':')?, 2)?;
    let (second, rest) = number(after(rest, b':')?, 2)?;
    Some(((hour, minute, second), rest))
}

fn month(text: &str) -> Option<(i64, &str)> {
    const NAMES: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (name, rest) = text.split_at_checked(3)?;
    let at = NAMES.iter().position(|n| *n == name)?;
    Some((i64::try_from(at).ok()? + 1, rest))
}

fn join((year, month, day): Date, (hour, minute, second): Time) -> Option<DateTime> {
    let small = |n: i64| i8::try_from(n).ok();
    let second = small(leap(second))?;
    DateTime::new(i16::try_from(year).ok()?, small(month)?, small(day)?, small(hour)?, small(minute)?, second, 0).ok()
}

fn with_offset(at: DateTime, seconds: i64) -> Option<Timestamp> {
    Offset::UTC.to_timestamp(at).ok()?.checked_sub(seconds.seconds()).ok()
}

/// Without a fraction of a second after one of these.
fn fraction<'a>(text: &'a str, marks: &[char]) -> &'a str {
    text.strip_prefix(marks).map_or(text, after_digits)
}

/// `Z`, `+0000` or `+00:00`, in seconds.
fn offset(text: &str) -> Option<(i64, &str)> {
    if let Some(rest) = after(text, b'Z') {
        return Some((0, rest));
    }
    let sign = match text.bytes().next()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, rest) = number(&text[1..], 2)?;
    let (minutes, rest) = number(after(rest, b':').unwrap_or(rest), 2)?;
    Some((sign * (hours * 3600 + minutes * 60), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(now: &str) -> Clock {
        Clock::new(TimeZone::fixed(jiff::tz::offset(1)), now.parse().unwrap())
    }

    #[test]
    fn each_format_is_the_same_moment() {
        let c = clock("2026-11-22T20:00:00Z");
        let at: Timestamp = "2026-11-22T17:00:00Z".parse().unwrap();
        let same = |found: Option<(Timestamp, &str)>, rest: &str| assert_eq!(found, Some((at, rest)));
        same(c.nginx("2026/11/22 18:00:00 [error]"), " [error]");
        same(c.iso("2026-11-22 18:00:00,123 fail2ban"), " fail2ban");
        same(c.iso("2026-11-22 18:00:00.123456 [NOTICE]"), " [NOTICE]");
        same(c.iso("2026-11-22T17:00:00+0000 host"), " host");
        same(c.iso("2026-11-22T12:30:00.5-04:30 host"), " host");
        same(c.iso("2026-11-22T17:00:00Z host"), " host");
        same(c.common("22/Nov/2026:19:00:00 +0200] \"GET"), "] \"GET");
        same(c.apache("Sun Nov 22 18:00:00.123456 2026] ["), "] [");
        same(c.apache("Sun Nov 22 18:00:00 2026] ["), "] [");
        same(c.php("22-Nov-2026 18:00:00] WARNING"), "] WARNING");
        same(c.syslog("Nov 22 18:00:00 host kernel:"), " host kernel:");
        assert_eq!(Clock::iis("2026-11-22", "17:00:00"), Some(at));
    }

    #[test]
    fn a_year_that_is_not_written_is_the_last_one_in_january() {
        let c = clock("2027-01-01T03:00:00Z");
        let year = |text| c.syslog(text).map(|(at, _)| at.to_string());
        assert_eq!(year("Dec 31 23:59:59 h").as_deref(), Some("2026-12-31T22:59:59Z"));
        assert_eq!(year("Jan  1 04:00:00 h").as_deref(), Some("2027-01-01T03:00:00Z"));
        assert_eq!(year("Jan  3 09:00:00 h").as_deref(), Some("2026-01-03T08:00:00Z"));
        // A clock that is a little ahead, in the first minutes of a year.
        assert_eq!(
            clock("2026-12-31T22:59:50Z").syslog("Jan  1 00:00:05 h").unwrap().0.to_string(),
            "2026-12-31T23:00:05Z"
        );
        assert_eq!(year("Feb 29 00:00:00 h").as_deref(), Some("2024-02-28T23:00:00Z"));
    }

    #[test]
    fn what_is_no_time_is_none() {
        let c = clock("2026-11-22T20:00:00Z");
        for text in ["", "2026", "2026/13/22 18:00:00", "2026/11/22 18:00", "2026/11/2ü 18:00:00", "    /  /   :  :  "]
        {
            assert_eq!(c.nginx(text), None, "{text}");
            assert_eq!(c.iso(&text.replace('/', "-")), None, "{text}");
        }
        assert_eq!(c.syslog("Nov 31 18:00:00 h"), None);
        assert_eq!(c.common("22/Nov/2026:18:00:00"), None);
    }
}
