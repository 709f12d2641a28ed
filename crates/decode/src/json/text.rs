//! What texts mean: numbers to the last digit, dates, timestamps, Base64.

use base64::Engine as _;

use crate::error::{Fault, Read};

/// A JSON number as a whole number. `1.0` and `1e3` are whole.
#[inline]
pub(crate) fn whole(text: &str) -> Read<i64> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return i64::try_from(scaled(text, 0)?).map_err(|_| beyond("64 bits"));
    }
    let value = digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    Ok(if negative { -value } else { value })
}

#[cold]
fn beyond(what: &str) -> Fault {
    Fault::conversion(format!("a number is beyond {what}"))
}

/// A JSON number times ten to the `scale`, exactly.
pub(crate) fn scaled(text: &str, scale: u32) -> Read<i128> {
    let out_of_range = || beyond("its column");
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()),
        None => (text, Some(0)),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, mantissa),
    };
    let (before, behind) = digits.split_once('.').unwrap_or((digits, ""));
    let behind = behind.trim_end_matches('0');
    let (mut value, mut dropped) = (0i128, 0usize);
    let significant = || before.bytes().chain(behind.bytes()).skip_while(|b| *b == b'0');
    let trailing = significant().collect::<Vec<u8>>();
    if trailing.is_empty() {
        return Ok(0);
    }
    // Zeros at the end only shift the point.
    let kept = trailing.len() - trailing.iter().rev().take_while(|b| **b == b'0').count();
    for digit in &trailing[..kept] {
        value = value
            .checked_mul(10)
            .and_then(|v| v.checked_add(i128::from(digit - b'0')))
            .ok_or_else(out_of_range)?;
    }
    dropped += trailing.len() - kept;
    let exponent = exponent.ok_or_else(out_of_range)?;
    let shift = i64::from(exponent) + i64::from(scale) + dropped as i64 - behind.len() as i64;
    if shift < 0 {
        return Err(Fault::conversion(match scale {
            0 => "a number has a fraction".to_owned(),
            _ => format!("a number has more than {scale} digits behind the point"),
        }));
    }
    let factor = u32::try_from(shift).ok().and_then(|shift| 10i128.checked_pow(shift));
    let value = factor.and_then(|factor| value.checked_mul(factor)).ok_or_else(out_of_range)?;
    Ok(if negative { -value } else { value })
}

/// The nearest double.
#[inline]
pub(crate) fn double(text: &str) -> Read<f64> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(beyond("a double")),
    }
}

/// The nearest float.
pub(crate) fn float(text: &str) -> Read<f32> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(beyond("a float")),
    }
}

pub(crate) fn base64(text: &[u8]) -> Read<Vec<u8>> {
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|e| Fault::new(format!("a text is no Base64: {e}")))
}

/// Days since 1970-01-01 of `YYYY-MM-DD`.
pub(crate) fn date(text: &[u8]) -> Read<i32> {
    let bad = || Fault::new("a text is no date of the form YYYY-MM-DD");
    let mut digits = Digits(text);
    let days = digits.date().ok_or_else(bad)?;
    if digits.0.is_empty() { i32::try_from(days).map_err(|_| bad()) } else { Err(bad()) }
}

/// Microseconds since 1970 of an RFC 3339 date-time. Finer fractions are rounded down.
pub(crate) fn timestamp(text: &[u8]) -> Read<i64> {
    instant(text).ok_or_else(|| {
        Fault::new("a text is no date-time with an offset, as 2030-12-31T23:59:59.5Z is (RFC 3339)")
    })
}

fn instant(text: &[u8]) -> Option<i64> {
    let mut digits = Digits(text);
    let days = digits.date()?;
    digits.one_of(b"Tt ")?;
    let (hour, minute, second) = (digits.two(23)?, digits.then(b':', 59)?, digits.then(b':', 60)?);
    let micros = digits.fraction()?;
    let offset = match digits.one_of(b"Zz+-")? {
        sign @ (b'+' | b'-') => {
            let minutes = digits.two(23)? * 60 + digits.then(b':', 59)?;
            if sign == b'-' { -minutes } else { minutes }
        }
        _ => 0,
    };
    let seconds = days * 86_400 + hour * 3600 + (minute - offset) * 60 + second;
    digits.0.is_empty().then_some(seconds * 1_000_000 + micros)
}

/// Text of which parts are taken from the front.
struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (taken, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        taken
            .iter()
            .try_fold(0, |value, b| b.is_ascii_digit().then(|| value * 10 + i64::from(b - b'0')))
    }

    fn two(&mut self, most: i64) -> Option<i64> {
        self.number(2).filter(|value| *value <= most)
    }

    fn one_of(&mut self, allowed: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        allowed.contains(first).then_some(*first)
    }

    fn then(&mut self, mark: u8, most: i64) -> Option<i64> {
        self.one_of(&[mark])?;
        self.two(most)
    }

    /// Microseconds behind the point, if there is one.
    fn fraction(&mut self) -> Option<i64> {
        let Some(rest) = self.0.strip_prefix(b".") else { return Some(0) };
        let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = rest.split_at(count);
        self.0 = rest;
        let places = (0..6).map(|i| digits.get(i).map_or(0, |b| i64::from(b - b'0')));
        (count > 0).then(|| places.fold(0, |value, digit| value * 10 + digit))
    }

    /// Days since 1970-01-01 in the Gregorian calendar.
    fn date(&mut self) -> Option<i64> {
        let year = self.number(4)?;
        let (month, day) = (self.then(b'-', 12)?, self.then(b'-', 31)?);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            2 => 28 + i64::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if month == 0 || day == 0 || day > length {
            return None;
        }
        // Years begin in March, so that the day a leap year adds is its last.
        let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
        let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        let before = year * 365 + leap_days + (153 * month + 2) / 5 + day - 1;
        // 0000-03-01 to 1970-01-01.
        Some(before - 719_468)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact_or_refused() {
        for (text, scale, value) in [
            ("0", 0, Some(0)),
            ("-0", 0, Some(0)),
            ("1.0", 0, Some(1)),
            ("1e3", 0, Some(1000)),
            ("1200e-2", 0, Some(12)),
            ("1.5", 0, None),
            ("1.50", 1, Some(15)),
            ("1.55", 1, None),
            ("-12.34", 4, Some(-123_400)),
            ("0.001e3", 0, Some(1)),
            ("0e999999999999", 0, Some(0)),
            ("1e999999999999", 0, None),
            ("1e-999999999", 0, None),
            ("1e38", 0, Some(10i128.pow(38))),
            ("1e39", 0, None),
            (
                "123456789012345678901234567890.5",
                1,
                Some(1_234_567_890_123_456_789_012_345_678_905),
            ),
        ] {
            assert_eq!(scaled(text, scale).ok(), value, "{text} {scale}");
        }
        assert_eq!(whole("9223372036854775807").ok(), Some(i64::MAX));
        assert_eq!(whole("-9223372036854775808").ok(), Some(i64::MIN));
        assert_eq!(whole("9007199254740993.0").ok(), Some(9_007_199_254_740_993));
        assert!(whole("9223372036854775808").is_err());
        assert!(double("1e400").is_err() && float("1e39").is_err());
    }

    #[test]
    fn dates_and_timestamps_are_the_calendars() {
        for (text, days) in [
            ("1970-01-01", Some(0)),
            ("1969-12-31", Some(-1)),
            ("2000-02-29", Some(11_016)),
            ("1900-02-29", None),
            ("2024-02-30", None),
            ("0000-03-01", Some(-719_468)),
            ("9999-12-31", Some(2_932_896)),
            ("2024-13-01", None),
            ("2024-00-01", None),
            ("2024-1-1", None),
            ("2024-01-01T", None),
            ("+2024-01-01", None),
        ] {
            assert_eq!(date(text.as_bytes()).ok(), days, "{text}");
        }
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01t00:00:01.5z", Some(1_500_000)),
            ("1970-01-01 01:00:00+01:00", Some(0)),
            ("1969-12-31T23:30:00-00:30", Some(0)),
            ("1970-01-01T00:00:00.1234567Z", Some(123_456)),
            ("1969-12-31T23:59:59.9999999Z", Some(-1)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800_000_000)),
            ("1970-01-01T00:00:00", None),
            ("1970-01-01T24:00:00Z", None),
            ("1970-01-01T00:00Z", None),
            ("1970-01-01T00:00:00.Z", None),
            ("1970-01-01T00:00:00Zx", None),
            ("", None),
        ] {
            assert_eq!(timestamp(text.as_bytes()).ok(), micros, "{text}");
        }
    }
}
