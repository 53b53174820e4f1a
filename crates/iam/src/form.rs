//! The `name=value&name=value` text of query strings and form bodies, read in one way.
//!
//! The signature covers the decoded query in its canonical spelling, so whoever acts on a query must read it
//! exactly as the signature did: through these two functions.

use percent_encoding::percent_decode;
use std::borrow::Cow;

/// The pairs in order, still encoded. An empty pair (`a=1&&b=2`) is none; a name alone has the empty value.
pub fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// A name or value decoded: `+` is a space, `%XX` a byte, and a `%` that begins no such escape is itself.
pub fn decode(text: &str) -> Cow<'_, [u8]> {
    let spaced: Cow<'_, [u8]> = if text.contains('+') {
        Cow::Owned(text.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect())
    } else {
        Cow::Borrowed(text.as_bytes())
    };
    match spaced {
        Cow::Borrowed(bytes) => percent_decode(bytes).into(),
        Cow::Owned(bytes) => Cow::Owned(percent_decode(&bytes).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_split_at_the_first_equals_sign() {
        let read: Vec<_> = pairs("a=1&&b=x=y&c&=d").collect();
        assert_eq!(read, [("a", "1"), ("b", "x=y"), ("c", ""), ("", "d")]);
        assert_eq!(pairs("").count(), 0);
    }

    #[test]
    fn decoding() {
        for (text, bytes) in [
            ("plain", &b"plain"[..]),
            ("a+b", b"a b"),
            ("a%2Bb", b"a+b"),
            ("%e2%82%AC", "€".as_bytes()),
            ("%ff", b"\xff"),
            ("100%", b"100%"),
            ("%zz+", b"%zz "),
        ] {
            assert_eq!(decode(text).as_ref(), bytes, "{text}");
        }
    }
}
