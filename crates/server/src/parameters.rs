//! The parameters of a request whose signature was found good: from its query, and from its form.

use crate::limits::PARAMETERS_MAX;
use iam::form;
use model::{Error, Result};
use std::collections::HashSet;

/// The query's parameters and then the form's, without the signature's own.
///
/// A name given twice is refused: a signature does not tell the order of equal names in a query, so neither
/// may what is done.
pub(crate) fn read(query: &str, form_text: &str) -> Result<Vec<(String, String)>> {
    let count = form::pairs(query).chain(form::pairs(form_text)).take(PARAMETERS_MAX + 1).count();
    if count > PARAMETERS_MAX {
        return Err(Error::new(
            "InvalidQueryParameter",
            format!("The request has more than the {PARAMETERS_MAX} parameters allowed"),
        ));
    }
    let mut parameters = Vec::with_capacity(count);
    for (name, value) in form::pairs(query) {
        let name = text(name)?;
        if !iam::is_authentication_parameter(&name) {
            parameters.push((name, text(value)?));
        }
    }
    for (name, value) in form::pairs(form_text) {
        parameters.push((text(name)?, text(value)?));
    }
    let mut seen = HashSet::with_capacity(parameters.len());
    match parameters.iter().find(|(name, _)| !seen.insert(name.as_str())) {
        Some((name, _)) => Err(Error::new(
            "InvalidQueryParameter",
            format!("The parameter '{name}' is given more than once"),
        )),
        None => Ok(parameters),
    }
}

/// The body as a form. `content_type` may state a character set, or be missing.
pub(crate) fn form_text<'a>(content_type: Option<&str>, body: &'a [u8]) -> Result<&'a str> {
    if body.is_empty() {
        return Ok("");
    }
    let media_type = content_type.map(|value| value.split(';').next().unwrap_or_default().trim());
    if media_type
        .is_some_and(|media_type| !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded"))
    {
        return Err(Error::new(
            "UnsupportedMediaType",
            "The request body must be of the content type application/x-www-form-urlencoded",
        )
        .with_status(415));
    }
    std::str::from_utf8(body).map_err(|_| malformed("The request body is not UTF-8"))
}

fn text(encoded: &str) -> Result<String> {
    let bytes = encoded.as_bytes();
    let is_escape = |at: usize| {
        bytes.get(at + 1).is_some_and(u8::is_ascii_hexdigit)
            && bytes.get(at + 2).is_some_and(u8::is_ascii_hexdigit)
    };
    if bytes.iter().enumerate().any(|(at, byte)| *byte == b'%' && !is_escape(at)) {
        return Err(malformed(format!(
            "In '{}' a '%' is not followed by two hexadecimal digits",
            excerpt(encoded)
        )));
    }
    match String::from_utf8(form::decode(encoded).into_owned()) {
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(_) => Err(malformed(format!("'{}' contains a zero byte", excerpt(encoded)))),
        Err(_) => Err(malformed(format!("'{}' is not UTF-8 once decoded", excerpt(encoded)))),
    }
}

/// "Common error types" of the IAM and RDS API references give it the status 404.
fn malformed(message: impl Into<String>) -> Error {
    Error::new("MalformedQueryString", message).with_status(404)
}

/// Enough to find it by.
fn excerpt(text: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn query_and_form_are_one_list() {
        let read = read("Action=A%2EB&X-Amz-Signature=f&X-Amz-Date=d", "Name=a+b%20c&Empty=&Flag").unwrap();
        assert_eq!(read, owned(&[("Action", "A.B"), ("Name", "a b c"), ("Empty", ""), ("Flag", "")]));
    }

    #[test]
    fn bad_encodings_are_named() {
        for (query, expected) in [
            ("a=%f", "two hexadecimal digits"),
            ("a=%zz", "two hexadecimal digits"),
            ("a=b%", "two hexadecimal digits"),
            ("%=1", "two hexadecimal digits"),
            ("a=%ff", "not UTF-8"),
            ("a=%00", "zero byte"),
        ] {
            let error = read(query, "").unwrap_err();
            assert_eq!(error.code, "MalformedQueryString");
            assert!(error.message.contains(expected), "{query}: {error}");
        }
    }

    #[test]
    fn names_are_given_once_and_in_bounded_number() {
        assert!(read("A=1&A=2", "").unwrap_err().message.contains("'A'"));
        assert!(read("A=1", "A=1").unwrap_err().message.contains("'A'"));
        let many = |count: usize| (0..count).map(|n| format!("A.{n}=1")).collect::<Vec<_>>().join("&");
        assert_eq!(read("", &many(PARAMETERS_MAX)).unwrap().len(), PARAMETERS_MAX);
        assert!(read("B=1", &many(PARAMETERS_MAX)).unwrap_err().message.contains("10000"));
    }

    #[test]
    fn a_body_is_a_form_or_refused() {
        for content_type in [
            None,
            Some("application/x-www-form-urlencoded"),
            Some("application/x-www-form-urlencoded; charset=utf-8"),
            Some("Application/X-WWW-Form-URLEncoded;charset=UTF-8"),
        ] {
            assert_eq!(form_text(content_type, b"a=1").unwrap(), "a=1");
        }
        assert_eq!(form_text(Some("application/json"), b"{}").unwrap_err().status, 415);
        assert_eq!(form_text(Some("application/json"), b"").unwrap(), "");
        assert_eq!(form_text(None, b"\xff").unwrap_err().code, "MalformedQueryString");
    }
}
