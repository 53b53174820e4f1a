//! A request as it came, before anything has parsed it.

use crate::Refusal;

/// Nothing here is decoded: the signature covers these bytes.
#[derive(Clone, Copy, Debug)]
pub struct RawRequest<'a> {
    pub method: &'a str,
    /// As on the request line, still encoded.
    pub path: &'a str,
    /// What follows the `?`, still encoded; empty where there is none.
    pub query: &'a str,
    /// In the order they came; names in any case.
    pub headers: &'a [(&'a str, &'a [u8])],
    pub body: &'a [u8],
}

impl<'a> RawRequest<'a> {
    /// All values of a header, in order.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// The value of a header that authentication rests on: given twice, or not as text, it is no answer.
    pub(crate) fn only(&self, name: &'static str) -> Result<Option<&'a str>, Refusal> {
        let mut values = self.values(name);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Refusal::Malformed(format!("The header '{name}' must be given once.")));
        }
        match std::str::from_utf8(value) {
            Ok(text) => Ok(Some(text.trim_matches([' ', '\t']))),
            Err(_) => Err(Refusal::Malformed(format!("The header '{name}' must be text."))),
        }
    }
}
