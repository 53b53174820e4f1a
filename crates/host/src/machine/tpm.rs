//! A machine's TPM 2.0: a process of swtpm beside QEMU's.
//!
//! The two speak through a pair of sockets that nobody else can reach, and swtpm ends once QEMU has. What the TPM keeps is
//! in the machine's directory, so that it is there at the machine's next start. Its process is the same user as the
//! machine's, in the same control group; it can't enter the machine's directory, but is in the TPM's part of it.

use super::process::{self, Launch};
use super::record::MachineDirectory;
use super::{MachineError, io_failed};
use model::Id;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::net::UnixStream;

const PROGRAM: &str = "swtpm";
const DIRECTORY: &str = "tpm";

/// Starts the machine's TPM; the answer is QEMU's end of the pair. To be called off the threads that serve, inside a
/// runtime.
pub(super) fn start(
    instance_id: &Id,
    directory: &MachineDirectory,
    doors: Vec<File>,
) -> Result<OwnedFd, MachineError> {
    let user = process::user_of(instance_id);
    let path = directory.file(DIRECTORY);
    let make = || {
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => chown(&path, Some(user), Some(user))?,
        }
        // As the kernel names the working directories of processes.
        let path = fs::canonicalize(&path)?;
        // That of the machine's last start may not have seen yet that QEMU is gone.
        for last in process::working_in(|directory| directory == path)? {
            last.kill()?;
            tokio::runtime::Handle::current().block_on(last.exited())?;
        }
        Ok((path, UnixStream::pair()?, File::open("/dev/null")?))
    };
    let (path, (ours, its), nothing) = make().map_err(io_failed("can't make a TPM's place"))?;
    let control = format!("type=unixio,clientfd={}", its.as_raw_fd());
    let arguments = ["socket", "--tpm2", "--tpmstate", "dir=.,mode=0600", "--ctrl", &control, "--terminate"];
    let process = process::spawn(Launch {
        program: PROGRAM.into(),
        package: PROGRAM,
        arguments: arguments.map(Into::into).into(),
        directory: path,
        log: nothing,
        handed_over: vec![its.into()],
        doors,
        user,
        group: None,
    })?;
    // Somebody has to take note of its end.
    tokio::spawn(async move { process.exited().await });
    Ok(ours.into())
}

/// Whether machines can have a TPM on this host.
pub(crate) fn is_installed() -> bool {
    std::process::Command::new(PROGRAM).arg("--version").output().is_ok()
}
