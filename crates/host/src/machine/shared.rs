//! A disk that several machines have at once: open in one process, which hands it to their QEMUs by NBD over a unix
//! socket (QEMU's own server and client). So what one has written, and was told of, is what any other reads.
//!
//! ```text
//!   i-… ─┐
//!   i-… ─┼─▶ vol-…/shared/vol-… ─▶ export ─▶ throttle ─▶ the layers
//!   i-… ─┘
//! ```
//!
//! The process is a QEMU without a machine: other than `qemu-storage-daemon` it can be handed descriptors in place of
//! paths, and lives in the same sandbox. Its socket is in a directory of its own, which is handed to the machines that
//! shall have the disk and can't be entered by others. Where it ends, they wait until there is another: their guests see
//! a disk that is slow, no error, and nothing that was acknowledged is gone, flushed or not.

use super::disk::{self, node_name};
use super::hotplug::{self, HotplugError};
use super::qmp::{Qmp, QmpError};
use super::record::{MachineDirectory, SHARED};
use super::{DiskFormat, DiskLayer, DiskLimits, DiskSpec, MachineSpec, throttle};
use model::{Id, Kind};
use serde_json::json;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

type Result<T> = std::result::Result<T, HotplugError>;

/// What holds the disk to its limits, whoever uses it: the node over its layers, and how fast that is.
const THROTTLE: &str = "throttle";
const LIMITS: &str = "limits";
/// What is on its way to the files comes to its end first.
const CUT_OFF_TIME_MAX: Duration = Duration::from_secs(20);
const CUT_OFF_LOOK: Duration = Duration::from_millis(10);

impl MachineSpec {
    /// Whether it has no guest, and shares its disk.
    pub(super) fn is_sharing(&self) -> bool {
        is_sharing(&self.instance_id)
    }
}

/// Whether the machine of this name shares a disk.
pub(super) fn is_sharing(instance_id: &Id) -> bool {
    Id::is_of(Kind::Volume, instance_id)
}

/// The disk as other machines have it. Its path is that of the socket.
pub(super) fn layer(root: &Path, volume_id: &Id) -> DiskLayer {
    let path = MachineDirectory::new(root, volume_id).file(SHARED).join(volume_id.as_str());
    DiskLayer { path, format: DiskFormat::Shared }
}

/// From now on machines can have the disk. Nothing happens where they can.
pub(super) async fn share(qmp: &Qmp, disk: &DiskSpec, directory: &MachineDirectory) -> Result<()> {
    let volume_id = &disk.volume_id;
    match exported(qmp, volume_id).await? {
        Exported::Yes => return Ok(()),
        // An attempt to enlarge it did not come to its end.
        Exported::NoMore => until_cut_off(qmp, volume_id).await?,
        Exported::No => {}
    }
    if top(qmp).await?.is_none() {
        let group =
            json!({ "qom-type": "throttle-group", "id": LIMITS, "limits": throttle::group(disk.limits) });
        // Refused where it was left by an attempt that did not come to its end.
        let _ = qmp.execute("object-add", group).await;
        let node = json!({
            "driver": "throttle", "node-name": THROTTLE, "throttle-group": LIMITS,
            "file": disk.layers.first().map(node_name),
        });
        qmp.execute("blockdev-add", node).await?;
    }
    // Refused where there is none.
    let _ = qmp.execute("nbd-server-stop", json!({})).await;
    let socket = directory.listen_for_machines(volume_id)?;
    qmp.execute_with_fd("getfd", json!({ "fdname": SHARED }), socket.as_fd()).await?;
    // For any number of connections: only machines that were handed the directory can make some.
    let server = json!({ "addr": { "type": "fd", "data": { "str": SHARED } }, "max-connections": 0 });
    qmp.execute("nbd-server-start", server).await?;
    export(qmp, volume_id).await
}

/// What was written is in the files before it is acknowledged: a guest whose machine goes on does not know that what it
/// has not flushed may be gone.
async fn export(qmp: &Qmp, volume_id: &Id) -> Result<()> {
    let name = volume_id.as_str();
    let export = json!({
        "type": "nbd", "id": name, "name": name, "node-name": THROTTLE, "iothread": "disks",
        "writable": true, "writethrough": true,
    });
    qmp.execute("block-export-add", export).await?;
    Ok(())
}

#[derive(PartialEq)]
enum Exported {
    Yes,
    /// Machines are cut off; what they have asked for is on its way.
    NoMore,
    No,
}

async fn exported(qmp: &Qmp, volume_id: &Id) -> Result<Exported> {
    let exports = qmp.execute("query-block-exports", json!({})).await?;
    let export = exports.as_array().into_iter().flatten().find(|export| export["id"] == volume_id.as_str());
    Ok(match export {
        Some(export) if export["shutting-down"] == true => Exported::NoMore,
        Some(_) => Exported::Yes,
        None => Exported::No,
    })
}

async fn until_cut_off(qmp: &Qmp, volume_id: &Id) -> Result<()> {
    let deadline = Instant::now() + CUT_OFF_TIME_MAX;
    while exported(qmp, volume_id).await? != Exported::No {
        if Instant::now() > deadline {
            return Err(QmpError::TimedOut("block-export-del".into()).into());
        }
        sleep(CUT_OFF_LOOK).await;
    }
    Ok(())
}

/// The uppermost layer's node; None where the process shares no disk.
pub(super) async fn top(qmp: &Qmp) -> std::result::Result<Option<String>, QmpError> {
    let graph = qmp.execute("x-debug-query-block-graph", json!({})).await?;
    let all = |name: &str| graph[name].as_array().into_iter().flatten();
    let Some(throttle) = all("nodes").find(|node| node["name"] == THROTTLE) else { return Ok(None) };
    let below = all("edges").find(|edge| edge["parent"] == throttle["id"] && edge["name"] == "file");
    let below = below.and_then(|edge| all("nodes").find(|node| node["id"] == edge["child"]));
    Ok(below.and_then(|node| node["name"].as_str()).map(str::to_owned))
}

pub(super) async fn limit(qmp: &Qmp, limits: Option<DiskLimits>) -> std::result::Result<(), QmpError> {
    let limits = throttle::group(limits);
    let change = json!({ "path": format!("/objects/{LIMITS}"), "property": "limits", "value": limits });
    qmp.execute("qom-set", change).await.map(drop)
}

/// Makes the disk larger. An export is of one size: machines are cut off, come again, and see the new one.
pub(super) async fn resize(qmp: &Qmp, volume_id: &Id, bytes: u64) -> Result<()> {
    let mut resized = Ok(());
    if size(qmp, THROTTLE).await? != Some(bytes) {
        let cut_off = json!({ "id": volume_id.as_str(), "mode": "hard" });
        // Refused where an attempt that did not come to its end has done it.
        let _ = qmp.execute("block-export-del", cut_off).await;
        until_cut_off(qmp, volume_id).await?;
        let resize = json!({ "node-name": THROTTLE, "size": bytes });
        resized = qmp.execute("block_resize", resize).await.map(drop);
    }
    if exported(qmp, volume_id).await? == Exported::No {
        export(qmp, volume_id).await?;
    }
    Ok(resized?)
}

/// In bytes; None where there is no such node.
pub(super) async fn size(qmp: &Qmp, node_name: &str) -> std::result::Result<Option<u64>, QmpError> {
    let nodes = qmp.execute("query-named-block-nodes", json!({ "flat": true })).await?;
    let node = nodes.as_array().into_iter().flatten().find(|node| node["node-name"] == node_name);
    Ok(node.and_then(|node| node["image"]["virtual-size"].as_u64()))
}

/// Lets a machine open a disk that another shares once more, by this socket: it sees how large that is by now.
pub(super) async fn open_again(qmp: &Qmp, volume_id: &Id, socket: &str) -> Result<()> {
    let name = volume_id.as_str();
    let [file, before] = hotplug::add_base(qmp, volume_id, disk::served(name, socket, false)).await?;
    let reopened = json!({
        "driver": "raw", "node-name": name, "discard": "unmap", "detect-zeroes": "unmap", "file": &file,
    });
    if let Err(error) = qmp.execute("blockdev-reopen", json!({ "options": [reopened] })).await {
        let _ = qmp.execute("blockdev-del", json!({ "node-name": &file })).await;
        return Err(error.into());
    }
    // Of the last time, if there was one.
    let _ = qmp.execute("blockdev-del", json!({ "node-name": &before })).await;
    Ok(())
}
