//! Disk files, opened for QEMU: it gets descriptors, never paths, so that its process needs no right to any file. Of a
//! layer that is served, or a disk that is shared, it gets the directory of the socket.
//!
//! A disk is a chain of nodes, one a layer. The uppermost has the layer's name, so that it can be spoken of: it is what a
//! device is plugged to, what grows, and what another layer is laid over. It can be opened again without the right to
//! write, as QEMU does then.
//!
//! What opens the layers of an encrypted disk is a secret object of QEMU, which is told it by the monitor or a file in
//! memory and has it for as long as it has the disk.

use super::aio::Aio;
use super::{DiskBus, DiskFormat, DiskKey, DiskLayer, DiskSpec};
use model::{Id, SecretKey};
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;

/// For how long a machine waits for who serves it to be back: for good.
const SERVED_SECONDS: u32 = 7 * 24 * 60 * 60;
/// A machine that starts, or gets a disk, waits no longer.
const OPEN_SECONDS: u32 = 10;

/// One open file of a disk.
pub(super) struct OpenFile {
    pub(super) fd: OwnedFd,
    /// The same to read only, where the first is to write.
    pub(super) fd_to_read: Option<OwnedFd>,
    pub(super) aio: Aio,
}

/// A layer as QEMU is told of it.
#[derive(Debug)]
pub(super) struct NamedLayer {
    pub(super) name: String,
    pub(super) format: DiskFormat,
    /// The descriptor set that the file is opened from, or the socket.
    pub(super) place: String,
    pub(super) aio: Aio,
}

/// Opens the layers of a disk, the uppermost to write. For those that are served there is a socket in `sockets`.
pub(super) fn open(spec: &DiskSpec, sockets: &Path) -> io::Result<Vec<OpenFile>> {
    let Some((top, below)) = spec.layers.split_first() else { return Ok(Vec::new()) };
    let top = match top.format {
        DiskFormat::Shared => open_shared(top)?,
        DiskFormat::Raw | DiskFormat::Qcow2 | DiskFormat::Served => open_to_write(&top.path, spec.bus)?,
    };
    let mut files = vec![top];
    files.extend(open_to_read(below, sockets)?);
    Ok(files)
}

/// Through the page cache on purpose: all instances of an image read the same file.
pub(super) fn open_to_read(layers: &[DiskLayer], sockets: &Path) -> io::Result<Vec<OpenFile>> {
    let open = |layer: &DiskLayer| {
        let fd = match layer.format {
            DiskFormat::Served => open_directory(sockets)?,
            _ => open_file(&layer.path, OFlags::RDONLY)?,
        };
        Ok(OpenFile { fd, fd_to_read: None, aio: Aio::Threads })
    };
    layers.iter().map(open).collect()
}

/// The directory of the socket that a disk is shared by.
pub(super) fn open_shared(layer: &DiskLayer) -> io::Result<OpenFile> {
    let directory = layer.path.parent().unwrap_or(Path::new("/"));
    Ok(OpenFile { fd: open_directory(directory)?, fd_to_read: None, aio: Aio::Threads })
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The socket of a layer in a directory that a machine has by this number; None of one that is a file.
pub(super) fn socket_in(directory: RawFd, layer: &DiskLayer) -> Option<String> {
    match layer.format {
        DiskFormat::Raw | DiskFormat::Qcow2 => None,
        DiskFormat::Served => Some(format!("/proc/self/fd/{directory}/socket")),
        DiskFormat::Shared => Some(format!("/proc/self/fd/{directory}/{}", node_name(layer))),
    }
}

pub(super) fn open_to_write(path: &Path, bus: DiskBus) -> io::Result<OpenFile> {
    match open_both(path, OFlags::DIRECT, Aio::direct(bus)) {
        // What a file system answers that always goes through the page cache.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            open_both(path, OFlags::empty(), Aio::Threads)
        }
        opened => opened,
    }
}

fn open_both(path: &Path, direct: OFlags, aio: Aio) -> io::Result<OpenFile> {
    Ok(OpenFile {
        fd: open_file(path, OFlags::RDWR | direct)?,
        fd_to_read: Some(open_file(path, OFlags::RDONLY | direct)?),
        aio,
    })
}

fn open_file(path: &Path, access: OFlags) -> io::Result<OwnedFd> {
    let fd = rustix::fs::open(path, access | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(fd.as_fd())?.st_mode);
    if kind.is_file() || kind.is_block_device() {
        return Ok(fd);
    }
    Err(io::Error::other(format!("{} is no disk", path.display())))
}

/// The name of a layer's node.
pub(super) fn node_name(layer: &DiskLayer) -> String {
    layer.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// What the descriptor set of a layer's file is marked with, so that it can be let go of.
pub(super) fn mark(volume_id: &Id, layer: &DiskLayer) -> String {
    let by = if matches!(layer.format, DiskFormat::Served | DiskFormat::Shared) { "/socket" } else { "" };
    format!("{volume_id}/{}{by}", node_name(layer))
}

/// What nodes are named that were put below a disk's layer while its machine ran: one by the other.
pub(super) fn base_names(volume_id: &Id) -> [String; 2] {
    [0, 1].map(|number| format!("b-{}.{number}", volume_id.trim_start_matches("vol-")))
}

/// The name of the secret that opens a disk's layers, where it is encrypted.
pub(super) fn secret(spec: &DiskSpec) -> Option<String> {
    spec.key.as_ref().map(|_| secret_name(&spec.volume_id))
}

pub(super) fn secret_name(volume_id: &Id) -> String {
    format!("key-{volume_id}")
}

/// A file in memory with what QEMU is told of a key.
pub(super) fn secret_file(key: &SecretKey) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("key", rustix::fs::MemfdFlags::CLOEXEC)?;
    std::fs::File::from(fd.try_clone()?).write_all(key.passphrase().as_bytes())?;
    Ok(fd)
}

/// The key that a machine must be told to open the disk.
pub(super) fn key(spec: &DiskSpec) -> io::Result<Option<&SecretKey>> {
    match &spec.key {
        None => Ok(None),
        Some(DiskKey::Known(key)) => Ok(Some(key)),
        Some(DiskKey::Untold) => Err(io::Error::other(format!("The key of {} is not known", spec.volume_id))),
    }
}

/// The nodes of a disk, each over the next; null where there is no layer.
pub(super) fn nodes(name: &str, layers: &[NamedLayer], secret: Option<&str>) -> Value {
    let Some((top, below)) = layers.split_first() else { return Value::Null };
    let mut node = node(top, false, secret);
    node["node-name"] = name.into();
    node["file"]["node-name"] = file_name(name).into();
    node["detect-zeroes"] = "unmap".into();
    if top.format == DiskFormat::Qcow2 {
        // Said even where there is none: the file's own word is not taken.
        node["backing"] = nodes_below(below, secret);
    }
    node
}

/// How an encrypted layer is opened.
pub(super) fn encryption(secret: &str) -> Value {
    json!({ "format": "luks", "key-secret": secret })
}

/// The name of the node of the file that is below a layer's.
pub(super) fn file_name(name: &str) -> String {
    format!("f-{}", name.strip_prefix("vol-").unwrap_or(name))
}

pub(super) fn nodes_below(layers: &[NamedLayer], secret: Option<&str>) -> Value {
    let Some((top, below)) = layers.split_first() else { return Value::Null };
    let mut node = node(top, true, secret);
    if top.format == DiskFormat::Qcow2 {
        node["backing"] = nodes_below(below, secret);
    }
    node
}

fn node(layer: &NamedLayer, read_only: bool, secret: Option<&str>) -> Value {
    let driver = match layer.format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 => "qcow2",
        DiskFormat::Served => return served(&layer.name, &layer.place, true),
        DiskFormat::Shared => {
            let file = served(&layer.name, &layer.place, false);
            return json!({ "driver": "raw", "discard": "unmap", "file": file });
        }
    };
    let mut node = json!({
        "driver": driver,
        "read-only": read_only, "discard": "unmap",
        "file": {
            "driver": "file", "filename": layer.place, "read-only": read_only, "locking": "on",
            "aio": layer.aio.as_str(),
            "cache": { "direct": layer.aio.is_direct(), "no-flush": false },
            "discard": "unmap",
        },
    });
    if let Some(secret) = secret {
        node["encrypt"] = encryption(secret);
    }
    node
}

/// What is read from a socket, or written to.
pub(super) fn served(export: &str, socket: &str, read_only: bool) -> Value {
    json!({
        "driver": "nbd", "read-only": read_only, "export": export,
        "server": { "type": "unix", "path": socket },
        "reconnect-delay": SERVED_SECONDS, "open-timeout": OPEN_SECONDS,
    })
}

/// The device by which a guest sees a disk whose uppermost node is `node`.
pub(super) fn device(spec: &DiskSpec, node: &str) -> Value {
    let serial: String = spec.volume_id.chars().filter(|c| *c != '-').take(20).collect();
    let mut device = json!({ "id": spec.volume_id.as_str(), "drive": node, "serial": serial });
    match spec.bus {
        DiskBus::Virtio => {
            device["driver"] = "virtio-blk-pci".into();
            device["iothread"] = "disks".into();
        }
        DiskBus::Nvme => device["driver"] = "nvme".into(),
    }
    device
}
