//! User data: base64 of at most 16 KiB (EC2 User Guide, "Run commands when you launch an instance").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{Error, Result};

/// Bytes, decoded.
const LEN_MAX: usize = 16 * 1024;

pub fn check(text: &str) -> Result<Vec<u8>> {
    let too_long = || Error::invalid_parameter_value(format!("User data is limited to {LEN_MAX} bytes"));
    if text.len() > LEN_MAX * 2 {
        return Err(too_long());
    }
    // Some clients break lines as MIME does.
    let text: String = text.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    let decoded = STANDARD
        .decode(text)
        .map_err(|_| Error::invalid_parameter_value("Invalid BASE64 encoding of user data"))?;
    if decoded.len() > LEN_MAX {
        return Err(too_long());
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_on_the_decoded_bytes() {
        assert!(check(&STANDARD.encode(vec![b'x'; LEN_MAX])).is_ok());
        assert!(check(&STANDARD.encode(vec![b'x'; LEN_MAX + 1])).unwrap_err().message.contains("16384"));
        assert_eq!(check("not base64!").unwrap_err().code, "InvalidParameterValue");
    }
}
