//! The one spelling of a request that both sides sign (IAM User Guide, "Create a canonical request").

use crate::{RawRequest, form};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use std::borrow::Cow;

/// Everything but RFC 3986's unreserved characters is escaped.
pub(crate) const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// `payload_hash` is what stands for the body: its SHA-256, or `UNSIGNED-PAYLOAD`.
pub(crate) fn canonical_request(
    request: &RawRequest<'_>,
    signed_headers: &[String],
    service: &str,
    payload_hash: &str,
) -> Vec<u8> {
    let mut text = Vec::with_capacity(1024);
    text.extend_from_slice(request.method.as_bytes());
    text.push(b'\n');
    text.extend_from_slice(canonical_path(request.path, service).as_bytes());
    text.push(b'\n');
    append_query(&mut text, request.query);
    text.push(b'\n');
    for name in signed_headers {
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        for (index, value) in request.values(name).enumerate() {
            if index > 0 {
                text.push(b',');
            }
            append_trimmed(&mut text, value);
        }
        text.push(b'\n');
    }
    text.push(b'\n');
    for (index, name) in signed_headers.iter().enumerate() {
        if index > 0 {
            text.push(b';');
        }
        text.extend_from_slice(name.as_bytes());
    }
    text.push(b'\n');
    text.extend_from_slice(payload_hash.as_bytes());
    text
}

/// S3's object names are any text, so its paths are taken as they are and escaped once. Elsewhere a path is
/// normalised, and escaped on top of the escapes it came with.
fn canonical_path(path: &str, service: &str) -> String {
    if service == "s3" {
        let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
        let encoded = percent_encode(&decoded, RESERVED_IN_PATH).to_string();
        return if encoded.is_empty() { "/".into() } else { encoded };
    }
    percent_encode(normalize_path(path).as_bytes(), RESERVED_IN_PATH).to_string()
}

/// The path without empty segments, `.` and `..` (RFC 3986, section 5.2.4): a signature holds for every path
/// of the same normal form, so this is the path to act on.
pub fn normalize_path(path: &str) -> Cow<'_, str> {
    let is_normal = path.starts_with('/')
        && !path[1..].split('/').rev().skip(1).any(str::is_empty)
        && !path.split('/').any(|segment| segment == "." || segment == "..");
    if is_normal {
        return Cow::Borrowed(path);
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    let trailing = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    Cow::Owned(format!("/{}{trailing}", kept.join("/")))
}

/// Decoded, encoded anew and sorted; a presigned query's own signature is no part of it.
fn append_query(text: &mut Vec<u8>, query: &str) {
    if query.is_empty() {
        return;
    }
    let spell = |encoded: &str| percent_encode(&form::decode(encoded), RESERVED).to_string();
    let mut pairs: Vec<(String, String)> = form::pairs(query)
        .map(|(name, value)| (spell(name), spell(value)))
        .filter(|(name, _)| name != "X-Amz-Signature")
        .collect();
    pairs.sort_unstable();
    for (index, (name, value)) in pairs.iter().enumerate() {
        if index > 0 {
            text.push(b'&');
        }
        text.extend_from_slice(name.as_bytes());
        text.push(b'=');
        text.extend_from_slice(value.as_bytes());
    }
}

/// Without spaces at the ends, and with single ones between.
fn append_trimmed(text: &mut Vec<u8>, value: &[u8]) {
    let mut words = value.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    if let Some(first) = words.next() {
        text.extend_from_slice(first);
    }
    for word in words {
        text.push(b' ');
        text.extend_from_slice(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_normalised() {
        for (path, normal) in [
            ("", "/"),
            ("/", "/"),
            ("//", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("//a//b//", "/a/b/"),
            ("/./a/./", "/a/"),
            ("/a/../b", "/b"),
            ("/../..", "/"),
            ("/a/..", "/"),
            ("a", "/a"),
            ("/a/%2e%2e/b", "/a/%2e%2e/b"),
        ] {
            assert_eq!(normalize_path(path), normal, "{path}");
        }
    }

    #[test]
    fn paths_are_escaped_twice_but_for_s3() {
        assert_eq!(canonical_path("/a%20b/~c:d", "ec2"), "/a%2520b/~c%3Ad");
        assert_eq!(canonical_path("/a%20b//../~c:d", "s3"), "/a%20b//../~c%3Ad");
        assert_eq!(canonical_path("", "s3"), "/");
    }

    #[test]
    fn queries_are_sorted_and_spelled_alike() {
        let spelled = |query: &str| {
            let mut text = Vec::new();
            append_query(&mut text, query);
            String::from_utf8(text).unwrap()
        };
        assert_eq!(spelled("b=2&a=1&a=0&"), "a=0&a=1&b=2");
        assert_eq!(spelled("a"), "a=");
        assert_eq!(spelled("k=a+b"), spelled("k=a%20b"));
        assert_eq!(spelled("k=%7e%2f"), "k=~%2F");
        assert_eq!(spelled("k=%zz"), "k=%25zz");
        assert_eq!(spelled("a=1&X-Amz-Signature=f"), "a=1");
    }

    #[test]
    fn header_values_are_trimmed_and_joined() {
        let headers: &[(&str, &[u8])] = &[("Host", b"h"), ("My-Header", b"  a \t b "), ("my-header", b"c")];
        let request = RawRequest { method: "GET", path: "/", query: "", headers, body: b"" };
        let signed = ["host".to_owned(), "my-header".to_owned()];
        let text = canonical_request(&request, &signed, "ec2", "HASH");
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "GET\n/\n\nhost:h\nmy-header:a b,c\n\nhost;my-header\nHASH"
        );
    }

    proptest! {
        #[test]
        fn normalising_is_idempotent(path in "[/.a%]{0,12}") {
            let once = normalize_path(&path).into_owned();
            prop_assert_eq!(normalize_path(&once).into_owned(), once);
        }
    }
}
