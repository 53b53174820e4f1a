//! What UEFI firmware keeps while its machine is off (UEFI Specification, "Variable Services").

use serde::{Deserialize, Serialize};

/// A variable that is non-volatile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UefiVariable {
    pub name: String,
    /// The GUID that its name is one of, as it is in memory.
    pub vendor: [u8; 16],
    pub attributes: u32,
    pub data: Vec<u8>,
    /// As an `EFI_TIME`: of when the last change to one that is `TIME_AUTHENTICATED` was signed; else zeros.
    pub signed_at: [u8; 16],
    /// The hash of who may sign changes to it, where not the platform's keys say so; else empty.
    pub signer: Vec<u8>,
}

impl UefiVariable {
    /// The attribute by which changes to it must be signed, each later than the one before.
    pub const TIME_AUTHENTICATED: u32 = 0x20;
    /// Of the variables that the specification itself names.
    pub const GLOBAL: [u8; 16] =
        [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];

    /// Whether it is the platform's own key: where there is one, firmware runs only what is signed.
    pub fn is_platform_key(&self) -> bool {
        self.name == "PK" && self.vendor == UefiVariable::GLOBAL && !self.data.is_empty()
    }
}
