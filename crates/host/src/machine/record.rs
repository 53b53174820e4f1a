//! What is kept of a machine on disk: its directory, and in it the record of its last start.
//!
//! ```text
//!   <root>/i-…/            mode 0700, root's: the machine's own process can't enter it
//!     machine.json         what was started, as which process, and how it ended
//!     qmp.sock             monitor that we command it by
//!     qmp-spare.sock       a second one, since each serves one client at a time
//!     console.log          the end of the serial console
//!     qemu.log             what QEMU itself complains of
//!     uefi-vars.fd         the firmware's variables, where it is UEFI
//!     tpm/                 what its TPM keeps, where it has one
//!     layers/socket        where it reads layers from us; the directory is all that it can enter
//!   <root>/vol-…/          the same of a machine that shares a disk (`shared`)
//!     shared/vol-…         where other machines have it: they are handed the directory
//! ```
//!
//! Invariant: the record is replaced as a whole and durable before what it says may happen.

use super::cgroup::Group;
use super::process::ProcessIdentity;
use super::{EndCause, MachineError, MachineSpec, io_failed};
use model::{Id, Kind};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

const RECORD: &str = "machine.json";
const LOG: &str = "qemu.log";
pub(super) const MONITOR: &str = "qmp.sock";
pub(super) const MONITOR_SPARE: &str = "qmp-spare.sock";
pub(super) const LAYERS: &str = "layers";
pub(super) const LAYERS_SOCKET: &str = "layers/socket";
pub(super) const SHARED: &str = "shared";

/// How far back the last complaint is looked for.
const LOG_TAIL_BYTES: u64 = 4096;
/// QEMU hardly ever says anything; a guest that found a way to make it talk must not fill the disk.
const LOG_BYTES_MAX: u64 = 256 * 1024;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) spec: MachineSpec,
    pub(super) process: ProcessIdentity,
    /// None where it runs without.
    #[serde(default)]
    pub(super) group: Option<Group>,
    pub(super) ended: Option<EndCause>,
}

/// The directory of one machine.
#[derive(Clone, Debug)]
pub(super) struct MachineDirectory {
    path: PathBuf,
}

impl MachineDirectory {
    pub(super) fn new(root: &Path, instance_id: &Id) -> Self {
        MachineDirectory { path: root.join(instance_id.as_str()) }
    }

    /// All machines that have a directory below the root.
    pub(super) fn all(root: &Path) -> io::Result<Vec<(Id, MachineDirectory)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(root)? {
            let name = entry?.file_name();
            let id =
                |name| [Kind::Instance, Kind::Volume].into_iter().find_map(|kind| Id::parse(kind, name).ok());
            match name.to_str().and_then(id) {
                Some(instance_id) => {
                    let directory = MachineDirectory::new(root, &instance_id);
                    all.push((instance_id, directory));
                }
                None => tracing::warn!(name = %name.display(), "not a machine's directory: left alone"),
            }
        }
        Ok(all)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn create(&self) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Ok(()) => sync_directory(self.path.parent().unwrap_or(Path::new("/"))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Ok(()) => sync_directory(self.path.parent().unwrap_or(Path::new("/"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// As a whole, durable.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let new = self.file(&format!("{name}.new"));
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(new, self.file(name))?;
        sync_directory(&self.path)
    }

    pub(super) fn write_record(&self, record: &Record) -> Result<(), MachineError> {
        let write = || self.write(RECORD, &serde_json::to_vec_pretty(record)?);
        write().map_err(io_failed("can't record the machine"))
    }

    /// None where there is none. One that can't be understood is an error: a later version may have written it.
    pub(super) fn read_record(&self) -> Result<Option<Record>, MachineError> {
        let failed = || format!("can't read {}", self.file(RECORD).display());
        let text = match fs::read(self.file(RECORD)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_failed(failed())(error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| io_failed(failed())(error.into()))
    }

    /// A listening socket of this name, in place of what was there.
    pub(super) fn listen(&self, name: &str) -> io::Result<OwnedFd> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (_directory, path) = self.short_path(name)?;
        Ok(UnixListener::bind(path)?.into())
    }

    /// A listening socket that the machine's user can reach who was handed its directory.
    pub(super) fn listen_for_layers(&self, user: u32) -> io::Result<UnixListener> {
        self.make_passable(LAYERS)?;
        let listener = UnixListener::from(self.listen(LAYERS_SOCKET)?);
        std::os::unix::fs::chown(self.file(LAYERS_SOCKET), Some(user), None)?;
        Ok(listener)
    }

    /// A listening socket that all machines can reach that were handed its directory.
    pub(super) fn listen_for_machines(&self, volume_id: &Id) -> io::Result<OwnedFd> {
        self.make_passable(SHARED)?;
        let name = format!("{SHARED}/{volume_id}");
        let listener = self.listen(&name)?;
        fs::set_permissions(self.file(&name), fs::Permissions::from_mode(0o666))?;
        Ok(listener)
    }

    /// A directory that who was handed it can go through.
    fn make_passable(&self, name: &str) -> io::Result<()> {
        let directory = self.file(name);
        match fs::DirBuilder::new().mode(0o711).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Whatever the mask of our own files is.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o711))
    }

    /// A path to a socket that fits into its address, however long the directory's is; good while the directory
    /// stays open.
    pub(super) fn short_path(&self, name: &str) -> io::Result<(File, PathBuf)> {
        let directory = File::open(&self.path)?;
        let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
        Ok((directory, path.into()))
    }

    /// QEMU's own log, emptied.
    pub(super) fn create_log(&self) -> io::Result<File> {
        let path = self.file(LOG);
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        file.set_len(0)?;
        Ok(file)
    }

    /// Empties QEMU's log where it has grown beyond reason.
    pub(super) fn bound_log(&self) -> io::Result<()> {
        let file = OpenOptions::new().append(true).open(self.file(LOG))?;
        if file.metadata()?.len() > LOG_BYTES_MAX { file.set_len(0) } else { Ok(()) }
    }

    /// The last thing that QEMU complained of.
    pub(super) fn last_complaint(&self) -> Option<String> {
        let mut file = File::open(self.file(LOG)).ok()?;
        let length = file.seek(SeekFrom::End(0)).ok()?;
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES))).ok()?;
        let mut tail = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut tail).ok()?;
        complaint_in(&String::from_utf8_lossy(&tail)).map(str::to_owned)
    }
}

/// The last line that QEMU signed with its name, without that and without the option that it is about; else the last
/// line that says something. What follows a signed line is a hint to who types QEMU's command line.
fn complaint_in(log: &str) -> Option<&str> {
    let mut lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    let signed = |line: &str| line.starts_with("qemu-system-");
    let line = lines.clone().rfind(|line| signed(line)).or_else(|| lines.next_back())?;
    let said = if signed(line) { line.split_once(": ").map_or(line, |(_, said)| said) } else { line };
    Some(match said.rsplit_once("}: ") {
        Some((option, said)) if option.starts_with('-') => said,
        _ => said,
    })
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, MachineDirectory) {
        let root = tempfile::tempdir().unwrap();
        let id = Id::parse(Kind::Instance, "i-0123456789abcdef0").unwrap();
        let directory = MachineDirectory::new(root.path(), &id);
        directory.create().unwrap();
        (root, directory)
    }

    #[test]
    fn a_record_that_is_not_understood_is_not_taken_for_none() {
        let (_root, directory) = directory();
        assert!(directory.read_record().unwrap().is_none());
        fs::write(directory.file(RECORD), "{\"spec\":").unwrap();
        assert!(directory.read_record().is_err());
    }

    #[test]
    fn the_last_complaint_is_what_qemu_said_last() {
        let (_root, directory) = directory();
        let mut log = directory.create_log().unwrap();
        assert_eq!(directory.last_complaint(), None);
        writeln!(log, "{}\nfirst\nqemu-system-x86_64: out of memory\na hint\n", "x".repeat(10_000)).unwrap();
        assert_eq!(directory.last_complaint().unwrap(), "out of memory");
        directory.bound_log().unwrap();
        assert_eq!(directory.last_complaint().unwrap(), "out of memory");
        log.write_all(&vec![b'x'; LOG_BYTES_MAX as usize]).unwrap();
        directory.bound_log().unwrap();
        assert_eq!(log.metadata().unwrap().len(), 0);
        let about = "qemu-system-x86_64: -blockdev {\"a\":{\"b\":1}}: Failed to get \"write\" lock";
        assert_eq!(complaint_in(about), Some("Failed to get \"write\" lock"));
        assert_eq!(complaint_in("\nSegmentation fault\n"), Some("Segmentation fault"));
    }

    #[test]
    fn sockets_work_below_any_path() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        let id = Id::parse(Kind::Instance, "i-0123456789abcdef0").unwrap();
        let directory = MachineDirectory::new(&deep, &id);
        directory.create().unwrap();
        let _listener = directory.listen(MONITOR).unwrap();
        let (_open, path) = directory.short_path(MONITOR).unwrap();
        std::os::unix::net::UnixStream::connect(path).unwrap();
    }
}
