//! Where the firmware is that a machine starts with. SeaBIOS comes with QEMU and needs no word.
//!
//! A machine by UEFI keeps its variables in a file of its own, which begins with what it was given. Once the platform's
//! own key is among them (Secure Boot), it starts with a firmware that lets nothing but itself write there.

use super::record::MachineDirectory;
use super::{Firmware, MachineError, MachineSpec, io_failed, uefi_store};
use model::UefiVariable;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Files of UEFI firmware that fit each other.
pub(crate) struct UefiFiles {
    pub(crate) code: &'static str,
    /// Code that only runs where it alone can write to its variables (system management mode).
    pub(crate) secure_code: &'static str,
    /// An empty set of them.
    variables: &'static str,
}

/// Where distributions put them: Debian and Ubuntu, Fedora, Arch, openSUSE.
const UEFI: &[UefiFiles] = &[
    UefiFiles {
        code: "/usr/share/OVMF/OVMF_CODE_4M.fd",
        secure_code: "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
        variables: "/usr/share/OVMF/OVMF_VARS_4M.fd",
    },
    UefiFiles {
        code: "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        secure_code: "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd",
        variables: "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    },
    UefiFiles {
        code: "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        secure_code: "/usr/share/edk2/x64/OVMF_CODE.secboot.4m.fd",
        variables: "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    },
    UefiFiles {
        code: "/usr/share/qemu/ovmf-x86_64-code.bin",
        secure_code: "/usr/share/qemu/ovmf-x86_64-smm-code.bin",
        variables: "/usr/share/qemu/ovmf-x86_64-vars.bin",
    },
];

const VARIABLES: &str = "uefi-vars.fd";
/// More than any firmware's are; who is in the machine's process can make the file longer.
const VARIABLES_BYTES_MAX: u64 = 4 << 20;

/// UEFI firmware as it is handed to a machine.
pub(super) struct OpenFirmware {
    pub(super) code: OwnedFd,
    /// The machine's own, so that what a guest's boot loader registers is there at its next start.
    pub(super) variables: OwnedFd,
    /// Only the firmware writes to them, and it runs only what is signed.
    pub(super) is_secure: bool,
}

/// The UEFI firmware of this host.
pub(crate) fn uefi() -> Option<&'static UefiFiles> {
    UEFI.iter().find(|files| Path::new(files.code).exists() && Path::new(files.variables).exists())
}

/// None where the machine starts by BIOS.
pub(super) fn open(
    spec: &MachineSpec,
    directory: &MachineDirectory,
) -> Result<Option<OpenFirmware>, MachineError> {
    if spec.firmware == Firmware::Bios {
        return Ok(None);
    }
    let not_installed = |what: &str| MachineError::Failed(format!("{what} is not installed (package ovmf)"));
    let files = uefi().ok_or_else(|| not_installed("UEFI firmware"))?;
    make_variables(directory, files, &spec.uefi_variables)?;
    let is_secure = variables(directory)?.iter().flatten().any(UefiVariable::is_platform_key);
    let code = if is_secure { files.secure_code } else { files.code };
    if !Path::new(code).exists() {
        return Err(not_installed("UEFI firmware for Secure Boot"));
    }
    let open = || {
        let own = std::fs::OpenOptions::new().read(true).write(true).open(directory.file(VARIABLES))?;
        Ok(OpenFirmware { code: File::open(code)?.into(), variables: own.into(), is_secure })
    };
    open().map(Some).map_err(io_failed("can't open the UEFI firmware"))
}

/// At the machine's first start.
fn make_variables(
    directory: &MachineDirectory,
    files: &UefiFiles,
    given: &[UefiVariable],
) -> Result<(), MachineError> {
    if directory.file(VARIABLES).exists() {
        return Ok(());
    }
    let failed = || io_failed("can't make the machine's UEFI variables");
    let mut content = std::fs::read(files.variables).map_err(failed())?;
    if !given.is_empty() && !uefi_store::write(&mut content, given) {
        return Err(MachineError::Failed("The UEFI data do not fit into the firmware's store".into()));
    }
    directory.write(VARIABLES, &content).map_err(failed())
}

/// What a machine's firmware keeps, while it runs too; None where it has not started by UEFI. In a file that is damaged
/// is nothing, as firmware takes it.
pub(super) fn variables(directory: &MachineDirectory) -> Result<Option<Vec<UefiVariable>>, MachineError> {
    let file = match File::open(directory.file(VARIABLES)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io_failed("can't open the machine's UEFI variables"))?,
    };
    let mut content = Vec::new();
    let read = file.take(VARIABLES_BYTES_MAX).read_to_end(&mut content);
    read.map_err(io_failed("can't read the machine's UEFI variables"))?;
    Ok(Some(uefi_store::read(&content).unwrap_or_default()))
}
