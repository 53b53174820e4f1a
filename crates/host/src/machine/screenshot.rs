//! The machine's screen as a JPEG.

use super::qmp::{Qmp, QmpError};
use super::{MachineError, io_failed};
use jpeg::{ImageFormat, ImageReader};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use serde_json::json;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Seek};
use std::os::fd::{AsFd, AsRawFd};

/// More than the screen's memory can show: 16 MiB at one byte a dot make three bytes a dot.
const PICTURE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// QEMU writes the picture into memory of ours: it may open no file, and none is left over.
pub(super) async fn take(qmp: &Qmp) -> Result<Vec<u8>, MachineError> {
    let open = || {
        let memory = File::from(rustix::fs::memfd_create("screenshot", MemfdFlags::CLOEXEC)?);
        // QEMU takes a descriptor only for the very access that it wants.
        let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
        let writable = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok((memory, writable))
    };
    let (memory, writable) = open().map_err(io_failed("no memory for a screenshot"))?;
    dump(qmp, writable.as_fd()).await.map_err(|error| io_failed("no screenshot")(io::Error::other(error)))?;
    tokio::task::spawn_blocking(move || encode(memory))
        .await
        .map_err(io::Error::other)
        .and_then(|encoded| encoded)
        .map_err(io_failed("the screenshot is no picture"))
}

async fn dump(qmp: &Qmp, into: std::os::fd::BorrowedFd<'_>) -> Result<(), QmpError> {
    let added = qmp.execute_with_fd("add-fd", json!({}), into).await?;
    let set = added["fdset-id"].as_u64().ok_or(QmpError::NotQmp)?;
    let dumped = qmp.execute("screendump", json!({ "filename": format!("/dev/fdset/{set}") })).await;
    let removed = qmp.execute("remove-fd", json!({ "fdset-id": set })).await;
    dumped.and(removed).map(drop)
}

fn encode(mut picture: File) -> io::Result<Vec<u8>> {
    if picture.metadata()?.len() > PICTURE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    picture.rewind()?;
    let mut reader = ImageReader::new(BufReader::new(picture));
    reader.set_format(ImageFormat::Pnm);
    let decoded = reader.decode().map_err(io::Error::other)?;
    let mut encoded = Cursor::new(Vec::new());
    decoded.to_rgb8().write_to(&mut encoded, ImageFormat::Jpeg).map_err(io::Error::other)?;
    Ok(encoded.into_inner())
}
