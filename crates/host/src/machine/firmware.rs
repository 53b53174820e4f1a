//! Where the firmware is that a machine starts with. SeaBIOS comes with QEMU and needs no word.

use super::record::MachineDirectory;
use super::{Firmware, MachineError, io_failed};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Code and an empty set of variables, where distributions put them: Debian and Ubuntu, Fedora, Arch, openSUSE.
const UEFI: &[(&str, &str)] = &[
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
];

const VARIABLES: &str = "uefi-vars.fd";

/// UEFI firmware as it is handed to a machine.
pub(super) struct OpenFirmware {
    pub(super) code: OwnedFd,
    /// The machine's own, so that what a guest's boot loader registers is there at its next start.
    pub(super) variables: OwnedFd,
}

/// The UEFI code and its empty variables on this host.
pub(crate) fn uefi() -> Option<(&'static Path, &'static Path)> {
    let paths = UEFI.iter().map(|(code, variables)| (Path::new(*code), Path::new(*variables)));
    paths.into_iter().find(|(code, variables)| code.exists() && variables.exists())
}

/// None where the machine starts by BIOS.
pub(super) fn open(
    firmware: Firmware,
    directory: &MachineDirectory,
) -> Result<Option<OpenFirmware>, MachineError> {
    match firmware {
        Firmware::Bios => Ok(None),
        Firmware::Uefi => {
            let (code, empty) = uefi().ok_or_else(|| {
                MachineError::Failed("UEFI firmware is not installed (package ovmf)".into())
            })?;
            let open = || {
                let variables = own_variables(directory.file(VARIABLES), empty)?;
                Ok(OpenFirmware { code: File::open(code)?.into(), variables })
            };
            open().map(Some).map_err(io_failed("can't open the UEFI firmware"))
        }
    }
}

fn own_variables(path: PathBuf, empty: &Path) -> std::io::Result<OwnedFd> {
    if !path.exists() {
        let new = path.with_extension("new");
        std::fs::copy(empty, &new)?;
        std::fs::rename(new, &path)?;
    }
    Ok(std::fs::OpenOptions::new().read(true).write(true).mode(0o600).open(path)?.into())
}
