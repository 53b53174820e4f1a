//! The file in which UEFI firmware keeps its variables, as edk2 lays it out (`VariableFormat.h`): read, and written
//! where a machine begins with some.
//!
//! ```text
//!   volume header │ store header │ variable │ variable │ … │ free: ones │ what makes writing it safe
//! ```
//!
//! A guest can write there what it likes: nothing that is read is believed without a look at its bounds.

use model::UefiVariable;

/// `gEfiSystemNvDataFvGuid`.
const VOLUME: [u8; 16] =
    [0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50];
/// `gEfiAuthenticatedVariableGuid`.
const STORE: [u8; 16] =
    [0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92];
/// `gEfiCertDbGuid`: the variable of this vendor says who may sign changes to others.
const SIGNERS_VENDOR: [u8; 16] =
    [0x6e, 0xe5, 0xbe, 0xd9, 0xdc, 0x75, 0xd9, 0x49, 0xb4, 0xd7, 0xb5, 0x34, 0x21, 0x0f, 0x63, 0x7a];
const SIGNERS: &str = "certdb";
/// Non-volatile, and for the boot services and what runs after them.
const SIGNERS_ATTRIBUTES: u32 = 7;

const VOLUME_LENGTH_AT: usize = 48;
const STORE_HEADER: usize = 28;
const HEADER: usize = 60;
const MARK: u16 = 0x55aa;
/// Bits fall from one as a variable is written, and again as it is replaced or deleted.
const WRITTEN: u8 = 0x3f;
const BEING_REPLACED: u8 = 0x3e;

/// The part of the file that variables are in.
fn bounds(file: &[u8]) -> Option<(usize, usize)> {
    let store = usize::from(u16::from_le_bytes(array(file, VOLUME_LENGTH_AT)?));
    let size = u32::from_le_bytes(array(file, store.checked_add(16)?)?) as usize;
    let is_store = array(file, 16)? == VOLUME && array(file, store)? == STORE;
    let end = store.checked_add(size).filter(|end| *end <= file.len());
    end.filter(|_| is_store).map(|end| (store + STORE_HEADER, end))
}

/// None where it is no such file. What is no variable ends them; those whose names are no text are left out.
pub(super) fn read(file: &[u8]) -> Option<Vec<UefiVariable>> {
    let (mut at, end) = bounds(file)?;
    let mut variables: Vec<(u8, UefiVariable)> = Vec::new();
    while let Some((state, found, next)) = variable(&file[..end], at) {
        at = next;
        let Some(found) = found.filter(|_| matches!(state, WRITTEN | BEING_REPLACED)) else { continue };
        match variables.iter_mut().find(|(_, other)| is_same(other, &found)) {
            // What was to replace the other has come to be.
            Some(other) if state == WRITTEN => *other = (state, found),
            Some(_) => {}
            None => variables.push((state, found)),
        }
    }
    let mut variables: Vec<UefiVariable> = variables.into_iter().map(|(_, variable)| variable).collect();
    let is_signers = |variable: &UefiVariable| variable.name == SIGNERS && variable.vendor == SIGNERS_VENDOR;
    if let Some(place) = variables.iter().position(is_signers) {
        let signers = variables.remove(place).data;
        add_signers(&mut variables, &signers);
    }
    Some(variables)
}

fn is_same(one: &UefiVariable, other: &UefiVariable) -> bool {
    (&one.name, one.vendor) == (&other.name, other.vendor)
}

/// What is at this place: its state, itself where its name is a text, and where the next is.
fn variable(file: &[u8], at: usize) -> Option<(u8, Option<UefiVariable>, usize)> {
    let header = file.get(at..at.checked_add(HEADER)?)?;
    let number = |at| Some(u32::from_le_bytes(array(header, at)?));
    if u16::from_le_bytes(array(header, 0)?) != MARK {
        return None;
    }
    let name_at = at + HEADER;
    let data_at = name_at.checked_add(number(36)? as usize)?;
    let end = data_at.checked_add(number(40)? as usize)?;
    let (name, data) = (file.get(name_at..data_at)?, file.get(data_at..end)?);
    let found = text(name).map(|name| UefiVariable {
        name,
        vendor: array(header, 44).unwrap_or_default(),
        attributes: number(4).unwrap_or_default(),
        data: data.to_vec(),
        signed_at: array(header, 16).unwrap_or_default(),
        signer: Vec::new(),
    });
    Some((header[2], found, end.next_multiple_of(4)))
}

/// UTF-16 up to its zero.
fn text(bytes: &[u8]) -> Option<String> {
    let units = bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16(&units).ok().filter(|name| !name.is_empty())
}

/// Each entry: vendor, its own length, that of the name in characters, that of the hash, name, hash.
fn add_signers(variables: &mut [UefiVariable], signers: &[u8]) {
    let mut at = 4;
    let mut next = || {
        let number = |at| Some(u32::from_le_bytes(array(signers, at)?) as usize);
        let name_at = at + 28;
        let hash_at = number(at + 20)?.checked_mul(2)?.checked_add(name_at)?;
        let end = number(at + 24)?.checked_add(hash_at)?;
        let entry = (array(signers, at)?, text(signers.get(name_at..hash_at)?), signers.get(hash_at..end)?);
        at = end;
        Some(entry)
    };
    while let Some((vendor, name, hash)) = next() {
        let of =
            |variable: &&mut UefiVariable| variable.vendor == vendor && Some(&variable.name) == name.as_ref();
        if let Some(variable) = variables.iter_mut().find(of) {
            variable.signer = hash.to_vec();
        }
    }
}

/// Writes variables behind those that are there; false where there is no room for them.
pub(super) fn write(file: &mut [u8], variables: &[UefiVariable]) -> bool {
    let Some((mut at, end)) = bounds(file) else { return false };
    while let Some((_, _, next)) = variable(&file[..end], at) {
        at = next;
    }
    variables.iter().chain(&signers(variables)).all(|variable| {
        let written = encoded(variable);
        let Some(room) = file[..end].get_mut(at..at + written.len()) else { return false };
        room.copy_from_slice(&written);
        at += written.len().next_multiple_of(4);
        true
    })
}

/// The variable that says who may sign changes to these, where one of them asks for it.
fn signers(variables: &[UefiVariable]) -> Option<UefiVariable> {
    let signed: Vec<_> = variables.iter().filter(|variable| !variable.signer.is_empty()).collect();
    let mut data = vec![0; 4];
    for variable in &signed {
        let name: Vec<u8> = utf16(&variable.name).collect();
        let length = 28 + name.len() + variable.signer.len();
        data.extend(variable.vendor);
        for number in [length, name.len() / 2, variable.signer.len()] {
            data.extend((number as u32).to_le_bytes());
        }
        data.extend(name);
        data.extend(&variable.signer);
    }
    let length = (data.len() as u32).to_le_bytes();
    data[..4].copy_from_slice(&length);
    (!signed.is_empty()).then(|| UefiVariable {
        name: SIGNERS.into(),
        vendor: SIGNERS_VENDOR,
        attributes: SIGNERS_ATTRIBUTES,
        data,
        signed_at: [0; 16],
        signer: Vec::new(),
    })
}

fn encoded(variable: &UefiVariable) -> Vec<u8> {
    let mut name: Vec<u8> = utf16(&variable.name).collect();
    name.extend([0, 0]);
    let mut bytes = MARK.to_le_bytes().to_vec();
    bytes.extend([WRITTEN, 0]);
    bytes.extend(variable.attributes.to_le_bytes());
    // A count that only a retired kind of signature uses.
    bytes.extend([0; 8]);
    bytes.extend(variable.signed_at);
    // As long retired: the index of a public key.
    bytes.extend([0; 4]);
    bytes.extend((name.len() as u32).to_le_bytes());
    bytes.extend((variable.data.len() as u32).to_le_bytes());
    bytes.extend(variable.vendor);
    bytes.extend(name);
    bytes.extend(&variable.data);
    bytes
}

fn utf16(text: &str) -> impl Iterator<Item = u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: usize = 4096;

    /// An empty one, smaller than real ones.
    fn empty() -> Vec<u8> {
        let mut file = vec![0xff; SIZE + 512];
        file[..72].fill(0);
        file[16..32].copy_from_slice(&VOLUME);
        file[48..50].copy_from_slice(&72u16.to_le_bytes());
        file[72..88].copy_from_slice(&STORE);
        file[88..92].copy_from_slice(&(SIZE as u32).to_le_bytes());
        file[92..100].copy_from_slice(&[0x5a, 0xfe, 0, 0, 0, 0, 0, 0]);
        file
    }

    fn named(name: &str, data: &[u8]) -> UefiVariable {
        UefiVariable {
            name: name.into(),
            vendor: UefiVariable::GLOBAL,
            attributes: 7,
            data: data.into(),
            signed_at: [0; 16],
            signer: Vec::new(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut file = empty();
        let key = UefiVariable { attributes: 0x27, signed_at: [9; 16], ..named("PK", b"key") };
        let signed = UefiVariable { signer: vec![5; 32], ..key.clone() };
        let signed = UefiVariable { name: "Own".into(), ..signed };
        let variables = [named("BootOrder", &[1, 0]), key, signed, named("Lang", b"eng")];
        assert_eq!(read(&file), Some(vec![]));
        assert!(write(&mut file, &variables[..1]));
        assert!(write(&mut file, &variables[1..]));
        assert_eq!(read(&file).unwrap(), variables);
        assert!(file[SIZE + 72..].iter().all(|byte| *byte == 0xff), "nothing behind is touched");
        assert!(!write(&mut file, &[named("Large", &[0; SIZE])]));
        assert_eq!(read(&[0; 100]), None);
    }

    #[test]
    fn of_one_that_is_being_replaced_there_is_one() {
        let mut file = empty();
        assert!(write(&mut file, &[named("Lang", b"old"), named("Lang", b"new"), named("Gone", b"")]));
        let first = 72 + STORE_HEADER;
        file[first + 2] = BEING_REPLACED;
        assert_eq!(read(&file).unwrap(), [named("Lang", b"new"), named("Gone", b"")]);
        let (_, _, second) = variable(&file, first).unwrap();
        file[second + 2] = 0x7f;
        assert_eq!(
            read(&file).unwrap(),
            [named("Lang", b"old"), named("Gone", b"")],
            "not written to its end"
        );
        file[first + 2] = 0x3c;
        assert_eq!(read(&file).unwrap(), [named("Gone", b"")]);
    }

    /// As Debian's package has them.
    #[test]
    fn the_keys_that_come_with_the_firmware_are_found() {
        let Ok(file) = std::fs::read("/usr/share/OVMF/OVMF_VARS_4M.ms.fd") else { return };
        let variables = read(&file).unwrap();
        assert!(variables.iter().any(UefiVariable::is_platform_key));
        let mut copy = std::fs::read("/usr/share/OVMF/OVMF_VARS_4M.fd").unwrap();
        assert!(write(&mut copy, &variables));
        assert_eq!(read(&copy).unwrap(), variables);
    }

    proptest! {
        #[test]
        fn whatever_a_guest_writes_is_read(
            places in proptest::collection::vec((0..SIZE, any::<u8>()), 0..64),
            signers in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut file = empty();
            let lie = UefiVariable { vendor: SIGNERS_VENDOR, ..named(SIGNERS, &signers) };
            write(&mut file, &[named("Lang", b"eng"), lie]);
            places.into_iter().for_each(|(place, byte)| file[place] = byte);
            let _ = read(&file);
        }
    }
}
