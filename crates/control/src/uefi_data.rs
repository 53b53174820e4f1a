//! EC2's `UefiData`: the variables of an instance's firmware as one text, as AWS's own program for it, `uefivars` (PyPI),
//! makes and reads it.
//!
//! ```text
//!   base64 of: AMZNUEFI │ CRC-32C of the rest │ version: 0 │ by zlib, with a dictionary: how many │ variable │ …
//!   variable: name │ data │ vendor │ attributes │ where those ask for signed changes: time │ who signs
//! ```
//!
//! The dictionary belongs to the format: it is that program's, under the licence beside it.

use agent_api::UefiVariable;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, checksum};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use model::{Error, Result};

/// Of the text (EC2 API Reference, RegisterImage).
const TEXT_MAX: usize = 64_000;
/// Of what is compressed in it: twice what any firmware keeps, since it may be longer here.
const BYTES_MAX: usize = 512 * 1024;
const MAGIC: &[u8; 8] = b"AMZNUEFI";
const VERSION: [u8; 4] = [0; 4];
const DICTIONARY: &[u8] = include_bytes!("uefi_data/dictionary");
/// What is told of a signer where there is none.
const NO_SIGNER: [u8; 32] = [0; 32];

/// Refused where it is no such text.
pub fn check(text: &str) -> Result<()> {
    if text.len() > TEXT_MAX {
        return Err(Error::invalid_parameter_value(format!(
            "The UEFI data may have at most {TEXT_MAX} characters."
        )));
    }
    match decode(text) {
        Some(_) => Ok(()),
        None => Err(Error::invalid_parameter_value("The value for parameter UefiData is not valid.")),
    }
}

/// None where it is no such text.
pub fn decode(text: &str) -> Option<Vec<UefiVariable>> {
    let bytes = STANDARD.decode(text.trim_ascii()).ok()?;
    let (crc, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk()?;
    if crc32c(rest) != *crc {
        return None;
    }
    let inflated = inflate(rest.strip_prefix(&VERSION)?)?;
    let mut reader = Reader(&inflated);
    let count = u64::from_le_bytes(reader.array()?);
    let mut variables = Vec::new();
    for _ in 0..count {
        variables.push(reader.variable()?);
    }
    Some(variables)
}

pub fn encode(variables: &[UefiVariable]) -> String {
    let mut plain = (variables.len() as u64).to_le_bytes().to_vec();
    let put = |plain: &mut Vec<u8>, bytes: &[u8]| {
        plain.extend((bytes.len() as u64).to_le_bytes());
        plain.extend(bytes);
    };
    for variable in variables {
        put(&mut plain, variable.name.as_bytes());
        put(&mut plain, &variable.data);
        plain.extend(variable.vendor);
        plain.extend(variable.attributes.to_le_bytes());
        if variable.attributes & UefiVariable::TIME_AUTHENTICATED != 0 {
            plain.extend(variable.signed_at);
            put(&mut plain, if variable.signer.is_empty() { &NO_SIGNER } else { &variable.signer });
        }
    }
    let mut rest = VERSION.to_vec();
    deflate(&plain, &mut rest);
    STANDARD.encode([&MAGIC[..], &crc32c(&rest), &rest].concat())
}

fn crc32c(bytes: &[u8]) -> [u8; 4] {
    (checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32).to_le_bytes()
}

fn inflate(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut inflated = Vec::with_capacity(BYTES_MAX);
    let mut stream = Decompress::new(true);
    let mut status = stream.decompress_vec(bytes, &mut inflated, FlushDecompress::Finish);
    if status.as_ref().is_err_and(|error| error.needs_dictionary().is_some()) {
        stream.set_dictionary(DICTIONARY).ok()?;
        let rest = bytes.get(stream.total_in() as usize..)?;
        status = stream.decompress_vec(rest, &mut inflated, FlushDecompress::Finish);
    }
    matches!(status, Ok(Status::StreamEnd)).then_some(inflated)
}

fn deflate(bytes: &[u8], into: &mut Vec<u8>) {
    let mut stream = Compress::new(Compression::best(), true);
    // Refused only once something is compressed.
    let _ = stream.set_dictionary(DICTIONARY);
    loop {
        // Room for what can't be compressed; a little at a time would do as well.
        into.reserve(bytes.len() + 1024);
        let rest = bytes.get(stream.total_in() as usize..).unwrap_or_default();
        match stream.compress_vec(rest, into, FlushCompress::Finish) {
            Ok(Status::Ok) => {}
            _ => return,
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = u64::from_le_bytes(self.array()?).try_into().ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn variable(&mut self) -> Option<UefiVariable> {
        let mut variable = UefiVariable {
            name: str::from_utf8(self.bytes()?).ok()?.to_owned(),
            data: self.bytes()?.to_vec(),
            vendor: self.array()?,
            attributes: u32::from_le_bytes(self.array()?),
            signed_at: [0; 16],
            signer: Vec::new(),
        };
        if variable.attributes & UefiVariable::TIME_AUTHENTICATED != 0 {
            variable.signed_at = self.array()?;
            variable.signer = self.bytes()?.to_vec();
            if variable.signer == NO_SIGNER {
                variable.signer.clear();
            }
        }
        Some(variable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: &str =
        "QU1aTlVFRknugualAAAAAHj5a7fZ92OC2gSjA7xhE3DZqZXo1oIaxOxoQIHINb4wY/3L88i0gZUAAAAJNhYt";

    fn key(signer: &[u8]) -> UefiVariable {
        UefiVariable {
            name: "PK".into(),
            vendor: UefiVariable::GLOBAL,
            attributes: 0x27,
            data: b"key".to_vec(),
            signed_at: [7; 16],
            signer: signer.to_vec(),
        }
    }

    #[test]
    fn what_uefivars_makes_is_read() {
        let variables = decode(KNOWN).unwrap();
        assert_eq!(variables, [key(&[]), UefiVariable { name: "Own".into(), ..key(&[5; 32]) }]);
        assert!(encode(&variables).len() <= KNOWN.len(), "by the same dictionary");
    }

    #[test]
    fn other_texts_are_none() {
        let damaged = KNOWN.replacen("AAAAJ", "AAAAK", 1);
        for text in ["", "AAAA", "not base64", &damaged, &KNOWN[..KNOWN.len() - 4]] {
            assert!(check(text).is_err(), "{text}");
        }
        // Small, and large without end.
        let mut rest = VERSION.to_vec();
        deflate(&vec![0; BYTES_MAX + 1], &mut rest);
        let large = STANDARD.encode([&MAGIC[..], &crc32c(&rest), &rest].concat());
        assert!(large.len() < 1000 && check(&large).is_err());
        assert!(check(&"A".repeat(TEXT_MAX + 4)).is_err());
    }

    proptest! {
        #[test]
        fn there_and_back(
            names in proptest::collection::vec("\\PC{0,20}", 0..5),
            data in proptest::collection::vec(any::<u8>(), 0..2000),
            attributes: u32,
        ) {
            let variable =
                |name: String| UefiVariable { name, data: data.clone(), attributes, ..key(&[]) };
            let mut variables: Vec<_> = names.into_iter().map(variable).collect();
            if attributes & UefiVariable::TIME_AUTHENTICATED == 0 {
                variables.iter_mut().for_each(|variable| variable.signed_at = [0; 16]);
            }
            prop_assert_eq!(decode(&encode(&variables)).unwrap(), variables);
        }

        #[test]
        fn anything_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = VERSION.to_vec();
            deflate(&bytes, &mut rest);
            let _ = decode(&STANDARD.encode([&MAGIC[..], &crc32c(&rest), &rest].concat()));
        }
    }
}
