//! Overlays, made by `qemu-img`.

use crate::{Result, VolumeError, failed};
use std::path::Path;
use std::process::{Command, Stdio};

/// Written data is kept in clusters of 128 KiB, tracked in 32nds of 4 KiB, so that a guest's aligned write never
/// has to read what lies below; larger clusters collapse under random writes.
const OPTIONS: &str = "cluster_size=128k,extended_l2=on,backing_fmt=raw";

/// Makes an overlay of `size` bytes over a raw file. Not yet durable.
pub(crate) fn create(path: &Path, size: u64, backing: &Path) -> Result<()> {
    let output = Command::new("qemu-img")
        // The backing file is not looked at: it may be large, and is ours.
        .args(["create", "-q", "-u", "-f", "qcow2", "-o", OPTIONS, "-b"])
        .args([backing, path])
        .arg(size.to_string())
        .stdin(Stdio::null())
        .output()
        .map_err(failed("can't run qemu-img (package qemu-utils) for", path))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let last = complaint.lines().next_back().unwrap_or("no word of why");
    Err(VolumeError::Invalid(format!("The volume could not be made: {last}")))
}
