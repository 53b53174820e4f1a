//! What comes to a running machine and leaves it. Disks grow, too, and are frozen for snapshots while the guest goes on.
//!
//! ```text
//!   attach   add-fd ─▶ blockdev-add, or getfd ─▶ netdev_add ─▶ device_add, in a free port
//!   detach   device_del ─▶ the guest lets go ─▶ blockdev-del, or netdev_del
//!   freeze   add-fd ─▶ blockdev-add, an empty layer for each disk ─▶ one transaction lays them all on top
//! ```
//!
//! What there is is asked of QEMU each time, so that any of it may be repeated after a crash at any point.

use super::command_line::{PORTS, port_name};
use super::disk::{self, NamedLayer, OpenFile, node_name};
use super::qmp::{Qmp, QmpError};
use super::{DiskBus, DiskLayer, DiskSpec, MachineError, shared};
use model::{Id, Kind};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashSet};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

pub(super) mod nic;

const DEVICES: &str = "/machine/peripheral";
/// A guest lets go of a device in a fraction of a second; under load without KVM in some.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(5);
const RELEASE_LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub(super) enum HotplugError {
    #[error(transparent)]
    Monitor(#[from] QmpError),
    #[error("a layer can't be opened")]
    Open(#[from] std::io::Error),
    #[error("{0}")]
    Refused(String),
    #[error("some of it is done")]
    HalfWay(#[source] Box<HotplugError>),
}

type Result<T> = std::result::Result<T, HotplugError>;

/// The volumes and interfaces that the guest has.
pub(super) async fn attached(qmp: &Qmp) -> Result<BTreeSet<Id>> {
    let mut attached = BTreeSet::new();
    for device_id in devices(qmp).await? {
        let is_withdrawn = match Id::is_of(Kind::Volume, &device_id) {
            true => is_withdrawn(qmp, &device_id).await?,
            false => nic::is_withdrawn(qmp, &device_id).await?,
        };
        if !is_withdrawn {
            attached.insert(device_id);
        }
    }
    Ok(attached)
}

pub(super) async fn attach(qmp: &Qmp, spec: &DiskSpec, sockets: &Path) -> Result<()> {
    let devices = devices(qmp).await?;
    if devices.contains(&spec.volume_id) {
        return match is_withdrawn(qmp, &spec.volume_id).await? {
            false => Ok(()),
            true => Err(not_let_go(&spec.volume_id)),
        };
    }
    let port = free_port(qmp, &devices, (0..PORTS).map(port_name)).await?;
    remove_nodes(qmp, spec).await;
    let Some(name) = spec.layers.first().map(node_name) else {
        return Err(HotplugError::Refused(format!("{} has no layer", spec.volume_id)));
    };
    tell_secret(qmp, spec).await?;
    let layers = open(qmp, spec, spec.layers.len(), sockets).await?;
    qmp.execute("blockdev-add", disk::nodes(&name, &layers, disk::secret(spec).as_deref())).await?;
    let mut device = disk::device(spec, &name);
    device["bus"] = port.into();
    if let Err(error) = qmp.execute("device_add", device).await {
        remove_nodes(qmp, spec).await;
        return Err(error.into());
    }
    Ok(())
}

/// Whether the disk is released. By force it is in any case: what the guest then does with it fails.
pub(super) async fn detach(qmp: &Qmp, spec: &DiskSpec, force: bool) -> Result<bool> {
    let volume_id = &spec.volume_id;
    if !let_go(qmp, volume_id).await? {
        if !force {
            return Ok(false);
        }
        withdraw(qmp, volume_id).await?;
    }
    remove_nodes(qmp, spec).await;
    release_files(qmp, |mark| mark.starts_with(&format!("{volume_id}/"))).await?;
    Ok(true)
}

/// Asks the guest to let go of a device and waits a little; whether it has none such any more.
async fn let_go(qmp: &Qmp, device_id: &Id) -> Result<bool> {
    if !devices(qmp).await?.contains(device_id) {
        return Ok(true);
    }
    match qmp.execute("device_del", json!({ "id": device_id.as_str() })).await {
        // Asked before, or it is gone this moment.
        Ok(_) | Err(QmpError::Refused { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let deadline = Instant::now() + RELEASE_TIME_MAX;
    while devices(qmp).await?.contains(device_id) {
        if Instant::now() > deadline {
            return Ok(false);
        }
        sleep(RELEASE_LOOK).await;
    }
    Ok(true)
}

fn not_let_go(device_id: &Id) -> HotplugError {
    HotplugError::Refused(format!("The guest has not let go of {device_id} since it was detached by force"))
}

/// Lays the uppermost layers of all the disks on top at one moment; what is below them is not written to any more. Where
/// some are there already, by an attempt that could not tell, it is not refused, whatever QEMU says.
pub(super) async fn freeze(qmp: &Qmp, disks: &[DiskSpec], sockets: &Path) -> Result<()> {
    let (mut left, mut is_begun) = (Vec::new(), false);
    let laid = async {
        for spec in disks {
            let Some(name) = spec.layers.first().map(node_name) else { continue };
            // What can't be looked at may have been laid on top.
            let top = top(qmp, &spec.volume_id).await;
            match top.map_err(|error| HotplugError::HalfWay(Box::new(error)))? {
                top if top == name => is_begun = true,
                top => left.push((spec, name, top)),
            }
        }
        lay_on_top(qmp, left, sockets).await
    };
    match laid.await {
        Err(error) if is_begun => Err(HotplugError::HalfWay(Box::new(error))),
        laid => laid,
    }
}

async fn lay_on_top(qmp: &Qmp, disks: Vec<(&DiskSpec, String, String)>, sockets: &Path) -> Result<()> {
    let mut actions = Vec::new();
    for (spec, name, top) in disks {
        // Left by an attempt that did not come to its end.
        let _ = qmp.execute("blockdev-del", json!({ "node-name": &name })).await;
        // What shares a disk has no device that could say it.
        let bus = match is_nvme(qmp, &spec.volume_id).await {
            Ok(true) => DiskBus::Nvme,
            Ok(false) | Err(_) => DiskBus::Virtio,
        };
        let layers = open(qmp, &DiskSpec { bus, ..spec.clone() }, 1, sockets).await?;
        qmp.execute("blockdev-add", disk::nodes(&name, &layers, disk::secret(spec).as_deref())).await?;
        actions.push(json!({ "type": "blockdev-snapshot", "data": { "node": top, "overlay": name } }));
    }
    if actions.is_empty() {
        return Ok(());
    }
    qmp.execute("transaction", json!({ "actions": actions })).await?;
    Ok(())
}

/// Puts other layers below the one that was the uppermost `before`, which hold the same as those that are there.
pub(super) async fn rebase(qmp: &Qmp, spec: &DiskSpec, before: &[DiskLayer], sockets: &Path) -> Result<()> {
    let top = top(qmp, &spec.volume_id).await?;
    // Others may have been laid over it since.
    let place = before.first().and_then(|upper| spec.layers.iter().position(|layer| layer == upper));
    let is_known = spec.layers.first().is_some_and(|layer| node_name(layer) == top);
    let Some(place) = place.filter(|_| is_known) else {
        return Err(HotplugError::Refused(format!("{} has other layers than these over it", spec.volume_id)));
    };
    let (name, below) = (node_name(&spec.layers[place]), &spec.layers[place + 1..]);
    if below.is_empty() {
        return Ok(());
    }
    let (opened, opening) = (below.to_vec(), sockets.to_owned());
    let files = tokio::task::spawn_blocking(move || disk::open_to_read(&opened, &opening)).await;
    let layers = hand_over(qmp, &spec.volume_id, below, files.map_err(std::io::Error::other)??).await?;
    let nodes = disk::nodes_below(&layers, disk::secret(spec).as_deref());
    // One of the two names is that of what was put below the last time.
    let [base, other] = add_base(qmp, &spec.volume_id, nodes).await?;
    let mut reopened = json!({
        "driver": "qcow2", "node-name": &name, "read-only": place > 0, "discard": "unmap",
        "detect-zeroes": "unmap", "file": disk::file_name(&name), "backing": &base,
    });
    if let Some(secret) = disk::secret(spec) {
        reopened["encrypt"] = disk::encryption(&secret);
    }
    if let Err(error) = qmp.execute("blockdev-reopen", json!({ "options": [reopened] })).await {
        let _ = qmp.execute("blockdev-del", json!({ "node-name": &base })).await;
        return Err(error.into());
    }
    // What were tops once, and have been opened again below.
    for name in before.iter().skip(1).map(node_name).chain([other]) {
        let _ = qmp.execute("blockdev-del", json!({ "node-name": name })).await;
    }
    let gone = before.iter().filter(|layer| !spec.layers.contains(layer));
    let marks: HashSet<String> = gone.map(|layer| disk::mark(&spec.volume_id, layer)).collect();
    release_files(qmp, |mark| marks.contains(mark)).await
}

/// Adds nodes under a name that is free, and says that and the other.
pub(super) async fn add_base(qmp: &Qmp, volume_id: &Id, mut nodes: Value) -> Result<[String; 2]> {
    let [one, other] = disk::base_names(volume_id);
    for names in [[one.clone(), other.clone()], [other, one]] {
        // Left by an attempt that did not come to its end; refused where it is in use.
        let is_free = match qmp.execute("blockdev-del", json!({ "node-name": &names[0] })).await {
            Err(QmpError::Refused { description, .. }) => description.contains("find node"),
            deleted => deleted.map(|_| true)?,
        };
        if is_free {
            nodes["node-name"] = names[0].as_str().into();
            qmp.execute("blockdev-add", nodes).await?;
            return Ok(names);
        }
    }
    Err(HotplugError::Refused(format!("{volume_id} is being changed")))
}

/// Makes the disk larger under the guest. One that has it by NVMe, which can't be told, is left with what it has: the file
/// is made so large before its next start. One that another machine shares, by this layer, is larger there already.
pub(super) async fn resize(qmp: &Qmp, volume_id: &Id, bytes: u64, shared: &DiskLayer) -> Result<()> {
    if is_nvme(qmp, volume_id).await? {
        return Ok(());
    }
    let node = top(qmp, volume_id).await?;
    if node == node_name(shared) && shared::size(qmp, &node).await? != Some(bytes) {
        let file = disk::open_shared(shared)?;
        let handed = hand_over(qmp, volume_id, std::slice::from_ref(shared), vec![file]).await?;
        for layer in handed {
            shared::open_again(qmp, volume_id, &layer.place).await?;
        }
    }
    qmp.execute("block_resize", json!({ "node-name": node, "size": bytes })).await?;
    Ok(())
}

/// Hands over the first so many layers of a disk.
async fn open(qmp: &Qmp, spec: &DiskSpec, count: usize, sockets: &Path) -> Result<Vec<NamedLayer>> {
    let some = DiskSpec { layers: spec.layers[..count].to_vec(), ..spec.clone() };
    let sockets = sockets.to_owned();
    let files = tokio::task::spawn_blocking(move || disk::open(&some, &sockets)).await;
    hand_over(qmp, &spec.volume_id, &spec.layers, files.map_err(std::io::Error::other)??).await
}

async fn hand_over(
    qmp: &Qmp,
    volume_id: &Id,
    layers: &[DiskLayer],
    files: Vec<OpenFile>,
) -> Result<Vec<NamedLayer>> {
    let mut named = Vec::new();
    for (layer, file) in layers.iter().zip(files) {
        let mark = json!({ "opaque": disk::mark(volume_id, layer) });
        let added = qmp.execute_with_fd("add-fd", mark.clone(), file.fd.as_fd()).await?;
        let set = added["fdset-id"].as_u64().ok_or(QmpError::NotQmp)?;
        if let Some(fd) = &file.fd_to_read {
            let mut mark = mark;
            mark["fdset-id"] = set.into();
            qmp.execute_with_fd("add-fd", mark, fd.as_fd()).await?;
        }
        let fd = added["fd"].as_i64().and_then(|fd| fd.try_into().ok()).ok_or(QmpError::NotQmp)?;
        let place = disk::socket_in(fd, layer).unwrap_or_else(|| format!("/dev/fdset/{set}"));
        named.push(NamedLayer { name: node_name(layer), format: layer.format, place, aio: file.aio });
    }
    Ok(named)
}

/// The volumes and interfaces that have a device.
async fn devices(qmp: &Qmp) -> Result<HashSet<Id>> {
    let listed = qmp.execute("qom-list", json!({ "path": DEVICES })).await?;
    let names = listed.as_array().into_iter().flatten().filter_map(|device| device["name"].as_str());
    let id =
        |name| [Kind::Volume, Kind::NetworkInterface].into_iter().find_map(|kind| Id::parse(kind, name).ok());
    Ok(names.filter_map(id).collect())
}

/// One of these that nothing is in.
async fn free_port(
    qmp: &Qmp,
    devices: &HashSet<Id>,
    mut ports: impl Iterator<Item = String>,
) -> Result<String> {
    let mut taken = HashSet::new();
    for device_id in devices {
        let path = format!("{DEVICES}/{device_id}");
        let bus = qmp.execute("qom-get", json!({ "path": path, "property": "parent_bus" })).await?;
        taken.extend(bus.as_str().and_then(|bus| bus.rsplit('/').next()).map(str::to_owned));
    }
    let free = ports.find(|port| !taken.contains(port));
    free.ok_or_else(|| HotplugError::Refused("The instance has no room for another one".into()))
}

/// The uppermost node of a disk.
async fn top(qmp: &Qmp, volume_id: &Id) -> Result<String> {
    if let Some(top) = shared::top(qmp).await? {
        return Ok(top);
    }
    let drive = json!({ "path": backend(qmp, volume_id).await?, "property": "drive" });
    let name = qmp.execute("qom-get", drive).await?;
    Ok(name.as_str().ok_or(QmpError::NotQmp)?.to_owned())
}

/// Where the disk itself is of the card on the bus: within it, or the card is the disk.
pub(super) async fn backend(qmp: &Qmp, volume_id: &Id) -> std::result::Result<String, QmpError> {
    let is_nvme = is_nvme(qmp, volume_id).await?;
    Ok(format!("{DEVICES}/{volume_id}{}", if is_nvme { "" } else { "/virtio-backend" }))
}

async fn is_nvme(qmp: &Qmp, volume_id: &Id) -> std::result::Result<bool, QmpError> {
    let card = json!({ "path": format!("{DEVICES}/{volume_id}"), "property": "type" });
    Ok(qmp.execute("qom-get", card).await? == "nvme")
}

/// What a device has in place of its disk that was taken from it by force.
fn nothing(volume_id: &Id) -> String {
    format!("no-{volume_id}")
}

async fn is_withdrawn(qmp: &Qmp, volume_id: &Id) -> Result<bool> {
    Ok(top(qmp, volume_id).await? == nothing(volume_id))
}

/// Takes the disk from under a device that the guest holds on to.
async fn withdraw(qmp: &Qmp, volume_id: &Id) -> Result<()> {
    if is_withdrawn(qmp, volume_id).await? {
        return Ok(());
    }
    let name = nothing(volume_id);
    let _ = qmp.execute("blockdev-del", json!({ "node-name": &name })).await;
    let fails = json!({
        "driver": "blkdebug", "node-name": &name,
        "image": { "driver": "null-co", "size": 1 << 30 },
        "inject-error": [{ "event": "none", "errno": 5 }],
    });
    qmp.execute("blockdev-add", fails).await?;
    let change = json!({ "path": backend(qmp, volume_id).await?, "property": "drive", "value": name });
    qmp.execute("qom-set", change).await?;
    Ok(())
}

/// What opens the layers of an encrypted disk.
async fn tell_secret(qmp: &Qmp, spec: &DiskSpec) -> Result<()> {
    let Some(key) = disk::key(spec)? else { return Ok(()) };
    let name = disk::secret_name(&spec.volume_id);
    let secret = json!({ "qom-type": "secret", "id": name, "data": key.passphrase() });
    qmp.execute("object-add", secret).await?;
    Ok(())
}

/// Nodes that no device has, and what opens them. Those that never were, or are in use, are none of it.
async fn remove_nodes(qmp: &Qmp, spec: &DiskSpec) {
    let names = spec.layers.iter().map(node_name).chain(disk::base_names(&spec.volume_id));
    let names = names.chain([nothing(&spec.volume_id)]);
    for name in names {
        remove_node(qmp, &name).await;
    }
    let _ = qmp.execute("object-del", json!({ "id": disk::secret_name(&spec.volume_id) })).await;
}

/// A device that is gone lets go of its node a little later.
async fn remove_node(qmp: &Qmp, name: &str) {
    let deadline = Instant::now() + RELEASE_TIME_MAX;
    while let Err(QmpError::Refused { description, .. }) =
        qmp.execute("blockdev-del", json!({ "node-name": name })).await
    {
        if !description.contains("in use") || Instant::now() > deadline {
            return;
        }
        sleep(RELEASE_LOOK).await;
    }
}

/// Lets go of the descriptors that were handed over with marks like this.
async fn release_files(qmp: &Qmp, is_meant: impl Fn(&str) -> bool) -> Result<()> {
    let sets = qmp.execute("query-fdsets", json!({})).await?;
    let is_marked = |set: &&Value| {
        let mut fds = set["fds"].as_array().into_iter().flatten();
        fds.any(|fd| fd["opaque"].as_str().is_some_and(&is_meant))
    };
    let marked = sets.as_array().into_iter().flatten().filter(is_marked);
    for set in marked.filter_map(|set| set["fdset-id"].as_u64()) {
        qmp.execute("remove-fd", json!({ "fdset-id": set })).await?;
    }
    Ok(())
}

impl HotplugError {
    /// Whether QEMU has surely not done it.
    pub(super) fn is_refusal(&self) -> Option<String> {
        match self {
            HotplugError::Refused(message) => Some(message.clone()),
            HotplugError::Monitor(QmpError::Refused { description, .. }) => Some(description.clone()),
            _ => None,
        }
    }
}

impl From<HotplugError> for MachineError {
    fn from(error: HotplugError) -> Self {
        match error.is_refusal() {
            Some(message) => MachineError::Failed(message),
            None => {
                super::io_failed("a device of a running machine is not changed")(std::io::Error::other(error))
            }
        }
    }
}
