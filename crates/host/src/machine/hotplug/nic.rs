//! Network cards. One that left by force has lost its link, and its device stays until the guest lets go of it.

use super::{Result, devices, free_port, let_go, not_let_go};
use crate::machine::command_line::{NICS_MAX, nic_port_name};
use crate::machine::qmp::{Qmp, QmpError};
use crate::machine::{NicSpec, Tap, nic};
use model::Id;
use serde_json::json;
use std::collections::HashSet;
use std::os::fd::AsFd;

pub(in crate::machine) async fn attach(qmp: &Qmp, spec: &NicSpec, tap: Tap) -> Result<()> {
    let devices = devices(qmp).await?;
    if devices.contains(&spec.interface_id) {
        return match is_withdrawn(qmp, &spec.interface_id).await? {
            false => Ok(()),
            true => Err(not_let_go(&spec.interface_id)),
        };
    }
    let port = free_port(qmp, &devices, ports(qmp).await?.into_iter()).await?;
    let netdev = nic::netdev(&spec.interface_id);
    remove_netdev(qmp, &netdev).await;
    let names: Vec<String> = (0..tap.len()).map(|queue| format!("{netdev}-{queue}")).collect();
    if let Err(error) = add_netdev(qmp, &netdev, &names, &tap).await {
        for name in &names {
            let _ = qmp.execute("closefd", json!({ "fdname": name })).await;
        }
        return Err(error.into());
    }
    let mut device = nic::device(spec, tap.len());
    device["bus"] = port.into();
    if let Err(error) = qmp.execute("device_add", device).await {
        remove_netdev(qmp, &netdev).await;
        return Err(error.into());
    }
    Ok(())
}

/// Hands the queues over, under these names.
async fn add_netdev(
    qmp: &Qmp,
    netdev: &str,
    names: &[String],
    tap: &Tap,
) -> std::result::Result<(), QmpError> {
    for (name, queue) in names.iter().zip(tap) {
        qmp.execute_with_fd("getfd", json!({ "fdname": name }), queue.as_fd()).await?;
    }
    let fds = names.join(":");
    qmp.execute("netdev_add", json!({ "type": "tap", "id": netdev, "fds": fds })).await.map(drop)
}

/// Whether the card is released, or by force without a link.
pub(in crate::machine) async fn detach(qmp: &Qmp, interface_id: &Id, force: bool) -> Result<bool> {
    let gone = let_go(qmp, interface_id).await?;
    if gone || force {
        remove_netdev(qmp, &nic::netdev(interface_id)).await;
    }
    Ok(gone || force)
}

/// The ports that the machine was started with.
async fn ports(qmp: &Qmp) -> Result<Vec<String>> {
    let listed = qmp.execute("qom-list", json!({ "path": super::DEVICES })).await?;
    let names = listed.as_array().into_iter().flatten().filter_map(|device| device["name"].as_str());
    let names: HashSet<&str> = names.collect();
    Ok((0..NICS_MAX).map(nic_port_name).filter(|port| names.contains(port.as_str())).collect())
}

/// Whether its tap was taken from it: what has no end has no link to set.
pub(super) async fn is_withdrawn(qmp: &Qmp, interface_id: &Id) -> Result<bool> {
    let up = json!({ "name": nic::netdev(interface_id), "up": true });
    match qmp.execute("set_link", up).await {
        Ok(_) => Ok(false),
        Err(QmpError::Refused { .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// One that there is not is no error.
async fn remove_netdev(qmp: &Qmp, netdev: &str) {
    let _ = qmp.execute("netdev_del", json!({ "id": netdev })).await;
}
