//! The moment a request was signed: `20150830T123600Z`, whose first eight letters are the scope's date.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use model::Timestamp;
use std::fmt;

/// A moment in whole seconds, between the years 0000 and 9999, and its spelling in ISO 8601's basic form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AmzDate {
    text: [u8; AmzDate::LEN],
    pub at: Timestamp,
}

impl AmzDate {
    const LEN: usize = "YYYYMMDDTHHMMSSZ".len();

    /// From an `X-Amz-Date`: the basic form and no other.
    pub fn parse(text: &str) -> Option<AmzDate> {
        let bytes: [u8; AmzDate::LEN] = text.as_bytes().try_into().ok()?;
        if bytes[8] != b'T' || bytes[15] != b'Z' {
            return None;
        }
        let number = |from: usize, to: usize| {
            bytes[from..to].iter().try_fold(0i16, |number, digit| {
                digit.is_ascii_digit().then(|| number * 10 + i16::from(digit - b'0'))
            })
        };
        let small = |from: usize| number(from, from + 2).and_then(|number| i8::try_from(number).ok());
        let civil =
            DateTime::new(number(0, 4)?, small(4)?, small(6)?, small(9)?, small(11)?, small(13)?, 0).ok()?;
        let at = TimeZone::UTC.to_timestamp(civil).ok()?;
        Some(AmzDate { text: bytes, at })
    }

    /// From a `Date` header: the same basic form, or HTTP's own.
    pub fn parse_http(text: &str) -> Option<AmzDate> {
        AmzDate::parse(text).or_else(|| AmzDate::new(jiff::fmt::rfc2822::parse(text).ok()?.timestamp()))
    }

    /// None where the year has not four digits.
    pub fn new(at: Timestamp) -> Option<AmzDate> {
        let civil = TimeZone::UTC.to_datetime(at);
        let text = format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
            civil.year(),
            civil.month(),
            civil.day(),
            civil.hour(),
            civil.minute(),
            civil.second()
        );
        AmzDate::parse(&text)
    }

    pub fn as_str(&self) -> &str {
        // Only ASCII gets past `parse`, the one constructor.
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// `YYYYMMDD`, as the credential scope has it.
    pub fn day(&self) -> &str {
        &self.as_str()[..8]
    }
}

impl fmt::Display for AmzDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms_name_the_same_moment() {
        let basic = AmzDate::parse("20150830T123600Z").unwrap();
        assert_eq!(basic.at, "2015-08-30T12:36:00Z".parse().unwrap());
        assert_eq!(basic.day(), "20150830");
        assert_eq!(AmzDate::parse_http("Sun, 30 Aug 2015 12:36:00 GMT"), Some(basic));
        assert_eq!(AmzDate::parse_http("20150830T123600Z"), Some(basic));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "20150830",
            "20150830T123600",
            "20150830T123600+",
            "2015-08-30T12:36:00Z",
            "20151330T123600Z",
            "20150230T123600Z",
            "20150830T243600Z",
            "20150830t123600z",
            "+0150830T123600Z",
            "２０150830T123Z",
        ] {
            assert_eq!(AmzDate::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_spelled_is_read_back(second in -62_000_000_000i64..253_000_000_000) {
            let at = Timestamp::from_second(second).unwrap();
            let date = AmzDate::new(at).unwrap();
            prop_assert_eq!(AmzDate::parse(date.as_str()), Some(date));
            prop_assert_eq!(date.at, at);
        }

        #[test]
        fn never_panics(text in "\\PC{0,20}") {
            AmzDate::parse(&text);
            AmzDate::parse_http(&text);
        }
    }
}
