//! `qemu-img`, the one tool run here.

use crate::{Result, VolumeError};
use std::path::Path;
use std::process::{Command, Stdio};

/// An empty overlay. Clusters of 128 KiB with subclusters track 4 KiB, so that aligned writes never read below.
pub fn create_overlay(path: &Path, backing: &Path, size_bytes: u64) -> Result<()> {
    let done = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-o", "cluster_size=128k,extended_l2=on,lazy_refcounts=off"])
        .arg("-b")
        .arg(backing)
        .arg(path)
        .arg(size_bytes.to_string())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| VolumeError::Tool(format!("cannot be run ({error}): is qemu-utils installed?")))?;
    if done.status.success() {
        return Ok(());
    }
    Err(VolumeError::Tool(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
}
